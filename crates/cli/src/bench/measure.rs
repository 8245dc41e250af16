//! The runs, and the figures taken from them.

use std::time::{Duration, Instant};

use voxtral_cuda::CudaBackend;
use voxtral_engine::{Decoding, Engine, EngineOptions, Event, Schedule};
use voxtral_model::{Model, Tensor, TensorData};
use voxtral_transcript::{Audio, Word};

use super::clock::{Call, Clocked, Log};
use super::report::{Figures, Live, Measured, Memory, Percentiles, Settings, WordLatency, decimals};
use crate::args::{Bench, Setup, name};
use crate::recording::{Pace, Recording, fed_at, letters};
use crate::{backend, machine, model};

/// Measures one backend: a run to warm up, then each recording as often as it was asked for.
pub(super) fn backend(setup: &Setup, args: &Bench, recordings: &[Recording]) -> anyhow::Result<(Settings, Measured)> {
    machine::forget_peak_rss();
    let start = Instant::now();
    let model = model::open(setup.model.as_deref(), true)?;
    let log = Log::default();
    let clocked = Clocked::new(backend::to_measure(&model, setup)?, log.clone());
    let engine = Engine::new(&model, Box::new(clocked), EngineOptions::default())?;
    let load = start.elapsed();

    let delay = setup.delay.unwrap_or(model.tokenizer.default_delay());
    let decoding = setup.decoding();
    let mut warm_start = Duration::ZERO;
    if let Some(first) = recordings.first() {
        first.hear(&engine, Some(delay), decoding)?;
        warm_start = log.take().iter().filter(|(call, _)| *call == Call::WarmStart).map(|(_, time)| *time).sum();
    }
    let schedule = Schedule {
        left_pad: model.tokenizer.left_pad_tokens(),
        delay,
        samples_per_token: model.config.audio.samples_per_token,
    };
    let pace = if args.live { Pace::Live } else { Pace::AtOnce };
    let info = engine.info();
    let pass_bytes = pass_bytes(&model, info.backend);
    let mut figures = Vec::new();
    for recording in recordings {
        let mut runs = Vec::new();
        for _ in 0..args.repeat {
            runs.push(Run::of(recording, &engine, &schedule, decoding, pace, &log)?);
        }
        figures.push(sum_up(recording, &runs, pace, pass_bytes));
    }
    let (peak_rss, device_bytes) = (machine::peak_rss_bytes(), engine.peak_device_bytes());
    // What the model took is free again when memory itself is measured.
    drop(engine);
    let rate = match info.backend {
        "cuda" => CudaBackend::copy_rate(setup.device)?,
        _ => machine::read_rate(setup.threads.map_or_else(machine::threads, usize::from)),
    };
    let settings = Settings {
        model: model.name.clone(),
        parameters: model.config.parameters(),
        delay_ms: delay.ms(),
        decode: name(setup.decode),
        lookahead: setup.lookahead,
        live: args.live,
        warm_up_runs: 1,
        runs: args.repeat,
    };
    let measured = Measured {
        backend: info.backend.to_owned(),
        device: info.device,
        load_ms: ms(load),
        warm_start_ms: ms(warm_start),
        peak_rss_mb: decimals(peak_rss as f64 / 1e6),
        device_mb: decimals(device_bytes as f64 / 1e6),
        memory: Memory { pass_mb: decimals(pass_bytes / 1e6), rate_gb_s: decimals(rate / 1e9) },
        recordings: figures,
    };
    Ok((settings, measured))
}

/// One run of one recording.
struct Run {
    audio_s: f64,
    total: Duration,
    first_text: Option<Duration>,
    encode: Duration,
    prefill: Duration,
    passes: Vec<Duration>,
    tokens: usize,
    words: Vec<WordLatency>,
}

impl Run {
    fn of(
        recording: &Recording,
        engine: &Engine,
        schedule: &Schedule,
        decoding: Decoding,
        pace: Pace,
        log: &Log,
    ) -> anyhow::Result<Self> {
        let start = Instant::now();
        let (mut tokens, mut text, mut words) = (0, String::new(), Vec::new());
        // How much of the text was out when.
        let mut shown = Vec::new();
        let summary = recording.transcribe(engine, Some(schedule.delay), decoding, pace, |event, at| match event {
            Event::Token { .. } => tokens += 1,
            Event::Text(more) => {
                text += &more;
                shown.push((letters(&text), at));
            }
            Event::Word(word) => words.push(word),
            Event::Done(_) => {}
        })?;
        let total = start.elapsed();
        let calls = log.take();
        let sum = |wanted: &dyn Fn(Call) -> bool| {
            calls.iter().filter(|(call, _)| wanted(*call)).map(|(_, time)| *time).sum::<Duration>()
        };
        let prompt_len = schedule.prompt_len();
        let in_text = |call| matches!(call, Call::Decode { position } if position >= prompt_len);
        Ok(Self {
            audio_s: summary.audio_s,
            total,
            first_text: summary.stats.first_text,
            encode: sum(&|call| call == Call::Encode),
            prefill: sum(&|call| matches!(call, Call::Decode { position } if position < prompt_len)),
            passes: calls.iter().filter(|(call, _)| in_text(*call)).map(|(_, time)| *time).collect(),
            tokens,
            words: latencies(&words, &shown),
        })
    }
}

/// How long after its end was fed the last letter of each word was out.
fn latencies(words: &[Word], shown: &[(usize, Duration)]) -> Vec<WordLatency> {
    let mut needed = 0;
    let latency = |word: &Word| {
        needed += letters(&word.text);
        let (_, out) = shown.iter().find(|(so_far, _)| *so_far >= needed)?;
        let latency_ms = decimals((out.as_secs_f64() - fed_at(word.end_s).as_secs_f64()) * 1e3);
        Some(WordLatency { text: word.text.clone(), end_s: decimals(word.end_s), latency_ms })
    };
    words.iter().filter_map(latency).collect()
}

fn sum_up(recording: &Recording, runs: &[Run], pace: Pace, pass_bytes: f64) -> Figures {
    let median = |of: &dyn Fn(&Run) -> Duration| Percentiles::of(runs.iter().map(|run| ms(of(run))).collect()).p50;
    let pass_ms = Percentiles::of(runs.iter().flat_map(|run| run.passes.iter().map(|&time| ms(time))).collect());
    let (passes, tokens) = runs.first().map_or((0, 0), |run| (run.passes.len(), run.tokens));
    let audio_s = runs.first().map_or(0.0, |run| run.audio_s);
    let decoding: Duration = runs.iter().flat_map(|run| &run.passes).sum();
    let total_ms = median(&|run| run.total);
    let first_texts: Vec<f64> = runs.iter().filter_map(|run| run.first_text.map(ms)).collect();
    let words: Vec<WordLatency> = runs.iter().flat_map(|run| run.words.iter().cloned()).collect();
    Figures {
        audio: Audio { path: recording.name.clone(), duration_s: decimals(audio_s) },
        total_ms,
        rtf: if audio_s > 0.0 { (total_ms / audio_s * 1e3).round() / 1e6 } else { 0.0 },
        first_text_ms: (!first_texts.is_empty()).then(|| Percentiles::of(first_texts).p50),
        encode_ms: median(&|run| run.encode),
        prefill_ms: median(&|run| run.prefill),
        passes: passes as u64,
        tokens: tokens as u64,
        tokens_per_s: decimals((tokens * runs.len()) as f64 / decoding.as_secs_f64().max(1e-9)),
        reached_gb_s: decimals(pass_bytes / pass_ms.p50.max(1e-6) / 1e6),
        pass_ms,
        live: (pace == Pace::Live).then(|| {
            let latencies: Vec<f64> = words.iter().map(|word| word.latency_ms).collect();
            Live { latency_ms: (!latencies.is_empty()).then(|| Percentiles::of(latencies)), words }
        }),
        against: None,
    }
}

fn ms(time: Duration) -> f64 {
    decimals(crate::recording::ms(time))
}

/// Bytes of weights that a pass of the decoder reads: its matrices and the output projection.
fn pass_bytes(model: &Model, backend: &str) -> f64 {
    let layers = model.weights.decoder.iter();
    let products = layers.flat_map(|l| [&l.wq, &l.wk, &l.wv, &l.wo, &l.gate, &l.up, &l.down]).map(|l| &l.weight);
    // The GPU holds everything in bf16, the processor reads what is stored.
    let bytes = |tensor: &Tensor| {
        let element = match tensor.data() {
            TensorData::F32(_) if backend == "cpu" => 4,
            _ => 2,
        };
        element * tensor.data().len()
    };
    products.chain([&model.weights.embedding]).map(bytes).sum::<usize>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_out_with_its_last_letter() {
        let word = |text: &str, end_s| Word { text: text.into(), start_s: 0.0, end_s, logprob: 0.0, after_space: true };
        let at = |ms| Duration::from_millis(ms);
        let shown = [(3, at(900)), (4, at(980)), (7, at(1500))];
        let found = latencies(&[word("four", 0.4), word("one", 0.9)], &shown);
        let times: Vec<f64> = found.iter().map(|word| word.latency_ms).collect();
        // 0.9 s had been heard when the piece that ends at 0.96 s was fed.
        assert_eq!(times, [580.0, 540.0]);
        assert_eq!(latencies(&[word("fourteen", 0.4)], &shown), []);
    }
}
