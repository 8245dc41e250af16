//! Waiting as people expect it of Python: without holding the interpreter, and until Ctrl-C at most.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

use crate::errors::{VoxtralError, closed};

/// Who waits looks for Ctrl-C so often.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);

/// Ends transcriptions from elsewhere; those that begin later end at once.
#[pyclass(frozen, module = "voxtral_rs._voxtral")]
#[derive(Default)]
pub(crate) struct Stop(pub(crate) voxtral::Stop);

#[pymethods]
impl Stop {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

/// Does `work` on a thread of its own, and waits for it. Where Ctrl-C or `stop` ends the wait, the work is stopped but not waited for.
pub(crate) fn aside<T: Send + 'static>(
    py: Python<'_>,
    stop: &voxtral::Stop,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (done, mut result) = mpsc::sync_channel(1);
    // Where nobody waits any more, the result is dropped.
    let work = move || drop(done.send(work()));
    thread::Builder::new()
        .name("voxtral-python".into())
        .spawn(work)
        .map_err(|error| VoxtralError::new_err(format!("cannot start a thread: {error}")))?;
    loop {
        let result = &mut result;
        match py.detach(move || result.recv_timeout(GLANCE)) {
            Ok(result) => return Ok(result),
            // It panicked, and has said so on standard error.
            Err(RecvTimeoutError::Disconnected) => return Err(VoxtralError::new_err("transcribing broke off")),
            Err(RecvTimeoutError::Timeout) if stop.is_stopped() => return Err(closed("model")),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| {
                py.detach(|| stop.stop());
            })?,
        }
    }
}
