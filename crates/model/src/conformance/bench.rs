//! A backend under test, with the bookkeeping that its callers do, and comparisons that say what differs where.

use std::iter;

use super::Terms;
use crate::{
    Backend, DecodeSpan, Delay, EncodeSpan, MAX_DECODE_ROWS, Model, Prediction, RUNNERS_UP, RunnerUp, Stage, StreamId,
    TOKEN_MS,
};

/// What one stream hears and reads.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) delay: Delay,
    /// `[tokens * frames_per_token, mel_bins]`
    pub(super) mel: Vec<f32>,
    /// `[tokens]`
    pub(super) ids: Vec<u32>,
    /// Whether its stream asks for runners-up, and from which id on.
    pub(super) runners_up: Option<u32>,
}

impl Script {
    /// Of so many tokens, random but the same every time. Every other one asks for runners-up.
    pub(super) fn new(bench: &Bench<'_>, delay_tokens: u32, tokens: usize, seed: u64) -> Self {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
        let delay = Delay::from_ms(delay_tokens * TOKEN_MS).expect("a delay that models know");
        let mel = (0..tokens * bench.token_len()).map(|_| rng.random_range(-1.5..1.5)).collect();
        let vocab = bench.model.config.vocab as u32;
        let ids = (0..tokens).map(|_| if rng.random_bool(0.4) { 32 } else { rng.random_range(1000..vocab) }).collect();
        Self { delay, mel, ids, runners_up: seed.is_multiple_of(2).then_some(1000) }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// A stream that plays a script, and how far it is.
pub(super) struct Live {
    pub(super) id: StreamId,
    pub(super) script: Script,
    pub(super) encoded: usize,
    pub(super) decoded: usize,
    /// Most tokens of an encode span.
    pub(super) span: usize,
}

impl Live {
    pub(super) fn left(&self) -> usize {
        self.script.len() - self.decoded
    }
}

/// What a backend said about one position.
#[derive(Clone)]
pub(super) struct Row {
    prediction: Prediction,
    pub(super) logits: Vec<f32>,
}

impl Row {
    pub(super) fn forget_runners_up(&mut self) {
        self.prediction.runners_up = [None; RUNNERS_UP];
    }
}

pub(super) struct Bench<'a> {
    /// The property and the model, which every message starts with.
    pub(super) label: String,
    pub(super) backend: Box<dyn Backend>,
    pub(super) model: &'a Model,
    terms: &'a Terms,
}

impl<'a> Bench<'a> {
    pub(super) fn new(property: &str, backend: Box<dyn Backend>, model: &'a Model, terms: &'a Terms) -> Self {
        let decoder = &model.config.decoder;
        let label = format!(
            "{property}, on {} with a decoder of width {}, {} query heads, {} key heads of width {}",
            backend.info().backend,
            decoder.dim,
            decoder.heads,
            decoder.kv_heads,
            decoder.head_dim
        );
        Self { label, backend, model, terms }
    }

    pub(super) fn exact(&self) -> bool {
        self.terms.tolerance == 0.0
    }

    /// Log-mel values of one token.
    pub(super) fn token_len(&self) -> usize {
        self.model.config.frames_per_token() * self.model.config.audio.mel_bins
    }

    /// A stream with the longest spans that a call takes, and so much capacity; it grows where more is needed.
    pub(super) fn open(&mut self, script: &Script, capacity: usize) -> Live {
        let span = self.backend.info().encode_tokens;
        self.open_for_spans(script, span, capacity)
    }

    pub(super) fn open_for_spans(&mut self, script: &Script, span: usize, capacity: usize) -> Live {
        let id = self.backend.open(script.delay, span).unwrap_or_else(|e| panic!("{}: open: {e}", self.label));
        self.grow(id, capacity);
        Live { id, script: script.clone(), encoded: 0, decoded: 0, span }
    }

    /// A fork of `of` that goes on with another script.
    pub(super) fn fork(&mut self, of: &Live, script: &Script, capacity: usize) -> Live {
        let id = self.backend.fork(of.id, of.span).unwrap_or_else(|e| panic!("{}: fork: {e}", self.label));
        self.grow(id, capacity);
        Live { id, script: script.clone(), encoded: of.encoded, decoded: of.decoded, span: of.span }
    }

    fn grow(&mut self, stream: StreamId, capacity: usize) {
        self.backend.grow(stream, capacity).unwrap_or_else(|e| panic!("{}: grow: {e}", self.label));
    }

    pub(super) fn close(&mut self, live: &Live) {
        self.backend.close(live.id);
    }

    /// One call that encodes the next so many tokens of each stream.
    pub(super) fn encode(&mut self, batch: &mut [(&mut Live, usize)]) {
        if batch.is_empty() {
            return;
        }
        let len = self.token_len();
        for (live, tokens) in &*batch {
            self.grow(live.id, live.encoded + tokens);
        }
        let spans: Vec<_> = batch
            .iter()
            .map(|(live, tokens)| EncodeSpan {
                stream: live.id,
                mel: &live.script.mel[live.encoded * len..(live.encoded + tokens) * len],
            })
            .collect();
        self.backend.encode(&spans).unwrap_or_else(|e| panic!("{}: encode: {e}", self.label));
        for (live, tokens) in batch {
            live.encoded += *tokens;
        }
    }

    /// Encodes until so many tokens are heard.
    pub(super) fn hear(&mut self, live: &mut Live, tokens: usize) {
        while live.encoded < tokens {
            let count = (tokens - live.encoded).min(8).min(live.span);
            self.encode(&mut [(live, count)]);
        }
    }

    /// One call that decodes the next so many positions of each stream.
    pub(super) fn decode(&mut self, batch: &mut [(&mut Live, usize)]) -> Vec<Vec<Row>> {
        if batch.is_empty() {
            return Vec::new();
        }
        let spans: Vec<_> = batch
            .iter()
            .map(|(live, count)| DecodeSpan {
                stream: live.id,
                position: live.decoded,
                ids: &live.script.ids[live.decoded..live.decoded + count],
                runners_up: live.script.runners_up,
            })
            .collect();
        // What was in it must not stay in it.
        let mut predictions = vec![Prediction { id: 0, logprob: 0.0, runners_up: [None; RUNNERS_UP] }; 3];
        self.backend.decode(&spans, &mut predictions).unwrap_or_else(|e| panic!("{}: decode: {e}", self.label));
        let logits = self.inspect(Stage::Logits);
        let (rows, vocab) = (batch.iter().map(|(_, count)| count).sum::<usize>(), self.model.config.vocab);
        assert_eq!(predictions.len(), rows, "{}: predictions of a call", self.label);
        assert_eq!(logits.len(), rows * vocab, "{}: logits of a call", self.label);
        let mut rows = predictions.into_iter().zip(logits.chunks_exact(vocab));
        let mut split = Vec::new();
        for (live, count) in batch {
            live.decoded += *count;
            let mine = rows.by_ref().take(*count).map(|(prediction, logits)| {
                self.belong_together(prediction, live.script.runners_up, logits);
                Row { prediction, logits: logits.to_vec() }
            });
            split.push(mine.collect());
        }
        split
    }

    /// The next `count` positions of one stream, in as few calls as that takes; audio is encoded as it is needed.
    pub(super) fn decode_spans(&mut self, live: &mut Live, count: usize) -> Vec<Row> {
        let end = live.decoded + count.min(live.left());
        let mut rows = Vec::new();
        while live.decoded < end {
            let span = (end - live.decoded).min(MAX_DECODE_ROWS);
            let needed = live.decoded + span;
            self.hear(live, needed);
            rows.extend(self.decode(&mut [(live, span)]).remove(0));
        }
        rows
    }

    /// All that is left of a stream, in spans of these lengths over and over.
    pub(super) fn decode_rest(&mut self, live: &mut Live, cuts: &[usize]) -> Vec<Row> {
        let mut rows = Vec::new();
        for &cut in cuts.iter().cycle() {
            if live.left() == 0 {
                break;
            }
            rows.extend(self.decode_spans(live, cut));
        }
        rows
    }

    /// What a script comes to alone, in a stream of its own, position by position.
    pub(super) fn reference(&mut self, script: &Script) -> Vec<Row> {
        let mut live = self.open(script, usize::MAX);
        let rows = self.decode_rest(&mut live, &[1]);
        self.close(&live);
        rows
    }

    /// The audio embeddings of a script.
    pub(super) fn embeddings(&mut self, script: &Script) -> Vec<f32> {
        let mut live = self.open(script, usize::MAX);
        let mut embeddings = Vec::new();
        while live.encoded < script.len() {
            let next = (live.encoded + 8).min(script.len());
            self.hear(&mut live, next);
            embeddings.extend(self.inspect(Stage::Adapter));
        }
        self.close(&live);
        embeddings
    }

    pub(super) fn inspect(&mut self, stage: Stage) -> Vec<f32> {
        self.backend.inspect(stage).unwrap_or_else(|e| panic!("{}: inspect {stage:?}: {e}", self.label))
    }

    /// A prediction is the lowest of the largest logits, and its log-probability is what softmax makes of it. The same holds for each
    /// runner-up among those that are left, from the lowest id on that may be one.
    fn belong_together(&self, prediction: Prediction, lowest: Option<u32>, logits: &[f32]) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
        let Prediction { id, logprob, runners_up } = prediction;
        let mut taken = Vec::new();
        let mut check = |what: &str, from: u32, got: Option<RunnerUp>| {
            let left = (from as usize..logits.len()).filter(|i| !taken.contains(i));
            let Some(best) = left.reduce(|a, b| if logits[b] > logits[a] { b } else { a }) else {
                assert_eq!(got, None, "{}: {what} where no id is left", self.label);
                return;
            };
            let RunnerUp { id, logprob } = got.unwrap_or_else(|| panic!("{}: no {what}", self.label));
            let id = id as usize;
            let chosen = logits.get(id).copied().unwrap_or(f32::NAN);
            let near = id >= from as usize && !taken.contains(&id) && logits[best] - chosen <= self.terms.tolerance;
            let right = if self.exact() { id == best } else { near };
            assert!(right, "{}: {what} is {id}, but {best} has the largest logit", self.label);
            let softmax = f64::from(chosen - max) - sum.ln();
            let off = (f64::from(logprob) - softmax).abs();
            let allowed = 1e-4 + 2.0 * f64::from(self.terms.tolerance);
            assert!(off <= allowed, "{}: {what} has log-probability {logprob}, softmax gives {softmax}", self.label);
            taken.push(id);
        };
        check("the prediction", 0, Some(RunnerUp { id, logprob }));
        match lowest {
            Some(from) => runners_up.into_iter().for_each(|got| check("a runner-up", from, got)),
            None => assert_eq!(runners_up, [None; RUNNERS_UP], "{}: nobody asked for runners-up", self.label),
        }
    }

    /// That two runs came to the same.
    pub(super) fn same(&self, what: &str, expected: &[Row], got: &[Row]) {
        assert_eq!(expected.len(), got.len(), "{}: {what}: rows", self.label);
        for (position, (expected, got)) in iter::zip(expected, got).enumerate() {
            let what = format!("{what}, row {position}");
            self.same_values(&format!("{what}: logits"), &expected.logits, &got.logits);
            if self.exact() {
                let bits = |p: Prediction| {
                    let runners_up = p.runners_up.map(|other| other.map(|other| (other.id, other.logprob.to_bits())));
                    (p.id, p.logprob.to_bits(), runners_up)
                };
                let (want, have) = (expected.prediction, got.prediction);
                assert_eq!(bits(want), bits(have), "{}: {what}: {want:?} became {have:?}", self.label);
            }
        }
    }

    pub(super) fn same_values(&self, what: &str, expected: &[f32], got: &[f32]) {
        assert_eq!(expected.len(), got.len(), "{}: {what}: values", self.label);
        let same = |a: f32, b: f32| match self.exact() {
            true => a.to_bits() == b.to_bits(),
            false => (a - b).abs() <= self.terms.tolerance,
        };
        if let Some(i) = iter::zip(expected, got).position(|(&a, &b)| !same(a, b)) {
            panic!("{}: {what}: value {i} is {} and should be {}", self.label, got[i], expected[i]);
        }
    }
}
