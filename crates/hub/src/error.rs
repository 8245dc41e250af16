//! What can go wrong.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Repo;

/// Why a model is not in the cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No name that a repository can have.
    #[error("{name}: not the name of a model: those are of the form OWNER/NAME")]
    Name {
        /// What was given.
        name: String,
    },
    /// No address.
    #[error("{endpoint}: not the address of a hub: it begins with https:// or http://")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// A token that cannot be sent.
    #[error("the token for the hub has characters that no token has: check HF_TOKEN, or the file that it was saved in")]
    Token,
    /// No certificates.
    #[error("not a file of certificates: it has no block that begins with -----BEGIN CERTIFICATE-----")]
    Certificates,
    /// HTTP 404, or 401 to somebody who did not say who it is: the Hub does not tell strangers what there is.
    #[error(
        "{repo}: {endpoint} has no such model: check the name; if it is private, set HF_TOKEN to a token that may read it"
    )]
    NoSuchModel {
        /// The model.
        repo: Repo,
        /// The hub.
        endpoint: String,
    },
    /// There is nothing in the repository that was to be downloaded.
    #[error("{repo}: no model of a kind that this program knows: it has {names}")]
    NoFiles {
        /// The model.
        repo: Repo,
        /// What there is.
        names: String,
    },
    /// HTTP 404 for a file that was listed.
    #[error("{repo}: {name} is in the list of files, but is not there")]
    NoSuchFile {
        /// The model.
        repo: Repo,
        /// The file.
        name: String,
    },
    /// HTTP 401 to a token.
    #[error(
        "{repo}: {endpoint} does not accept the token: it is mistyped or has expired; {endpoint}/settings/tokens makes another"
    )]
    BadToken {
        /// The model.
        repo: Repo,
        /// The hub.
        endpoint: String,
    },
    /// HTTP 403, or a model whose conditions must be accepted first.
    #[error(
        "{repo}: {endpoint} refuses access: accept the model's conditions at {endpoint}/{repo}, and set HF_TOKEN to a token of that \
         account ({endpoint}/settings/tokens)"
    )]
    Refused {
        /// The model.
        repo: Repo,
        /// The hub.
        endpoint: String,
    },
    /// HTTP 429 or 503, several times, or with a longer wait than anybody has patience for.
    #[error(
        "{host} is busy, or had too many requests (HTTP {status}): try again in {}; what has come so far is kept",
        .wait.map_or_else(|| "some minutes".to_owned(), |wait| format!("{} s", wait.as_secs()))
    )]
    Busy {
        /// Who.
        host: String,
        /// 429 or 503.
        status: u16,
        /// What it asks to wait, if it says so.
        wait: Option<Duration>,
    },
    /// Any other status that is no success.
    #[error("{host} answered with HTTP status {status}")]
    Status {
        /// Who.
        host: String,
        /// The status.
        status: u16,
    },
    /// No connection, or none that lasts.
    #[error("cannot reach {host}: check the network, and HTTPS_PROXY where there is a proxy")]
    Network {
        /// Whom.
        host: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// Connections that end too early, several times without a byte between them.
    #[error(
        "{name}: the connection broke off after {done} of {size} bytes, several times: run the command again to go on from there"
    )]
    BrokeOff {
        /// The file.
        name: String,
        /// What came.
        done: u64,
        /// What was to come.
        size: u64,
        /// How it ended, if not as if all were there.
        source: Option<io::Error>,
    },
    /// An answer without what a hub's answers have.
    #[error(
        "{host} does not answer as a hub does: {what}; is HF_ENDPOINT right, and does no page of a proxy come between?"
    )]
    NotAHub {
        /// Who.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// Sizes that contradict each other.
    #[error("{name}: {host} promised {promised} bytes and sends another number: {sent}")]
    Length {
        /// The file.
        name: String,
        /// Who.
        host: String,
        /// By the file's description.
        promised: u64,
        /// By the answer with its bytes.
        sent: String,
    },
    /// A checksum that is not the one that was promised.
    #[error(
        "{name}: damaged on its way: its checksum is {found}, not {promised}; it was deleted, run the command again"
    )]
    Corrupt {
        /// The file.
        name: String,
        /// As the hub says.
        promised: String,
        /// Of the bytes that came.
        found: String,
    },
    /// Less room than is needed; nothing was downloaded.
    #[error("{}: {needed} MB are needed and {free} MB are free: make room, or set HF_HUB_CACHE to a folder elsewhere", path.display())]
    NoRoom {
        /// The cache.
        path: PathBuf,
        /// Rounded up.
        needed: u64,
        /// Rounded down.
        free: u64,
    },
    /// The disk, a quota or a limit on the size of files was full in the middle.
    #[error("{}: the disk is full: make room and run the command again; what has come so far is kept", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// As the system says it.
        source: io::Error,
    },
    /// Anything else about a file.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Threads that cannot be started.
    #[error("cannot start threads for the download")]
    Threads(#[source] io::Error),
}

impl Error {
    /// Of reading or writing a file of the cache.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        |source| {
            let path = path.to_owned();
            match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    Self::DiskFull { path, source }
                }
                _ => Self::Io { path, source },
            }
        }
    }

    /// Whether it may be over when it is tried again.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::BrokeOff { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 408,
            Self::Network { source, .. } => match &**source {
                // A certificate that is not accepted.
                ureq::Error::Io(e) => e.kind() != ErrorKind::InvalidData,
                ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::InvalidProxyUrl => false,
                _ => true,
            },
            _ => false,
        }
    }
}
