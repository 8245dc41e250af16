//! What a request is refused with: OpenAI's shape, whatever was asked.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use voxtral::{BackendError, EngineError, Error};

/// Seconds after which a client that was refused for want of room may ask again.
const RETRY_AFTER_S: u64 = 5;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// For people: what is wrong, and what to do.
    pub(crate) message: String,
    /// Which field of the request it is about.
    pub(crate) param: Option<&'static str>,
    /// For programs.
    pub(crate) code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A field has a value that it cannot have, or is missing.
    pub(crate) fn bad_field(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// The request cannot be understood.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn model_not_found<'a>(name: &str, served: impl Iterator<Item = &'a str>) -> Self {
        let served = served.collect::<Vec<_>>().join(", ");
        let message = format!("the model {name:?} is not served here; these are: {served}");
        Self { param: Some("model"), code: Some("model_not_found"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "there is nothing at this address: /v1/models, /v1/audio/transcriptions and /v1/realtime are served",
        )
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
    }

    /// No key is named, or none of the server's.
    pub(crate) fn unauthorized(named: bool) -> Self {
        let message = if named {
            "this key is not one of this server's"
        } else {
            "a key is needed: send the header Authorization: Bearer KEY"
        };
        Self { code: Some("invalid_api_key"), ..Self::new(StatusCode::UNAUTHORIZED, message) }
    }

    /// More than is allowed of something.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// The client sends nothing any more.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self { code: Some("idle_timeout"), ..Self::new(StatusCode::REQUEST_TIMEOUT, message) }
    }

    /// As many transcriptions run as may.
    pub(crate) fn full() -> Self {
        let message = "as many transcriptions are running as this server takes: try again when one has ended";
        Self { code: Some("server_full"), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The device has no memory for one more transcription beside those that run.
    pub(crate) fn no_memory() -> Self {
        let message =
            "there is no memory for one more transcription beside those that run: try again when one has ended";
        Self { code: Some("server_full"), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The server is about to end.
    pub(crate) fn draining() -> Self {
        let message = "this server is about to end and takes no new transcriptions";
        Self { code: Some("server_draining"), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The model is not open yet.
    pub(crate) fn loading() -> Self {
        let message = "this server is loading its model: try again soon";
        Self { code: Some("server_loading"), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The engine has ended, and the server must be started again.
    pub(crate) fn engine_stopped() -> Self {
        let message = "the engine has stopped: its log says why; this server must be started again";
        Self { code: Some("engine_stopped"), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The engine has been at one round for so long that it will not end.
    pub(crate) fn engine_stuck() -> Self {
        let message = "the engine is stuck: its device does not answer";
        Self { code: Some("engine_stuck"), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// A request met a fault of the program. It is logged where it is caught.
    pub(crate) fn fault() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "this request met a fault of the server: its log says more")
    }

    /// The model or its device failed. What is told to the client does not say more than that; the log does.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to transcribe this: its log says why")
    }

    /// The name of its kind that clients look at.
    pub(crate) fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// What it is counted and logged as: one of a few.
    pub(crate) fn code_or_kind(&self) -> &'static str {
        self.code.unwrap_or(self.kind())
    }

    /// As it stands in a body or in an event.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        json!({ "message": self.message, "type": self.kind(), "param": self.param, "code": self.code })
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full { .. } => Self::full(),
            EngineError::Stopped => Self::draining(),
            EngineError::Backend(error) if matches!(*error, BackendError::OutOfMemory { .. }) => {
                tracing::warn!("{error}: --max-sessions allows more than there is memory for");
                Self::no_memory()
            }
            error => Self::internal(&error),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Engine(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<WebSocketUpgradeRejection> for ApiError {
    fn from(rejection: WebSocketUpgradeRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

/// What the answer to a refused request carries for the log and the figures.
#[derive(Clone, Copy)]
pub(crate) struct Refused(pub(crate) &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.to_json() }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Refused(self.code_or_kind()));
        response
    }
}
