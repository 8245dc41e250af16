//! `POST /v1/audio/transcriptions`: a recording comes in as a multipart form, and what is said in it goes out.
//!
//! ```text
//! body ─ upload ─ form ─┬─ options ────────────────────────────┐
//!                       └─ spool ─ transcription ─ Heard ─ formats (whole) or events (as it is heard)
//! ```
//! The file is kept on disk while it comes in, and is transcribed from there at the same time, on a thread of its own. So an upload never
//! waits for the model, options may stand behind the file, and one that changes how it is heard begins it anew.

mod events;
mod form;
pub(crate) mod formats;
mod spool;
mod transcription;
mod upload;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::{Router, post};

use crate::app::App;
use crate::error::ApiError;
use crate::requests::RequestId;
use crate::slots::Slot;
use form::Form;
use spool::Spool;
use transcription::Transcription;
use upload::{Field, Fields};
pub(crate) use upload::{Incoming, is_timeout};

/// Names the fields of a request that were understood and have no effect.
const IGNORED: &str = "x-voxtral-ignored";

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/audio/transcriptions", post(transcribe))
        .route("/v1/audio/translations", post(translate))
        // The form counts its bytes itself.
        .layer(DefaultBodyLimit::disable())
}

async fn translate(request: Request) -> ApiError {
    drop(Incoming::new(request.into_body()));
    let message = "this model does not translate: /v1/audio/transcriptions writes what is said, in its own language";
    ApiError::bad_request(message)
}

async fn transcribe(
    State(app): State<Arc<App>>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let user_agent = request.headers().get(header::USER_AGENT).and_then(|name| name.to_str().ok());
    let mut form = Form::of_client(user_agent.unwrap_or_default());
    let mut fields = Fields::new(request, &app.config).await?;
    let slot = Arc::new(app.slots.take()?);
    let mut file = None;
    while let Some(field) = fields.next().await? {
        match field.name() {
            "file" if file.is_some() => return Err(ApiError::bad_field("file", "there is more than one field `file`")),
            "file" => file = Some(receive(&app, &id, &slot, field, &form).await?),
            _ => form.take(field, &app).await?,
        }
    }
    form.check()?;
    let Some((spool, begun)) = file else {
        let message = "there is no field `file`: send the recording itself, as multipart/form-data";
        return Err(ApiError::bad_field("file", message));
    };
    let mut transcription = if begun.delay == form.delay {
        begun
    } else {
        drop(begun);
        Transcription::begin(&app, &id, spool.reader(), form.delay, &slot)?
    };
    drop(slot);

    let ignored = form.ignored().join(", ");
    let mut response = if form.stream {
        events::answer(&app, transcription, form).await?
    } else {
        let model = app.voxtral.model();
        transcription.when(|heard, summary| Some(formats::answer(model, heard, summary?, &form))).await??
    };
    if let Some(ignored) = HeaderValue::from_str(&ignored).ok().filter(|names| !names.is_empty()) {
        response.headers_mut().insert(IGNORED, ignored);
    }
    Ok(response)
}

/// Keeps the file as it comes in, and begins to transcribe it as the form says so far.
async fn receive(
    app: &Arc<App>,
    id: &str,
    slot: &Arc<Slot>,
    mut field: Field<'_>,
    form: &Form,
) -> Result<(Spool, Transcription), ApiError> {
    let mut spool = Spool::new().map_err(|error| ApiError::internal(&error))?;
    let transcription = Transcription::begin(app, id, spool.reader(), form.delay, slot)?;
    while let Some(bytes) = field.chunk().await? {
        // What cannot be read need not be sent to its end.
        transcription.check()?;
        spool.write(bytes).await.map_err(|error| ApiError::internal(&error))?;
    }
    spool.end();
    Ok((spool, transcription))
}
