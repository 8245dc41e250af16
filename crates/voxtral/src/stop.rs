//! Ending audio from elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ends the audio of transcriptions, as Ctrl-C does, also of those whose source waits for more. What was heard is transcribed to its
/// end, and that is a result like any other.
///
/// Clones are the same handle; any number of transcriptions may have it in their [`Options`](crate::Options). Those that begin after a
/// stop hear nothing.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    stopped: bool,
    /// What ends the audio of each session that hears some, by the order in which they began.
    sessions: BTreeMap<u64, Box<dyn Fn() + Send>>,
    begun: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

impl Stop {
    /// A handle that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the audio of all transcriptions that have this, and of those to come. Returns how many are hearing some.
    pub fn stop(&self) -> usize {
        let mut state = self.lock();
        state.stopped = true;
        state.sessions.values().for_each(|end| end());
        state.sessions.len()
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stop ends the audio of a session, also one that came already, as long as what is returned lives.
    pub(crate) fn covers(&self, end: impl Fn() + Send + 'static) -> Covered<'_> {
        let mut state = self.lock();
        if state.stopped {
            end();
        }
        state.begun += 1;
        let number = state.begun;
        state.sessions.insert(number, Box::new(end));
        Covered { stop: self, number }
    }
}

/// A session that a stop ends.
pub(crate) struct Covered<'a> {
    stop: &'a Stop,
    number: u64,
}

impl Drop for Covered<'_> {
    fn drop(&mut self) {
        self.stop.lock().sessions.remove(&self.number);
    }
}
