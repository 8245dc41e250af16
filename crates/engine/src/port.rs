//! What lies between a session's owner and the engine: frames one way, events the other, both in bounded queues.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use voxtral_transcript::Event;

use crate::EngineError;
use crate::counters::Meters;
use crate::front_end::{FrontEnd, Mark};

/// Events that wait for their reader, beyond which the session pauses: a minute's tokens.
const EVENT_QUEUE: usize = 1024;

/// Samples that go through the front-end at once, so that the engine hears of them soon.
const PIECE: usize = 16_000;

pub(crate) type EventQueue = VecDeque<Result<Event, EngineError>>;

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

/// How long a caller waits where there is nothing for it yet.
pub(crate) enum Wait<'a, 'b> {
    Forever,
    Until(Instant),
    /// Not at all, but its waker is kept.
    Poll(&'a mut Context<'b>),
}

/// The queues of one session. Locks are taken in the order front-end, state.
pub(crate) struct Port {
    front: Mutex<FrontEnd>,
    /// Log-mel values of a frame, and samples of one.
    mel_bins: usize,
    hop: usize,
    /// Frames that may wait for the engine.
    frame_queue: usize,
    state: Mutex<State>,
    changed: Condvar,
    bell: Arc<Bell>,
    meters: Arc<Meters>,
}

struct State {
    /// Not taken by the engine yet, `[frames, mel_bins]`.
    frames: Vec<f32>,
    flushes: VecDeque<Mark>,
    pauses: Vec<Mark>,
    end: Option<Mark>,
    events: EventQueue,
    /// The last event is in the queue or was read, or nobody will read.
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What the engine takes from a port.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) flushes: VecDeque<Mark>,
    pub(crate) pauses: Vec<Mark>,
    pub(crate) end: Option<Mark>,
}

impl Port {
    /// A port whose queue of frames is `frames` at first and holds `frame_queue` of them before it is full.
    pub(crate) fn new(
        front: FrontEnd,
        frames: Vec<f32>,
        frame_queue: usize,
        bell: Arc<Bell>,
        meters: Arc<Meters>,
    ) -> Self {
        let (mel_bins, hop) = front.frame();
        meters.queued_frames.fetch_add((frames.len() / mel_bins) as u64, Relaxed);
        let state = State {
            frames,
            flushes: VecDeque::new(),
            pauses: Vec::new(),
            end: None,
            events: EventQueue::new(),
            ended: false,
            reader: None,
            writer: None,
        };
        let (front, state) = (Mutex::new(front), Mutex::new(state));
        Self { front, mel_bins, hop, frame_queue, state, changed: Condvar::new(), bell, meters }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait for events, for room, or for either that there is something for them.
    fn notify(&self, mut state: MutexGuard<'_, State>, events: bool, room: bool) {
        let reader = if events { state.reader.take() } else { None };
        let writer = if room { state.writer.take() } else { None };
        drop(state);
        self.changed.notify_all();
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }

    /// For the owner: puts samples through the front-end as far as there is room for their frames, and waits for room for the first.
    /// Where the one who waits is also the one who reads, events go into `early` meanwhile: the engine may be waiting for this very
    /// reader. Returns the number of samples taken, 0 when there was no room in the time given.
    pub(crate) fn push(
        &self,
        samples: &[f32],
        mut early: Option<&mut EventQueue>,
        mut wait: Wait<'_, '_>,
    ) -> Result<usize, EngineError> {
        let mut state = self.lock();
        let room = loop {
            if state.ended || state.end.is_some() {
                return Err(EngineError::Ended);
            }
            let room = self.frame_queue.saturating_sub(state.frames.len() / self.mel_bins);
            if room > 0 || samples.is_empty() {
                break room;
            }
            if let Some(early) = early.as_mut().filter(|_| !state.events.is_empty()) {
                early.append(&mut state.events);
                self.bell.ring();
            }
            state = match self.wait(state, &mut wait, |state| &mut state.writer) {
                Some(state) => state,
                None => return Ok(0),
            };
        };
        drop(state);
        let now = samples.len().min(room * self.hop).min(PIECE);
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frames = Vec::new();
        let pauses = front.push(&samples[..now], &mut frames);
        self.queue(frames, |state| state.pauses.extend(pauses)).map(|()| now)
    }

    /// For the owner: all that was said so far is to come out. The audio may go on.
    pub(crate) fn flush(&self) -> Result<(), EngineError> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frames = Vec::new();
        let mark = front.flush(&mut frames);
        self.queue(frames, |state| state.flushes.push_back(mark))
    }

    /// No more audio will come.
    pub(crate) fn finish(&self) {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_over() {
            return;
        }
        let mut frames = Vec::new();
        let mark = front.finish(&mut frames);
        // Where the session has ended meanwhile, nothing is lost.
        let _ = self.queue(frames, |state| state.end = Some(mark));
    }

    fn is_over(&self) -> bool {
        let state = self.lock();
        state.ended || state.end.is_some()
    }

    /// Appends frames; `and` what goes with them. The caller holds the front-end, so that frames keep their order.
    fn queue(&self, mut frames: Vec<f32>, and: impl FnOnce(&mut State)) -> Result<(), EngineError> {
        let mut state = self.lock();
        if state.ended || state.end.is_some() {
            return Err(EngineError::Ended);
        }
        self.meters.queued_frames.fetch_add((frames.len() / self.mel_bins) as u64, Relaxed);
        state.frames.append(&mut frames);
        and(&mut state);
        if state.end.is_some() {
            self.notify(state, false, true);
        }
        self.bell.ring();
        Ok(())
    }

    /// Waits for a change. `None` when the time is over.
    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        wait: &mut Wait<'_, '_>,
        waker: impl FnOnce(&mut State) -> &mut Option<Waker>,
    ) -> Option<MutexGuard<'a, State>> {
        match wait {
            Wait::Forever => Some(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)),
            Wait::Until(deadline) => {
                let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                Some(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
            }
            Wait::Poll(context) => {
                *waker(&mut state) = Some(context.waker().clone());
                None
            }
        }
    }

    /// For the reader: the next event.
    pub(crate) fn next_event(&self, mut wait: Wait<'_, '_>) -> Poll<Result<Event, EngineError>> {
        let mut state = self.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                if state.events.len() + 1 == EVENT_QUEUE {
                    self.bell.ring();
                }
                return Poll::Ready(event);
            }
            state = match self.wait(state, &mut wait, |state| &mut state.reader) {
                Some(state) => state,
                None => return Poll::Pending,
            };
        }
    }

    /// Nobody will read any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        self.stop(&mut state);
        self.notify(state, false, true);
        self.bell.ring();
    }

    /// No frame will be encoded and no event added after this, and the session no longer counts.
    fn stop(&self, state: &mut State) {
        if std::mem::replace(&mut state.ended, true) {
            return;
        }
        self.meters.sessions.fetch_sub(1, Relaxed);
        let frames = std::mem::take(&mut state.frames).len() / self.mel_bins;
        self.meters.queued_frames.fetch_sub(frames as u64, Relaxed);
    }

    /// For the engine: moves queued frames to `into`, and tells where new flushes and pauses are and, if it is known, where the end is.
    pub(crate) fn take(&self, into: &mut Vec<f32>) -> Heard {
        let mut state = self.lock();
        let (flushes, pauses) = (std::mem::take(&mut state.flushes), std::mem::take(&mut state.pauses));
        let heard = Heard { flushes, pauses, end: state.end };
        if !state.frames.is_empty() {
            self.meters.queued_frames.fetch_sub((state.frames.len() / self.mel_bins) as u64, Relaxed);
            into.append(&mut state.frames);
            self.notify(state, false, true);
        }
        heard
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
        let mut state = self.lock();
        state.events.extend(events.into_iter().map(Ok));
        self.notify(state, true, false);
    }

    /// For the engine: hands out the last event.
    pub(crate) fn end(&self, last: Result<Event, EngineError>) {
        let mut state = self.lock();
        if !state.ended {
            self.stop(&mut state);
            state.events.push_back(last);
        }
        self.notify(state, true, true);
    }
}

/// The engine's hold of a session. Whatever becomes of it, the owner gets a last event when it is dropped.
pub(crate) struct Seat {
    pub(crate) port: Arc<Port>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.port.end(Err(EngineError::Stopped));
    }
}
