//! Everything that keeps audio from being read at all. Which file it was is for the caller to add.

use std::io;

use crate::{MAX_CHANNELS, MAX_RATE, MIN_RATE};

/// Why there is no audio, or no more of it. Damage on the way is no error: see [`Damage`](crate::Damage).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was not one byte.
    #[error("the input is empty")]
    Empty,
    /// The bytes are of no container or codec that is known here.
    #[error("this is not audio in any known format (WAV, FLAC, MP3, AAC, M4A, Ogg, Opus, Matroska, AIFF, CAF, AU)")]
    UnknownFormat,
    /// The bytes are something else.
    #[error("this is {0}, not audio")]
    Foreign(&'static str),
    /// Known, not built in, and there is no ffmpeg.
    #[error(
        "{format} is not built in, and there is no ffmpeg on the PATH that could read it; install ffmpeg, or convert the file with it"
    )]
    NeedsFfmpeg {
        /// The container, and the codec where it is known.
        format: String,
    },
    /// ffmpeg was asked and could not.
    #[error("{format} is not built in, and ffmpeg cannot read it: {message}")]
    Ffmpeg {
        /// The container, and the codec where it is known.
        format: String,
        /// What ffmpeg said last.
        message: String,
    },
    /// The container holds no audio track.
    #[error("there is no audio track")]
    NoTrack,
    /// A track was asked for that is not there.
    #[error("there is no audio track {asked}; the input has {there}")]
    NoSuchTrack {
        /// Counted from 1.
        asked: usize,
        /// How many there are.
        there: usize,
    },
    /// A channel was asked for that is not there.
    #[error("there is no channel {asked}; the input has {there}")]
    NoSuchChannel {
        /// Counted from 1.
        asked: usize,
        /// How many there are.
        there: usize,
    },
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
    /// The structure is damaged so early that nothing can be decoded.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    /// A pipe whose content can be read only when all of it is there has too much of it.
    #[error("a pipe of this format has to be kept until its end, and is longer than {} MB; give the file itself", .limit / 1_000_000)]
    TooLongToKeep {
        /// Bytes that are kept.
        limit: u64,
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
