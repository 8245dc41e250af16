//! A multipart form as it comes in: counted and bounded.

use std::error::Error;
use std::future::Future;
use std::io;
use std::iter::successors;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::multipart::{self, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use futures_util::{Stream, StreamExt, stream};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tower_http::timeout::TimeoutError;

use crate::ServerConfig;
use crate::error::ApiError;

/// The most that is held in memory of what the form has not been asked for. The headers of a field are much shorter.
const MOST_HELD: u64 = 1 << 20;
/// The longest value of a field that is not the file, bytes.
const LONGEST_VALUE: usize = 256 << 10;
/// How long a body is read that nobody wants any more.
const LINGER: Duration = Duration::from_secs(10);

/// The body of a request. Most clients read an answer only when they have sent all, so where it is dropped before its end, the rest is
/// read and thrown away for a while.
pub(crate) struct Incoming {
    /// None at its end, and where the rest is not wanted in any case.
    body: Option<BodyDataStream>,
    runtime: Handle,
}

impl Incoming {
    pub(crate) fn new(body: Body) -> Self {
        Self { body: Some(body.into_data_stream()), runtime: Handle::current() }
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let bytes = ready!(body.poll_next_unpin(cx));
        if !matches!(bytes, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(bytes)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(mut body) = self.body.take() {
            let rest = async move { while let Some(Ok(_)) = body.next().await {} };
            self.runtime.spawn(async { timeout(LINGER, rest).await });
        }
    }
}

/// Whether a body could not be read because nothing came of it for too long.
pub(crate) fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |error| (*error).source()).any(|error| error.is::<TimeoutError>())
}

/// Bytes of a body.
#[derive(Default)]
struct Meter {
    /// That came in.
    came: AtomicU64,
    /// That had come in when the form last gave something.
    given: AtomicU64,
}

impl Meter {
    /// Counts what comes in.
    fn count(&self, bytes: Result<Bytes, axum::Error>) -> Result<Bytes, axum::Error> {
        let bytes = bytes?;
        let came = self.came.fetch_add(bytes.len() as u64, Relaxed) + bytes.len() as u64;
        if came - self.given.load(Relaxed) > MOST_HELD {
            return Err(axum::Error::new(io::Error::other("the headers of a field are too long")));
        }
        Ok(bytes)
    }
}

/// The fields of a form, in the order in which they come in.
pub(crate) struct Fields {
    form: Multipart,
    limits: Limits,
}

/// One of them. What is not read of it is passed over.
pub(crate) struct Field<'a> {
    field: multipart::Field<'a>,
    limits: &'a Limits,
}

struct Limits {
    meter: Arc<Meter>,
    bytes: u64,
    idle: Duration,
}

impl Fields {
    /// Reads nothing yet.
    pub(crate) async fn new(request: Request, config: &ServerConfig) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let mut body = Incoming::new(body);
        let meter = Arc::<Meter>::default();
        let limits = Limits { meter: Arc::clone(&meter), bytes: config.max_upload_bytes, idle: config.idle_timeout };
        let announced = number(&parts.headers);
        if announced.is_some_and(|bytes| bytes > limits.bytes) {
            // Such a client waits to be told before it sends.
            if parts.headers.contains_key(EXPECT) {
                body.body = None;
            }
            return Err(limits.too_large());
        }
        let counted = stream::poll_fn(move |context| {
            let bytes = ready!(body.poll_next_unpin(context)).map(|bytes| meter.count(bytes));
            // Of what never ends nothing more is read.
            if matches!(bytes, Some(Err(_))) {
                body.body = None;
            }
            Poll::Ready(bytes)
        });
        let request = Request::from_parts(parts, Body::from_stream(counted));
        let form = Multipart::from_request(request, &()).await;
        let form =
            form.map_err(|_| ApiError::bad_request("the body must be multipart/form-data, and name its boundary"))?;
        Ok(Self { form, limits })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Field<'_>>, ApiError> {
        let limits = &self.limits;
        let field = limits.keep(self.form.next_field()).await?;
        Ok(field.map(|field| Field { field, limits }))
    }
}

/// How long the body is, if the client says so.
fn number(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Field<'_> {
    pub(crate) fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// What comes next of it; none at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.limits.keep(self.field.chunk()).await
    }

    /// All of it, as text without space around it.
    pub(crate) async fn text(mut self) -> Result<String, ApiError> {
        let mut value = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            value.extend_from_slice(&bytes);
            if value.len() > LONGEST_VALUE {
                return Err(ApiError::bad_request(format!("the field `{}` is too long", self.name())));
            }
        }
        let text = String::from_utf8(value);
        let text = text.map_err(|_| ApiError::bad_request(format!("the field `{}` is not UTF-8", self.name())))?;
        Ok(text.trim().to_owned())
    }

    /// Passes over it.
    pub(crate) async fn skip(mut self) -> Result<(), ApiError> {
        while self.chunk().await?.is_some() {}
        Ok(())
    }
}

impl Limits {
    /// Waits for a step of reading, unless there was too much.
    async fn keep<T>(&self, step: impl Future<Output = Result<T, MultipartError>>) -> Result<T, ApiError> {
        let outcome = step.await;
        let came = self.meter.came.load(Relaxed);
        self.meter.given.store(came, Relaxed);
        if came > self.bytes {
            return Err(self.too_large());
        }
        outcome.map_err(|error| {
            if is_timeout(&error) {
                let seconds = self.idle.as_secs_f32();
                return ApiError::timed_out(format!(
                    "nothing has come for {seconds} seconds: the request is not whole"
                ));
            }
            ApiError::bad_request(format!("the body is not a whole form: {}", error.body_text()))
        })
    }

    fn too_large(&self) -> ApiError {
        ApiError::too_large(format!("the request is larger than the {} bytes that are taken", self.bytes))
    }
}
