//! Transcription while people speak, over WebSockets and, where a client has none, as an [upload] that is answered while it goes on.
//!
//! ```text
//! message ─ Dialect ─ bytes ─ Intake ─ 16 kHz ─ Utterances ─ engine ─ events ─ Dialect ─ Outbox ─ writer
//! ```
//! A [`connection`] is one task, and one more that writes. It always reads, so that pings are answered whatever else goes on: what the engine
//! has no room for waits in [`Utterances`](utterance::Utterances), which hold five minutes of audio. If a client does not take its events,
//! its own session pauses, and the connection ends if that goes on. What clients of different servers say and expect is a [`Dialect`].

mod audio;
mod connection;
mod dialect;
mod mistral;
mod openai;
mod outbox;
mod pads;
mod realtime;
mod upload;
mod utterance;
mod vllm;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, Query, State, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{Router, get, post};
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;
use crate::requests::RequestId;
use dialect::Dialect;
use mistral::Mistral;
use realtime::Realtime;
use utterance::Utterances;

/// The largest message, bytes: four minutes of 24 kHz PCM in base64.
const MAX_MESSAGE: usize = 16 << 20;

/// OpenAI's subprotocol. Browsers offer it beside one that holds their key.
const SUBPROTOCOL: &str = "realtime";

/// All addresses at which people are heard while they speak.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/realtime", get(realtime))
        .route("/v1/audio/transcriptions/realtime", get(mistral))
        // curl -T puts.
        .route("/v1/audio/transcriptions/live", post(upload::upload).put(upload::upload))
}

/// A request that may become a WebSocket.
pub(crate) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// What follows the `?` of its address.
pub(crate) type Fields = Result<Query<HashMap<String, String>>, QueryRejection>;

/// `/v1/realtime`: the protocols of OpenAI and of vLLM.
async fn realtime(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    query: Fields,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let (Query(query), upgrade) = (query?, upgrade?);
    let is_openai = upgrade.requested_protocols().any(|offered| offered == SUBPROTOCOL);
    let dialect = Realtime::new(Arc::clone(&app), &query, is_openai)?;
    accept(app, id, upgrade, dialect.hello(), dialect)
}

/// `/v1/audio/transcriptions/realtime`: the protocol of Mistral.
async fn mistral(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    query: Fields,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let (Query(query), upgrade) = (query?, upgrade?);
    let dialect = Mistral::new(Arc::clone(&app), &query)?;
    accept(app, id, upgrade, dialect.hello(), dialect)
}

/// Opens a WebSocket in which `dialect` is spoken, with `hello` as its first event. All that can be refused is refused before, so that a
/// proxy can ask another server.
fn accept(
    app: Arc<App>,
    id: RequestId,
    upgrade: WebSocketUpgrade,
    hello: Value,
    dialect: impl Dialect + 'static,
) -> Result<Response, ApiError> {
    let slot = app.slots.take()?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).protocols([SUBPROTOCOL]);
    Ok(upgrade.on_upgrade(move |socket| connection::serve(socket, Utterances::new(app, id), slot, hello, dialect)))
}
