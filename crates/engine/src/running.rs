//! One session on the engine's thread: from its frames to its events, but for the calls of the backend.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use voxtral_model::{AUDIO_WINDOW, Kind, Prediction, RunnerUp, StreamId, Tokenizer};
use voxtral_transcript::{Alternative, Event, Piece, SessionStats, Summary, TokenRecord, Transcript, Word};

use crate::decoding::{Decoding, Guesses, Judged};
use crate::front_end::{Mark, ModelParts, Timeline};
use crate::port::Seat;
use crate::scheduler::Opening;
use crate::{EngineError, Schedule};

/// Encoded tokens below which a session asks for more, so that it need not wait where others go first.
const LOW_WATER: usize = 16;

pub(crate) struct Running {
    pub(crate) seat: Seat,
    pub(crate) stream: StreamId,
    pub(crate) live: bool,
    /// Most tokens of an encode span.
    pub(crate) span: usize,
    /// Tokens that the session was admitted for, and tokens that its stream has memory for.
    pub(crate) expected: usize,
    pub(crate) capacity: usize,
    /// The last encode call, and the last decode call, that it had a part in, as [`Scheduler`](crate::scheduler::Scheduler) counts them.
    pub(crate) last_encode: u64,
    pub(crate) last_decode: u64,

    tokenizer: Arc<Tokenizer>,
    schedule: Schedule,
    sample_rate: usize,
    stop_at_eos: bool,
    /// How much less probable than what was written a runner-up may be that is told of, 0 to 1.
    alternatives: Option<f32>,
    decoding: Decoding,
    interval: usize,
    /// Tokens of frames beyond which frames are left in the queue.
    frame_queue: usize,

    /// Frames that wait for the encoder, `[frames, mel_bins]`.
    frames: Vec<f32>,
    /// Log-mel values of a token.
    token_values: usize,
    /// Flushes that have not come out yet.
    flushes: VecDeque<Mark>,
    /// Pauses that have not been reached yet, and bytes of text at the last endpoint.
    pauses: VecDeque<Mark>,
    told: usize,
    /// The end of the audio, once it is known.
    ended: Option<Mark>,
    timeline: Timeline,

    /// Tokens encoded and positions decoded.
    encoded: usize,
    position: usize,
    /// Positions to decode in all, once that is known.
    end: Option<usize>,
    /// Input of the next position, after the prompt.
    input: u32,
    guesses: Guesses,
    /// Inputs of the pass that is under way.
    inputs: Vec<u32>,

    transcript: Transcript,
    opened: Instant,
    stats: SessionStats,
}

/// What a pass was good for.
pub(crate) struct Accepted {
    /// Positions that are certain by it.
    pub(crate) positions: usize,
    /// Guesses up to the first that did not hold; none in a prompt, where nothing is guessed.
    pub(crate) guessed: Option<Vec<Judged>>,
}

impl Running {
    /// On a stream that has heard and decoded `schedule.constant_tokens()` of silence.
    pub(crate) fn new(model: &ModelParts, opening: Opening, stream: StreamId, encode_tokens: usize) -> Self {
        let Opening { seat, options, schedule, span, expected } = opening;
        let begun = schedule.constant_tokens();
        let pad = model.tokenizer.streaming_pad();
        Self {
            seat,
            stream,
            live: options.live,
            span,
            expected,
            capacity: begun,
            last_encode: 0,
            last_decode: 0,
            tokenizer: Arc::clone(&model.tokenizer),
            schedule,
            sample_rate: model.sample_rate,
            stop_at_eos: options.stop_at_eos,
            alternatives: options.alternatives,
            decoding: options.decoding,
            interval: options.interval.min(span),
            frame_queue: 2 * encode_tokens,
            frames: Vec::new(),
            token_values: model.token_values,
            flushes: VecDeque::new(),
            pauses: VecDeque::new(),
            told: 0,
            ended: None,
            timeline: Timeline::default(),
            encoded: begun,
            position: begun,
            end: None,
            input: pad,
            guesses: Guesses::new(pad),
            inputs: Vec::new(),
            transcript: Transcript::new(),
            opened: Instant::now(),
            stats: SessionStats::default(),
        }
    }

    /// Takes frames from the queue, as far as there is room for them.
    pub(crate) fn listen(&mut self) {
        if self.ended.is_some() || self.frames.len() >= self.frame_queue * self.token_values {
            return;
        }
        let heard = self.seat.port.take(&mut self.frames);
        for flush in heard.flushes {
            self.timeline.insert(&flush, self.sample_rate);
            self.flushes.push_back(flush);
        }
        self.pauses.extend(heard.pauses);
        if let Some(end) = heard.end {
            self.ended = Some(end);
            self.end = Some(end.positions);
            self.transcript.audio_ended(self.heard_s(&end));
        }
        self.flush_what_is_due();
    }

    /// Where in what the model hears a mark is, seconds.
    fn heard_s(&self, mark: &Mark) -> f64 {
        self.seconds(mark.samples + mark.silence_before)
    }

    fn seconds(&self, samples: u64) -> f64 {
        samples as f64 / self.sample_rate as f64
    }

    /// Tokens of frames to encode now.
    pub(crate) fn due_tokens(&self) -> usize {
        let ahead = self.encoded - self.position;
        let needed = !self.in_text() || ahead < self.decoding.lookahead() + LOW_WATER;
        let heard = self.frames.len() / self.token_values;
        let enough = heard >= self.interval || self.ended.is_some() || !self.flushes.is_empty();
        let due = heard.min(self.span).min(AUDIO_WINDOW - ahead);
        if due > 0 && needed && enough && self.seat.port.takes_events() { due } else { 0 }
    }

    /// Tokens that the stream comes to hold with `tokens` more.
    pub(crate) fn tokens_with(&self, tokens: usize) -> usize {
        self.encoded + tokens
    }

    /// The frames of the next `tokens` tokens, as many as `due_tokens` said or fewer.
    pub(crate) fn next_frames(&self, tokens: usize) -> &[f32] {
        &self.frames[..tokens * self.token_values]
    }

    /// So many tokens of `next_frames` were encoded.
    pub(crate) fn encoded(&mut self, tokens: usize, time: Duration) {
        self.frames.drain(..tokens * self.token_values);
        self.encoded += tokens;
        self.stats.encode += time;
    }

    /// Whether the prompt has been decoded.
    fn in_text(&self) -> bool {
        self.position >= self.schedule.prompt_len()
    }

    /// Positions that can be decoded now. A prompt is decoded whole.
    pub(crate) fn due_positions(&self) -> usize {
        let heard = self.encoded.min(self.end.unwrap_or(usize::MAX)).saturating_sub(self.position);
        let due = if self.in_text() {
            heard.min(self.decoding.lookahead())
        } else {
            let prompt = self.schedule.prompt_len() - self.position;
            if heard < prompt { 0 } else { prompt }
        };
        if due > 0 && self.seat.port.takes_events() { due } else { 0 }
    }

    /// Rows of the next pass where `due` positions can be decoded, looking ahead `pays` positions pays, and `budget` rows are left in the
    /// call; 0 where there are too few.
    pub(crate) fn next_rows(&self, due: usize, pays: usize, budget: usize) -> usize {
        match self.decoding {
            _ if !self.in_text() && due > budget => 0,
            _ if !self.in_text() => due,
            Decoding::Auto => due.min(pays).min(budget),
            _ => due.min(budget),
        }
    }

    /// Position and inputs of the next pass: `rows` positions, or the prompt.
    pub(crate) fn begin_pass(&mut self, rows: usize) -> (usize, &[u32]) {
        self.inputs = if self.in_text() {
            self.guesses.inputs(self.input, rows)
        } else {
            vec![self.tokenizer.streaming_pad(); self.schedule.prompt_len() - self.position]
        };
        (self.position, &self.inputs)
    }

    /// The lowest id that may be a runner-up, if the session tells of any: those of text.
    pub(crate) fn runners_up(&self) -> Option<u32> {
        self.alternatives.map(|_| self.tokenizer.num_special())
    }

    /// Takes the predictions of the pass that `begin_pass` began.
    pub(crate) fn end_pass(&mut self, predictions: &[Prediction], time: Duration) -> Result<Accepted, EngineError> {
        self.stats.passes += 1;
        self.stats.decode += time;
        let inputs = std::mem::take(&mut self.inputs);
        if let Some(row) = predictions.iter().position(|p| !p.logprob.is_finite()) {
            return Err(EngineError::NotFinite { position: self.position + row });
        }
        if !self.in_text() {
            self.position += inputs.len() - 1;
            self.accept(&predictions[inputs.len() - 1..]);
            return Ok(Accepted { positions: inputs.len(), guessed: None });
        }
        let guessed = self.guesses.accept(&inputs, predictions);
        let certain = 1 + guessed.iter().filter(|guess| guess.held).count();
        self.stats.certain[certain.ilog2() as usize] += 1;
        self.accept(&predictions[..certain]);
        Ok(Accepted { positions: certain, guessed: Some(guessed) })
    }

    /// Hands out what certain predictions, of the positions from the next one on, bring.
    fn accept(&mut self, predictions: &[Prediction]) {
        let mut events = Vec::new();
        for prediction in predictions {
            let &Prediction { id, logprob, .. } = prediction;
            let kind = self.tokenizer.kind(id);
            let (is_eos, is_text) = (kind == Kind::Eos, matches!(kind, Kind::Text(_)));
            let piece = match kind {
                Kind::Text(bytes) => Piece::Text(bytes),
                Kind::WordStart => Piece::Word,
                _ => Piece::Special,
            };
            events.push(Event::Token(TokenRecord { id, logprob }));
            self.stats.tokens += 1;
            let alternatives = self.alternatives_of(prediction);
            self.transcript.nearly(alternatives.iter().cloned());
            if let Some(text) = written(self.transcript.push(piece, logprob)) {
                self.stats.first_text.get_or_insert_with(|| self.opened.elapsed());
                events.extend((!alternatives.is_empty()).then_some(Event::Alternatives(alternatives)));
                events.push(text);
            }
            self.take_words(&mut events);
            self.input = id;
            self.position += 1;
            self.flush_at_position(&mut events);
            // A word that is being written is written to its end.
            if !is_text {
                self.pause_at_position(&mut events);
            }
            if self.stop_at_eos && is_eos {
                self.end = Some(self.position);
                break;
            }
        }
        self.seat.port.send(events);
    }

    /// The runners-up that are told of, where text was predicted.
    fn alternatives_of(&self, prediction: &Prediction) -> Vec<Alternative> {
        let text = |id| match self.tokenizer.kind(id) {
            Kind::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        let (Some(cutoff), Some(instead_of)) = (self.alternatives, text(prediction.id)) else { return Vec::new() };
        let near = |other: &RunnerUp| 1.0 - (other.logprob - prediction.logprob).exp() <= cutoff;
        let runners_up = prediction.runners_up.iter().flatten().filter(|other| near(other));
        let alternative = |&RunnerUp { id, logprob }: &RunnerUp| {
            Some(Alternative { instead_of: instead_of.clone(), text: text(id)?, logprob })
        };
        runners_up.filter_map(alternative).collect()
    }

    /// Moves the words that are complete to `events`.
    fn take_words(&mut self, events: &mut Vec<Event>) {
        for word in self.transcript.take_words() {
            let (start_s, end_s) = (self.timeline.audio_s(word.start_s), self.timeline.audio_s(word.end_s));
            events.push(Event::Word(Word { start_s, end_s, ..word }));
        }
    }

    /// Brings out what the flushes that have been reached were for.
    fn flush_at_position(&mut self, events: &mut Vec<Event>) {
        while self.flushes.front().is_some_and(|flush| self.position >= flush.positions) {
            let Some(flush) = self.flushes.pop_front() else { return };
            events.extend(written(self.transcript.flush()));
            self.take_words(events);
            events.push(Event::Flushed { audio_s: self.seconds(flush.samples) });
        }
    }

    /// Ends what was said before the pauses that have been reached. Where nothing was said since the last one, there is nothing to tell.
    fn pause_at_position(&mut self, events: &mut Vec<Event>) {
        while let Some(&pause) = self.pauses.front().filter(|pause| self.position >= pause.positions) {
            if !self.transcript.pause(self.heard_s(&pause)) {
                return;
            }
            self.pauses.pop_front();
            self.take_words(events);
            let said = self.transcript.text().len();
            if said > std::mem::replace(&mut self.told, said) {
                events.push(Event::Endpoint { at_s: self.seconds(pause.samples) });
            }
        }
    }

    /// A flush behind another, with no audio between, is reached as soon as it is heard of.
    fn flush_what_is_due(&mut self) {
        let mut events = Vec::new();
        self.flush_at_position(&mut events);
        if !events.is_empty() {
            self.seat.port.send(events);
        }
    }

    /// Whether all is decoded.
    pub(crate) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    /// Hands out what is left at the end, and the last event.
    pub(crate) fn finish(&mut self) {
        self.stats.positions = self.position;
        // Where the model has ended the session, the audio may go on.
        let (heard_s, audio_s) = match &self.ended {
            Some(end) => (self.heard_s(end), self.seconds(end.samples)),
            None => {
                let heard_s = self.encoded_s();
                (heard_s, self.timeline.audio_s(heard_s))
            }
        };
        let mut events = Vec::new();
        events.extend(written(self.transcript.finish(heard_s)));
        self.take_words(&mut events);
        self.seat.port.send(events);
        let text = self.transcript.text().to_owned();
        self.seat.port.end(Ok(Event::Done(Summary { text, audio_s, stats: self.stats })));
    }

    /// Audio that was encoded, seconds of what the model hears.
    fn encoded_s(&self) -> f64 {
        let tokens = self.encoded.saturating_sub(self.schedule.left_pad);
        self.seconds((tokens * self.schedule.samples_per_token) as u64)
    }
}

/// The event of text that has become certain, if there is any.
fn written(text: &str) -> Option<Event> {
    (!text.is_empty()).then(|| Event::Text(text.to_owned()))
}
