//! `/v1/audio/transcriptions/live`: audio comes in as the body of a request, and what is heard goes out while it comes.
//!
//! ```text
//! body ─ Source ─ transcribe ─ JsonLines ─ Lines ─ answer
//! ```
//! All but the answer is on a thread of its own. It reads the body as fast as the engine hears it, so a client that is faster waits.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::{TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::io::{StreamReader, SyncIoBridge};
use voxtral::{
    AudioError, AudioOptions, Delay, Error, JsonLines, Options, RawFormat, SampleFormat, Sink, Source, Stop,
};

use super::connection::STALLED;
use crate::app::App;
use crate::error::ApiError;
use crate::files::{Incoming, is_timeout};
use crate::keep::Kept;
use crate::lines::Lines;
use crate::requests::RequestId;
use crate::slots::Slot;

/// Lines that wait for the client.
const LINES: usize = 64;

/// Pauses that may end a segment, ms.
const ENDPOINTS: std::ops::RangeInclusive<u64> = 200..=60_000;

/// What lines are about: the input, by the name that programs have for a pipe.
const PATH: &str = "-";

/// What follows the `?` of the address.
#[derive(Deserialize)]
pub(crate) struct Asked {
    model: Option<String>,
    delay_ms: Option<u32>,
    endpoint_ms: Option<u64>,
    #[serde(default)]
    raw_format: SampleFormat,
    raw_rate: Option<u32>,
    raw_channels: Option<usize>,
}

impl Asked {
    /// What bytes of no known format are taken for.
    fn audio(&self) -> AudioOptions {
        let default = RawFormat::default();
        let (rate, channels) = (self.raw_rate.unwrap_or(default.rate), self.raw_channels.unwrap_or(default.channels));
        let raw = RawFormat { sample: self.raw_format, rate, channels };
        AudioOptions { raw: Some(raw), ..AudioOptions::default() }
    }

    fn options(&self, stop: Stop) -> Result<Options, ApiError> {
        let delay = self.delay_ms.map(Delay::from_ms).transpose();
        let delay = delay.map_err(|error| ApiError::bad_field("delay_ms", error.to_string()))?;
        if self.endpoint_ms.is_some_and(|ms| !ENDPOINTS.contains(&ms)) {
            let (least, most) = (ENDPOINTS.start(), ENDPOINTS.end());
            let message = format!("`endpoint_ms` can be {least} to {most} milliseconds");
            return Err(ApiError::bad_field("endpoint_ms", message));
        }
        let endpoint = self.endpoint_ms.map(Duration::from_millis);
        Ok(Options { delay, endpoint, stop: Some(stop), ..Options::default() })
    }
}

pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    Extension(RequestId(id)): Extension<RequestId>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    // However this is refused, the rest of the body is taken, as most clients hear nothing before.
    let body = Incoming::new(body);
    let Query(asked) = asked?;
    if let Some(model) = &asked.model {
        app.check_model(model)?;
    }
    let stop = Stop::new();
    let (options, audio) = (asked.options(stop.clone())?, asked.audio());
    let slot = app.slots.take()?;

    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let is_sse = accepted.is_some_and(|accepted| accepted.contains("text/event-stream"));
    let content_type = if is_sse { "text/event-stream" } else { "application/x-ndjson" };
    let (to, mut waiting) = mpsc::channel(LINES);
    let runtime = Handle::current();
    let lines = Lines::new(move |mut line| {
        // An event has an empty line behind it.
        if is_sse {
            line = [b"data: ", line.as_slice(), b"\n"].concat();
        }
        // A timeout begins inside the runtime.
        match runtime.block_on(async { timeout(STALLED, to.send(Bytes::from(line))).await }) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    });
    let body = StreamReader::new(body.map_err(unread));
    let body = SyncIoBridge::new(body);
    let (begun, begins) = oneshot::channel();
    let (running, ended) = oneshot::channel::<()>();
    let work = {
        let app = Arc::clone(&app);
        move || {
            let _running = running;
            match Source::stream(body, &audio) {
                Ok(source) => {
                    // Who does not wait for the answer does not read it either.
                    let _ = begun.send(Ok(()));
                    let kept = app.keep(&id, &options);
                    transcribe(&app, source, &options, lines, kept, slot);
                }
                Err(error) => _ = begun.send(Err(why(error.into()))),
            }
        }
    };
    let started = std::thread::Builder::new().name("voxtral-live".into()).spawn(work);
    started.map_err(|error| ApiError::internal(&error))?;
    tokio::spawn(async move {
        tokio::select! {
            () = app.slots.closing() => {
                stop.stop();
            }
            _ = ended => {}
        }
    });

    // What cannot be read has a status of its own.
    begins.await.map_err(|error| ApiError::internal(&error))??;
    let lines = stream::poll_fn(move |context| waiting.poll_recv(context).map(|line| line.map(Ok::<_, Infallible>)));
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// Tells what is heard, and the error that ends it if there is one.
fn transcribe(app: &App, mut source: Source, options: &Options, mut lines: Lines, mut kept: Option<Kept>, slot: Slot) {
    let mut events = JsonLines::new(&mut lines, PATH.to_owned());
    let mut sinks: Vec<&mut dyn Sink> = Vec::new();
    if let Some(kept) = &mut kept {
        let ear = kept.ear().clone();
        source = source.heard_by(move |samples| ear.hear(samples));
        sinks.push(kept);
    }
    sinks.push(&mut events);
    let outcome = app.voxtral.transcribe(source, options, &mut sinks);
    drop(slot);
    match outcome {
        Ok(summary) => {
            app.metrics.audio(summary.audio_s);
            summary.stats.first_text.into_iter().for_each(|after| app.metrics.first_word(after));
        }
        Err(Error::Sink(error)) => tracing::info!("a client takes nothing any more: {error}"),
        Err(error) => {
            let line = json!({ "path": PATH, "type": "error", "error": why(error).to_json() });
            // Whoever has left does not hear it.
            let _ = writeln!(lines, "{line}").and_then(|()| lines.flush());
        }
    }
}

/// Why there is nothing to hear, or no more.
fn why(error: Error) -> ApiError {
    match error {
        Error::Audio(AudioError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
            ApiError::timed_out(error.to_string())
        }
        Error::Audio(error) => ApiError::bad_request(error.to_string()),
        error => error.into(),
    }
}

/// Why no more of a body comes.
fn unread(error: axum::Error) -> io::Error {
    if is_timeout(&error) {
        return io::Error::new(io::ErrorKind::TimedOut, "no audio came for too long");
    }
    io::Error::new(io::ErrorKind::ConnectionAborted, "the request broke off in the middle of its audio")
}
