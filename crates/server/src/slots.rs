//! How many transcriptions there may be at a time, and when no more are taken.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::ApiError;

/// All slots of a server.
pub(crate) struct Slots {
    capacity: usize,
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Default)]
struct State {
    taken: usize,
    draining: bool,
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
        let mut refused = None;
        self.state.send_if_modified(|state| {
            refused = self.refusal(*state);
            state.taken += usize::from(refused.is_none());
            refused.is_none()
        });
        refused.map_or_else(|| Ok(Slot { state: Arc::clone(&self.state) }), Err)
    }

    /// Why a slot would not be given now.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        self.refusal(*self.state.borrow()).map_or(Ok(()), Err)
    }

    fn refusal(&self, state: State) -> Option<ApiError> {
        if state.draining { Some(ApiError::draining()) } else { (state.taken >= self.capacity).then(ApiError::full) }
    }

    /// Gives no more slots.
    pub(crate) fn drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Waits until no more slots are given.
    pub(crate) async fn draining(&self) {
        // The sender lives as long as this.
        let _ = self.state.subscribe().wait_for(|state| state.draining).await;
    }

    /// Waits until no slot is taken.
    pub(crate) async fn all_free(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.taken == 0).await;
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
}
