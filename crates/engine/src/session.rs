//! A session as its owner sees it, and the queues between it and the engine.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use voxtral_model::Delay;
use voxtral_transcript::Event;

use crate::{Decoding, EngineError};

/// Samples that wait for the engine: ten seconds, more than a live source falls behind by accident.
const AUDIO_QUEUE: usize = 160_000;
/// Events that wait for their reader, beyond which the session pauses: a minute's tokens.
const EVENT_QUEUE: usize = 1024;

/// How to transcribe.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// How long after a word it is written; the model's own default if none.
    pub delay: Option<Delay>,
    /// How tokens are found.
    pub decoding: Decoding,
    /// End the session at the model's end-of-sequence token, instead of where the audio ends.
    pub stop_at_eos: bool,
    /// Whether the audio comes as it is spoken. Live sessions go before others: recordings take what time they leave.
    pub live: bool,
    /// Tokens of audio (80 ms each) that the encoder waits for: 1 for the least latency, many for the least work; more than one call of
    /// the backend takes counts as that many. The result is the same.
    pub interval: usize,
    /// How many samples there will be, if that is known, else [`EngineOptions::expected`](crate::EngineOptions::expected): memory for
    /// so many is promised. If there are more after all, the session goes on as long as there is memory.
    pub samples: Option<u64>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { delay: None, decoding: Decoding::Auto, stop_at_eos: false, live: true, interval: 1, samples: None }
    }
}

/// One stream of audio and what comes of it.
///
/// Dropping it ends the session where it is and frees its memory.
pub struct Session {
    input: AudioIn,
    output: Events,
}

impl Session {
    pub(crate) fn new(port: Arc<Port>) -> Self {
        let input = AudioIn { port: Arc::clone(&port) };
        Self { input, output: Events { port, early: VecDeque::new(), over: false } }
    }

    /// Adds audio: 16 kHz mono, in pieces of any size. Waits while ten seconds are queued already.
    ///
    /// # Errors
    /// When the session has ended; its last event says why.
    pub fn push_samples(&mut self, samples: &[f32]) -> Result<(), EngineError> {
        self.input.port.push(samples, Some(&mut self.output.early))
    }

    /// Ends the audio. What was heard is transcribed to its end.
    pub fn finish(&mut self) {
        self.input.port.finish();
    }

    /// Waits for the next event; `None` when there are no more. The last one is [`Event::Done`] or an error.
    pub fn next_event(&mut self) -> Option<Result<Event, EngineError>> {
        self.output.next()
    }

    /// Parts the session, for a thread that pushes and one that reads. Both halves must be in use: a session whose events nobody
    /// reads pauses.
    pub fn split(self) -> (AudioIn, Events) {
        (self.input, self.output)
    }
}

/// The half of a session that takes audio. Dropping it ends the audio, as [`AudioIn::finish`] does.
pub struct AudioIn {
    port: Arc<Port>,
}

impl AudioIn {
    /// Adds audio: 16 kHz mono, in pieces of any size. Waits while ten seconds are queued already.
    ///
    /// # Errors
    /// When the session has ended, or its reader is gone.
    pub fn push_samples(&self, samples: &[f32]) -> Result<(), EngineError> {
        self.port.push(samples, None)
    }

    /// Ends the audio.
    pub fn finish(self) {}

    /// A handle that ends the audio from elsewhere, as an interrupt does while this half waits for more.
    pub fn stopper(&self) -> Stopper {
        Stopper { port: Arc::clone(&self.port) }
    }
}

impl Drop for AudioIn {
    fn drop(&mut self) {
        self.port.finish();
    }
}

/// Ends a session's audio from anywhere. What was pushed is transcribed; pushing more fails with [`EngineError::Ended`].
pub struct Stopper {
    port: Arc<Port>,
}

impl Stopper {
    /// Ends the audio.
    pub fn stop(&self) {
        self.port.finish();
    }
}

/// The half of a session that gives events. Dropping it ends the session.
pub struct Events {
    port: Arc<Port>,
    /// Events that came while a push was waiting.
    early: EventQueue,
    over: bool,
}

impl Iterator for Events {
    type Item = Result<Event, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let event = self.early.pop_front().unwrap_or_else(|| self.port.next_event());
        self.over = matches!(event, Ok(Event::Done(_)) | Err(_));
        Some(event)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.port.lock().ended = true;
        self.port.changed.notify_all();
        self.port.bell.ring();
    }
}

/// Wakes the engine.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }

    /// Waits for a ring, also one that came since the last wait.
    pub(crate) fn wait(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = self.wake.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
        *rung = false;
    }
}

/// The queues of one session, shared by its owner and the engine. Both are bounded.
pub(crate) struct Port {
    state: Mutex<PortState>,
    changed: Condvar,
    bell: Arc<Bell>,
}

type EventQueue = VecDeque<Result<Event, EngineError>>;

#[derive(Default)]
struct PortState {
    audio: Vec<f32>,
    finished: bool,
    events: EventQueue,
    /// The last event is in the queue or was read, or nobody will read.
    ended: bool,
}

impl Port {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), bell }
    }

    fn lock(&self) -> MutexGuard<'_, PortState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, PortState>) -> MutexGuard<'a, PortState> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// For the owner: queues samples, waiting while there is no room. Where the one who waits is also the one who reads, events go into
    /// `early` meanwhile: the engine may be waiting for this very reader.
    fn push(&self, mut samples: &[f32], mut early: Option<&mut EventQueue>) -> Result<(), EngineError> {
        while !samples.is_empty() {
            let mut state = self.lock();
            if state.ended || state.finished {
                return Err(EngineError::Ended);
            }
            let (now, later) = samples.split_at(samples.len().min(AUDIO_QUEUE - state.audio.len()));
            state.audio.extend_from_slice(now);
            samples = later;
            match &mut early {
                _ if !now.is_empty() => self.bell.ring(),
                Some(early) if !state.events.is_empty() => {
                    early.append(&mut state.events);
                    self.bell.ring();
                }
                _ => drop(self.wait(state)),
            }
        }
        Ok(())
    }

    /// No more audio will come.
    fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
        self.bell.ring();
    }

    /// For the reader: waits for the next event.
    fn next_event(&self) -> Result<Event, EngineError> {
        let mut state = self.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                if state.events.len() + 1 == EVENT_QUEUE {
                    self.bell.ring();
                }
                return event;
            }
            state = self.wait(state);
        }
    }

    /// For the engine: moves queued samples to `into`. True when no more will come.
    pub(crate) fn take_audio(&self, into: &mut Vec<f32>) -> bool {
        let mut state = self.lock();
        if !state.audio.is_empty() {
            into.append(&mut state.audio);
            self.changed.notify_all();
        }
        state.finished
    }

    /// For the engine: whether the session goes on and its reader has not fallen behind.
    pub(crate) fn takes_events(&self) -> bool {
        let state = self.lock();
        !state.ended && state.events.len() < EVENT_QUEUE
    }

    /// For the engine: whether the last event was handed out, or nobody waits for it.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// For the engine: hands out events.
    pub(crate) fn send(&self, events: impl IntoIterator<Item = Event>) {
        self.lock().events.extend(events.into_iter().map(Ok));
        self.changed.notify_all();
    }

    /// For the engine: hands out the last event.
    pub(crate) fn end(&self, last: Result<Event, EngineError>) {
        let mut state = self.lock();
        if !state.ended {
            state.ended = true;
            state.events.push_back(last);
        }
        drop(state);
        self.changed.notify_all();
    }
}
