//! Live audio in, events out.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyTuple;
use voxtral::{AudioError, AudioIn, Channel, EngineError, Error, Event, Events, Session};
use voxtral_audio::{Mixer, Resampler};

use crate::audio::numbers;
use crate::errors::{VoxtralError, closed, exception};
use crate::process::OfProcess;
use crate::wait::GLANCE;

/// Seconds of audio of a token.
const TOKEN_S: f64 = 0.08;

/// A stream of a model. One thread may feed it while another takes its events.
#[pyclass(frozen, module = "voxtral_rs._voxtral")]
pub(crate) struct Stream {
    open: OfProcess<Open>,
}

/// A stream until it is closed. Whoever needs both locks takes `input` first.
struct Open {
    closed: AtomicBool,
    input: Mutex<Option<Input>>,
    output: Mutex<Option<Output>>,
    /// Readable when somebody who must not wait should ask again for an event.
    ready: UnixStream,
    bell: Arc<Bell>,
}

struct Input {
    audio: AudioIn,
    mixer: Mixer,
    resampler: Resampler,
    /// 16 kHz mono, not taken by the session yet.
    waiting: Vec<f32>,
}

struct Output {
    events: Events,
    /// What came while the audio waited for room: the one who feeds may be the one who reads.
    early: VecDeque<Result<Event, EngineError>>,
    tokens: u32,
    /// What has been said since the last pause, and since when.
    text: String,
    start_s: f64,
}

struct Bell(UnixStream);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Full is readable, too.
        let _ = (&self.0).write(&[0]);
    }
}

/// What Python is told.
enum Told {
    Partial { text: String, at_s: f64 },
    Word { text: String, start_s: f64, end_s: f64, logprob: f32 },
    Final { text: String, start_s: f64, end_s: f64 },
}

impl Told {
    fn tuple(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        match self {
            Self::Partial { text, at_s } => ("partial", text, at_s).into_pyobject(py),
            Self::Word { text, start_s, end_s, logprob } => ("word", text, start_s, end_s, logprob).into_pyobject(py),
            Self::Final { text, start_s, end_s } => ("final", text, start_s, end_s).into_pyobject(py),
        }
    }
}

impl Stream {
    pub(crate) fn new(py: Python<'_>, session: Session, sample_rate: u32) -> PyResult<Self> {
        let resampler = Resampler::new(sample_rate).map_err(|error| exception(py, &error.into(), None))?;
        let (audio, events) = session.split();
        let (ready, bell) = UnixStream::pair()?;
        ready.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let input = Input { audio, mixer: Mixer::new(Channel::Mix), resampler, waiting: Vec::new() };
        let output = Output { events, early: VecDeque::new(), tokens: 0, text: String::new(), start_s: 0.0 };
        let open = Open {
            closed: AtomicBool::new(false),
            input: Mutex::new(Some(input)),
            output: Mutex::new(Some(output)),
            ready,
            bell: Arc::new(Bell(bell)),
        };
        Ok(Self { open: OfProcess::new(open) })
    }
}

#[pymethods]
impl Stream {
    /// Takes interleaved samples. Waits while ten seconds of audio wait for the engine.
    fn feed(&self, py: Python<'_>, samples: PyBackedBytes, channels: usize) -> PyResult<()> {
        let open = self.open.get()?;
        let add = |input: &mut Input| {
            input.mixer.mix(&numbers(&samples), channels)?;
            input.resampler.push(input.mixer.mixed(), &mut input.waiting);
            Ok(())
        };
        py.detach(|| open.add(add)).map_err(|failure| failure.exception(py))?;
        open.push_all(py)
    }

    /// Ends the audio; what was fed is transcribed to its end.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let open = self.open.get()?;
        let add = |input: &mut Input| {
            input.resampler.finish(&mut input.waiting);
            Ok(())
        };
        match py.detach(|| open.add(add)) {
            Err(Failure::Finished) => return Ok(()),
            added => added.map_err(|failure| failure.exception(py))?,
        }
        open.push_all(py)?;
        py.detach(|| drop(lock(&open.input).take()));
        Ok(())
    }

    /// Waits for the next event; `None` when there are no more.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let open = self.open.get()?;
        loop {
            match py.detach(|| open.next(|events| events.next_timeout(GLANCE))) {
                Poll::Ready(told) => {
                    return told.map_err(|failure| failure.exception(py))?.map(|told| told.tuple(py)).transpose();
                }
                Poll::Pending => py.check_signals()?,
            }
        }
    }

    /// The next event without waiting, and whether there are no more. Where neither is so, `fileno` becomes readable when it is time to ask
    /// again.
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<(Option<Bound<'py, PyTuple>>, bool)> {
        let open = self.open.get()?;
        let polled = py.detach(|| {
            open.silence_bell();
            let waker = Waker::from(Arc::clone(&open.bell));
            open.next(|events| events.poll_next(&mut Context::from_waker(&waker)))
        });
        match polled {
            Poll::Ready(told) => match told.map_err(|failure| failure.exception(py))? {
                Some(told) => Ok((Some(told.tuple(py)?), false)),
                None => Ok((None, true)),
            },
            Poll::Pending => Ok((None, false)),
        }
    }

    fn fileno(&self) -> PyResult<i32> {
        Ok(self.open.get()?.ready.as_raw_fd())
    }

    /// What is worth a line about the audio so far, until it is finished.
    fn notices(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let open = self.open.get()?;
        let notices = py.detach(|| lock(&open.input).as_ref().map(|input| input.mixer.notices()));
        Ok(notices.unwrap_or_default().iter().map(ToString::to_string).collect())
    }

    /// Ends the session where it is, and frees its memory.
    fn close(&self, py: Python<'_>) {
        // A fork has nothing to close.
        if let Ok(open) = self.open.get() {
            py.detach(|| open.close());
        }
    }
}

/// Why a stream takes nothing, or gives nothing.
enum Failure {
    Closed,
    Finished,
    Voxtral(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Voxtral(error.into())
    }
}

impl Failure {
    fn exception(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Closed => closed("stream"),
            Self::Finished => VoxtralError::new_err("the stream is finished: it takes no more audio"),
            Self::Voxtral(error) => exception(py, error, None),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Open {
    /// Adds to what waits for the session.
    fn add(&self, add: impl FnOnce(&mut Input) -> Result<(), AudioError>) -> Result<(), Failure> {
        let mut input = lock(&self.input);
        let input = input.as_mut().ok_or_else(|| self.no_input())?;
        Ok(add(input)?)
    }

    fn no_input(&self) -> Failure {
        if self.closed.load(SeqCst) { Failure::Closed } else { Failure::Finished }
    }

    /// Gives the session all that waits for it.
    fn push_all(&self, py: Python<'_>) -> PyResult<()> {
        while !py.detach(|| self.push()).map_err(|failure| failure.exception(py))? {
            py.check_signals()?;
        }
        Ok(())
    }

    /// Gives the session what it has room for within a while. Whether that is all.
    fn push(&self) -> Result<bool, Failure> {
        let mut input = lock(&self.input);
        let input = input.as_mut().filter(|_| !self.closed.load(SeqCst)).ok_or_else(|| self.no_input())?;
        match input.audio.push_timeout(&input.waiting, GLANCE) {
            Ok(taken) => drop(input.waiting.drain(..taken)),
            Err(ended) => return Err(self.why_it_ended().unwrap_or(ended).into()),
        }
        if !input.waiting.is_empty() {
            // The session may be waiting for somebody to take its events.
            self.take_events();
        }
        Ok(input.waiting.is_empty())
    }

    /// Takes the events that are there, where nobody else does.
    fn take_events(&self) {
        let mut output = match self.output.try_lock() {
            Ok(output) => output,
            Err(TryLockError::Poisoned(output)) => output.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Some(Output { events, early, .. }) = &mut *output else { return };
        while let Poll::Ready(Some(event)) = events.next_timeout(Duration::ZERO) {
            early.push_back(event);
        }
    }

    /// The error that the session ended with, if nobody has taken it.
    fn why_it_ended(&self) -> Option<EngineError> {
        self.take_events();
        let output = lock(&self.output);
        output.as_ref()?.early.back()?.as_ref().err().cloned()
    }

    /// The next event that Python is told, where `next` has one in time.
    fn next(
        &self,
        next: impl FnOnce(&mut Events) -> Poll<Option<Result<Event, EngineError>>> + Copy,
    ) -> Poll<Result<Option<Told>, Failure>> {
        let mut output = lock(&self.output);
        let Some(output) = output.as_mut() else { return Poll::Ready(Err(Failure::Closed)) };
        loop {
            let event =
                output.early.pop_front().map_or_else(|| next(&mut output.events), |event| Poll::Ready(Some(event)));
            match event {
                Poll::Ready(Some(Ok(event))) => {
                    if let Some(told) = output.tell(event) {
                        return Poll::Ready(Ok(Some(told)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => return Poll::Pending,
            }
            if self.closed.load(SeqCst) {
                return Poll::Ready(Err(Failure::Closed));
            }
        }
    }

    fn silence_bell(&self) {
        let mut rung = [0; 64];
        loop {
            match (&self.ready).read(&mut rung) {
                Ok(64) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    /// Whoever feeds or reads finds out within a [`GLANCE`].
    fn close(&self) {
        self.closed.store(true, SeqCst);
        drop(lock(&self.input).take());
        drop(lock(&self.output).take());
        Arc::clone(&self.bell).wake();
    }
}

impl Output {
    fn tell(&mut self, event: Event) -> Option<Told> {
        match event {
            Event::Token(_) => {
                self.tokens += 1;
                None
            }
            Event::Text(text) => {
                self.text += &text;
                Some(Told::Partial { text, at_s: f64::from(self.tokens) * TOKEN_S })
            }
            Event::Word(word) => {
                let voxtral::Word { text, start_s, end_s, logprob, .. } = word;
                Some(Told::Word { text, start_s, end_s, logprob })
            }
            Event::Endpoint { at_s } => Some(self.end_segment(at_s)),
            Event::Done(summary) => Some(self.end_segment(summary.audio_s)),
            // Nobody asked for those.
            Event::Alternatives(_) | Event::Flushed { .. } => None,
        }
    }

    fn end_segment(&mut self, end_s: f64) -> Told {
        let text = std::mem::take(&mut self.text).trim().to_owned();
        Told::Final { text, start_s: std::mem::replace(&mut self.start_s, end_s), end_s }
    }
}
