//! `/v1/realtime`, where clients of OpenAI and of vLLM come. Who speaks is known from the first `session.update`, or else from the request.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use voxtral::Event;

use super::audio;
use super::dialect::{Dialect, Fault, Message, Took};
use super::openai::OpenAi;
use super::outbox::Outbox;
use super::utterance::Utterances;
use super::vllm::{self, Vllm};
use crate::app::App;
use crate::error::ApiError;

/// What a client has to say before anything else.
const NO_MODEL: &str = "a `session.update` with the field `model` (vLLM) or `session` (OpenAI) has to come first";

/// A client of either kind.
pub(super) struct Realtime {
    app: Arc<App>,
    openai: OpenAi,
    /// Whether the request says that it is OpenAI's client. A page of ours says so too, as browsers can name their key only in that way.
    is_openai: bool,
    kind: Kind,
}

enum Kind {
    /// Nobody knows yet; this is the audio that came so far.
    Undecided(Vec<u8>),
    Vllm(Box<Vllm>),
    OpenAi,
}

impl Realtime {
    /// A client that comes with this query, and perhaps offers OpenAI's subprotocol.
    ///
    /// # Errors
    /// When the query asks for what there is not.
    pub(super) fn new(app: Arc<App>, query: &HashMap<String, String>, is_openai: bool) -> Result<Self, ApiError> {
        if let Some(model) = query.get("model") {
            app.check_model(model)?;
        }
        let openai = OpenAi::new(Arc::clone(&app), query).map_err(|fault| ApiError::bad_request(fault.message))?;
        let is_openai = is_openai || query.contains_key("intent") || query.contains_key("input_audio_format");
        Ok(Self { app, openai, is_openai, kind: Kind::Undecided(Vec::new()) })
    }

    /// The first event: what clients of either kind look for in it.
    pub(super) fn hello(&self) -> Value {
        self.openai.hello()
    }

    /// Decides who speaks, if this message tells. Returns the audio that came before, if it is for OpenAI's session.
    fn decide(&mut self, message: &Message) -> Result<Option<Vec<u8>>, Fault> {
        let Kind::Undecided(held) = &mut self.kind else { return Ok(None) };
        let (has_session, model) = match message {
            Message::Event { kind, .. } if kind == "transcription_session.update" => (true, None),
            Message::Event { kind, body } if kind == "session.update" => {
                (body.contains_key("session"), body.get("model").and_then(Value::as_str))
            }
            _ => (false, None),
        };
        if let (false, Some(model)) = (has_session, model) {
            self.app.check_model(model)?;
            let vllm = Vllm::new(Arc::clone(&self.app), std::mem::take(held))?;
            self.kind = Kind::Vllm(Box::new(vllm));
        } else if has_session || self.is_openai {
            let held = std::mem::take(held);
            self.kind = Kind::OpenAi;
            return Ok(Some(held));
        }
        Ok(None)
    }

    fn speaker(&mut self) -> Option<&mut dyn Dialect> {
        match &mut self.kind {
            Kind::Undecided(_) => None,
            Kind::Vllm(vllm) => Some(vllm.as_mut()),
            Kind::OpenAi => Some(&mut self.openai),
        }
    }
}

impl Dialect for Realtime {
    fn message(&mut self, message: Message, utterances: &mut Utterances, out: &mut Outbox) -> Result<Took, Fault> {
        if let Some(held) = self.decide(&message)? {
            // What a client says of its audio is true of what came before, too.
            let told = self.openai.message(message, utterances, out);
            return self.openai.append(&held, utterances, out).and(told);
        }
        let Kind::Undecided(held) = &mut self.kind else {
            return self.speaker().map_or(Ok(Took::Command), |speaker| speaker.message(message, utterances, out));
        };
        let Message::Event { kind, body } = message else { return Err(Fault::binary()) };
        match kind.as_str() {
            "input_audio_buffer.append" => audio::hold(held, &audio::bytes(&body)?).map(|()| Took::Audio),
            "input_audio_buffer.commit" => Err(Fault::new("model_not_validated", NO_MODEL)),
            "session.update" => Err(Fault::invalid_event(NO_MODEL)),
            _ => Err(Fault::unknown_event(&kind)),
        }
    }

    fn event(&mut self, event: Event, out: &mut Outbox) {
        if let Some(speaker) = self.speaker() {
            speaker.event(event, out);
        }
    }

    fn failed(&mut self, error: &ApiError, out: &mut Outbox) {
        if let Some(speaker) = self.speaker() {
            speaker.failed(error, out);
        }
    }

    fn fault(&mut self, fault: &Fault) -> Value {
        match &mut self.kind {
            Kind::Undecided(_) if self.is_openai => self.openai.fault(fault),
            Kind::Undecided(_) => vllm::error(fault),
            Kind::Vllm(vllm) => vllm.fault(fault),
            Kind::OpenAi => self.openai.fault(fault),
        }
    }
}
