//! Why there is nothing to hear, or no longer.

use std::io;

/// Why a recording did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing answers where sound servers are looked for.
    #[error("there is no sound server: {tried}")]
    NoServer {
        /// Each place, and what is wrong with it.
        tried: String,
    },
    /// There is a server, and it does not let us in.
    #[error("the sound server at {server} does not let this user in")]
    Refused {
        /// Where it is.
        server: String,
    },
    /// There is a server, and it says nothing.
    #[error("the sound server at {server} does not answer")]
    Unanswered {
        /// Where it is.
        server: String,
    },
    /// The server ended, or ended the connection.
    #[error("the sound server has ended")]
    ServerGone,
    /// The connection failed.
    #[error("the connection to the sound server failed")]
    Connection(#[source] io::Error),
    /// The server refused a request.
    #[error("the sound server refuses: {why}")]
    Server {
        /// What it says.
        why: String,
    },
    /// What the server sent is not PulseAudio's protocol.
    #[error("what answers is not a sound server, or a damaged one: {0}")]
    Protocol(&'static str),
    /// There is nothing to record from.
    #[error("there is no device to record from")]
    NoDevice,
    /// No device is what was asked for.
    #[error("there is no device {wanted:?}; choose one of these: {there}")]
    NoSuchDevice {
        /// What was asked for.
        wanted: String,
        /// The names of those that there are.
        there: String,
    },
    /// Several devices are what was asked for.
    #[error("{wanted:?} fits several devices: {fitting}")]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Their names.
        fitting: String,
    },
    /// The device was unplugged, or switched off.
    #[error("the device {name} is gone")]
    DeviceGone {
        /// What it was called.
        name: String,
    },
    /// The device gave not a single sample.
    #[error("the device {name} gives no audio")]
    NoAudio {
        /// What it is called.
        name: String,
    },
    /// The system's own interface failed.
    #[cfg(any(windows, target_vendor = "apple"))]
    #[error("the system's sound failed")]
    System(#[from] cpal::Error),
    /// The device has a sample rate that cannot be converted.
    #[cfg(any(windows, target_vendor = "apple"))]
    #[error("the device records {0} samples a second, which cannot be resampled")]
    Rate(u32),
    /// The thread that records could not be started.
    #[error("cannot start a thread that records")]
    Thread(#[source] io::Error),
}
