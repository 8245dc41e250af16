//! Speech to text over HTTP and WebSockets, for the clients that people already have.
//!
//! ```no_run
//! use voxtral::{Config, Voxtral};
//! use voxtral_server::{Server, ServerConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let voxtral = Voxtral::open(&Config::default(), &mut |_| {})?;
//! let server = Server::new(voxtral, ServerConfig::default());
//! tokio::runtime::Runtime::new()?.block_on(async {
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
//!     server.serve(listener, std::future::pending()).await;
//!     Ok(())
//! })
//! # }
//! ```
//!
//! A program that has a server of its own takes [`Server::router`] and puts it where it likes. What [`ServerConfig`] says of connections, the
//! end and TLS is then its own affair.
//!
//! # What happens when …
//!
//! * **it is full**: a request for one more transcription than [`ServerConfig::max_sessions`] gets 503 with `Retry-After`, before a WebSocket
//!   is opened, so that a proxy can ask another server.
//! * **it is to end**: [`Server::drain`] refuses new transcriptions; those that run end as they would. [`Server::serve`] returns then, or after
//!   [`ServerConfig::drain_timeout`]. Until then it answers that it is not ready.
//! * **a client leaves**: its transcription ends, and its memory is free.
//! * **a client sends slowly, or nothing**: it is left after [`ServerConfig::header_timeout`], or [`ServerConfig::idle_timeout`] in the middle
//!   of a body.
//! * **a request makes the program panic**: its client gets 500, the others notice nothing.

#![forbid(unsafe_code)]

mod app;
mod auth;
mod config;
mod connections;
mod error;
mod files;
mod id;
mod keep;
mod lines;
mod live;
mod metrics;
mod operations;
mod page;
mod requests;
mod slots;
#[cfg(test)]
mod tests;
mod tls;

pub use auth::{ApiKeys, ApiKeysError};
pub use axum::http::HeaderValue;
pub use config::ServerConfig;
pub use keep::{Keep, KeepError};
pub use tls::{Tls, TlsError};

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;
use voxtral::Voxtral;

use app::App;
use error::ApiError;

/// A model, served. Cloning it gives another handle to the same.
#[derive(Clone)]
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// Serves what is opened.
    pub fn new(voxtral: Voxtral, config: ServerConfig) -> Self {
        Self { app: Arc::new(App::new(voxtral, config)) }
    }

    /// All that it answers. For `/metrics` to know who asks, requests must have [`ConnectInfo`](axum::extract::ConnectInfo).
    pub fn router(&self) -> Router {
        let router = Router::new()
            .route("/health", get(operations::health))
            .route("/ready", get(operations::ready))
            .route("/metrics", get(operations::metrics))
            .route("/openapi.json", get(operations::openapi))
            .route("/v1/models", get(operations::models))
            .merge(page::router())
            .merge(files::routes())
            .merge(live::routes())
            .fallback(async || ApiError::not_found())
            .method_not_allowed_fallback(async || ApiError::method_not_allowed());
        self.wrap(router.with_state(Arc::clone(&self.app)))
    }

    /// What is done with every request, from the last layer to the first: it is logged, its panics are caught, pages are told what they may
    /// ask and why they may not, and it must name a key.
    fn wrap(&self, router: Router) -> Router {
        let app = &self.app;
        let router = router
            .layer(RequestBodyTimeoutLayer::new(app.config.idle_timeout))
            .layer(from_fn_with_state(Arc::clone(app), auth::check));
        let router = if app.config.cors_origins.is_empty() { router } else { router.layer(cors(&app.config)) };
        router
            .layer(CatchPanicLayer::custom(requests::panicked))
            .layer(from_fn_with_state(Arc::clone(app), requests::count))
            .layer(from_fn(requests::log))
    }

    /// Answers who comes to `listener`, until `ended` is ready and all that runs then has ended, or has been ended.
    pub async fn serve(self, listener: TcpListener, ended: impl Future<Output = ()>) {
        let slots = &self.app.slots;
        let over = async {
            ended.await;
            self.drain();
            if timeout(self.app.config.drain_timeout, slots.all_free()).await.is_err() {
                tracing::warn!("{} transcriptions are cut short: they took too long to end", slots.taken());
                slots.close();
                let _ = timeout(connections::LAST_WORDS, slots.all_free()).await;
            }
        };
        connections::serve(&listener, self.router(), &self.app.config, over).await;
        if let Some(keep) = &self.app.config.keep {
            let _ = timeout(connections::LAST_WORDS, keep.all_written()).await;
        }
    }

    /// What transcribes.
    pub fn voxtral(&self) -> &Voxtral {
        &self.app.voxtral
    }

    /// Takes no new transcriptions.
    pub fn drain(&self) {
        self.app.slots.drain();
    }
}

/// Answers who comes to `listener` that the server lives and is not ready, until `loaded` is.
pub async fn serve_while_loading<T>(
    listener: &TcpListener,
    config: &ServerConfig,
    loaded: impl Future<Output = T>,
) -> T {
    let router = Router::new().route("/health", get(operations::health)).fallback(async || ApiError::loading());
    connections::serve(listener, router.layer(from_fn(requests::log)), config, loaded).await
}

/// Lets web pages of these origins ask.
fn cors(config: &ServerConfig) -> CorsLayer {
    let any = config.cors_origins.iter().any(|origin| origin == "*");
    let origins = if any { AllowOrigin::any() } else { AllowOrigin::list(config.cors_origins.iter().cloned()) };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        // Clients send headers of their own, which say what they are.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([requests::REQUEST_ID])
}
