//! A backend without arithmetic, which keeps the contract and does in each call what a test says.
#![allow(dead_code)] // each test file uses a part

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use voxtral_model::{
    Backend, BackendError, BackendInfo, DecodeSpan, Delay, EncodeSpan, Ledger, MAX_DECODE_ROWS, Model, ModelConfig,
    Prediction, RUNNERS_UP, Stage, StreamId,
};

/// A call of the backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Info,
    StreamBytes,
    FreeBytes,
    Open,
    /// Of a stream with such encode spans.
    Fork(usize),
    Grow(StreamId, usize),
    Close,
    /// Tokens of each stream.
    Encode(Vec<(StreamId, usize)>),
    /// Rows of each stream.
    Decode(Vec<(StreamId, usize)>),
}

/// What happens before a call does its work: nothing, an error, a panic.
pub type Hook = Arc<dyn Fn(&Call) -> Result<(), BackendError> + Send + Sync>;

/// Hears silence in everything. A token of capacity is a byte of memory.
pub struct Fake {
    hook: Hook,
    config: ModelConfig,
    ledger: Ledger,
    capacities: BTreeMap<StreamId, usize>,
    pad: u32,
    memory: u64,
    calls: Arc<Mutex<Vec<Call>>>,
}

pub const ENCODE_TOKENS: usize = 64;

impl Fake {
    pub fn new(model: &Model, memory: u64, hook: Hook) -> Self {
        let ledger = Ledger::new(&model.config, ENCODE_TOKENS);
        let (config, pad) = (model.config.clone(), model.tokenizer.streaming_pad());
        Self { hook, config, ledger, capacities: BTreeMap::new(), pad, memory, calls: Arc::default() }
    }

    /// All calls that are made, those that fail too.
    pub fn calls(&self) -> Arc<Mutex<Vec<Call>>> {
        Arc::clone(&self.calls)
    }

    fn call(&self, call: Call) -> Result<(), BackendError> {
        self.calls.lock().unwrap().push(call.clone());
        (self.hook)(&call)
    }

    fn used(&self) -> u64 {
        self.capacities.values().map(|&capacity| capacity as u64).sum()
    }

    fn add(&mut self, entry: voxtral_model::Entry) -> StreamId {
        let id = self.ledger.add(entry);
        self.capacities.insert(id, entry.capacity);
        id
    }
}

pub fn out_of_memory() -> BackendError {
    BackendError::OutOfMemory { device: "a fake".to_owned(), needed: 1, free: 0 }
}

pub fn broken() -> BackendError {
    BackendError::Device { device: "a fake".to_owned(), what: "it was told to fail".to_owned() }
}

impl Backend for Fake {
    fn info(&self) -> BackendInfo {
        // The only call that cannot fail but by a panic.
        let _ = self.call(Call::Info);
        BackendInfo {
            backend: "fake",
            device: "a fake".to_owned(),
            device_bytes: self.used(),
            encode_tokens: ENCODE_TOKENS,
        }
    }

    fn stream_bytes(&self, _: usize, tokens: usize) -> u64 {
        let _ = self.call(Call::StreamBytes);
        tokens as u64
    }

    fn free_bytes(&self) -> Result<u64, BackendError> {
        self.call(Call::FreeBytes)?;
        Ok(if self.memory == u64::MAX { u64::MAX } else { self.memory - self.used() })
    }

    fn open(&mut self, _: Delay, span: usize) -> Result<StreamId, BackendError> {
        self.call(Call::Open)?;
        let entry = self.ledger.open(span)?;
        Ok(self.add(entry))
    }

    fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId, BackendError> {
        self.call(Call::Fork(span))?;
        let entry = self.ledger.fork(of, span)?;
        Ok(self.add(entry))
    }

    fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<(), BackendError> {
        self.call(Call::Grow(stream, tokens))?;
        self.ledger.get(stream)?;
        let capacity = self.capacities[&stream];
        if self.memory != u64::MAX && self.used() + tokens.saturating_sub(capacity) as u64 > self.memory {
            return Err(out_of_memory());
        }
        self.capacities.insert(stream, capacity.max(tokens));
        self.ledger.grown(stream, tokens);
        Ok(())
    }

    fn close(&mut self, stream: StreamId) {
        let _ = self.call(Call::Close);
        self.ledger.close(stream);
        self.capacities.remove(&stream);
    }

    fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
        let token = self.config.frames_per_token() * self.config.audio.mel_bins;
        let tokens = self.ledger.begin_encode(batch).unwrap();
        assert!(tokens.iter().zip(batch).all(|(tokens, span)| tokens.len() == span.mel.len() / token));
        self.call(Call::Encode(batch.iter().map(|span| (span.stream, span.mel.len() / token)).collect()))?;
        self.ledger.end_encode(batch);
        Ok(())
    }

    fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError> {
        out.clear();
        self.ledger.begin_decode(batch).unwrap();
        self.call(Call::Decode(batch.iter().map(|span| (span.stream, span.ids.len())).collect()))?;
        let rows: usize = batch.iter().map(|span| span.ids.len()).sum();
        assert!((1..=MAX_DECODE_ROWS).contains(&rows));
        out.extend(std::iter::repeat_n(
            Prediction { id: self.pad, logprob: 0.0, runners_up: [None; RUNNERS_UP] },
            rows,
        ));
        self.ledger.end_decode(batch);
        Ok(())
    }

    fn inspect(&mut self, _: Stage) -> Result<Vec<f32>, BackendError> {
        Ok(Vec::new())
    }
}
