//! What can go wrong with a session.

use voxtral_model::BackendError;

/// Why a session ended before its audio did.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The device failed, or has no memory for another session.
    #[error("{0}")]
    Backend(String),
    /// The model computed something that is not a number.
    #[error("the model's output at token {position} is not a number: its weights or the device are damaged")]
    NotFinite {
        /// The decoder position.
        position: usize,
    },
    /// The model's front-end cannot be built.
    #[error("{0}")]
    FrontEnd(String),
    /// Samples were pushed into a session that has ended.
    #[error("the session has ended")]
    Ended,
    /// The engine was dropped, or its thread failed.
    #[error("the engine has stopped")]
    Stopped,
    /// The engine's thread could not be started.
    #[error("cannot start the engine's thread: {0}")]
    Thread(String),
}

impl From<BackendError> for EngineError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error.to_string())
    }
}
