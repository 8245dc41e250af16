//! What operators and proxies ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

/// The process is alive.
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// A transcription that is asked for now would begin.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    app.slots.check()?;
    Ok(Json(json!({ "status": "ready", "free": app.slots.capacity() - app.slots.taken() })))
}

/// The model, under each name that clients may call it by.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": "mistralai" });
    Json(json!({ "object": "list", "data": app.models().map(model).collect::<Vec<_>>() }))
}
