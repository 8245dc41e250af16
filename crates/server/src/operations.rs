//! What operators and proxies ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::metrics;

/// The process is alive, however busy it is.
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// A transcription that is asked for now would begin.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    app.check_ready()?;
    Ok(Json(json!({ "status": "ready", "free": app.slots.capacity() - app.slots.taken() })))
}

/// All figures, for Prometheus.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    let text = metrics::text(&app).map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

/// What there is to ask.
pub(crate) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../openapi.json"))
}

/// The model, under each name that clients may call it by.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": "mistralai" });
    Json(json!({ "object": "list", "data": app.models().map(model).collect::<Vec<_>>() }))
}
