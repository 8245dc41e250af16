//! What can go wrong, from opening a model to the last word.

use std::io;

use voxtral_audio::Error as AudioError;
use voxtral_engine::EngineError;
use voxtral_microphone::Error as MicrophoneError;
use voxtral_model::{BackendError, ModelError};

/// Why nothing was opened, or a transcription ended before its audio did. What it was about, such as a file of audio, is for the
/// caller to add; a model's file is named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The backend that was asked for cannot be used, or not for this model.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A GPU was asked for, and something that only CPUs have.
    #[error("{0} is for the CPU: choose that as the backend, or leave the setting out")]
    CpuOnly(&'static str),
    /// The audio. It may come after a part of it was transcribed: [`Voxtral::transcribe`](crate::Voxtral::transcribe).
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The microphone. What it heard before was transcribed.
    #[error(transparent)]
    Microphone(#[from] MicrophoneError),
    /// The thread that reads the audio could not be started.
    #[error("cannot start a thread that reads the audio")]
    Thread(#[source] io::Error),
    /// The thread that reads the audio panicked.
    #[error("reading it broke off")]
    BrokeOff,
    /// The session: too many at a time, no memory, a device that failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The sink.
    #[error(transparent)]
    Sink(io::Error),
}
