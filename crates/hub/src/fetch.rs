//! The bytes of a file, in parts that come at the same time.

use std::io::{self, Read};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Client, Part, Remote};
use crate::partial::{Chunk, Partial};
use crate::{Error, Event, Repo};

/// Connections at a time. One seldom gets all that a line can carry, and more than these do not carry more.
const CONNECTIONS: usize = 8;
/// Bytes that are written at a time, and the most that are lost of each chunk when the program is killed.
const BUFFER: usize = 256 << 10;
/// How often somebody who watches is told, and how soon a thread that waits sees that another has failed.
const TICK: Duration = Duration::from_millis(100);

/// How often something is tried, and how long is waited in between.
pub(crate) struct Patience {
    tries: u32,
    wait: Duration,
}

/// What is to be waited for.
pub(crate) struct Wait {
    why: String,
    pub wait: Duration,
}

impl Patience {
    pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(500);
    const TRIES: u32 = 5;
    /// Longer than a server may ask for; the Hub counts requests in windows of five minutes.
    const MOST: Duration = Duration::from_secs(360);

    pub(crate) fn new(first_wait: Duration) -> Self {
        Self { tries: 1, wait: first_wait }
    }

    /// How long to wait after an error; the error, where that makes no sense.
    pub(crate) fn after(&mut self, error: Error) -> Result<Wait, Error> {
        let asked = if let Error::Busy { wait, .. } = error { wait } else { None };
        if !error.may_pass() || self.tries == Self::TRIES || asked.is_some_and(|asked| asked > Self::MOST) {
            return Err(error);
        }
        self.tries += 1;
        let own = self.wait;
        self.wait *= 2;
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Ok(Wait { why: format!("{error}{cause}"), wait: asked.unwrap_or(own) })
    }
}

impl Wait {
    pub(crate) fn event(&self) -> Event {
        Event::Waiting { why: self.why.clone(), wait: self.wait }
    }
}

/// Fills `partial`, of which the file is at `path`.
pub(crate) fn fetch(
    client: &Client,
    repo: &Repo,
    file: &Remote,
    path: &Path,
    partial: &mut Partial,
    first_wait: Duration,
    tell: &mut dyn FnMut(Event),
) -> Result<(), Error> {
    let have = AtomicU64::new(partial.have());
    let (stop, no_parts) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut work = Work { client, repo, file, path, first_wait, in_parts: true, have, stop, no_parts };
    work.fill(partial, tell)?;
    if work.no_parts.load(Ordering::Relaxed) {
        partial.make_whole().map_err(Error::io(path))?;
        work = Work { in_parts: false, have: AtomicU64::new(0), stop: AtomicBool::new(false), ..work };
        work.fill(partial, tell)?;
    }
    Ok(())
}

struct Work<'a> {
    client: &'a Client,
    repo: &'a Repo,
    file: &'a Remote,
    path: &'a Path,
    first_wait: Duration,
    /// Whether the server gives parts; otherwise each try starts at the beginning.
    in_parts: bool,
    /// Bytes that are there.
    have: AtomicU64,
    /// Set by a thread that cannot go on, for all.
    stop: AtomicBool,
    /// Why they stop, if that is no error: the server gives whole files only.
    no_parts: AtomicBool,
}

impl Work<'_> {
    fn fill(&self, partial: &Partial, tell: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let missing = partial.missing();
        let threads = missing.len().min(CONNECTIONS);
        let queue = Mutex::new(missing.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let (events, told) = mpsc::channel();
        thread::scope(|scope| {
            let next = &next;
            let mut running = Vec::new();
            for _ in 0..threads {
                let events = events.clone();
                let run = move || {
                    while let Some(chunk) = next().filter(|_| !self.stopped()) {
                        self.get(chunk, &events).inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?;
                    }
                    Ok(())
                };
                match thread::Builder::new().spawn_scoped(scope, run) {
                    Ok(thread) => running.push(thread),
                    Err(e) if running.is_empty() => return Err(Error::Threads(e)),
                    Err(_) => break, // fewer do as well
                }
            }
            drop(events);
            self.follow(&told, tell);
            running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// Tells of what happens until all threads have ended.
    fn follow(&self, told: &Receiver<Event>, tell: &mut dyn FnMut(Event)) {
        let mut last = self.have.load(Ordering::Relaxed);
        loop {
            let event = told.recv_timeout(TICK);
            let now = self.have.load(Ordering::Relaxed);
            if now != last {
                tell(Event::Have(now));
                last = now;
            }
            match event {
                Ok(event) => tell(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Fills one chunk, unless all stop. As long as bytes come it is tried again and again.
    fn get(&self, mut chunk: Chunk, events: &Sender<Event>) -> Result<(), Error> {
        let mut patience = Patience::new(self.first_wait);
        loop {
            let before = chunk.range();
            let Err(error) = self.read(&mut chunk) else { return Ok(()) };
            if !self.in_parts {
                self.have.store(0, Ordering::Relaxed);
                chunk.restart();
            } else if chunk.range() != before {
                patience = Patience::new(self.first_wait);
            }
            let wait = patience.after(error)?;
            // Nobody listens when the download has failed already.
            let _ = events.send(wait.event());
            let until = Instant::now() + wait.wait;
            while Instant::now() < until {
                if self.stopped() {
                    return Ok(());
                }
                thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// As much of a chunk as comes over one connection; without an error it is all, or all stop.
    fn read(&self, chunk: &mut Chunk) -> Result<(), Error> {
        let mut body = match self.client.part(self.repo, self.file, chunk.range())? {
            Part::Bytes(body) => body,
            Part::WholeOnly => {
                self.no_parts.store(true, Ordering::Relaxed);
                self.stop.store(true, Ordering::Relaxed);
                return Ok(());
            }
        };
        let mut file = chunk.open().map_err(Error::io(self.path))?;
        let mut buffer = vec![0; BUFFER];
        while !chunk.range().is_empty() && !self.stopped() {
            let missing = chunk.range().end - chunk.range().start;
            let room = usize::try_from(missing).map_or(BUFFER, |missing| missing.min(BUFFER));
            // Whatever ends a body early, what has come stays and the rest is asked for again.
            let read = match body.read(&mut buffer[..room]) {
                Ok(0) => return Err(self.broke_off(None)),
                Ok(read) => read,
                Err(e) => return Err(self.broke_off(Some(e))),
            };
            chunk.append(&mut file, &buffer[..read]).map_err(Error::io(self.path))?;
            self.have.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn broke_off(&self, source: Option<io::Error>) -> Error {
        let done = self.have.load(Ordering::Relaxed);
        Error::BrokeOff { name: self.file.name.clone(), done, size: self.file.size, source }
    }
}
