//! Connections: how many, encrypted or not, and how long a client may take to say what it wants.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::add_extension::AddExtension;

use crate::ServerConfig;

/// How long the last answers may take to be sent.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);

/// What to wait for when the system has no more connections to give: others end.
const NO_MORE: Duration = Duration::from_millis(100);

/// Answers who comes to `listener` until `over` is ready, and lets answers end that have begun then. Returns what `over` gave.
///
/// Connections beyond the limit wait until one ends. A client that takes long to send a request's header, or sends none, is left; so an open
/// connection costs a little memory for a limited time, however many somebody opens.
pub(crate) async fn serve<T>(
    listener: &TcpListener,
    router: Router,
    config: &ServerConfig,
    over: impl Future<Output = T>,
) -> T {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout);
    let room = Arc::new(Semaphore::new(config.max_connections));
    let (connections, ending) = (TaskTracker::new(), CancellationToken::new());
    let mut over = pin!(over);
    let outcome = loop {
        let (permit, stream, peer) = tokio::select! {
            outcome = &mut over => break outcome,
            next = next(listener, &room) => next,
        };
        let service = AddExtension::new(router.clone(), ConnectInfo(peer));
        let (http, ending) = (http.clone(), ending.clone());
        let (tls, patience) = (config.tls.clone(), config.header_timeout);
        connections.spawn(async move {
            let _permit = permit;
            match tls {
                None => answer(stream, &http, service, ending).await,
                Some(tls) => {
                    // Whoever does not speak TLS learns nothing.
                    if let Ok(Ok(stream)) = timeout(patience, tls.0.accept(stream)).await {
                        answer(stream, &http, service, ending).await;
                    }
                }
            }
        });
    };
    ending.cancel();
    connections.close();
    let _ = timeout(LAST_WORDS, connections.wait()).await;
    outcome
}

/// The next connection, when there is room for it.
async fn next(listener: &TcpListener, room: &Arc<Semaphore>) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    loop {
        let Ok(permit) = Arc::clone(room).acquire_owned().await else {
            // Nobody closes it.
            std::future::pending().await
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Events are short, and none waits for the next. Where it cannot be set, they come later.
                let _ = stream.set_nodelay(true);
                return (permit, stream, peer);
            }
            // It left before it was let in.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::error!(%error, "cannot take another connection");
                sleep(NO_MORE).await;
            }
        }
    }
}

/// Answers what comes over one connection, until that ends, becomes a WebSocket, or `ending` and the last answer is sent.
async fn answer<S>(
    stream: S,
    http: &http1::Builder,
    service: AddExtension<Router, ConnectInfo<SocketAddr>>,
    ending: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection.with_upgrades());
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that breaks off, or speaks something else, harms nobody but itself.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
