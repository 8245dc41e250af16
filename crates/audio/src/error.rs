//! Everything that can be wrong with audio. Which file it was is for the caller to add.

use std::io;

use crate::{MAX_CHANNELS, MAX_RATE, MIN_RATE};

/// What was wrong with the audio, or with how it was asked for.
///
/// [`Truncated`](Error::Truncated), [`PartialFrame`](Error::PartialFrame), [`Corrupt`](Error::Corrupt),
/// [`Checksum`](Error::Checksum) and [`NotFinite`](Error::NotFinite) may come in the middle or at the end of a stream. All samples before the damage have been
/// handed out by then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was not one byte.
    #[error("the input is empty")]
    Empty,
    /// The bytes are of no container or codec that is known here.
    #[error("this is not audio in any known format (WAV, FLAC, MP3, AAC, M4A, Ogg, Matroska, AIFF, CAF)")]
    UnknownFormat,
    /// The container is known, what is in it is not.
    #[error("unsupported audio: {0}")]
    Unsupported(&'static str),
    /// The container holds no audio track.
    #[error("there is no audio track")]
    NoTrack,
    /// The header is fine and nothing follows it.
    #[error("there is not a single sample")]
    NoSamples,
    /// There are samples, and not one of them is a number.
    #[error("not one of the {samples} samples is a finite number; wrong format?")]
    NotFinite {
        /// Samples of all channels.
        samples: u64,
    },
    /// No channels, or absurdly many.
    #[error("{0} channels; 1 to {MAX_CHANNELS} are supported")]
    Channels(usize),
    /// No sample rate, or an absurd one.
    #[error("a sample rate of {0} Hz; {MIN_RATE} to {MAX_RATE} are supported")]
    Rate(u32),
    /// The audio is shorter than its header says.
    #[error("truncated: the header promises {expected} samples per channel, there are {got}")]
    Truncated {
        /// Samples per channel by the header.
        expected: u64,
        /// Samples per channel that were there, all of them delivered.
        got: u64,
    },
    /// The bytes end inside a sample, or between the channels of one instant.
    #[error("the last {extra} bytes are not a whole sample of {frame} bytes (all channels); wrong format or cut off?")]
    PartialFrame {
        /// Bytes left over.
        extra: usize,
        /// Bytes of one sample of every channel.
        frame: usize,
    },
    /// The structure is damaged and decoding cannot go on.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    /// Everything was decoded, but it is not what the encoder was given: the checksum in the header differs.
    #[error("corrupt: the checksum of the decoded audio is not the one in the header")]
    Checksum,
    /// Sample rate or channel count change in the middle.
    #[error(
        "the audio changes from {from_rate} Hz, {from_channels} channels to {to_rate} Hz, {to_channels} channels midway"
    )]
    FormatChange {
        /// Sample rate so far.
        from_rate: u32,
        /// Channels so far.
        from_channels: usize,
        /// Sample rate from here on.
        to_rate: u32,
        /// Channels from here on.
        to_channels: usize,
    },
    /// A front-end that cannot be: see [`MelConfig`](crate::MelConfig).
    #[error("a log-mel front-end with {field} = {value} cannot be")]
    MelConfig {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        value: usize,
    },
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `rate`, if sound can have it.
pub(crate) fn check_rate(rate: u32) -> Result<u32> {
    if (MIN_RATE..=MAX_RATE).contains(&rate) { Ok(rate) } else { Err(Error::Rate(rate)) }
}

/// `channels`, if there can be so many.
pub(crate) fn check_channels(channels: usize) -> Result<usize> {
    if (1..=MAX_CHANNELS).contains(&channels) { Ok(channels) } else { Err(Error::Channels(channels)) }
}
