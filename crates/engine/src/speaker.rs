//! One stream inside the engine: from its samples to its events, but for the two calls of the backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use voxtral_audio::{MelConfig, MelStream};
use voxtral_model::{AUDIO_WINDOW, Kind, Model, Prediction, StreamId, Tokenizer};
use voxtral_transcript::{Event, Piece, SessionStats, Summary, TokenRecord, Transcript};

use crate::decoding::{Decoding, Guesses};
use crate::session::{Port, SessionOptions};
use crate::{EngineError, Schedule};

/// Encoded tokens below which a stream asks for more, so that it need not wait where others go first.
const LOW_WATER: usize = 16;

pub(crate) struct Speaker {
    pub(crate) port: Arc<Port>,
    pub(crate) stream: StreamId,
    tokenizer: Arc<Tokenizer>,
    schedule: Schedule,
    stop_at_eos: bool,
    decoding: Decoding,
    interval: usize,
    /// Tokens of mel frames beyond which samples are left in the queue.
    mel_queue: usize,

    mel: MelStream,
    /// Frames that wait for the encoder, `[frames, mel_bins]`.
    frames: Vec<f32>,
    /// Values of one token's frames.
    frames_of_token: usize,
    /// Samples heard, without padding.
    samples: u64,
    sample_rate: usize,

    /// Tokens encoded and positions decoded.
    encoded: usize,
    position: usize,
    /// Positions to decode in all, once the audio has ended.
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

impl Speaker {
    /// A stream that has heard and decoded `schedule.constant_tokens()` of silence.
    pub(crate) fn new(
        model: &ModelParts,
        schedule: Schedule,
        options: &SessionOptions,
        encode_tokens: usize,
        port: Arc<Port>,
        stream: StreamId,
    ) -> Result<Self, EngineError> {
        let (mel, mut frames) = model.begin(&schedule)?;
        frames.drain(..schedule.constant_tokens() * model.frames_of_token);
        let pad = model.tokenizer.streaming_pad();
        Ok(Self {
            port,
            stream,
            tokenizer: Arc::clone(&model.tokenizer),
            schedule,
            stop_at_eos: options.stop_at_eos,
            decoding: options.decoding,
            interval: options.interval.min(encode_tokens),
            mel_queue: 2 * encode_tokens,
            mel,
            frames,
            frames_of_token: model.frames_of_token,
            samples: 0,
            sample_rate: model.mel.sample_rate,
            encoded: schedule.constant_tokens(),
            position: schedule.constant_tokens(),
            end: None,
            input: pad,
            guesses: Guesses::new(pad),
            inputs: Vec::new(),
            transcript: Transcript::new(),
            opened: Instant::now(),
            stats: SessionStats::default(),
        })
    }

    /// Takes samples from the queue, as far as there is room for their frames.
    pub(crate) fn listen(&mut self) {
        if self.end.is_some() || self.frames.len() >= self.mel_queue * self.frames_of_token {
            return;
        }
        let mut samples = Vec::new();
        let finished = self.port.take_audio(&mut samples);
        self.samples += samples.len() as u64;
        self.mel.push(&samples, &mut self.frames);
        if finished {
            self.mel.push(&vec![0.0; self.schedule.right_samples(self.samples)], &mut self.frames);
            self.mel.finish(&mut self.frames);
            self.end = Some(self.schedule.positions(self.samples));
            self.transcript.audio_ended(self.audio_s());
        }
    }

    pub(crate) fn encoded_tokens(&self) -> usize {
        self.encoded
    }

    fn audio_s(&self) -> f64 {
        self.samples as f64 / self.sample_rate as f64
    }

    /// Frames to encode now, at most `budget` tokens of them.
    pub(crate) fn due_audio(&self, budget: usize) -> Option<&[f32]> {
        let ahead = self.encoded - self.position;
        let needed = !self.in_text() || ahead < self.decoding.lookahead() + LOW_WATER;
        let heard = self.frames.len() / self.frames_of_token;
        let enough = heard >= self.interval || self.end.is_some();
        let tokens = heard.min(budget).min(AUDIO_WINDOW - ahead);
        (tokens > 0 && needed && enough && self.port.takes_events())
            .then(|| &self.frames[..tokens * self.frames_of_token])
    }

    /// The frames given out by `due_audio` were encoded.
    pub(crate) fn encoded(&mut self, values: usize, time: Duration) {
        self.frames.drain(..values);
        self.encoded += values / self.frames_of_token;
        self.stats.encode += time;
    }

    /// Whether the prompt has been decoded.
    fn in_text(&self) -> bool {
        self.position >= self.schedule.prompt_len()
    }

    /// Positions that can be decoded now. A prompt is decoded whole.
    pub(crate) fn due_positions(&self) -> usize {
        let heard = self.encoded.min(self.end.unwrap_or(usize::MAX)) - self.position;
        if !self.port.takes_events() {
            0
        } else if self.in_text() {
            heard.min(self.decoding.lookahead())
        } else {
            let prompt = self.schedule.prompt_len() - self.position;
            if heard < prompt { 0 } else { prompt }
        }
    }

    /// Positions of the next pass, where `due` can be decoded and looking ahead `pays` positions pays.
    pub(crate) fn next_rows(&self, due: usize, pays: usize) -> usize {
        if self.in_text() && self.decoding == Decoding::Auto { due.min(pays) } else { due }
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

    /// Takes the predictions of the pass that `begin_pass` began. Returns the number of positions that are certain by it, and how
    /// many guesses held before the first that did not, if there was one.
    pub(crate) fn end_pass(
        &mut self,
        predictions: &[Prediction],
        time: Duration,
    ) -> Result<(usize, Option<(usize, bool)>), EngineError> {
        self.stats.passes += 1;
        self.stats.decode += time;
        let inputs = std::mem::take(&mut self.inputs);
        if let Some(row) = predictions.iter().position(|p| !p.logprob.is_finite()) {
            return Err(EngineError::NotFinite { position: self.position + row });
        }
        if !self.in_text() {
            self.position += inputs.len();
            self.take(&predictions[inputs.len() - 1..]);
            return Ok((inputs.len(), None));
        }
        let certain = self.guesses.accept(&inputs, predictions);
        let guessed = if inputs.len() == 1 {
            // Nothing was guessed, but whether silence would have been right is known all the same.
            let right = predictions[0].id == self.tokenizer.streaming_pad();
            (usize::from(right), !right)
        } else {
            (certain - 1, certain < inputs.len())
        };
        self.position += certain;
        self.stats.certain[certain.ilog2() as usize] += 1;
        self.take(&predictions[..certain]);
        Ok((certain, Some(guessed)))
    }

    /// Hands out what certain predictions bring.
    fn take(&mut self, predictions: &[Prediction]) {
        let mut events = Vec::new();
        for &Prediction { id, logprob } in predictions {
            let kind = self.tokenizer.kind(id);
            let piece = match kind {
                Kind::Text(bytes) => Piece::Text(bytes),
                Kind::WordStart => Piece::Word,
                _ => Piece::Special,
            };
            events.push(Event::Token(TokenRecord { id, logprob }));
            self.stats.tokens += 1;
            let text = self.transcript.push(piece, logprob);
            if !text.is_empty() {
                self.stats.first_text.get_or_insert_with(|| self.opened.elapsed());
                events.push(Event::Text(text.to_owned()));
            }
            events.extend(self.transcript.take_words().into_iter().map(Event::Word));
            self.input = id;
            if self.stop_at_eos && kind == Kind::Eos {
                self.end = Some(self.position);
                break;
            }
        }
        self.port.send(events);
    }

    /// Whether all is decoded.
    pub(crate) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    /// Hands out what is left at the end, and the last event.
    pub(crate) fn finish(&mut self) {
        self.stats.positions = self.position;
        let audio_s = self.audio_s();
        let text = self.transcript.finish(audio_s);
        let text = (!text.is_empty()).then(|| Event::Text(text.to_owned()));
        let words = self.transcript.take_words().into_iter().map(Event::Word);
        self.port.send(text.into_iter().chain(words));
        self.port.end(Ok(Event::Done(Summary { text: self.transcript.text().to_owned(), audio_s, stats: self.stats })));
    }
}

/// What the engine keeps of a model; the weights are the backend's.
pub(crate) struct ModelParts {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) samples_per_token: usize,
    mel: MelConfig,
    pub(crate) frames_of_token: usize,
}

impl ModelParts {
    pub(crate) fn new(model: &Model) -> Self {
        let audio = &model.config.audio;
        Self {
            tokenizer: Arc::new(model.tokenizer.clone()),
            samples_per_token: audio.samples_per_token,
            mel: MelConfig {
                sample_rate: audio.sample_rate,
                mel_bins: audio.mel_bins,
                hop: audio.hop,
                window: audio.window,
                log_mel_max: audio.log_mel_max,
            },
            frames_of_token: model.config.frames_per_token() * audio.mel_bins,
        }
    }

    /// A front-end that has heard the left pad, and the frames of it.
    pub(crate) fn begin(&self, schedule: &Schedule) -> Result<(MelStream, Vec<f32>), EngineError> {
        let mut mel = MelStream::new(self.mel.clone()).map_err(|e| EngineError::FrontEnd(Arc::new(e)))?;
        let mut frames = Vec::new();
        mel.push(&vec![0.0; schedule.left_samples()], &mut frames);
        Ok((mel, frames))
    }
}
