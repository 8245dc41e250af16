//! Sessions over the CPU backend: what does not matter, and what must not be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;
use voxtral_cpu::{CpuBackend, CpuOptions, Precision};
use voxtral_engine::{Decoding, Engine, EngineError, EngineOptions, Event, Session, SessionOptions, Summary};
use voxtral_model::testing::{array, cases, golden, ids};
use voxtral_model::{
    Backend, BackendError, BackendInfo, DecodeSpan, Delay, EncodeSpan, Model, ModelConfig, Prediction, Stage, StreamId,
};
use voxtral_transcript::Alternative;

fn cpu(model: &Model) -> CpuBackend {
    let options = CpuOptions { threads: 1, precision: Precision::F32, ..CpuOptions::default() };
    CpuBackend::new(model, options).unwrap()
}

fn engine(model: &Model) -> Engine {
    Engine::new(model, Box::new(cpu(model)), EngineOptions::default()).unwrap()
}

/// The CPU, whose encoded values are counted, which holds a byte for each open stream and fails when it is told to.
struct Watched {
    cpu: CpuBackend,
    open: u64,
    encoded: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
}

impl Watched {
    fn new(model: &Model) -> Self {
        Self { cpu: cpu(model), open: 0, encoded: Arc::default(), fails: Arc::default() }
    }

    fn works(&self) -> Result<(), BackendError> {
        let what = "it was told to fail".to_owned();
        if self.fails.load(Relaxed) { Err(BackendError::Device { device: "a GPU".to_owned(), what }) } else { Ok(()) }
    }
}

impl Backend for Watched {
    fn info(&self) -> BackendInfo {
        BackendInfo { device_bytes: self.open, ..self.cpu.info() }
    }

    fn stream_bytes(&self, span: usize, tokens: usize) -> u64 {
        self.cpu.stream_bytes(span, tokens)
    }

    fn free_bytes(&self) -> Result<u64, BackendError> {
        self.cpu.free_bytes()
    }

    fn open(&mut self, delay: Delay, span: usize) -> Result<StreamId, BackendError> {
        self.works()?;
        self.open += 1;
        self.cpu.open(delay, span)
    }

    fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId, BackendError> {
        self.works()?;
        self.open += 1;
        self.cpu.fork(of, span)
    }

    fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<(), BackendError> {
        self.works().and_then(|()| self.cpu.grow(stream, tokens))
    }

    fn close(&mut self, stream: StreamId) {
        self.open -= 1;
        self.cpu.close(stream);
    }

    fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
        self.encoded.fetch_add(batch.iter().map(|span| span.mel.len()).sum(), Relaxed);
        self.works().and_then(|()| self.cpu.encode(batch))
    }

    fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError> {
        self.works().and_then(|()| self.cpu.decode(batch, out))
    }

    fn inspect(&mut self, stage: Stage) -> Result<Vec<f32>, BackendError> {
        self.cpu.inspect(stage)
    }
}

fn delay(tokens: u32) -> Option<Delay> {
    Some(Delay::from_ms(tokens * 80).unwrap())
}

/// An id, the bits of its log-probability, and what was nearly written instead, as told with its text.
type Token = (u32, u32, Vec<(String, String, u32)>);

/// All tokens, to the end.
fn tokens(session: &mut Session) -> (Vec<Token>, Summary) {
    let mut tokens: Vec<Token> = Vec::new();
    loop {
        match session.next_event().expect("a session ends with Done").unwrap() {
            Event::Token(token) => tokens.push((token.id, token.logprob.to_bits(), Vec::new())),
            Event::Alternatives(all) => {
                let bits = |other: Alternative| (other.instead_of, other.text, other.logprob.to_bits());
                tokens.last_mut().expect("a token comes first").2.extend(all.into_iter().map(bits));
            }
            Event::Done(summary) => return (tokens, summary),
            _ => {}
        }
    }
}

fn run(engine: &Engine, samples: &[f32], chunk: usize, options: SessionOptions) -> (Vec<Token>, Summary) {
    let mut session = engine.session(options).unwrap();
    samples.chunks(chunk).for_each(|chunk| session.push_samples(chunk).unwrap());
    session.finish();
    tokens(&mut session)
}

fn noise(samples: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    // Loud and quiet by turns, so that there is something to hear.
    (0..samples).map(|i| next() * if i / 4000 % 2 == 0 { 0.3 } else { 0.01 }).collect()
}

#[test]
fn greedy_ids_equal_the_goldens() {
    for layout in ["tiny", "tiny_hf"] {
        let engine = engine(&Model::open(&golden(layout).unwrap()).unwrap());
        for case in cases() {
            let (wave, d) = case.split_once("_d").unwrap();
            let wave = array(&format!("{wave}_wave")).1;
            let (prompt, all) = (ids(&format!("{case}_prompt_ids")), ids(&format!("{case}_greedy_ids")));
            for decoding in [Decoding::Sequential, Decoding::Parallel { lookahead: 32 }] {
                let options =
                    SessionOptions { delay: delay(d.parse().unwrap()), decoding, ..SessionOptions::default() };
                let (tokens, summary) = run(&engine, &wave, wave.len(), options);
                let got: Vec<u32> = tokens.iter().map(|t| t.0).collect();
                assert_eq!(got, all[prompt.len()..], "{layout} {case} {decoding:?}");
                assert_eq!(summary.stats.positions, all.len() - 1, "{layout} {case}");
            }
        }
    }
}

#[test]
fn chunks_do_not_matter() {
    let engine = engine(&voxtral_digits::model());
    let samples = noise(40_000, 7);
    let whole = run(&engine, &samples, samples.len(), SessionOptions::default());
    for chunk in [1, 777, 1280, 16_000] {
        let parts = run(&engine, &samples, chunk, SessionOptions::default());
        assert_eq!(parts.0, whole.0, "in pieces of {chunk}");
        assert_eq!(parts.1.text, whole.1.text, "in pieces of {chunk}");
    }
}

#[test]
fn what_was_nearly_written_is_told_up_to_the_cutoff() {
    let engine = engine(&Model::open(&golden("tiny").unwrap()).unwrap());
    let samples = noise(60_000, 3);
    let run =
        |alternatives| run(&engine, &samples, 4096, SessionOptions { alternatives, ..SessionOptions::default() }).0;
    let (none, all) = (run(None), run(Some(1.0)));
    assert!(none.iter().all(|token| token.2.is_empty()));
    let told = all.iter().filter(|token| !token.2.is_empty()).count();
    assert!(told > 10 && all.iter().all(|token| [0, 2].contains(&token.2.len())), "{told} of {}", all.len());
    for cutoff in [0.0, 0.1, 0.5] {
        // A cutoff leaves out those that are further behind, and changes nothing else.
        let near = |&(id, bits, ref others): &Token| {
            let behind = |other: u32| 1.0 - (f32::from_bits(other) - f32::from_bits(bits)).exp();
            (id, bits, others.iter().filter(|(.., other)| behind(*other) <= cutoff).cloned().collect())
        };
        let expected: Vec<Token> = all.iter().map(near).collect();
        assert_eq!(run(Some(cutoff)), expected, "a cutoff of {cutoff}");
    }
    assert_ne!(run(Some(0.5)), none);
}

#[test]
fn every_80_ms_is_one_token_and_end_of_sequence_ends_nothing() {
    let model = Model::open(&golden("tiny").unwrap()).unwrap();
    let engine = engine(&model);
    for samples in [1, 1279, 1280, 1281, 20_000] {
        let audio = noise(samples, samples as u64);
        let (tokens, summary) = run(&engine, &audio, 4096, SessionOptions::default());
        assert_eq!(tokens.len(), samples.div_ceil(1280) + 10, "{samples} samples");
        assert_eq!(summary.audio_s, samples as f64 / 16_000.0);
        assert_eq!(summary.stats.positions, samples.div_ceil(1280) + 32 + 6 + 10, "{samples} samples");
    }
}

#[test]
fn audio_is_encoded_once_whatever_the_interval() {
    let model = voxtral_digits::model();
    let encoded = Arc::new(AtomicUsize::new(0));
    let watched = Watched { encoded: encoded.clone(), ..Watched::new(&model) };
    let engine = Engine::new(&model, Box::new(watched), EngineOptions::default()).unwrap();
    let samples = noise(50_000, 9);
    let token = model.config.frames_per_token() * model.config.audio.mel_bins;
    let run = |interval: usize, chunk: usize| {
        encoded.store(0, Relaxed);
        let options = SessionOptions { interval, ..SessionOptions::default() };
        let positions = run(&engine, &samples, chunk, options).1.stats.positions;
        (encoded.load(Relaxed), positions)
    };
    let (first, positions) = run(0, samples.len());
    assert!((positions * token..=(positions + 1) * token).contains(&first), "{first} values, {positions} positions");
    // What every stream begins with is known from now on.
    let (values, _) = run(0, samples.len());
    assert!(values < first, "{values} of {first} values");
    for (interval, chunk) in [(0, 777), (1, 1280), (6, 8000), (6, 16_000), (13, 4096)] {
        assert_eq!(run(interval, chunk), (values, positions), "intervals of {interval} tokens, pieces of {chunk}");
    }
}

#[test]
fn a_device_that_fails_ends_sessions_with_an_error() {
    let model = voxtral_digits::model();
    for early in [false, true] {
        let fails = Arc::new(AtomicBool::new(early));
        let watched = Watched { fails: fails.clone(), ..Watched::new(&model) };
        let engine = Engine::new(&model, Box::new(watched), EngineOptions::default()).unwrap();
        let mut sessions = [(); 2].map(|()| engine.session(SessionOptions::default()).unwrap());
        for session in &mut sessions {
            // It may have failed already, here and below.
            let _ = session.push_samples(&noise(16_000, 4));
            while !early && !matches!(session.next_event(), Some(Ok(Event::Token(_)))) {}
        }
        fails.store(true, Relaxed);
        for mut session in sessions {
            let _ = session.push_samples(&noise(16_000, 5));
            session.finish();
            let last = std::iter::from_fn(|| session.next_event()).last();
            let told =
                matches!(&last, Some(Err(EngineError::Backend(what))) if what.to_string().contains("told to fail"));
            assert!(told, "{last:?}");
        }
    }
}

#[test]
fn stopping_at_the_end_of_sequence_keeps_the_tokens_up_to_it() {
    let mut model = Model::open(&golden("tiny").unwrap()).unwrap();
    let samples = noise(60_000, 3);
    let (all, _) = run(&engine(&model), &samples, 4096, SessionOptions::default());
    // A token that the model writes half-way takes the row of the one that ends a sequence, and with it its place.
    let (id, dim) = (all[all.len() / 2].0, model.config.decoder.dim);
    let mut rows = model.weights.embedding.to_f32();
    let (eos, row) = (model.tokenizer.eos() as usize * dim, id as usize * dim);
    rows.copy_within(row..row + dim, eos);
    model.weights.embedding =
        voxtral_model::Weight::Dense(voxtral_model::Tensor::from_f32(&rows, &[rows.len() / dim, dim]));
    // Of two equal rows the lower id is taken.
    let (all, _) = run(&engine(&model), &samples, 4096, SessionOptions::default());
    let first = all.iter().position(|t| t.0 == model.tokenizer.eos()).expect("the end of sequence is written");
    assert!(first + 10 < all.len(), "it is written before the end");
    for decoding in [Decoding::Sequential, Decoding::Parallel { lookahead: 8 }] {
        let options = SessionOptions { stop_at_eos: true, decoding, ..SessionOptions::default() };
        let (stopped, _) = run(&engine(&model), &samples, 4096, options);
        assert_eq!(stopped, all[..=first], "{decoding:?}");
    }
}

#[test]
fn an_hour_needs_no_more_memory_than_a_minute() {
    let engine = engine(&Model::open(&golden("tiny").unwrap()).unwrap());
    let options = SessionOptions { decoding: Decoding::Parallel { lookahead: 32 }, ..SessionOptions::default() };
    let (audio, events) = engine.session(options).unwrap().split();
    let feeder = std::thread::spawn(move || {
        let minute = noise(960_000, 1);
        let mut resident = Vec::new();
        for _ in 0..60 {
            audio.push_samples(&minute).unwrap();
            resident.push(resident_bytes());
        }
        resident
    });
    let mut tokens = 0;
    for event in events {
        tokens += usize::from(matches!(event.unwrap(), Event::Token(_)));
    }
    assert_eq!(tokens, 3600 * 16_000 / 1280 + 10);
    let resident = feeder.join().unwrap();
    // What does grow is the text, by a few hundred kilobytes; in the first minutes, other tests run beside.
    assert!(resident[59] < resident[19] + 4_000_000, "resident by minute: {resident:?}");
}

/// 0 where the system does not tell.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

#[test]
fn numbers_that_are_none_end_a_session_with_an_error() {
    let mut model = Model::open(&golden("tiny").unwrap()).unwrap();
    let dim = model.config.decoder.dim;
    model.weights.decoder_norm = voxtral_model::Tensor::from_f32(&vec![f32::NAN; dim], &[dim]);
    let engine = engine(&model);
    let mut session = engine.session(SessionOptions::default()).unwrap();
    session.finish();
    let last = std::iter::from_fn(|| session.next_event()).last();
    assert!(matches!(last, Some(Err(EngineError::NotFinite { .. }))), "{last:?}");
}

#[test]
fn endings() {
    let model = Model::open(&golden("tiny").unwrap()).unwrap();
    let first = engine(&model);
    let mut orphan = first.session(SessionOptions::default()).unwrap();
    drop(first);
    assert!(matches!(orphan.next_event(), Some(Err(EngineError::Stopped))));
    assert!(orphan.next_event().is_none());
    assert!(matches!(orphan.push_samples(&[0.0]), Err(EngineError::Ended)));

    let engine = engine(&model);
    let mut session = engine.session(SessionOptions::default()).unwrap();
    session.finish();
    assert!(matches!(session.push_samples(&[0.0]), Err(EngineError::Ended)), "finished");
    // Nobody reads while more is pushed than the queues hold.
    let mut alone = engine.session(SessionOptions::default()).unwrap();
    alone.push_samples(&noise(16_000 * 120, 5)).unwrap();
    drop(alone);
    drop(engine.session(SessionOptions::default()).unwrap());
    assert_eq!(tokens(&mut session).0.len(), 10, "a session goes on while others are dropped");
}

/// A few layers of odd shapes, whose windows wrap.
#[test]
fn the_peak_of_device_memory_outlives_the_sessions() {
    let model = voxtral_digits::model();
    let engine = Engine::new(&model, Box::new(Watched::new(&model)), EngineOptions::default()).unwrap();
    for _ in 0..2 {
        run(&engine, &noise(1280, 1), 1280, SessionOptions::default());
    }
    // The stream that all begin from, and one session's.
    assert_eq!(engine.peak_device_bytes(), 2);
}

fn random_config() -> impl Strategy<Value = ModelConfig> {
    let dims = (1usize..4, 1usize..5, 0usize..4, 1usize..3, 20usize..60);
    (dims.clone(), dims, 0usize..3).prop_map(|(e, d, width)| {
        let hd = [16, 32, 64, 128];
        let mut fields = Vec::new();
        for (name, (kv, group, h, layers, window)) in [("encoder", e), ("decoder", d)] {
            let (dim, ffn_dim) = ([48, 80, 96][width], [112, 64, 160][width]);
            let values = [layers, kv * group, kv, hd[h], window, dim, ffn_dim];
            let names = ["layers", "heads", "kv_heads", "head_dim", "window", "dim", "ffn_dim"];
            fields.extend(names.iter().zip(values).map(|(field, value)| format!("{name}.{field}={value}")));
        }
        fields.push("vocab=1400".into());
        ModelConfig::synthetic("small", &fields).unwrap()
    })
}

/// A session to come: delay in tokens, samples, size of its pieces, lookahead, the round it opens in.
fn random_session() -> impl Strategy<Value = (u32, usize, usize, usize, usize)> {
    (prop_oneof![1u32..16, Just(30)], 1usize..30_000, 1usize..9_000, 1usize..129, 0usize..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Any lookahead, any pieces, any batch: each session's tokens, log-probabilities and runners-up, where it asks for them, are those of
    /// its solo sequential run.
    #[test]
    fn neither_lookahead_nor_batch_matters(
        config in random_config(),
        sessions in proptest::collection::vec(random_session(), 1..17),
        dropped in 0usize..17,
        seed: u64,
    ) {
        let model = Model::synthetic(&config, seed).unwrap();
        let engine = engine(&model);
        let alternatives = |i: usize| [None, Some(0.5), Some(1.0)][i % 3];
        let audio: Vec<Vec<f32>> = sessions.iter().enumerate().map(|(i, s)| noise(s.1, seed ^ i as u64)).collect();
        let mut open: Vec<(usize, Session, std::slice::Chunks<'_, f32>)> = Vec::new();
        let mut results = vec![None; sessions.len()];
        for round in 0.. {
            for (i, &(tokens, _, chunk, lookahead, opens)) in sessions.iter().enumerate() {
                if opens == round {
                    let decoding = if lookahead > 100 { Decoding::Auto } else { Decoding::Parallel { lookahead } };
                    let interval = chunk % 70;
                    // Announced or not, right or wrong.
                    let samples = (chunk % 3 > 0).then_some((sessions[i].1 * (chunk % 3) / 2) as u64);
                    let options = SessionOptions {
                        delay: delay(tokens),
                        decoding,
                        interval,
                        samples,
                        alternatives: alternatives(i),
                        ..SessionOptions::default()
                    };
                    open.push((i, engine.session(options).unwrap(), audio[i].chunks(chunk)));
                }
            }
            let mut going = Vec::new();
            for (i, mut session, mut chunks) in open {
                match chunks.next() {
                    Some(_) if i == dropped && round > 2 => drop(session),
                    Some(chunk) => {
                        session.push_samples(chunk).unwrap();
                        going.push((i, session, chunks));
                    }
                    None => {
                        session.finish();
                        results[i] = Some(tokens(&mut session).0);
                    }
                }
            }
            open = going;
            if open.is_empty() && round >= 4 {
                break;
            }
        }
        for (i, &(tokens, ..)) in sessions.iter().enumerate() {
            let options = SessionOptions {
                delay: delay(tokens),
                decoding: Decoding::Sequential,
                alternatives: alternatives(i),
                ..SessionOptions::default()
            };
            let (solo, _) = run(&engine, &audio[i], usize::MAX, options);
            prop_assert!(results[i].is_some() || i == dropped);
            if let Some(result) = &results[i] {
                prop_assert_eq!(result, &solo, "session {} of {}", i, sessions.len());
            }
        }
    }
}
