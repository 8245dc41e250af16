//! A transcription as it is heard, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use voxtral::{Model, Summary};

use super::form::{Dialect, Form};
use super::formats;
use super::transcription::{Heard, Transcription};
use crate::app::App;
use crate::error::ApiError;

/// The answer to a client that wants text as it is heard. It begins with the first text, so that what fails before has a status of its own.
pub(crate) async fn answer(app: &Arc<App>, mut of: Transcription, form: Form) -> Result<Response, ApiError> {
    of.when(|heard, summary| (!heard.text.is_empty() || summary.is_some()).then_some(())).await?;
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ready = VecDeque::new();
    let events = Events { app: Arc::clone(app), of, form, begun, text: 0, tokens: 0, ready, ended: false };
    let events = stream::unfold(events, |mut events| async move {
        events.next().await.map(|event| (Ok::<_, Infallible>(event), events))
    });
    Ok(Sse::new(events).into_response())
}

struct Events {
    app: Arc<App>,
    of: Transcription,
    form: Form,
    /// Since 1970.
    begun: Duration,
    /// Bytes of text that have been told, and tokens.
    text: usize,
    tokens: usize,
    /// To be sent before anything new is looked for.
    ready: VecDeque<Event>,
    ended: bool,
}

impl Events {
    async fn next(&mut self) -> Option<Event> {
        if self.ready.is_empty() && !self.ended {
            let Self { app, of, form, begun, text, tokens, ready, ended } = self;
            let writer = Writer { model: app.voxtral.model(), form, begun: *begun };
            let look = |heard: &Heard, summary: Option<&Summary>| {
                if heard.text.len() > *text {
                    ready.push_back(writer.delta(heard, *text, *tokens));
                    (*text, *tokens) = (heard.text.len(), heard.tokens_of_text);
                }
                ready.extend(summary.into_iter().flat_map(|summary| writer.done(heard, summary)));
                *ended = summary.is_some();
                (!ready.is_empty()).then_some(())
            };
            if let Err(error) = of.when(look).await {
                *ended = true;
                ready.push_back(writer.event("error", &json!({ "error": error.to_json() })));
            }
        }
        self.ready.pop_front()
    }
}

/// Writes events as the client wants them.
struct Writer<'a> {
    model: &'a Model,
    form: &'a Form,
    begun: Duration,
}

impl Writer<'_> {
    /// The text goes on after `text` bytes and `tokens` tokens.
    fn delta(&self, heard: &Heard, text: usize, tokens: usize) -> Event {
        let delta = &heard.text[text..];
        match self.form.dialect {
            Dialect::OpenAi => {
                let mut event = json!({ "type": "transcript.text.delta", "delta": delta });
                if self.form.logprobs {
                    event["logprobs"] = formats::logprobs(self.model, &heard.tokens[tokens..heard.tokens_of_text]);
                }
                self.event("", &event)
            }
            Dialect::Mistral => {
                let kind = "transcription.text.delta";
                self.event(kind, &json!({ "type": kind, "text": delta }))
            }
            Dialect::Vllm { .. } => {
                let choice = json!({ "index": 0, "delta": { "content": delta }, "finish_reason": null });
                self.event("", &self.chunk(json!([choice])))
            }
        }
    }

    /// All has been heard.
    fn done(&self, heard: &Heard, summary: &Summary) -> Vec<Event> {
        let (input, output) = formats::tokens(summary);
        match self.form.dialect {
            Dialect::OpenAi => {
                let usage = json!({
                    "type": "tokens",
                    "input_tokens": input,
                    "input_token_details": { "audio_tokens": input, "text_tokens": 0 },
                    "output_tokens": output,
                    "total_tokens": input + output,
                });
                let mut event = json!({ "type": "transcript.text.done", "text": summary.text, "usage": usage });
                if self.form.logprobs {
                    event["logprobs"] = formats::logprobs(self.model, &heard.tokens);
                }
                vec![self.event("", &formats::with_damage(event, heard))]
            }
            Dialect::Mistral => {
                let (segment, done) = ("transcription.segment", "transcription.done");
                let segments = formats::mistral_segments(heard, self.form, segment);
                let mut events: Vec<Event> = segments.iter().map(|event| self.event(segment, event)).collect();
                let mut event = formats::mistral(self.model, heard, summary, self.form);
                event["type"] = done.into();
                events.push(self.event(done, &event));
                events
            }
            Dialect::Vllm { usage } => {
                let choice = json!({ "index": 0, "delta": { "content": "" }, "finish_reason": "stop" });
                let last = formats::with_damage(self.chunk(json!([choice])), heard);
                let mut events = vec![self.event("", &last)];
                if usage {
                    let mut chunk = self.chunk(json!([]));
                    let total = input + output;
                    chunk["usage"] =
                        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": total });
                    events.push(self.event("", &chunk));
                }
                events.push(Event::default().data("[DONE]"));
                events
            }
        }
    }

    fn event(&self, kind: &str, event: &Value) -> Event {
        let line = Event::default().data(event.to_string());
        if self.form.dialect == Dialect::Mistral { line.event(kind) } else { line }
    }

    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": format!("trsc-{:x}", self.begun.as_nanos()),
            "object": "transcription.chunk",
            "created": self.begun.as_secs(),
            "model": self.model.name,
            "choices": choices,
        })
    }
}
