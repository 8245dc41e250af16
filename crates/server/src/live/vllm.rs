//! vLLM's protocol: 16 kHz PCM in utterances that a client begins and ends.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use voxtral::{Delay, Event, Options, SAMPLE_RATE, Summary, Word};

use super::audio::{self, AudioFormat, Intake};
use super::dialect::{Dialect, Fault, Message, Took, fields, usage};
use super::outbox::Outbox;
use super::utterance::Utterances;
use crate::app::App;
use crate::error::ApiError;
use crate::files::formats;

/// A client that speaks it.
pub(super) struct Vllm {
    app: Arc<App>,
    intake: Intake,
    /// Audio that came before the commit that begins its utterance.
    held: Vec<u8>,
    /// Whether the utterance has begun that the next audio belongs to.
    begun: bool,
    wants: Wants,
    /// What was told of the utterance that runs.
    text: String,
    words: Vec<Word>,
}

/// What a client wants beyond the text, and how long the model may wait.
#[derive(Default)]
struct Wants {
    words: bool,
    segments: bool,
    delay: Option<Delay>,
}

#[derive(Deserialize)]
struct Update {
    model: String,
    #[serde(default)]
    timestamp_granularities: Vec<Granularity>,
    /// Of ours, under Mistral's name.
    target_streaming_delay_ms: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Granularity {
    Word,
    Segment,
}

#[derive(Deserialize)]
struct Commit {
    #[serde(default)]
    r#final: bool,
}

impl Vllm {
    /// With the audio that came before it was known who speaks.
    ///
    /// # Errors
    /// None, as the format is one that is taken.
    pub(super) fn new(app: Arc<App>, held: Vec<u8>) -> Result<Self, Fault> {
        let intake = Intake::new(AudioFormat::s16(SAMPLE_RATE))?;
        Ok(Self { app, intake, held, begun: false, wants: Wants::default(), text: String::new(), words: Vec::new() })
    }

    fn append(&mut self, bytes: &[u8], utterances: &mut Utterances) -> Result<(), Fault> {
        if self.begun { utterances.audio(&self.intake.push(bytes)) } else { audio::hold(&mut self.held, bytes) }
    }

    /// Begins the utterance, if it has not begun, and ends it, if this was the last of it.
    fn commit(&mut self, last: bool, utterances: &mut Utterances) -> Result<(), Fault> {
        if !self.begun {
            utterances.begin(Options { delay: self.wants.delay, ..Options::default() })?;
            self.begun = true;
            let held = std::mem::take(&mut self.held);
            utterances.audio(&self.intake.push(&held))?;
        }
        if !last {
            return Ok(());
        }
        self.begun = false;
        utterances.end_of(&mut self.intake)
    }

    fn update(&mut self, update: &Update) -> Result<(), Fault> {
        self.app.check_model(&update.model)?;
        let delay = update.target_streaming_delay_ms.map(Delay::from_ms).transpose();
        self.wants = Wants {
            words: update.timestamp_granularities.contains(&Granularity::Word),
            segments: update.timestamp_granularities.contains(&Granularity::Segment),
            delay: delay.map_err(|e| Fault::invalid_event(e.to_string()))?,
        };
        Ok(())
    }

    fn done(&mut self, summary: &Summary) -> Value {
        let text = std::mem::take(&mut self.text);
        let mut done = json!({ "type": "transcription.done", "text": text, "usage": usage(summary) });
        let words = std::mem::take(&mut self.words);
        if self.wants.segments {
            let segment = |(start, end, text)| json!({ "text": text, "start": start, "end": end });
            done["segments"] = formats::cues(&words).map(segment).collect();
        }
        done
    }
}

impl Dialect for Vllm {
    fn message(&mut self, message: Message, utterances: &mut Utterances, _: &mut Outbox) -> Result<Took, Fault> {
        let Message::Event { kind, body } = message else { return Err(Fault::binary()) };
        match kind.as_str() {
            "input_audio_buffer.append" => {
                return self.append(&audio::bytes(&body)?, utterances).map(|()| Took::Audio);
            }
            "input_audio_buffer.commit" => self.commit(fields::<Commit>(body)?.r#final, utterances)?,
            "session.update" => self.update(&fields(body)?)?,
            _ => return Err(Fault::unknown_event(&kind)),
        }
        Ok(Took::Command)
    }

    fn event(&mut self, event: Event, out: &mut Outbox) {
        match event {
            Event::Text(delta) => {
                self.text += &delta;
                out.send(json!({ "type": "transcription.delta", "delta": delta }));
            }
            Event::Word(word) => {
                if self.wants.words {
                    let mut event = formats::word(&word);
                    event["type"] = "transcription.word".into();
                    out.send(event);
                }
                if self.wants.segments {
                    self.words.push(word);
                }
            }
            Event::Done(summary) => out.send(self.done(&summary)),
            _ => {}
        }
    }

    fn failed(&mut self, error: &ApiError, out: &mut Outbox) {
        self.text.clear();
        self.words.clear();
        out.send(self.fault(&Fault::from(error.clone())));
    }

    fn fault(&mut self, fault: &Fault) -> Value {
        error(fault)
    }
}

/// How vLLM's clients are told of what is wrong.
pub(super) fn error(fault: &Fault) -> Value {
    json!({ "type": "error", "error": fault.message, "code": fault.code })
}
