//! One item of a conversation: what was said in one turn, and the events that tell of it.

use serde_json::{Value, json};
use voxtral::{Kind, Summary, TokenRecord, Tokenizer, Word};

use super::session::Settings;

/// A turn, and what is known of its transcript.
pub(super) struct Item {
    pub(super) id: String,
    logprobs: Option<Logprobs>,
    words: bool,
    segments: bool,
    heard: Vec<Word>,
}

/// Of tokens with text: those that were told, and those whose text is not certain yet.
#[derive(Default)]
struct Logprobs {
    told: Vec<Value>,
    new: Vec<Value>,
}

impl Item {
    pub(super) fn new(id: String, settings: &Settings) -> Self {
        let Settings { logprobs, words, segments, .. } = *settings;
        Self { id, logprobs: logprobs.then(Logprobs::default), words, segments, heard: Vec::new() }
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

    pub(super) fn token(&mut self, token: &TokenRecord, tokenizer: &Tokenizer) {
        if let (Some(logprobs), Kind::Text(bytes)) = (&mut self.logprobs, tokenizer.kind(token.id)) {
            let text = String::from_utf8_lossy(bytes);
            logprobs.new.push(json!({ "token": text, "logprob": token.logprob, "bytes": bytes }));
        }
    }

    pub(super) fn word(&mut self, word: Word) {
        if self.words || self.segments {
            self.heard.push(word);
        }
    }

    /// The events of text that became certain.
    pub(super) fn text(&mut self, delta: &str) -> Value {
        let mut event = self.event("delta");
        event["delta"] = delta.into();
        if let Some(logprobs) = &mut self.logprobs {
            let new = std::mem::take(&mut logprobs.new);
            logprobs.told.extend_from_slice(&new);
            event["logprobs"] = new.into();
        }
        event
    }

    /// The events that end it.
    pub(super) fn done(&mut self, summary: &Summary) -> Vec<Value> {
        let mut events = Vec::new();
        if let (true, Some(first), Some(last)) = (self.segments, self.heard.first(), self.heard.last()) {
            let mut segment = self.event("segment");
            segment["id"] = format!("seg_{}", self.id).into();
            segment["start"] = first.start_s.into();
            segment["end"] = last.end_s.into();
            segment["speaker"] = "A".into();
            segment["text"] = summary.text.as_str().into();
            events.push(segment);
        }
        let mut completed = self.event("completed");
        completed["transcript"] = summary.text.as_str().into();
        completed["usage"] = json!({ "type": "duration", "seconds": summary.audio_s });
        if let Some(logprobs) = self.logprobs.take() {
            completed["logprobs"] = [logprobs.told, logprobs.new].concat().into();
        }
        if self.words {
            let word = |word: &Word| json!({ "word": word.text, "start": word.start_s, "end": word.end_s });
            completed["words"] = self.heard.iter().map(word).collect();
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
