//! Progress, for somebody who watches: a line at the bottom of the terminal that vanishes in the end.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use voxtral::Sink;
use voxtral_model::ModelError;

use crate::{interrupt, screen};

/// How often a line is drawn anew, though nothing has happened.
const TICK: Duration = Duration::from_millis(500);

/// The line that is there now. What else goes to standard error is written above it.
static LINE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Standard error, above a line of progress or of status.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if screen::lines(&String::from_utf8_lossy(bytes)) {
            return Ok(bytes.len());
        }
        match &*LINE.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(line) => line.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of progress, if it is wanted and standard error is a terminal; it takes it away when it is dropped.
struct Line(ProgressBar);

impl Line {
    fn new(wanted: bool, length: u64, template: &str) -> Self {
        if !wanted || !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(length).with_style(style.progress_chars("━╸ "));
        bar.enable_steady_tick(TICK);
        *LINE.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self(bar)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.0.is_hidden() {
            *LINE.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.0.finish_and_clear();
        }
    }
}

/// How many bytes of something are done.
pub(crate) struct Progress {
    what: &'static str,
    wanted: bool,
    /// From the first that is done.
    line: Option<Line>,
}

impl Progress {
    pub(crate) fn new(what: &'static str, wanted: bool) -> Self {
        Self { what, wanted, line: None }
    }

    /// `done` of `total` bytes.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let template = || format!("{} {{percent}} % of {{decimal_total_bytes}}", self.what);
        let line = self.line.get_or_insert_with(|| Line::new(self.wanted, total, &template()));
        line.0.set_position(done);
    }
}

/// How much of a file has come, how fast, and the time that is left.
pub(crate) struct Transfer(Line);

impl Transfer {
    /// Of `size` bytes, of which so many are there.
    pub(crate) fn new(name: &str, size: u64, have: u64) -> Self {
        let template = "{msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
        let line = Line::new(true, size, template);
        line.0.set_message(name.to_owned());
        line.0.set_position(have);
        line.0.reset_eta();
        Self(line)
    }

    pub(crate) fn show(&self, have: u64) {
        self.0.0.set_position(have);
    }

    /// All of it has come.
    pub(crate) fn checking(&self) {
        self.0.0.set_message("checking");
    }
}

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

/// How far recordings have been transcribed: files, seconds of audio, speed, and the time that is left, by the bytes of the files.
pub(crate) struct Recordings {
    line: Line,
    begun: Instant,
    files: usize,
    done: AtomicUsize,
    audio_ms: AtomicU64,
}

impl Recordings {
    /// `bytes` of so many files.
    pub(crate) fn new(wanted: bool, files: usize, bytes: u64) -> Self {
        let line = Line::new(wanted, bytes, "{wide_bar} {msg}{eta} left");
        Self { line, begun: Instant::now(), files, done: AtomicUsize::new(0), audio_ms: AtomicU64::new(0) }
    }

    /// Follows one of them, which has so many bytes. When that is dropped, the file is done.
    pub(crate) fn follow(&self, bytes: u64) -> Recording<'_> {
        Recording { all: self, bytes, shown: 0, heard_ms: 0 }
    }

    fn show(&self) {
        if self.line.0.is_hidden() {
            return;
        }
        let audio_s = self.audio_ms.load(Ordering::Relaxed) as f64 / 1e3;
        let (done, files) = (self.done.load(Ordering::Relaxed), self.files);
        let names = if files == 1 { String::new() } else { format!("{done} of {files} files, ") };
        let (minutes, seconds) = (audio_s as u64 / 60, audio_s as u64 % 60);
        let speed = audio_s / self.begun.elapsed().as_secs_f64();
        self.line.0.set_message(format!("{names}{minutes}:{seconds:02} of audio, {speed:.1}× real time, "));
    }
}

/// One of several recordings.
pub(crate) struct Recording<'a> {
    all: &'a Recordings,
    bytes: u64,
    /// How many of them the line shows as done.
    shown: u64,
    heard_ms: u64,
}

impl Sink for Recording<'_> {
    fn progress(&mut self, done_s: f64, total_s: Option<f64>) -> io::Result<()> {
        let heard_ms = (done_s * 1e3) as u64;
        self.all.audio_ms.fetch_add(heard_ms - self.heard_ms, Ordering::Relaxed);
        self.heard_ms = heard_ms;
        let done = (done_s / total_s.unwrap_or(f64::INFINITY) * self.bytes as f64) as u64;
        self.all.line.0.inc(done.saturating_sub(self.shown));
        self.shown = done.max(self.shown);
        self.all.show();
        Ok(())
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.all.line.0.inc(self.bytes.saturating_sub(self.shown));
        self.all.done.fetch_add(1, Ordering::Relaxed);
        self.all.show();
    }
}
