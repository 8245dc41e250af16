//! The engine: one thread that owns the backend and serves all sessions in rounds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use voxtral_model::{Backend, BackendInfo, DecodeSpan, Delay, EncodeSpan, MAX_DECODE_ROWS, Model, StreamId};

use crate::decoding::Pace;
use crate::session::{Bell, Port, Session, SessionOptions};
use crate::speaker::{ModelParts, Speaker};
use crate::{EngineError, Schedule};

/// What an engine promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most sessions at a time; one more is refused with [`EngineError::Full`].
    pub max_sessions: usize,
    /// The length of audio that a session is expected to have where it does not say. A session is admitted if the device has memory for
    /// so much of it beside what the running sessions may still need.
    pub expected: Duration,
}

impl Default for EngineOptions {
    /// Any number of sessions, of five minutes each.
    fn default() -> Self {
        Self { max_sessions: usize::MAX, expected: Duration::from_secs(300) }
    }
}

/// A model at work on a backend, for any number of sessions.
///
/// Dropping it ends all its sessions, with [`EngineError::Stopped`] for those that were not done.
pub struct Engine {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

/// What reaches the engine's thread from outside.
struct Inbox {
    state: Mutex<InboxState>,
    bell: Arc<Bell>,
}

struct InboxState {
    opened: Vec<(Arc<Port>, SessionOptions)>,
    closing: bool,
    /// As of the last round that changed it.
    info: BackendInfo,
    peak_device_bytes: u64,
}

impl Inbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, info: BackendInfo) {
        let mut state = self.lock();
        state.peak_device_bytes = state.peak_device_bytes.max(info.device_bytes);
        state.info = info;
    }
}

impl Engine {
    /// Starts the engine's thread. The backend must hold `model`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(model: &Model, backend: Box<dyn Backend>, options: EngineOptions) -> Result<Self, EngineError> {
        let _ = options;
        let bell = Arc::new(Bell::default());
        let info = backend.info();
        let (encode_tokens, peak_device_bytes) = (info.encode_tokens, info.device_bytes);
        let state = InboxState { opened: Vec::new(), closing: false, info, peak_device_bytes };
        let inbox = Arc::new(Inbox { state: Mutex::new(state), bell });
        let scheduler = Scheduler {
            encode_tokens,
            backend,
            model: ModelParts::new(model),
            inbox: Arc::clone(&inbox),
            speakers: Vec::new(),
            templates: BTreeMap::new(),
            pace: Pace::new(),
        };
        let thread = std::thread::Builder::new().name("voxtral-engine".into()).spawn(move || scheduler.run());
        let thread = thread.map_err(|e| EngineError::Thread(Arc::new(e)))?;
        Ok(Self { inbox, thread: Some(thread) })
    }

    /// What the backend runs on, and the memory that it has taken there.
    pub fn info(&self) -> BackendInfo {
        self.inbox.lock().info.clone()
    }

    /// The most device memory that the backend has held, bytes; 0 where the device is the host.
    pub fn peak_device_bytes(&self) -> u64 {
        self.inbox.lock().peak_device_bytes
    }

    /// Opens a session. Where there is no room for another, its first event says so.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub fn session(&self, options: SessionOptions) -> Result<Session, EngineError> {
        let port = Arc::new(Port::new(Arc::clone(&self.inbox.bell)));
        let mut state = self.inbox.lock();
        if state.closing {
            return Err(EngineError::Stopped);
        }
        state.opened.push((Arc::clone(&port), options));
        drop(state);
        self.inbox.bell.ring();
        Ok(Session::new(port))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inbox.lock().closing = true;
        self.inbox.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has reached the sessions as an error.
            let _ = thread.join();
        }
    }
}

/// The engine's thread.
struct Scheduler {
    backend: Box<dyn Backend>,
    /// Most tokens of an encode call.
    encode_tokens: usize,
    model: ModelParts,
    inbox: Arc<Inbox>,
    speakers: Vec<Speaker>,
    /// For each delay in use, a stream that has heard and decoded what all streams of that delay begin with.
    templates: BTreeMap<Delay, StreamId>,
    pace: Pace,
}

/// However the thread ends, no session is left waiting.
impl Drop for Scheduler {
    fn drop(&mut self) {
        let mut state = self.inbox.lock();
        state.closing = true;
        let unopened = state.opened.drain(..).map(|(port, _)| port);
        for port in unopened.chain(self.speakers.drain(..).map(|speaker| speaker.port)) {
            port.end(Err(EngineError::Stopped));
        }
    }
}

impl Scheduler {
    fn run(mut self) {
        while !self.inbox.lock().closing {
            self.open_sessions();
            self.listen();
            let encoded = self.encode_round();
            let decoded = self.decode_round();
            self.close_sessions();
            // Who goes first where not all fit changes from round to round.
            if !self.speakers.is_empty() {
                self.speakers.rotate_left(1);
            }
            if !encoded && !decoded {
                self.inbox.bell.wait();
            }
        }
    }

    fn open_sessions(&mut self) {
        let opened = std::mem::take(&mut self.inbox.lock().opened);
        if opened.is_empty() {
            return;
        }
        for (port, options) in opened {
            match self.open(&port, &options) {
                Ok(speaker) => self.speakers.push(speaker),
                Err(error) => port.end(Err(error)),
            }
        }
        self.inbox.note(self.backend.info());
    }

    fn open(&mut self, port: &Arc<Port>, options: &SessionOptions) -> Result<Speaker, EngineError> {
        let tokenizer = &self.model.tokenizer;
        let schedule = Schedule {
            left_pad: tokenizer.left_pad_tokens(),
            delay: options.delay.unwrap_or(tokenizer.default_delay()),
            samples_per_token: self.model.samples_per_token,
        };
        let template = match self.templates.get(&schedule.delay) {
            Some(&template) => template,
            None => self.warm_up(&schedule)?,
        };
        let stream = self.backend.fork(template, self.encode_tokens)?;
        Speaker::new(&self.model, schedule, options, self.encode_tokens, Arc::clone(port), stream)
            .inspect_err(|_| self.backend.close(stream))
    }

    /// Runs through what all streams of a delay begin with, once.
    fn warm_up(&mut self, schedule: &Schedule) -> Result<StreamId, EngineError> {
        let tokens = schedule.constant_tokens();
        let stream = self.backend.open(schedule.delay, self.encode_tokens)?;
        self.backend.grow(stream, tokens)?;
        self.templates.insert(schedule.delay, stream);
        let (_, frames) = self.model.begin(schedule)?;
        for mel in frames[..tokens * self.model.frames_of_token].chunks(self.encode_tokens * self.model.frames_of_token)
        {
            self.backend.encode(&[EncodeSpan { stream, mel }])?;
        }
        let mut ids = vec![self.model.tokenizer.streaming_pad(); tokens];
        ids[0] = self.model.tokenizer.bos();
        for (i, ids) in ids.chunks(MAX_DECODE_ROWS).enumerate() {
            let position = i * MAX_DECODE_ROWS;
            self.backend.decode(&[DecodeSpan { stream, position, ids }], &mut Vec::new())?;
        }
        Ok(stream)
    }

    fn listen(&mut self) {
        self.speakers.iter_mut().for_each(Speaker::listen);
    }

    /// Encodes what has been heard, as much of it as one call takes. False when there was nothing.
    fn encode_round(&mut self) -> bool {
        let mut budget = self.encode_tokens;
        let (mut who, mut batch) = (Vec::new(), Vec::new());
        for (index, speaker) in self.speakers.iter().enumerate() {
            if let Some(mel) = speaker.due_audio(budget) {
                let tokens = mel.len() / self.model.frames_of_token;
                if let Err(error) = self.backend.grow(speaker.stream, speaker.encoded_tokens() + tokens) {
                    speaker.port.end(Err(error.into()));
                    continue;
                }
                budget -= tokens;
                who.push((index, mel.len()));
                batch.push(EncodeSpan { stream: speaker.stream, mel });
            }
        }
        if batch.is_empty() {
            return false;
        }
        let start = Instant::now();
        let result = self.backend.encode(&batch);
        let time = start.elapsed();
        match result {
            Ok(()) => who.iter().for_each(|&(index, values)| self.speakers[index].encoded(values, time)),
            Err(error) => {
                let error = EngineError::from(error);
                who.iter().for_each(|&(index, _)| self.speakers[index].port.end(Err(error.clone())));
            }
        }
        true
    }

    /// Decodes the positions that are due, as many as one call takes. False when there were none.
    fn decode_round(&mut self) -> bool {
        let due: Vec<usize> = self.speakers.iter().map(Speaker::due_positions).collect();
        let streams = due.iter().filter(|&&rows| rows > 0).count();
        if streams == 0 {
            return false;
        }
        let most = due.iter().copied().max().unwrap_or(1).min(MAX_DECODE_ROWS / streams.min(MAX_DECODE_ROWS));
        let pays = self.pace.rows(streams, most);

        let mut budget = MAX_DECODE_ROWS;
        let (mut who, mut batch) = (Vec::new(), Vec::new());
        for (index, (speaker, due)) in self.speakers.iter_mut().zip(due).enumerate() {
            let stream = speaker.stream;
            let rows = speaker.next_rows(due, pays);
            if rows == 0 || rows > budget {
                continue;
            }
            budget -= rows;
            let (position, ids) = speaker.begin_pass(rows);
            who.push((index, rows));
            batch.push(DecodeSpan { stream, position, ids });
        }
        let mut predictions = Vec::new();
        let start = Instant::now();
        let result = self.backend.decode(&batch, &mut predictions);
        let time = start.elapsed();
        if let Err(error) = result {
            let error = EngineError::from(error);
            who.iter().for_each(|&(index, _)| self.speakers[index].port.end(Err(error.clone())));
            return true;
        }
        let (mut first, mut tokens, mut only_text) = (0, 0, true);
        for &(index, rows) in &who {
            match self.speakers[index].end_pass(&predictions[first..first + rows], time) {
                Ok((certain, Some((held, failed)))) => {
                    tokens += certain;
                    self.pace.guessed(held, failed);
                }
                Ok((_, None)) => only_text = false,
                Err(error) => self.speakers[index].port.end(Err(error)),
            }
            first += rows;
        }
        if only_text {
            self.pace.gave(who.len(), first, tokens, time);
        } else {
            self.pace.took(first, time);
        }
        true
    }

    fn close_sessions(&mut self) {
        let before = self.speakers.len();
        self.speakers.retain_mut(|speaker| {
            if speaker.is_done() {
                speaker.finish();
            }
            let over = speaker.port.has_ended();
            if over {
                self.backend.close(speaker.stream);
            }
            !over
        });
        if self.speakers.len() < before {
            self.inbox.note(self.backend.info());
        }
    }
}
