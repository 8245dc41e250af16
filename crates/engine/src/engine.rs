//! The engine as its owner sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use voxtral_model::{Backend, BackendInfo, Delay, LIVE_SPAN, Model};

use crate::counters::Counters;
use crate::front_end::ModelParts;
use crate::inbox::{Inbox, Request};
use crate::port::{Port, Seat};
use crate::scheduler::{Opening, Scheduler};
use crate::session::{Session, SessionOptions};
use crate::{EngineError, Schedule};

/// Audio that may wait in a session's queue: more than a live source falls behind by accident.
const QUEUED_AUDIO: Duration = Duration::from_secs(10);

/// What an engine promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most sessions at a time; one more is refused with [`EngineError::Full`].
    pub max_sessions: usize,
    /// The length of audio that a session is expected to have where it does not say. A session is admitted if the device has memory for
    /// so much of it beside what the running sessions may still need.
    pub expected: Duration,
}

impl Default for EngineOptions {
    /// Any number of sessions, of five minutes each.
    fn default() -> Self {
        Self { max_sessions: usize::MAX, expected: Duration::from_secs(300) }
    }
}

/// A model at work on a backend, for any number of sessions.
///
/// Dropping it ends all its sessions, with [`EngineError::Stopped`] for those that were not done.
pub struct Engine {
    inbox: Arc<Inbox>,
    model: Arc<ModelParts>,
    options: EngineOptions,
    encode_tokens: usize,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine's thread. The backend must hold `model`.
    ///
    /// # Errors
    /// When the model's front-end cannot be built or the thread cannot be started.
    pub fn new(model: &Model, backend: Box<dyn Backend>, options: EngineOptions) -> Result<Self, EngineError> {
        let info = backend.info();
        let encode_tokens = info.encode_tokens;
        let (inbox, model) = (Arc::new(Inbox::new(info)), Arc::new(ModelParts::new(model)?));
        let scheduler = Scheduler::new(backend, Arc::clone(&model), Arc::clone(&inbox), encode_tokens);
        let thread = std::thread::Builder::new().name("voxtral-engine".into()).spawn(move || scheduler.run());
        let thread = thread.map_err(|e| EngineError::Thread(Arc::new(e)))?;
        Ok(Self { inbox, model, options, encode_tokens, thread: Some(thread) })
    }

    /// What the backend runs on, and the memory that it has taken there.
    pub fn info(&self) -> BackendInfo {
        self.inbox.info()
    }

    /// The most device memory that the backend has held, bytes; 0 where the device is the host.
    pub fn peak_device_bytes(&self) -> u64 {
        self.inbox.peak_device_bytes()
    }

    /// What the engine is doing.
    pub fn counters(&self) -> Counters {
        self.inbox.meters.read()
    }

    /// Whether the engine has stopped, because its backend panicked: it takes no more sessions.
    pub fn has_stopped(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Opens a session. Where the device has no memory for another, its first event says so.
    ///
    /// # Errors
    /// When as many sessions run as are allowed, or the engine has stopped.
    pub fn session(&self, options: SessionOptions) -> Result<Session, EngineError> {
        let sessions = &self.inbox.meters.sessions;
        let admit = |running| (running < self.options.max_sessions).then_some(running + 1);
        sessions.fetch_update(Relaxed, Relaxed, admit).map_err(|running| EngineError::Full { running })?;

        let delay = options.delay.unwrap_or(self.model.tokenizer.default_delay());
        let schedule = self.schedule(delay);
        let (front, frames) = self.model.begin(schedule, options.endpoint);
        let (_, hop) = front.frame();
        let queued = QUEUED_AUDIO.as_secs() as usize * self.model.sample_rate;
        let frame_queue = queued.max(2 * self.encode_tokens * self.model.samples_per_token) / hop;
        let (bell, meters) = (Arc::clone(&self.inbox.bell), Arc::clone(&self.inbox.meters));
        let port = Arc::new(Port::new(front, frames, frame_queue, bell, meters));

        let span = self.span(options.live, options.interval);
        let expected = self.expected(schedule, options.samples);
        let seat = Seat { port: Arc::clone(&port) };
        self.inbox.add(Request::Session(Opening { seat, options, schedule, span, expected }))?;
        Ok(Session::new(port))
    }

    /// Computes what sessions of these delays begin with, so that their first need not wait for it. Running sessions go on meanwhile.
    /// It stays as long as the engine, and takes as much device memory for each delay as a session that has just begun.
    ///
    /// # Errors
    /// When the backend fails, or the engine has stopped.
    pub fn prewarm(&self, delays: &[Delay]) -> Result<(), EngineError> {
        let (done, outcomes) = channel();
        for &delay in delays {
            self.inbox.add(Request::Prewarm(self.schedule(delay), done.clone()))?;
        }
        drop(done);
        delays.iter().try_for_each(|_| outcomes.recv().unwrap_or(Err(EngineError::Stopped)))
    }

    /// How many live sessions of this delay, each as long as [`EngineOptions::expected`], the device has memory for, those that run included;
    /// `None` where the device is the host. Memory that others take or free there meanwhile changes that.
    ///
    /// # Errors
    /// When the backend fails, or the engine has stopped.
    pub fn capacity(&self, delay: Delay) -> Result<Option<usize>, EngineError> {
        let (told, capacity) = channel();
        let (span, expected) = (self.span(true, 1), self.expected(self.schedule(delay), None));
        self.inbox.add(Request::Capacity { span, expected, told })?;
        capacity.recv().unwrap_or(Err(EngineError::Stopped))
    }

    /// Most tokens of an encode span.
    fn span(&self, live: bool, interval: usize) -> usize {
        if live { LIVE_SPAN.max(interval) } else { usize::MAX }.min(self.encode_tokens)
    }

    /// Tokens that a session comes to of so many samples, or else as long as is expected.
    fn expected(&self, schedule: Schedule, samples: Option<u64>) -> usize {
        let expected = self.options.expected.as_secs_f64() * self.model.sample_rate as f64;
        schedule.tokens(samples.unwrap_or(expected as u64))
    }

    fn schedule(&self, delay: Delay) -> Schedule {
        let left_pad = self.model.tokenizer.left_pad_tokens();
        Schedule { left_pad, delay, samples_per_token: self.model.samples_per_token }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has reached the sessions as an error.
            let _ = thread.join();
        }
    }
}
