//! What does not survive a fork.

use std::process;
use std::sync::Arc;

use pyo3::PyResult;

use crate::errors::VoxtralError;

/// Something that lives in threads, and so in one process only: the child of a fork has a copy without them, in which whoever waits
/// for one waits for ever.
pub(crate) struct OfProcess<T> {
    id: u32,
    value: Arc<T>,
}

impl<T> OfProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { id: process::id(), value: Arc::new(value) }
    }

    /// It, if this is its process.
    pub(crate) fn get(&self) -> PyResult<&Arc<T>> {
        let why = "this was opened in another process, and a fork has only a copy of it without its threads: start processes \
                   with the method \"spawn\" (multiprocessing.set_start_method), and open the model in each";
        if self.is_here() { Ok(&self.value) } else { Err(VoxtralError::new_err(why)) }
    }

    fn is_here(&self) -> bool {
        self.id == process::id()
    }
}

/// In a fork nothing is dropped: threads that it does not have may hold locks, and a GPU is the parent's.
impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(Arc::clone(&self.value));
        }
    }
}
