//! The runs, and the figures taken from them.

use std::io;
use std::time::{Duration, Instant};

use voxtral::{Model, Options, SAMPLE_RATE, Sink, Source, Voxtral, Word};
use voxtral_cuda::CudaBackend;
use voxtral_engine::Schedule;
use voxtral_transcript::Audio;

use super::capacity;
use super::clock::{Call, Clocked, Log};
use super::report::{Figures, Live, Measured, Memory, Percentiles, Settings, WordLatency, decimals};
use crate::args::{BackendChoice, Bench, Setup, name};
use crate::output::say;
use crate::recording::{Recording, letters};
use crate::{machine, open};

/// Measures one backend: a run to warm up, then each recording as often as it was asked for; or with so many at a time.
pub(super) fn backend(setup: &Setup, args: &Bench, recordings: &[Recording]) -> anyhow::Result<(Settings, Measured)> {
    if let Some(sessions) = args.sessions {
        return capacity::backend(setup, args, usize::from(sessions), recordings);
    }
    let threads = setup.threads.map_or_else(machine::threads, usize::from);
    // Where a GPU is asked for, that is not the memory that counts.
    let before = match setup.backend {
        BackendChoice::Cuda => None,
        BackendChoice::Auto | BackendChoice::Cpu => machine::read_rate(threads).ok(),
    };
    machine::forget_peak_rss();
    let start = Instant::now();
    let log = Log::default();
    let voxtral = open::to_measure(setup, |backend| Box::new(Clocked::new(backend, log.clone())))?;
    let load = start.elapsed();

    let mut warm_start = Duration::ZERO;
    if let Some(first) = recordings.first() {
        first.hear(&voxtral, None)?;
        warm_start = log.take().iter().filter(|(call, _)| *call == Call::WarmStart).map(|(_, time)| *time).sum();
    }
    let prompt_len = schedule(&voxtral).prompt_len();
    let info = voxtral.info();
    let pass_bytes = pass_bytes(voxtral.model(), info.backend);
    let mut figures = Vec::new();
    for recording in recordings {
        let mut runs = Vec::new();
        for _ in 0..args.repeat {
            runs.push(Run::of(recording, &voxtral, args.live, prompt_len, &log)?);
        }
        figures.push(sum_up(recording, &runs, args.live, pass_bytes));
    }
    let (peak_rss, device_bytes) = (voxtral::peak_rss_bytes(), voxtral.engine().peak_device_bytes());
    let settings = settings(setup, args, &voxtral);
    // What the model took is free again when memory itself is measured.
    drop(voxtral);
    let rate = match info.backend {
        "cuda" => Some(CudaBackend::copy_rate(setup.device)?),
        _ => {
            machine::read_rate(threads).inspect_err(|why| say(&format!("the bandwidth is not measured: {why:#}"))).ok()
        }
    };
    let measured = Measured {
        backend: info.backend.to_owned(),
        device: info.device,
        load_ms: ms(load),
        warm_start_ms: ms(warm_start),
        peak_rss_mb: decimals(peak_rss as f64 / 1e6),
        device_mb: decimals(device_bytes as f64 / 1e6),
        memory: Memory {
            pass_mb: decimals(pass_bytes / 1e6),
            rate_gb_s: rate.map(|rate| decimals(rate / 1e9)),
            rate_before_gb_s: before.filter(|_| info.backend == "cpu").map(|rate| decimals(rate / 1e9)),
        },
        recordings: figures,
        capacity: Vec::new(),
    };
    Ok((settings, measured))
}

/// What was run, and how.
pub(super) fn settings(setup: &Setup, args: &Bench, voxtral: &Voxtral) -> Settings {
    Settings {
        model: voxtral.model().name.clone(),
        parameters: voxtral.model().config.parameters(),
        delay_ms: voxtral.delay().ms(),
        decode: name(setup.decode),
        lookahead: setup.lookahead,
        live: args.live,
        warm_up_runs: 1,
        runs: args.repeat,
    }
}

/// When the model hears and writes what.
pub(super) fn schedule(voxtral: &Voxtral) -> Schedule {
    let model = voxtral.model();
    Schedule {
        left_pad: model.tokenizer.left_pad_tokens(),
        delay: voxtral.delay(),
        samples_per_token: model.config.audio.samples_per_token,
    }
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
    fn of(recording: &Recording, voxtral: &Voxtral, live: bool, prompt_len: usize, log: &Log) -> anyhow::Result<Self> {
        let start = Instant::now();
        let mut heard = Watched { start, letters: 0, shown: Vec::new(), words: Vec::new() };
        let summary = recording.tell(voxtral, recording.source(live), &Options::default(), &mut heard)?;
        let total = start.elapsed();
        let calls = log.take();
        let sum = |wanted: &dyn Fn(Call) -> bool| {
            calls.iter().filter(|(call, _)| wanted(*call)).map(|(_, time)| *time).sum::<Duration>()
        };
        let in_text = |call| matches!(call, Call::Decode { position } if position >= prompt_len);
        Ok(Self {
            audio_s: summary.audio_s,
            total,
            first_text: summary.stats.first_text,
            encode: sum(&|call| call == Call::Encode),
            prefill: sum(&|call| matches!(call, Call::Decode { position } if position < prompt_len)),
            passes: calls.iter().filter(|(call, _)| in_text(*call)).map(|(_, time)| *time).collect(),
            tokens: summary.stats.tokens,
            words: latencies(&heard.words, &heard.shown),
        })
    }
}

/// When text came.
struct Watched {
    start: Instant,
    letters: usize,
    /// How many letters of the text were out when.
    shown: Vec<(usize, Duration)>,
    words: Vec<Word>,
}

impl Sink for Watched {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.letters += letters(text);
        self.shown.push((self.letters, self.start.elapsed()));
        Ok(())
    }

    fn word(&mut self, word: &Word) -> io::Result<()> {
        self.words.push(word.clone());
        Ok(())
    }
}

/// When audio up to `seconds` has been fed.
fn fed_at(seconds: f64) -> Duration {
    Source::spoken_after((seconds * f64::from(SAMPLE_RATE)).round() as usize)
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

fn sum_up(recording: &Recording, runs: &[Run], live: bool, pass_bytes: f64) -> Figures {
    let median = |of: &dyn Fn(&Run) -> Duration| Percentiles::of(runs.iter().map(|run| ms(of(run))).collect()).p50;
    let pass_ms = Percentiles::of(runs.iter().flat_map(|run| run.passes.iter().map(|&time| ms(time))).collect());
    let (passes, tokens) = runs.first().map_or((0, 0), |run| (run.passes.len(), run.tokens));
    let audio_s = runs.first().map_or(0.0, |run| run.audio_s);
    let decoding: Duration = runs.iter().flat_map(|run| &run.passes).sum();
    let total_ms = median(&|run| run.total);
    let first_texts: Vec<f64> = runs.iter().filter_map(|run| run.first_text.map(ms)).collect();
    let words: Vec<WordLatency> = runs.iter().flat_map(|run| run.words.iter().cloned()).collect();
    Figures {
        audio: Audio { path: recording.name.clone(), duration_s: decimals(audio_s), damage: recording.damage.clone() },
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
        live: live.then(|| {
            let latencies: Vec<f64> = words.iter().map(|word| word.latency_ms).collect();
            Live { latency_ms: (!latencies.is_empty()).then(|| Percentiles::of(latencies)), words }
        }),
        against: None,
    }
}

/// Milliseconds, as figures have them.
pub(super) fn ms(time: Duration) -> f64 {
    decimals(crate::recording::ms(time))
}

/// Bytes of weights that a pass of the decoder reads.
pub(super) fn pass_bytes(model: &Model, backend: &str) -> f64 {
    // The GPU holds everything in bf16, the CPU reads what is stored.
    let bytes = if backend == "cpu" { model.weights.decode_pass_bytes() } else { model.config.decode_step_bytes(2) };
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_out_with_its_last_letter() {
        let word = |text: &str, end_s| Word {
            text: text.into(),
            start_s: 0.0,
            end_s,
            logprob: 0.0,
            alternatives: Vec::new(),
            after_space: true,
        };
        let at = |ms| Duration::from_millis(ms);
        let shown = [(3, at(900)), (4, at(980)), (7, at(1500))];
        let found = latencies(&[word("four", 0.4), word("one", 0.9)], &shown);
        let times: Vec<f64> = found.iter().map(|word| word.latency_ms).collect();
        // 0.9 s had been heard when the piece that ends at 0.96 s was fed.
        assert_eq!(times, [580.0, 540.0]);
        assert_eq!(latencies(&[word("fourteen", 0.4)], &shown), []);
    }
}
