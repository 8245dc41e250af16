//! Who may ask: clients that name one of the server's keys.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::{Choice, ConstantTimeEq};

use crate::app::App;
use crate::error::ApiError;
use crate::page;

/// What a browser, which cannot set headers on a WebSocket, puts before its key in the list of subprotocols.
const SUBPROTOCOL: &str = "openai-insecure-api-key.";

/// The keys that clients may name, in a file with one on each line. Empty lines and those that begin with `#` count for nothing.
///
/// When the file changes, its new keys count from the next request on. If it cannot be read any more, the keys that were in it last stay,
/// and the log says so. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct ApiKeys(Arc<File>);

struct File {
    path: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    /// Of the file that the keys are from.
    stamp: Option<Stamp>,
    keys: Vec<String>,
}

/// What is another after a change: when a file was last written, and its length.
type Stamp = (SystemTime, u64);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiKeysError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A server that takes no key would refuse everybody.
    #[error("{}: there is no key in it: write one on each line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl ApiKeys {
    /// Reads the keys.
    ///
    /// # Errors
    /// When the file cannot be read, or no key is in it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ApiKeysError> {
        let path = path.into();
        let stamp = stamp(&path);
        let keys = read(&path)?;
        Ok(Self(Arc::new(File { path, known: Mutex::new(Known { stamp, keys }) })))
    }

    /// Whether a key is one of them. How long the answer takes says nothing about how near it was.
    fn have(&self, key: &[u8]) -> bool {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.0.path);
        if stamp != known.stamp {
            known.stamp = stamp;
            match read(&self.0.path) {
                Ok(keys) => known.keys = keys,
                Err(error) => tracing::error!("{error}; the keys that were in it stay"),
            }
        }
        known.keys.iter().fold(Choice::from(0), |any, one| any | one.as_bytes().ct_eq(key)).into()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}

fn read(path: &Path) -> Result<Vec<String>, ApiKeysError> {
    let text = fs::read_to_string(path).map_err(|source| ApiKeysError::Unreadable { path: path.to_owned(), source })?;
    // Editors of Windows put a mark before the first letter.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    if keys.is_empty() {
        return Err(ApiKeysError::Empty { path: path.to_owned() });
    }
    Ok(keys)
}

/// Lets a request pass that names a key, or needs none. It comes before a WebSocket is opened.
pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, ApiError> {
    if let Some(keys) = &app.config.keys
        && !is_open(&request)
    {
        let named = named(&request, app.config.key_query.as_deref());
        if !named.iter().any(|key| keys.have(key)) {
            return Err(ApiError::unauthorized(!named.is_empty()));
        }
    }
    Ok(next.run(request).await)
}

/// Whether anybody may ask this: what proxies and browsers ask without a key, and figures, if it is this machine that wants them.
fn is_open(request: &Request) -> bool {
    match request.uri().path() {
        "/health" | "/ready" => true,
        path if page::has(path) => true,
        "/metrics" => {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback())
        }
        _ => request.method() == Method::OPTIONS,
    }
}

/// All keys that a request names, wherever its client puts them.
fn named(request: &Request, parameter: Option<&str>) -> Vec<Vec<u8>> {
    let headers = request.headers();
    let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let own = ["api-key", "x-api-key"].into_iter().flat_map(|name| headers.get_all(name)).map(|value| value.as_bytes());
    let protocols = subprotocols(headers).filter_map(|name| name.strip_prefix(SUBPROTOCOL)).map(str::as_bytes);
    let mut keys: Vec<Vec<u8>> = bearer.chain(own).chain(protocols).map(<[u8]>::to_vec).collect();
    if let Some(parameter) = parameter
        && let Ok(Query(query)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
    {
        keys.extend(query.into_iter().filter(|(name, _)| name == parameter).map(|(_, key)| key.into_bytes()));
    }
    keys
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}
