//! How many transcriptions there may be at a time, and when no more are taken.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::ApiError;

/// All slots of a server.
pub(crate) struct Slots {
    capacity: usize,
    state: Arc<watch::Sender<State>>,
}

/// What the slots are used for.
#[derive(Clone, Copy, Default)]
pub(crate) struct State {
    /// Slots that are taken.
    pub(crate) taken: usize,
    /// Slots that were taken so far.
    pub(crate) given: u64,
    /// Requests for a slot that were refused, for want of one.
    pub(crate) refused_full: u64,
    /// Those that were refused because the server is about to end.
    pub(crate) refused_draining: u64,
    phase: Phase,
}

/// How far the server's life has come.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Open,
    /// No more slots are given.
    Draining,
    /// Those that are taken must be given back.
    Closing,
}

/// Room for one transcription, as long as it is held.
pub(crate) struct Slot {
    state: Arc<watch::Sender<State>>,
}

impl Slots {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, state: Arc::new(watch::Sender::default()) }
    }

    /// Takes a slot, if there is one.
    pub(crate) fn take(&self) -> Result<Slot, ApiError> {
        let mut outcome = Ok(());
        self.state.send_modify(|state| {
            outcome = self.refusal(state);
            match outcome {
                Ok(()) => (state.taken, state.given) = (state.taken + 1, state.given + 1),
                Err(_) if state.phase == Phase::Open => state.refused_full += 1,
                Err(_) => state.refused_draining += 1,
            }
        });
        outcome.map(|()| Slot { state: Arc::clone(&self.state) })
    }

    /// Why a slot would not be given now.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        self.refusal(&self.state.borrow())
    }

    fn refusal(&self, state: &State) -> Result<(), ApiError> {
        match state.phase {
            Phase::Open if state.taken < self.capacity => Ok(()),
            Phase::Open => Err(ApiError::full()),
            Phase::Draining | Phase::Closing => Err(ApiError::draining()),
        }
    }

    /// Gives no more slots.
    pub(crate) fn drain(&self) {
        self.reach(Phase::Draining);
    }

    /// Wants all slots back now.
    pub(crate) fn close(&self) {
        self.reach(Phase::Closing);
    }

    fn reach(&self, phase: Phase) {
        self.state.send_modify(|state| state.phase = state.phase.max(phase));
    }

    /// Waits until no more slots are given: who holds one ends when what has begun is done.
    pub(crate) async fn draining(&self) {
        self.reached(|state| state.phase >= Phase::Draining).await;
    }

    /// Waits until slots must be given back, though what has begun is not done.
    pub(crate) async fn closing(&self) {
        self.reached(|state| state.phase == Phase::Closing).await;
    }

    /// Whether slots must be given back, as [`closing`](Self::closing) says.
    pub(crate) fn is_closing(&self) -> bool {
        self.state.borrow().phase == Phase::Closing
    }

    /// Waits until no slot is taken.
    pub(crate) async fn all_free(&self) {
        self.reached(|state| state.taken == 0).await;
    }

    async fn reached(&self, what: impl FnMut(&State) -> bool) {
        // The sender lives as long as this.
        let _ = self.state.subscribe().wait_for(what).await;
    }

    /// What the slots are used for, as of now.
    pub(crate) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Slots that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.state.borrow().taken
    }

    /// All slots.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.taken -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_it_is_dropped() {
        let slots = Slots::new(1);
        let held = slots.take().unwrap();
        assert_eq!(slots.take().err(), Some(ApiError::full()));
        drop(held);
        assert!(slots.take().is_ok());
    }

    #[test]
    fn none_is_given_while_draining() {
        let slots = Slots::new(1);
        slots.drain();
        assert_eq!(slots.take().err(), Some(ApiError::draining()));
    }

    #[test]
    fn what_was_given_and_refused_is_counted() {
        let slots = Slots::new(1);
        let held = slots.take().unwrap();
        assert!(slots.take().is_err() && slots.take().is_err());
        drop(held);
        slots.close();
        assert!(slots.take().is_err());
        let state = slots.state();
        assert_eq!((state.given, state.refused_full, state.refused_draining), (1, 2, 1));
    }
}
