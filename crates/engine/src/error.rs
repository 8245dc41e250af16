//! What can go wrong with a session.

use std::sync::Arc;

use voxtral_audio::Error as AudioError;
use voxtral_model::BackendError;

/// Why a session ended before its audio did, or did not begin. Cloning it copies no more than a pointer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The backend could not do what it was asked: out of memory, a device that failed, a contract that was broken.
    #[error(transparent)]
    Backend(Arc<BackendError>),
    /// The model computed something that is not a number.
    #[error("the model's output at token {position} is not a number: its weights or the device are damaged")]
    NotFinite {
        /// The decoder position.
        position: usize,
    },
    /// The model's front-end cannot be built.
    #[error(transparent)]
    FrontEnd(Arc<AudioError>),
    /// As many sessions run as the engine was told to allow.
    #[error("{running} sessions are running, and no more are allowed: try again when one has ended")]
    Full {
        /// Sessions that run.
        running: usize,
    },
    /// Samples were pushed into a session that has ended.
    #[error("the session has ended")]
    Ended,
    /// The engine was dropped, or its thread failed.
    #[error("the engine has stopped")]
    Stopped,
    /// The engine's thread could not be started.
    #[error("cannot start the engine's thread")]
    Thread(#[source] Arc<std::io::Error>),
}

impl From<BackendError> for EngineError {
    fn from(error: BackendError) -> Self {
        Self::Backend(Arc::new(error))
    }
}
