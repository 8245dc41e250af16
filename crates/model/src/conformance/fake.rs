//! The suite held against itself: a backend without arithmetic that keeps the contract passes, and one that breaks a promise fails
//! the property of that promise.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::{Rng, SeedableRng};

use super::*;
use crate::{
    AUDIO_WINDOW, BackendError, BackendInfo, DecodeSpan, Delay, EncodeSpan, Prediction, RUNNERS_UP, RunnerUp, StreamId,
};

/// The promise that a fake breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    FeelsChunks,
    FeelsSpans,
    FeelsBatch,
    KeepsFirstDelay,
    KeepsFirstId,
    ForgetsInFork,
    FeelsCapacity,
    SeesTooFar,
    SeesTooLittle,
    GivesIdsTwice,
    TakesAnyId,
    TakesOldAudio,
    RollsBackTooFar,
    OutgrowsCapacity,
    TakesLongSpans,
    BreaksWhenRefused,
    GivesRunnersUpUnasked,
    RunsUpFromAnyId,
    RunnersUpFeelSpans,
    TakesAnyRunnersUp,
}

#[derive(Clone)]
struct Stream {
    delay: Delay,
    span: usize,
    capacity: usize,
    furthest: usize,
    /// A call that was refused has left its mark.
    marked: bool,
    /// A number for each token of audio.
    audio: Vec<u64>,
    embeddings: Vec<u64>,
    ids: Vec<u32>,
}

/// Embeddings and logits are hashes of what they may depend on.
struct Fake {
    fault: Fault,
    config: ModelConfig,
    streams: HashMap<StreamId, Stream>,
    opened: u64,
    first_delay: Option<Delay>,
    embeddings: Vec<f32>,
    logits: Vec<f32>,
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn predict(logits: &[f32], asked: Option<u32>) -> Prediction {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let best = logits[order[0]];
    let sum: f32 = logits.iter().map(|l| (l - best).exp()).sum();
    let logprob = |id: usize| logits[id] - best - sum.ln();
    let mut others = order[1..].iter().filter(|&&id| asked.is_some_and(|from| id >= from as usize));
    let runners_up =
        [(); RUNNERS_UP].map(|()| others.next().map(|&id| RunnerUp { id: id as u32, logprob: logprob(id) }));
    Prediction { id: order[0] as u32, logprob: logprob(order[0]), runners_up }
}

fn contract<T>(holds: bool, value: T, what: &str) -> Result<T, BackendError> {
    if holds { Ok(value) } else { Err(BackendError::Contract(what.to_owned())) }
}

impl Fake {
    fn add(&mut self, stream: Stream) -> StreamId {
        let new = if self.fault == Fault::GivesIdsTwice { self.streams.len() as u64 } else { self.opened };
        self.opened += 1;
        self.streams.insert(StreamId(new), stream);
        StreamId(new)
    }

    fn stream(&mut self, id: StreamId) -> Result<&mut Stream, BackendError> {
        self.streams.get_mut(&id).ok_or_else(|| BackendError::Contract("no such stream".to_owned()))
    }

    /// Passes a refusal on, with what it must not leave behind.
    fn refuse<T>(
        &mut self,
        streams: impl Iterator<Item = StreamId>,
        checked: Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if checked.is_err() {
            for id in streams {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.marked = true;
                }
            }
        }
        checked
    }

    fn check_encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
        let fault = self.fault;
        let token = self.config.frames_per_token() * self.config.audio.mel_bins;
        Self::once(batch.iter().map(|span| span.stream))?;
        let total: usize = batch.iter().map(|span| span.mel.len()).sum();
        contract(total <= MAX_ENCODE_TOKENS * token, (), "too much audio")?;
        for span in batch {
            let stream = self.stream(span.stream)?;
            let tokens = span.mel.len() / token;
            contract(span.mel.len().is_multiple_of(token) && tokens > 0, (), "no tokens")?;
            contract(tokens <= stream.span || fault == Fault::TakesLongSpans, (), "a long span")?;
            let fits = stream.audio.len() + tokens <= stream.capacity;
            contract(fits || fault == Fault::OutgrowsCapacity, (), "no memory")?;
        }
        Ok(())
    }

    fn check_decode(&mut self, batch: &[DecodeSpan<'_>]) -> Result<(), BackendError> {
        let (fault, vocab) = (self.fault, self.config.vocab);
        Self::once(batch.iter().map(|span| span.stream))?;
        contract(batch.iter().map(|span| span.ids.len()).sum::<usize>() <= MAX_DECODE_ROWS, (), "too many rows")?;
        for span in batch {
            let stream = self.stream(span.stream)?;
            contract(!span.ids.is_empty(), (), "no rows")?;
            contract(span.position <= stream.ids.len(), (), "a gap")?;
            contract(span.position + span.ids.len() <= stream.embeddings.len(), (), "audio not encoded")?;
            let newest = stream.embeddings.len().saturating_sub(AUDIO_WINDOW) <= span.position;
            contract(newest || fault == Fault::TakesOldAudio, (), "audio too old")?;
            let near = span.position + MAX_DECODE_ROWS >= stream.furthest;
            contract(near || fault == Fault::RollsBackTooFar, (), "too far back")?;
            let known = span.ids.iter().all(|&id| (id as usize) < vocab);
            contract(known || fault == Fault::TakesAnyId, (), "no such id")?;
            let known = span.runners_up.is_none_or(|from| (from as usize) < vocab);
            contract(known || fault == Fault::TakesAnyRunnersUp, (), "no such runner-up")?;
        }
        Ok(())
    }

    fn once(streams: impl Iterator<Item = StreamId>) -> Result<(), BackendError> {
        let mut seen = HashSet::new();
        contract(streams.into_iter().all(|stream| seen.insert(stream)), (), "a stream twice")
    }
}

impl Backend for Fake {
    fn info(&self) -> BackendInfo {
        BackendInfo { backend: "fake", device: String::new(), device_bytes: 0, encode_tokens: MAX_ENCODE_TOKENS }
    }

    fn stream_bytes(&self, _: usize, _: usize) -> u64 {
        0
    }

    fn free_bytes(&self) -> Result<u64, BackendError> {
        Ok(u64::MAX)
    }

    fn open(&mut self, delay: Delay, span: usize) -> Result<StreamId, BackendError> {
        let first = *self.first_delay.get_or_insert(delay);
        let delay = if self.fault == Fault::KeepsFirstDelay { first } else { delay };
        let (audio, embeddings, ids) = (vec![], vec![], vec![]);
        Ok(self.add(Stream { delay, span, capacity: 0, furthest: 0, marked: false, audio, embeddings, ids }))
    }

    fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId, BackendError> {
        let mut stream = self.stream(of)?.clone();
        stream = Stream { span, capacity: stream.audio.len(), ..stream };
        if self.fault == Fault::ForgetsInFork {
            stream.ids.fill(0);
        }
        Ok(self.add(stream))
    }

    fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<(), BackendError> {
        let stream = self.stream(stream)?;
        stream.capacity = stream.capacity.max(tokens);
        Ok(())
    }

    fn close(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
        let checked = self.check_encode(batch);
        self.refuse(batch.iter().map(|span| span.stream), checked)?;
        let (fault, width) = (self.fault, self.config.decoder.dim);
        let token = self.config.frames_per_token() * self.config.audio.mel_bins;
        self.embeddings.clear();
        for span in batch {
            let stream = self.stream(span.stream)?;
            let mut embeddings = Vec::new();
            for (i, mel) in span.mel.chunks(token).enumerate() {
                stream.audio.push(hash(mel.iter().map(|v| v.to_bits()).collect::<Vec<_>>()));
                let heard = &stream.audio[stream.audio.len().saturating_sub(10)..];
                let embedding = hash((heard, if fault == Fault::FeelsChunks { i } else { 0 }));
                stream.embeddings.push(embedding);
                embeddings.extend(std::iter::repeat_n(embedding as f32, width));
            }
            self.embeddings.extend(embeddings);
        }
        Ok(())
    }

    fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError> {
        let checked = self.check_decode(batch);
        self.refuse(batch.iter().map(|span| span.stream), checked)?;
        let (fault, vocab, decoder) = (self.fault, self.config.vocab, self.config.decoder.clone());
        out.clear();
        self.logits.clear();
        for span in batch {
            let stream = self.stream(span.stream)?;
            let before = if fault == Fault::KeepsFirstId { stream.ids.len() } else { span.position };
            stream.ids.truncate(before);
            stream.ids.extend_from_slice(&span.ids[(before - span.position).min(span.ids.len())..]);
            stream.furthest = stream.furthest.max(stream.ids.len());
            let mut rows = Vec::new();
            for row in 0..span.ids.len() {
                let position = span.position + row;
                let reach = decoder.layers * (decoder.window - 1)
                    + usize::from(fault == Fault::SeesTooFar)
                    + usize::from(fault == Fault::FeelsCapacity && stream.capacity == usize::MAX)
                    - usize::from(fault == Fault::SeesTooLittle);
                let seen = position.saturating_sub(reach)..position + 1;
                let quirk = match fault {
                    Fault::FeelsSpans => row,
                    Fault::FeelsBatch => batch.len(),
                    Fault::BreaksWhenRefused => usize::from(stream.marked),
                    _ => 0,
                };
                let state = (&stream.ids[seen.clone()], &stream.embeddings[seen], stream.delay, quirk);
                let mut rng = rand::rngs::SmallRng::seed_from_u64(hash(state));
                let logits: Vec<f32> = (0..vocab).map(|_| rng.random_range(-3.0..3.0)).collect();
                let asked = match fault {
                    Fault::GivesRunnersUpUnasked => Some(span.runners_up.unwrap_or(1000)),
                    Fault::RunsUpFromAnyId => span.runners_up.map(|_| 0),
                    _ => span.runners_up,
                };
                let mut prediction = predict(&logits, asked);
                if fault == Fault::RunnersUpFeelSpans && row > 0 {
                    prediction.runners_up.reverse();
                }
                out.push(prediction);
                rows.extend(logits);
            }
            self.logits.extend(rows);
        }
        Ok(())
    }

    fn inspect(&mut self, stage: Stage) -> Result<Vec<f32>, BackendError> {
        Ok(if stage == Stage::Logits { self.logits.clone() } else { self.embeddings.clone() })
    }
}

/// Most tokens of an encode call.
const MAX_ENCODE_TOKENS: usize = 64;

const TERMS: Terms = Terms { tolerance: 0.0, head_dims: &[16, 24] };

fn fake(fault: Fault) -> impl Fn(&Model) -> Box<dyn Backend> {
    move |model| {
        let config = model.config.clone();
        let (streams, embeddings, logits) = (HashMap::new(), vec![], vec![]);
        Box::new(Fake { fault, config, streams, opened: 0, first_delay: None, embeddings, logits })
    }
}

#[test]
fn a_backend_that_keeps_the_contract_passes() {
    run(&fake(Fault::None), &TERMS);
    run(&fake(Fault::None), &Terms { tolerance: 1e-3, ..TERMS });
}

#[test]
fn every_broken_promise_is_found_by_its_property() {
    type Property = fn(Make<'_>, &Terms);
    let cases: [(Fault, Property); 20] = [
        (Fault::FeelsChunks, chunks_do_not_matter),
        (Fault::FeelsSpans, spans_do_not_matter),
        (Fault::FeelsBatch, batch_does_not_matter),
        (Fault::KeepsFirstDelay, delays_do_not_mix),
        (Fault::KeepsFirstId, decoding_again_overwrites),
        (Fault::ForgetsInFork, forks_are_equal_and_independent),
        (Fault::FeelsCapacity, capacity_does_not_matter),
        (Fault::SeesTooFar, windows_have_their_width),
        (Fault::SeesTooLittle, windows_have_their_width),
        (Fault::GivesIdsTwice, closed_streams_are_refused),
        (Fault::TakesAnyId, mistakes_are_refused),
        (Fault::TakesOldAudio, old_audio_is_refused),
        (Fault::RollsBackTooFar, mistakes_are_refused),
        (Fault::OutgrowsCapacity, mistakes_are_refused),
        (Fault::TakesLongSpans, mistakes_are_refused),
        (Fault::BreaksWhenRefused, mistakes_are_refused),
        (Fault::GivesRunnersUpUnasked, runners_up_are_for_those_who_ask),
        (Fault::RunsUpFromAnyId, runners_up_are_for_those_who_ask),
        (Fault::RunnersUpFeelSpans, spans_do_not_matter),
        (Fault::TakesAnyRunnersUp, mistakes_are_refused),
    ];
    for (fault, property) in cases {
        let failed = catch_unwind(AssertUnwindSafe(|| property(&fake(fault), &TERMS))).expect_err("not found");
        let message = failed.downcast_ref::<String>().expect("a message that is made for the case");
        assert!(message.contains("on fake with a decoder of width 96, 4 query heads"), "{fault:?}: {message}");
    }
}
