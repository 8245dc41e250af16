//! One item of a conversation: what was said in one turn, and the events that tell of it.

use serde_json::{Value, json};
use voxtral::{Model, Summary, TokenRecord, Word};

use super::session::Settings;
use crate::files::formats;
use crate::id;

/// A turn, and what is known of its transcript.
pub(super) struct Item {
    pub(super) id: String,
    /// Its tokens, if somebody wants to know how sure the model was of them, and how many of them were told.
    tokens: Option<Vec<TokenRecord>>,
    told: usize,
    words: bool,
    segments: bool,
    heard: Vec<Word>,
}

impl Item {
    pub(super) fn new(id: String, settings: &Settings) -> Self {
        let Settings { logprobs, words, segments, .. } = *settings;
        Self { id, tokens: logprobs.then(Vec::new), told: 0, words, segments, heard: Vec::new() }
    }

    /// As the conversation shows it.
    pub(super) fn object(&self, transcript: Option<&str>) -> Value {
        json!({
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{ "type": "input_audio", "transcript": transcript }],
        })
    }

    pub(super) fn token(&mut self, token: TokenRecord) {
        if let Some(tokens) = &mut self.tokens {
            tokens.push(token);
        }
    }

    pub(super) fn word(&mut self, word: Word) {
        if self.words || self.segments {
            self.heard.push(word);
        }
    }

    /// The event of text that became certain.
    pub(super) fn text(&mut self, delta: &str, model: &Model) -> Value {
        let mut event = self.event("delta");
        event["delta"] = delta.into();
        if let Some(tokens) = &self.tokens {
            event["logprobs"] = formats::logprobs(model, &tokens[self.told..]);
            self.told = tokens.len();
        }
        event
    }

    /// The events that end it.
    pub(super) fn done(&self, summary: &Summary, model: &Model) -> Vec<Value> {
        let mut events = Vec::new();
        if self.segments {
            events.extend(formats::cues(&self.heard).map(|(start, end, text)| {
                let mut segment = self.event("segment");
                segment["id"] = id::new("seg").into();
                segment["start"] = start.into();
                segment["end"] = end.into();
                segment["speaker"] = "A".into();
                segment["text"] = text.into();
                segment
            }));
        }
        let mut completed = self.event("completed");
        completed["transcript"] = summary.text.as_str().into();
        completed["usage"] = json!({ "type": "duration", "seconds": summary.audio_s });
        if let Some(tokens) = &self.tokens {
            completed["logprobs"] = formats::logprobs(model, tokens);
        }
        if self.words {
            completed["words"] = self.heard.iter().map(formats::word).collect();
        }
        events.push(completed);
        events
    }

    pub(super) fn failed(&self, error: Value) -> Value {
        let mut event = self.event("failed");
        event["error"] = error;
        event
    }

    fn event(&self, what: &str) -> Value {
        json!({
            "type": format!("conversation.item.input_audio_transcription.{what}"),
            "item_id": self.id,
            "content_index": 0,
        })
    }
}
