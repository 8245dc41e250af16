//! How audio is to be read, where there is a choice.

use crate::RawFormat;

/// What to read of an input, and how. The default: files by their content, the default track, all channels mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioOptions {
    /// What bytes of no known format are taken for. `None` makes them an error.
    pub raw: Option<RawFormat>,
    /// The audio track, counted from 1 among the audio tracks. `None` is the one with the default flag, else the first
    /// that can be decoded.
    pub track: Option<usize>,
    /// What becomes of several channels.
    pub channel: Channel,
    /// The program that reads what is not built in, looked for on the PATH. `None` for none.
    pub ffmpeg: Option<String>,
}

impl Default for AudioOptions {
    fn default() -> Self {
        Self { raw: None, track: None, channel: Channel::Mix, ffmpeg: Some("ffmpeg".to_owned()) }
    }
}

/// What becomes of several channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// Their mean.
    #[default]
    Mix,
    /// One of them, counted from 1.
    One(usize),
}
