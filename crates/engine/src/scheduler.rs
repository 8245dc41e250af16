//! The engine's thread: it owns the backend and serves all sessions in rounds.
//!
//! A round encodes what live sessions have heard and decodes what they have due, in as few calls as hold all of it, and then makes
//! one call for what can wait: a session to be opened, the warm-up of a delay, or the recordings, which take turns at encoding and
//! decoding. As long as there are live sessions such a call has at most [`BACKGROUND_TOKENS`] tokens or rows, so that live audio, whenever
//! it comes, waits for at most one of them. Without live sessions recordings have whole calls, an encode and a decode in each round.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use voxtral_model::{Backend, BackendError, DecodeSpan, EncodeSpan, MAX_DECODE_ROWS, StreamId};

use crate::contained::Contained;
use crate::decoding::Pace;
use crate::front_end::ModelParts;
use crate::inbox::{Inbox, Request};
use crate::port::Seat;
use crate::running::Running;
use crate::session::SessionOptions;
use crate::templates::Templates;
use crate::{EngineError, Schedule};

/// Most tokens of an encode call, and rows of a decode call, that live sessions wait for. The longest prompt, of 2400 ms, has so many rows.
pub(crate) const BACKGROUND_TOKENS: usize = 32;

/// A session that is about to be opened.
pub(crate) struct Opening {
    pub(crate) seat: Seat,
    pub(crate) options: SessionOptions,
    pub(crate) schedule: Schedule,
    /// Most tokens of an encode span.
    pub(crate) span: usize,
    /// Tokens that the session is expected to come to.
    pub(crate) expected: usize,
}

pub(crate) struct Scheduler {
    backend: Contained,
    /// Most tokens of an encode call.
    encode_tokens: usize,
    model: Arc<ModelParts>,
    inbox: Arc<Inbox>,
    running: Vec<Running>,
    /// Sessions that are to be opened, and the templates that they are forks of.
    opening: VecDeque<(Opening, StreamId)>,
    templates: Templates,
    pace: Pace,
    /// Calls made; a session remembers the one that it last had a part in, and those that have waited longest go first.
    calls: u64,
    /// Whether it is the recordings' turn to be decoded.
    decode_next: bool,
}

/// However the thread ends, nobody is left waiting: what is dropped tells its owner.
impl Drop for Scheduler {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl Scheduler {
    pub(crate) fn new(
        backend: Box<dyn Backend>,
        model: Arc<ModelParts>,
        inbox: Arc<Inbox>,
        encode_tokens: usize,
    ) -> Self {
        Self {
            backend: Contained::new(backend),
            encode_tokens,
            model,
            inbox,
            running: Vec::new(),
            opening: VecDeque::new(),
            templates: Templates::default(),
            pace: Pace::new(),
            calls: 0,
            decode_next: false,
        }
    }

    pub(crate) fn run(mut self) {
        while let Some(requests) = self.inbox.take() {
            let start = Instant::now();
            self.inbox.meters.begin_round(Some(start));
            requests.into_iter().for_each(|request| self.accept(request));
            self.running.iter_mut().for_each(Running::listen);
            let encoded = self.encode(true);
            let decoded = self.decode(true);
            let other = self.work_in_the_background();
            self.close_sessions();
            if let Some(error) = self.backend.panicked().cloned() {
                return self.give_up(error);
            }
            if encoded || decoded || other {
                self.inbox.meters.round(start.elapsed());
            } else {
                self.inbox.meters.begin_round(None);
                self.inbox.bell.wait();
            }
        }
    }

    /// Ends all sessions.
    fn give_up(&mut self, error: BackendError) {
        let error = EngineError::from(error);
        let running = self.running.drain(..).map(|session| session.seat);
        let opening = self.opening.drain(..).map(|(opening, _)| opening.seat);
        running.chain(opening).for_each(|seat| seat.port.end(Err(error.clone())));
    }

    fn accept(&mut self, request: Request) {
        match request {
            Request::Session(opening) => match self.templates.get(opening.schedule.delay) {
                Some(template) => self.opening.push_back((opening, template)),
                None => self.templates.wait_for(opening.schedule).sessions.push(opening),
            },
            Request::Prewarm(schedule, done) => match self.templates.get(schedule.delay) {
                // Who asked may be gone, here and below.
                Some(_) => drop(done.send(Ok(()))),
                None => self.templates.wait_for(schedule).prewarms.push(done),
            },
            Request::Capacity { span, expected, told } => {
                drop(told.send(self.capacity(span, expected).map_err(EngineError::from)));
            }
        }
    }

    /// Opens sessions: one if somebody is live, else as many as there are until one of them is. False when there was none.
    fn open_sessions(&mut self) -> bool {
        let any = !self.opening.is_empty();
        while let Some((opening, template)) = self.opening.pop_front() {
            self.open(opening, template);
            if self.somebody_is_live() {
                break;
            }
        }
        any
    }

    /// Opens a session as a fork of its delay's template, unless its owner has left.
    fn open(&mut self, opening: Opening, template: StreamId) {
        if opening.seat.port.has_ended() {
            return;
        }
        let admitted = self.admit(opening.span, opening.expected);
        match admitted.and_then(|()| self.backend.fork(template, opening.span)) {
            Ok(stream) => {
                self.running.push(Running::new(&self.model, opening, stream, self.encode_tokens));
                self.inbox.note(self.backend.info());
            }
            Err(error) => opening.seat.port.end(Err(error.into())),
        }
    }

    /// Whether the device has memory for `expected` tokens beside what the running sessions were promised.
    fn admit(&mut self, span: usize, expected: usize) -> Result<(), BackendError> {
        let Some(free) = self.free_bytes()? else { return Ok(()) };
        let needed = self.backend.stream_bytes(span, expected)? + self.promised_bytes()?;
        if needed <= free {
            return Ok(());
        }
        let device = self.backend.info().device;
        Err(BackendError::OutOfMemory { device, needed: needed / 1_000_000, free: free / 1_000_000 })
    }

    /// How many sessions of `expected` tokens would be admitted, those that run included.
    fn capacity(&mut self, span: usize, expected: usize) -> Result<Option<usize>, BackendError> {
        let Some(free) = self.free_bytes()? else { return Ok(None) };
        let (left, each) = (free.saturating_sub(self.promised_bytes()?), self.backend.stream_bytes(span, expected)?);
        Ok(Some(self.running.len() + usize::try_from(left / each.max(1)).unwrap_or(usize::MAX)))
    }

    /// Memory that the device has free, unless it is the host.
    fn free_bytes(&mut self) -> Result<Option<u64>, BackendError> {
        let free = self.backend.free_bytes()?;
        Ok((free != u64::MAX).then_some(free))
    }

    /// What the running sessions were promised and have not taken yet.
    fn promised_bytes(&mut self) -> Result<u64, BackendError> {
        let mut promised = 0;
        for session in &self.running {
            promised += self.backend.stream_bytes(session.span, session.expected.max(session.capacity))?;
            promised -= self.backend.stream_bytes(session.span, session.capacity)?;
        }
        Ok(promised)
    }

    /// What live sessions leave time for.
    fn work_in_the_background(&mut self) -> bool {
        if self.open_sessions() {
            return true;
        }
        if self.templates.is_warming_up() {
            self.warm_up();
            return true;
        }
        if !self.somebody_is_live() {
            let encoded = self.encode(false);
            return self.decode(false) || encoded;
        }
        self.decode_next = !self.decode_next;
        let turns: [fn(&mut Self, bool) -> bool; 2] =
            if self.decode_next { [Self::decode, Self::encode] } else { [Self::encode, Self::decode] };
        turns.into_iter().any(|call| call(self, false))
    }

    /// One call of the warm-up that is under way.
    fn warm_up(&mut self) {
        let Some((waiting, outcome)) = self.templates.step(&mut self.backend, &self.model, self.encode_tokens) else {
            return;
        };
        self.inbox.note(self.backend.info());
        match outcome {
            Ok(template) => {
                waiting.prewarms.into_iter().for_each(|done| drop(done.send(Ok(()))));
                self.opening.extend(waiting.sessions.into_iter().map(|opening| (opening, template)));
            }
            Err(error) => {
                waiting.prewarms.into_iter().for_each(|done| drop(done.send(Err(error.clone()))));
                waiting.sessions.into_iter().for_each(|opening| opening.seat.port.end(Err(error.clone())));
            }
        }
    }

    fn somebody_is_live(&self) -> bool {
        self.running.iter().any(|session| session.live)
    }

    /// The most tokens or rows of a call for such sessions.
    fn most(&self, live: bool, whole: usize) -> usize {
        if !live && self.somebody_is_live() { whole.min(BACKGROUND_TOKENS) } else { whole }
    }

    /// Makes calls for what live sessions, or recordings, have due: for all of it in live ones, one call for others. Who has waited
    /// longest goes first. False when nothing was due.
    ///
    /// What is due is asked once: a reader may leave at any time, and then nothing is due any more.
    fn serve(
        &mut self,
        live: bool,
        amount: fn(&Running) -> usize,
        last: fn(&Running) -> u64,
        mut call: impl FnMut(&mut Self, Vec<(usize, usize)>) -> Vec<(usize, usize)>,
    ) -> bool {
        let sessions = self.running.iter().enumerate().filter(|(_, session)| session.live == live);
        let amounts = sessions.map(|(index, session)| (index, amount(session)));
        let mut due: Vec<(usize, usize)> = amounts.filter(|&(_, amount)| amount > 0).collect();
        due.sort_by_key(|&(index, _)| last(&self.running[index]));
        let any = !due.is_empty();
        while !due.is_empty() {
            due = call(self, due);
            if !live {
                break;
            }
        }
        any
    }

    /// Encodes what live sessions, or recordings, have heard: all that is due in live ones, a call's worth in others. False when there was
    /// nothing.
    fn encode(&mut self, live: bool) -> bool {
        let most = self.most(live, self.encode_tokens);
        self.serve(live, Running::due_tokens, |session| session.last_encode, |this, due| this.encode_call(due, most))
    }

    /// One encode call of at most `most` tokens for the first of `due`, sessions and their tokens. Returns those that it had no room for.
    fn encode_call(&mut self, due: Vec<(usize, usize)>, most: usize) -> Vec<(usize, usize)> {
        let (mut budget, mut call, mut later) = (most, Vec::new(), Vec::new());
        for (index, tokens) in due {
            if budget == 0 {
                later.push((index, tokens));
                continue;
            }
            let session = &mut self.running[index];
            let tokens = tokens.min(budget);
            let needed = session.tokens_with(tokens);
            match self.backend.grow(session.stream, needed) {
                Ok(()) => {
                    session.capacity = session.capacity.max(needed);
                    budget -= tokens;
                    call.push((index, tokens));
                }
                // There is no memory for this one; the others go on.
                Err(error) => session.seat.port.end(Err(error.into())),
            }
        }
        if call.is_empty() {
            return later;
        }
        let span = |&(index, tokens): &(usize, usize)| {
            let session = &self.running[index];
            EncodeSpan { stream: session.stream, mel: session.next_frames(tokens) }
        };
        let batch: Vec<EncodeSpan<'_>> = call.iter().map(span).collect();
        self.calls += 1;
        let start = Instant::now();
        let result = self.backend.encode(&batch);
        let time = start.elapsed();
        if let Err(error) = result {
            self.fail(call.iter().map(|&(index, _)| index), error);
            return later;
        }
        self.inbox.meters.encoded(most - budget, time);
        for (index, tokens) in call {
            self.running[index].encoded(tokens, time);
            self.running[index].last_encode = self.calls;
        }
        self.inbox.note(self.backend.info());
        later
    }

    /// Decodes the positions that are due in live sessions, or in recordings: each live one has a pass, of others as many as one call
    /// takes. False when there were none.
    fn decode(&mut self, live: bool) -> bool {
        let most = self.most(live, MAX_DECODE_ROWS);
        self.serve(live, Running::due_positions, |session| session.last_decode, |this, due| this.decode_call(due, most))
    }

    /// One decode call of at most `most` rows for the first of `due`, sessions and their positions. Returns those that it had no room for.
    fn decode_call(&mut self, due: Vec<(usize, usize)>, most: usize) -> Vec<(usize, usize)> {
        let streams = due.len().min(most);
        let longest = due.iter().map(|&(_, positions)| positions).max().unwrap_or(1);
        let pays = self.pace.rows(streams, longest.min(most / streams));
        let (mut budget, mut call, mut later) = (most, Vec::new(), Vec::new());
        for (index, positions) in due {
            let rows = self.running[index].next_rows(positions, pays, budget);
            if rows == 0 {
                later.push((index, positions));
            } else {
                budget -= rows;
                call.push((index, rows));
            }
        }
        // Spans borrow their sessions, which lie in this order.
        call.sort_unstable();
        let mut next = call.iter().peekable();
        let mut batch = Vec::new();
        for (index, session) in self.running.iter_mut().enumerate() {
            if let Some(&(_, rows)) = next.next_if(|&&(chosen, _)| chosen == index) {
                let (stream, runners_up) = (session.stream, session.runners_up());
                let (position, ids) = session.begin_pass(rows);
                batch.push(DecodeSpan { stream, position, ids, runners_up });
            }
        }
        self.calls += 1;
        let mut predictions = Vec::new();
        let start = Instant::now();
        let result = self.backend.decode(&batch, &mut predictions);
        let time = start.elapsed();
        if let Err(error) = result {
            self.fail(call.iter().map(|&(index, _)| index), error);
            return later;
        }
        let (mut first, mut tokens, mut only_text) = (0, 0, true);
        for &(index, rows) in &call {
            let session = &mut self.running[index];
            session.last_decode = self.calls;
            match session.end_pass(&predictions[first..first + rows], time) {
                Ok(accepted) => {
                    tokens += accepted.positions;
                    match accepted.guessed {
                        Some(guesses) => self.pace.guessed(&guesses),
                        None => only_text = false,
                    }
                }
                Err(error) => session.seat.port.end(Err(error)),
            }
            first += rows;
        }
        self.inbox.meters.decoded(first, tokens, time);
        if only_text {
            self.pace.gave(call.len(), first, tokens, time);
        } else {
            self.pace.took(first, time);
        }
        later
    }

    /// Ends the sessions of a call that failed.
    fn fail(&mut self, sessions: impl Iterator<Item = usize>, error: BackendError) {
        let error = EngineError::from(error);
        sessions.for_each(|index| self.running[index].seat.port.end(Err(error.clone())));
    }

    fn close_sessions(&mut self) {
        let before = self.running.len();
        let backend = &mut self.backend;
        self.running.retain_mut(|session| {
            if session.is_done() {
                session.finish();
            }
            let over = session.seat.port.has_ended();
            if over {
                backend.close(session.stream);
            }
            !over
        });
        if self.running.len() < before {
            self.inbox.note(self.backend.info());
        }
    }
}
