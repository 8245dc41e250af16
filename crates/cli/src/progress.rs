//! A line of progress, for somebody who watches.

use std::io::{self, IsTerminal, Write};

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
