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
//!     server.serve(listener, std::future::pending()).await
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! A program that has a server of its own takes [`Server::router`] and puts it where it likes.
//!
//! # What happens when …
//!
//! * **it is full**: a request for one more transcription than [`ServerConfig::max_sessions`] gets 503 with `Retry-After`, before a WebSocket
//!   is opened, so that a proxy can ask another server.
//! * **it is to end**: [`Server::drain`] refuses new transcriptions; those that run end as they would. [`Server::serve`] returns then.
//! * **a client leaves**: its transcription ends, and its memory is free.

#![forbid(unsafe_code)]
#![expect(dead_code, reason = "what takes audio comes next")]

mod app;
mod config;
mod error;
mod files;
mod operations;
mod slots;

pub use config::ServerConfig;

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
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

    /// All that it answers.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/health", get(operations::health))
            .route("/ready", get(operations::ready))
            .route("/v1/models", get(operations::models))
            .merge(files::routes())
            .fallback(async || ApiError::not_found())
            .method_not_allowed_fallback(async || ApiError::method_not_allowed())
            .with_state(Arc::clone(&self.app))
    }

    /// Answers who comes to `listener`, until `ended` is ready and all that runs then has ended.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(
        self,
        listener: TcpListener,
        ended: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (app, router) = (Arc::clone(&self.app), self.router());
        let drained = async move {
            ended.await;
            self.drain();
            app.slots.all_free().await;
        };
        axum::serve(listener, router).with_graceful_shutdown(drained).await
    }

    /// Takes no new transcriptions.
    pub fn drain(&self) {
        self.app.slots.drain();
    }
}
