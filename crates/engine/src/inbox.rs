//! What reaches the engine's thread from outside, and what it tells of itself.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use voxtral_model::BackendInfo;

use crate::counters::Meters;
use crate::port::Bell;
use crate::scheduler::Opening;
use crate::{EngineError, Schedule};

pub(crate) struct Inbox {
    state: Mutex<State>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) meters: Arc<Meters>,
}

struct State {
    requests: Vec<Request>,
    closing: bool,
    /// As of the last call that changed it.
    info: BackendInfo,
    peak_device_bytes: u64,
}

pub(crate) enum Request {
    Session(Opening),
    Prewarm(Schedule, Sender<Result<(), EngineError>>),
    Capacity { span: usize, expected: usize, told: Sender<Result<Option<usize>, EngineError>> },
}

impl Inbox {
    pub(crate) fn new(info: BackendInfo) -> Self {
        let peak_device_bytes = info.device_bytes;
        let state = State { requests: Vec::new(), closing: false, info, peak_device_bytes };
        Self { state: Mutex::new(state), bell: Arc::default(), meters: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn info(&self) -> BackendInfo {
        self.lock().info.clone()
    }

    pub(crate) fn peak_device_bytes(&self) -> u64 {
        self.lock().peak_device_bytes
    }

    /// For the engine's owner: asks its thread for something. Fails when that takes nothing any more.
    pub(crate) fn add(&self, request: Request) -> Result<(), EngineError> {
        let mut state = self.lock();
        if state.closing {
            return Err(EngineError::Stopped);
        }
        state.requests.push(request);
        drop(state);
        self.bell.ring();
        Ok(())
    }

    /// Whether nothing more is taken.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closing
    }

    /// For the engine's thread: what has come. `None` when it is to end.
    pub(crate) fn take(&self) -> Option<Vec<Request>> {
        let mut state = self.lock();
        (!state.closing).then(|| std::mem::take(&mut state.requests))
    }

    /// For the engine's thread: what the backend holds now.
    pub(crate) fn note(&self, info: BackendInfo) {
        let mut state = self.lock();
        state.peak_device_bytes = state.peak_device_bytes.max(info.device_bytes);
        state.info = info;
    }

    /// Nothing more is taken. What has come and was not taken is refused.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        let requests = std::mem::take(&mut state.requests);
        drop(state);
        // Each tells its owner.
        drop(requests);
        self.bell.ring();
    }
}
