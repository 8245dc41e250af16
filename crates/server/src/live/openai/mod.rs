//! OpenAI's protocol of transcription sessions, as generally available and as in its beta.

mod item;
mod session;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};
use voxtral::{Event, SAMPLE_RATE};

use super::audio::{self, Intake};
use super::dialect::{Body, Dialect, Fault, Message, Took, fields};
use super::outbox::Outbox;
use super::utterance::Utterances;
use crate::app::App;
use crate::error::ApiError;
use crate::id;
use item::Item;
use session::Session;
use turns::{Change, PIECE, Turns};

/// A client that speaks it. Each turn is an utterance and becomes an item.
pub(super) struct OpenAi {
    app: Arc<App>,
    session: Session,
    intake: Intake,
    turns: Turns,
    /// Items whose transcript is not complete, in their order. All but an open one are committed.
    items: VecDeque<Item>,
    /// Whether audio still goes into the last one.
    open: bool,
    /// The item that was committed last.
    previous: Option<String>,
    /// Whether the client speaks as in the beta.
    beta: bool,
    /// What the client calls the event that is being answered.
    answering: Option<String>,
}

#[derive(Deserialize)]
struct Update {
    session: Body,
}

impl OpenAi {
    /// As the query of its address says.
    ///
    /// # Errors
    /// When that asks for what there is not.
    pub(super) fn new(app: Arc<App>, query: &HashMap<String, String>) -> Result<Self, Fault> {
        let session = Session::new(&app, query)?;
        let intake = Intake::new(session.settings().format)?;
        let mut turns = Turns::default();
        turns.detect(session.settings().detection);
        let (items, open, previous, beta, answering) = (VecDeque::new(), false, None, false, None);
        Ok(Self { app, session, intake, turns, items, open, previous, beta, answering })
    }

    /// The first event: what clients of vLLM look for in it, too.
    pub(super) fn hello(&self) -> Value {
        let session = self.session.object();
        stamped(json!({
            "type": "session.created",
            "id": session["id"],
            "created": unix_s(),
            "session": session,
        }))
    }

    /// Takes audio in the session's format.
    ///
    /// # Errors
    /// When there is no room for it. Nothing of it is taken then.
    pub(super) fn append(&mut self, bytes: &[u8], utterances: &mut Utterances, out: &mut Outbox) -> Result<(), Fault> {
        let samples = self.intake.push(bytes);
        self.hear(&samples, utterances, out)
    }

    fn hear(&mut self, samples: &[f32], utterances: &mut Utterances, out: &mut Outbox) -> Result<(), Fault> {
        utterances.check_room(self.turns.recent() + samples.len())?;
        for piece in samples.chunks(PIECE) {
            match self.turns.hear(piece, self.open) {
                Some(Change::Started(begin)) => {
                    self.turns.take_until(begin);
                    let item_id = self.begin(utterances)?;
                    let (kind, ms) = ("input_audio_buffer.speech_started", ms(begin));
                    out.send(stamped(json!({ "type": kind, "audio_start_ms": ms, "item_id": item_id })));
                }
                Some(Change::Stopped(end)) => {
                    utterances.audio(&self.turns.take_until(end))?;
                    let item_id = self.items.back().map(|item| item.id.as_str());
                    let (kind, ms) = ("input_audio_buffer.speech_stopped", ms(end));
                    out.send(stamped(json!({ "type": kind, "audio_end_ms": ms, "item_id": item_id })));
                    self.end(utterances, out);
                }
                None if !self.open && self.turns.are_manual() => _ = self.begin(utterances)?,
                None => {}
            }
            if !self.open {
                self.turns.forget();
            }
        }
        if self.open {
            utterances.audio(&self.turns.take_until(u64::MAX))?;
        }
        Ok(())
    }

    /// Begins a turn. Returns the name of its item.
    fn begin(&mut self, utterances: &mut Utterances) -> Result<String, Fault> {
        let settings = self.session.settings();
        utterances.begin(settings.options.clone())?;
        let item_id = id::new("item");
        self.items.push_back(Item::new(item_id.clone(), settings));
        self.open = true;
        Ok(item_id)
    }

    /// Ends the turn that is open: its item is part of the conversation.
    fn end(&mut self, utterances: &mut Utterances, out: &mut Outbox) {
        let Some(item) = self.items.back().filter(|_| self.open) else { return };
        utterances.end();
        self.open = false;
        let previous = self.previous.replace(item.id.clone());
        out.send(stamped(json!({
            "type": "input_audio_buffer.committed",
            "previous_item_id": previous,
            "item_id": item.id,
        })));
        let added = if self.beta { "conversation.item.created" } else { "conversation.item.added" };
        out.send(stamped(json!({ "type": added, "previous_item_id": previous, "item": item.object(None) })));
    }

    /// The client ends a turn.
    fn commit(&mut self, utterances: &mut Utterances, out: &mut Outbox) -> Result<(), Fault> {
        let (rest, whole) = self.intake.finish();
        self.hear(&rest, utterances, out)?;
        if !self.open {
            if self.turns.recent() == 0 {
                let empty = "there is no audio to commit: append some first";
                return Err(Fault::new("input_audio_buffer_commit_empty", empty));
            }
            self.begin(utterances)?;
            utterances.audio(&self.turns.take_until(u64::MAX))?;
        }
        self.turns.restart();
        self.end(utterances, out);
        whole
    }

    /// The client takes back what it has not committed.
    fn clear(&mut self, utterances: &mut Utterances, out: &mut Outbox) {
        // What the resampler holds belongs to it.
        let _ = self.intake.finish();
        if std::mem::take(&mut self.open) {
            self.items.pop_back();
            utterances.abandon();
        }
        self.turns.clear();
        out.send(stamped(json!({ "type": "input_audio_buffer.cleared" })));
    }

    fn update(&mut self, change: Body, utterances: &mut Utterances, out: &mut Outbox) -> Result<(), Fault> {
        self.session.update(change, &self.app)?;
        let settings = self.session.settings();
        let (format, detection) = (settings.format, settings.detection);
        if format != self.intake.format() {
            let (rest, whole) = std::mem::replace(&mut self.intake, Intake::new(format)?).finish();
            self.hear(&rest, utterances, out)?;
            whole?;
        }
        self.turns.detect(detection);
        out.send(stamped(if self.beta {
            json!({ "type": "transcription_session.updated", "session": self.session.flat() })
        } else {
            json!({ "type": "session.updated", "session": self.session.object() })
        }));
        Ok(())
    }
}

impl Dialect for OpenAi {
    fn message(&mut self, message: Message, utterances: &mut Utterances, out: &mut Outbox) -> Result<Took, Fault> {
        self.answering = None;
        let (kind, mut body) = match message {
            Message::Event { kind, body } => (kind, body),
            Message::Binary(bytes) => return self.append(&bytes, utterances, out).map(|()| Took::Audio),
        };
        if let Some(Value::String(id)) = body.remove("event_id") {
            self.answering = Some(id);
        }
        match kind.as_str() {
            "input_audio_buffer.append" => {
                return self.append(&audio::bytes(&body)?, utterances, out).map(|()| Took::Audio);
            }
            "input_audio_buffer.commit" => self.commit(utterances, out)?,
            "input_audio_buffer.clear" => self.clear(utterances, out),
            "session.update" | "transcription_session.update" => {
                self.beta = kind == "transcription_session.update";
                self.update(fields::<Update>(body)?.session, utterances, out)?;
            }
            _ => return Err(Fault::unknown_event(&kind)),
        }
        Ok(Took::Command)
    }

    fn event(&mut self, event: Event, out: &mut Outbox) {
        // Utterances and items begin and end together.
        let Some(item) = self.items.front_mut() else { return };
        match event {
            Event::Token(token) => item.token(token),
            Event::Word(word) => item.word(word),
            Event::Text(delta) => out.send(stamped(item.text(&delta, self.app.voxtral.model()))),
            Event::Done(summary) => {
                item.done(&summary, self.app.voxtral.model()).into_iter().for_each(|event| out.send(stamped(event)));
                if !self.beta {
                    let object = item.object(Some(&summary.text));
                    out.send(stamped(json!({ "type": "conversation.item.done", "item": object })));
                }
                self.items.pop_front();
            }
            Event::Alternatives(_) | Event::Endpoint { .. } | Event::Flushed { .. } => {}
        }
    }

    fn failed(&mut self, error: &ApiError, out: &mut Outbox) {
        if let Some(item) = self.items.pop_front() {
            out.send(stamped(item.failed(error.to_json())));
        }
        self.open &= !self.items.is_empty();
    }

    fn fault(&mut self, fault: &Fault) -> Value {
        let error = json!({
            "type": "invalid_request_error",
            "code": fault.code,
            "message": fault.message,
            "param": fault.param,
            "event_id": self.answering.take(),
        });
        stamped(json!({ "type": "error", "error": error }))
    }
}

/// With a name of its own.
fn stamped(mut event: Value) -> Value {
    event["event_id"] = id::new("event").into();
    event
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn ms(samples: u64) -> u64 {
    samples * 1000 / u64::from(SAMPLE_RATE)
}
