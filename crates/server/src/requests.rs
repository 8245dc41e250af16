//! What is done with every request: it gets an id, its answer a line in the log. Nothing that is said in the audio, no key and no query is
//! ever logged.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use crate::app::App;
use crate::error::{ApiError, Refused};
use crate::id;

/// The header that names a request: as the client does, or else as the server does.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is called, for its handler.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Answers with the request's id, and logs both within a span that has the id, too.
pub(crate) async fn log(mut request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).cloned().unwrap_or_else(new_id);
    let text = id.to_str().unwrap_or_default().to_owned();
    let span = tracing::info_span!("request", id = text, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(text));
    async {
        let begun = Instant::now();
        let mut response = next.run(request).await;
        let ms = begun.elapsed().as_millis() as u64;
        let refused = response.extensions().get().map(|Refused(why)| *why);
        tracing::info!(status = response.status().as_u16(), ms, refused, "answered");
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
    .instrument(span)
    .await
}

/// Counts the requests that are refused.
pub(crate) async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if let Some(Refused(why)) = response.extensions().get() {
        app.metrics.error(why);
    }
    response
}

/// What a client is told whose request made the program panic; the panic itself is on standard error by then.
pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request broke off");
    ApiError::fault().into_response()
}

fn new_id() -> HeaderValue {
    // Letters, digits and a line are a value.
    HeaderValue::try_from(id::new("req")).unwrap_or(HeaderValue::from_static("req"))
}
