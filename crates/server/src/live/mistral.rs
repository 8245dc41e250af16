//! Mistral's protocol: one utterance, whose audio the client declares, sends, flushes and ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::close_code;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use voxtral::{Delay, Event, Options, SAMPLE_RATE, SampleFormat, Summary, TOKEN_MS, Word};

use super::audio::{self, AudioFormat, Intake};
use super::dialect::{Body, Dialect, Fault, Message, Took, fields, usage};
use super::outbox::Outbox;
use super::utterance::Utterances;
use crate::app::App;
use crate::error::ApiError;
use crate::files::formats::ms;
use crate::id;

/// Bytes that an append may have, in no base64.
const MAX_APPEND: usize = 262_144;

/// A pause that ends a segment.
const PAUSE: Duration = Duration::from_millis(500);

/// A client that speaks it.
pub(super) struct Mistral {
    app: Arc<App>,
    request_id: String,
    /// What the client has asked for so far, by the names of its fields.
    asked: Body,
    settings: Settings,
    intake: Intake,
    stage: Stage,
    /// What was said since the last segment.
    text: String,
    words: Vec<Word>,
    segments: Vec<Value>,
    turn: Turn,
    /// Flushes that have not come out, and whether audio came after the last of them.
    flushes: usize,
    unflushed: bool,
}

/// What was said since the last flush.
#[derive(Default)]
struct Turn {
    text: String,
    /// Segments before it.
    segments: usize,
    /// Positions before its first token: those of the prompt, if it is the first turn.
    prompt: usize,
    tokens: usize,
    begun_s: f64,
}

/// How far the utterance has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No audio has come.
    Open,
    Begun,
    Ended,
}

/// The fields of a session that mean something here; `null` is as good as not there. The client sees in the session that it is told what
/// else it asked for in vain.
#[derive(Default, Deserialize)]
struct Settings {
    #[serde(default)]
    audio_format: Option<Format>,
    #[serde(default)]
    target_streaming_delay_ms: Option<u32>,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    diarize: Option<bool>,
    #[serde(default)]
    turn_detection: Option<Value>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct Format {
    encoding: Encoding,
    sample_rate: u32,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    PcmS16le,
    PcmS32le,
    PcmF16le,
    PcmF32le,
    PcmMulaw,
    PcmAlaw,
}

impl From<Encoding> for SampleFormat {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::PcmS16le => Self::S16,
            Encoding::PcmS32le => Self::S32,
            Encoding::PcmF16le => Self::F16,
            Encoding::PcmF32le => Self::F32,
            Encoding::PcmMulaw => Self::MuLaw,
            Encoding::PcmAlaw => Self::ALaw,
        }
    }
}

impl Settings {
    const FIELDS: [&str; 5] = ["audio_format", "target_streaming_delay_ms", "language", "diarize", "turn_detection"];

    /// # Errors
    /// When a field has a value that it cannot have.
    fn of(asked: Body) -> Result<Self, Fault> {
        let settings: Self = fields(asked)?;
        if settings.diarize == Some(true) {
            let what = "this model does not tell speakers apart: leave `diarize` out";
            return Err(Fault::invalid_event(what).about("diarize"));
        }
        if settings.turn_detection.is_some() {
            let what =
                "this model does not tell when a turn ends: leave `turn_detection` out; a segment ends at each pause";
            return Err(Fault::invalid_event(what).about("turn_detection"));
        }
        settings.delay()?;
        Ok(settings)
    }

    fn format(&self) -> Format {
        self.audio_format.unwrap_or(Format { encoding: Encoding::PcmS16le, sample_rate: SAMPLE_RATE })
    }

    /// The shortest delay that the model has and that is not below the target.
    fn delay(&self) -> Result<Option<Delay>, Fault> {
        let Some(target) = self.target_streaming_delay_ms else { return Ok(None) };
        let longest = 2400;
        let found = (target..=longest).find_map(|ms| Delay::from_ms(ms).ok());
        let too_long = format!("a delay of {target} ms is more than the {longest} ms that the model has at most");
        found.map(Some).ok_or_else(|| Fault::invalid_event(too_long).about("target_streaming_delay_ms"))
    }

    fn intake(&self) -> Result<Intake, Fault> {
        let Format { encoding, sample_rate } = self.format();
        Intake::new(AudioFormat::new(encoding.into(), sample_rate)?)
    }
}

#[derive(Deserialize)]
struct Update {
    session: Body,
}

impl Mistral {
    /// As the query of its address says.
    ///
    /// # Errors
    /// When it names another model.
    pub(super) fn new(app: Arc<App>, query: &HashMap<String, String>) -> Result<Self, ApiError> {
        if let Some(model) = query.get("model") {
            app.check_model(model)?;
        }
        let settings = Settings::default();
        let intake = settings.intake().map_err(|fault| ApiError::internal(&fault))?;
        Ok(Self {
            app,
            request_id: id::new("req"),
            asked: Body::new(),
            settings,
            intake,
            stage: Stage::Open,
            text: String::new(),
            words: Vec::new(),
            segments: Vec::new(),
            turn: Turn::default(),
            flushes: 0,
            unflushed: false,
        })
    }

    /// The first event.
    pub(super) fn hello(&self) -> Value {
        self.session("session.created")
    }

    /// An event that tells what is in effect.
    fn session(&self, kind: &str) -> Value {
        let delay = self.settings.delay().ok().flatten().unwrap_or(self.app.voxtral.delay());
        json!({
            "type": kind,
            "session": {
                "request_id": self.request_id,
                "model": self.app.voxtral.model().name,
                "audio_format": self.settings.format(),
                "target_streaming_delay_ms": delay.ms(),
                "language": self.settings.language,
                "diarize": false,
            },
        })
    }

    /// Changes the fields that are there; the others stay.
    fn update(&mut self, change: Body) -> Result<(), Fault> {
        if self.stage != Stage::Open {
            return Err(Fault::invalid_event("a session can be updated only before its audio begins"));
        }
        let mut asked = self.asked.clone();
        asked.extend(change.into_iter().filter(|(name, _)| Settings::FIELDS.contains(&name.as_str())));
        let settings = Settings::of(asked.clone())?;
        let intake = settings.intake().map_err(|fault| fault.about("audio_format"))?;
        (self.asked, self.settings, self.intake) = (asked, settings, intake);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8], utterances: &mut Utterances) -> Result<(), Fault> {
        if bytes.len() > MAX_APPEND {
            let what = format!("{} bytes are more than the {MAX_APPEND} that a piece may have", bytes.len());
            return Err(Fault::invalid_audio(what));
        }
        self.begin(utterances)?;
        self.unflushed = true;
        utterances.audio(&self.intake.push(bytes))
    }

    /// Begins the utterance, if it has not begun.
    fn begin(&mut self, utterances: &mut Utterances) -> Result<(), Fault> {
        if self.stage == Stage::Open {
            let delay = self.settings.delay()?;
            utterances.begin(Options { delay, endpoint: Some(PAUSE), ..Options::default() })?;
            self.stage = Stage::Begun;
            let voxtral = &self.app.voxtral;
            let delay = delay.unwrap_or(voxtral.delay()).ms() / TOKEN_MS;
            // The token that begins it, and padding.
            self.turn.prompt = 1 + voxtral.model().tokenizer.left_pad_tokens() + delay as usize;
        }
        Ok(())
    }

    fn end(&mut self, utterances: &mut Utterances) -> Result<(), Fault> {
        self.begin(utterances)?;
        self.stage = Stage::Ended;
        utterances.end_of(&mut self.intake)
    }

    /// Ends the segment, if anything was said in it, and tells the client.
    fn end_segment(&mut self, out: &mut Outbox) {
        let (text, words) = (std::mem::take(&mut self.text), std::mem::take(&mut self.words));
        let (Some(first), Some(last)) = (words.first(), words.last()) else { return };
        let timed = |word: &Word| json!({ "word": word.text, "start": ms(word.start_s), "end": ms(word.end_s) });
        let mut segment = json!({
            "type": "transcription.segment",
            "text": text.trim(),
            "start": ms(first.start_s),
            "end": ms(last.end_s),
            "speaker_id": null,
            "words": words.iter().map(timed).collect::<Value>(),
        });
        out.send(segment.clone());
        segment["type"] = "transcription_segment".into();
        self.segments.push(segment);
    }

    /// All of the session.
    fn done(&self, summary: &Summary) -> Value {
        self.done_with(&summary.text, &self.segments, usage(summary), summary.audio_s)
    }

    /// What was said since the last flush, up to this one.
    fn turn_done(&mut self, audio_s: f64) -> Value {
        let next = Turn { segments: self.segments.len(), begun_s: audio_s, ..Turn::default() };
        let Turn { text, segments, prompt, tokens, begun_s } = std::mem::replace(&mut self.turn, next);
        let total = prompt + tokens;
        let usage = json!({ "prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": total });
        self.done_with(text.trim(), &self.segments[segments..], usage, audio_s - begun_s)
    }

    fn done_with(&self, text: &str, segments: &[Value], mut usage: Value, audio_s: f64) -> Value {
        usage["prompt_audio_seconds"] = (audio_s.ceil() as u64).into();
        json!({
            "type": "transcription.done",
            "model": self.app.voxtral.model().name,
            "text": text,
            "language": self.settings.language,
            "segments": segments,
            "usage": usage,
        })
    }
}

impl Dialect for Mistral {
    fn message(&mut self, message: Message, utterances: &mut Utterances, out: &mut Outbox) -> Result<Took, Fault> {
        let Message::Event { kind, body } = message else { return Err(Fault::binary()) };
        if self.stage == Stage::Ended {
            return Err(Fault::invalid_event("this session's audio has ended"));
        }
        match kind.as_str() {
            "input_audio.append" => return self.append(&audio::bytes(&body)?, utterances).map(|()| Took::Audio),
            // What the resampler still holds is too short to be heard.
            "input_audio.flush" if self.stage == Stage::Begun => {
                utterances.flush()?;
                self.flushes += 1;
                self.unflushed = false;
            }
            "input_audio.flush" => out.send(self.turn_done(0.0)),
            "input_audio.end" => self.end(utterances)?,
            "session.update" => {
                self.update(fields::<Update>(body)?.session)?;
                out.send(self.session("session.updated"));
            }
            _ => return Err(Fault::unknown_event(&kind)),
        }
        Ok(Took::Command)
    }

    fn event(&mut self, event: Event, out: &mut Outbox) {
        match event {
            Event::Text(delta) => {
                self.text += &delta;
                self.turn.text += &delta;
                out.send(json!({ "type": "transcription.text.delta", "text": delta }));
            }
            Event::Word(word) => self.words.push(word),
            Event::Endpoint { .. } => self.end_segment(out),
            Event::Flushed { audio_s } => {
                self.end_segment(out);
                self.flushes -= 1;
                // Clients that flush at the end of each turn wait for this. One that has ended its audio, too, waits for the end.
                if self.stage != Stage::Ended || self.flushes > 0 || self.unflushed {
                    out.send(self.turn_done(audio_s));
                }
            }
            Event::Done(summary) => {
                self.end_segment(out);
                out.send(self.done(&summary));
                out.close(close_code::NORMAL, "done");
            }
            Event::Token(_) => self.turn.tokens += 1,
            Event::Alternatives(_) => {}
        }
    }

    fn failed(&mut self, error: &ApiError, out: &mut Outbox) {
        out.send(self.fault(&Fault::from(error.clone())));
        out.close(close_code::ERROR, "the transcription failed");
    }

    fn fault(&mut self, fault: &Fault) -> Value {
        json!({ "type": "error", "error": { "message": fault.message, "code": number(fault.code) } })
    }
}

/// The number that a code has here: that of HTTP, which clients take it for, but for the one of Mistral's own that is known.
fn number(code: &str) -> u16 {
    match code {
        "idle_timeout" => 3804,
        "model_not_found" => 404,
        "buffer_full" => 429,
        "processing_error" => 500,
        "server_full" | "server_draining" => 503,
        _ => 400,
    }
}
