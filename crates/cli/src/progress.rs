//! A line of progress, for somebody who watches.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;

use voxtral_model::ModelError;

use crate::interrupt;

/// Tells how much of something is written, and is told whether to go on.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(u64, u64) -> io::Result<()>;

/// Writes a model with a line of progress. Ctrl-C takes the unfinished files away; a second one does not wait for that.
pub(crate) fn writing<T>(
    what: &'static str,
    write: impl FnOnce(Tell<'_>) -> Result<T, ModelError>,
) -> anyhow::Result<T> {
    let mut progress = Progress::new(what, true);
    let interrupted = interrupt::noted()?;
    let written = write(&mut |done, total| {
        progress.show(done, total);
        if interrupted.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    drop(progress);
    if written.is_err() && interrupted.load(Ordering::Relaxed) {
        interrupt::end();
    }
    Ok(written?)
}

/// Shows how much of something is done, where standard error is a terminal. The line vanishes in the end.
pub(crate) struct Progress {
    what: &'static str,
    watched: bool,
    percent: Option<u64>,
}

impl Progress {
    pub(crate) fn new(what: &'static str, wanted: bool) -> Self {
        Self { what, watched: wanted && io::stderr().is_terminal(), percent: None }
    }

    /// `done` of `total` bytes.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let percent = done * 100 / total.max(1);
        if self.watched && self.percent != Some(percent) {
            self.percent = Some(percent);
            // Nothing is lost with a line of progress.
            let _ = write!(io::stderr(), "\r{} {percent} % of {} MB", self.what, total / 1_000_000);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.percent.is_some() {
            let _ = write!(io::stderr(), "\r{:50}\r", "");
        }
    }
}
