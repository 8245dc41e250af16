//! What differs between the servers that clients are written for.

use axum::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use voxtral::{Event, Summary};

use super::outbox::Outbox;
use super::utterance::Utterances;
use crate::error::ApiError;

/// How one kind of client is understood and answered.
pub(super) trait Dialect: Send {
    /// Does what a client asks for.
    ///
    /// # Errors
    /// What is wrong with it. The client is told by [`fault`](Self::fault), and the connection goes on.
    fn message(&mut self, message: Message, utterances: &mut Utterances, out: &mut Outbox) -> Result<Took, Fault>;

    /// Tells what has happened in the utterance that runs.
    fn event(&mut self, event: Event, out: &mut Outbox);

    /// Tells that the utterance that runs has failed.
    fn failed(&mut self, error: &ApiError, out: &mut Outbox);

    /// How the client is told that something is wrong: with the message that it sent last, or with the connection.
    fn fault(&mut self, fault: &Fault) -> Value;
}

/// What a client sends.
pub(super) enum Message {
    /// An object with a `type`.
    Event { kind: String, body: Body },
    /// A binary frame.
    Binary(Bytes),
}

/// An event but for its `type`.
pub(super) type Body = Map<String, Value>;

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// Audio: the client is not idle.
    Audio,
    /// Something else.
    Command,
}

/// What is wrong with a message, or with a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Fault {
    /// For programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
    /// Which field it is about.
    pub(super) param: Option<String>,
}

impl Fault {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None }
    }

    pub(super) fn invalid_event(message: impl Into<String>) -> Self {
        Self::new("invalid_event", message)
    }

    pub(super) fn unknown_event(kind: &str) -> Self {
        Self::new("unknown_event", format!("there is no event {kind:?}"))
    }

    pub(super) fn invalid_audio(message: impl Into<String>) -> Self {
        Self { param: Some("audio".to_owned()), ..Self::new("invalid_audio", message) }
    }

    pub(super) fn binary() -> Self {
        Self::new("invalid_frame", "events are JSON in text frames; this frame is binary")
    }

    pub(super) fn buffer_full() -> Self {
        Self::new("buffer_full", "more audio waits than there is room for, five minutes of it: this piece is not taken")
    }

    pub(super) fn about(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self {
            code: error.code.unwrap_or("processing_error"),
            message: error.message,
            param: error.param.map(str::to_owned),
        }
    }
}

impl Message {
    /// The event in a text frame.
    ///
    /// # Errors
    /// When it is no JSON, or no object with a `type`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let value =
            serde_json::from_str(text).map_err(|e| Fault::new("invalid_json", format!("this is no JSON: {e}")))?;
        let Value::Object(mut body) = value else {
            return Err(Fault::invalid_event("an event is a JSON object"));
        };
        match body.remove("type") {
            Some(Value::String(kind)) => Ok(Self::Event { kind, body }),
            _ => Err(Fault::invalid_event("an event has a `type`, which is a string").about("type")),
        }
    }
}

/// The positions of a session, as both Mistral's and vLLM's clients count tokens.
pub(super) fn usage(summary: &Summary) -> Value {
    let (positions, tokens) = (summary.stats.positions, summary.stats.tokens);
    json!({ "prompt_tokens": positions - tokens, "completion_tokens": tokens, "total_tokens": positions })
}

/// The fields of an event that `T` names.
///
/// # Errors
/// When one is missing or is not what it must be.
pub(super) fn fields<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    serde_json::from_value(Value::Object(body)).map_err(|e| Fault::invalid_event(e.to_string()))
}
