//! A backend that keeps the time of its calls.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use voxtral_model::{Backend, BackendError, BackendInfo, DecodeSpan, Delay, EncodeSpan, Prediction, Stage, StreamId};

/// What a call was for. The benchmark runs one session at a time, so a call has one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Encoding or decoding what all streams of a delay begin with, once for all of them.
    WarmStart,
    Encode,
    /// From this position on.
    Decode {
        position: usize,
    },
}

/// The calls so far, with their durations.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(Call, Duration)>>>);

impl Log {
    /// The calls since it was last asked.
    pub(crate) fn take(&self) -> Vec<(Call, Duration)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Passes every call on to a backend, and writes it down.
pub(crate) struct Clocked {
    backend: Box<dyn Backend>,
    log: Log,
    /// Streams that sessions are forked from.
    templates: BTreeSet<StreamId>,
}

impl Clocked {
    pub(crate) fn new(backend: Box<dyn Backend>, log: Log) -> Self {
        Self { backend, log, templates: BTreeSet::new() }
    }

    fn write(&self, call: Call, stream: Option<StreamId>, time: Duration) {
        let is_template = stream.is_some_and(|stream| self.templates.contains(&stream));
        let call = if is_template { Call::WarmStart } else { call };
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).push((call, time));
    }
}

impl Backend for Clocked {
    fn info(&self) -> BackendInfo {
        self.backend.info()
    }

    fn stream_bytes(&self, span: usize, tokens: usize) -> u64 {
        self.backend.stream_bytes(span, tokens)
    }

    fn free_bytes(&self) -> Result<u64, BackendError> {
        self.backend.free_bytes()
    }

    fn open(&mut self, delay: Delay, span: usize) -> Result<StreamId, BackendError> {
        let stream = self.backend.open(delay, span)?;
        self.templates.insert(stream);
        Ok(stream)
    }

    fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId, BackendError> {
        self.backend.fork(of, span)
    }

    fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<(), BackendError> {
        self.backend.grow(stream, tokens)
    }

    fn close(&mut self, stream: StreamId) {
        self.backend.close(stream);
    }

    fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
        let start = Instant::now();
        self.backend.encode(batch)?;
        self.write(Call::Encode, batch.first().map(|span| span.stream), start.elapsed());
        Ok(())
    }

    fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError> {
        let start = Instant::now();
        self.backend.decode(batch, out)?;
        let position = batch.first().map_or(0, |span| span.position);
        self.write(Call::Decode { position }, batch.first().map(|span| span.stream), start.elapsed());
        Ok(())
    }

    fn inspect(&mut self, stage: Stage) -> Result<Vec<f32>, BackendError> {
        self.backend.inspect(stage)
    }
}
