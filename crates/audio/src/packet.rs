//! What containers hold, and what all of them are read into: packets of one track, each with its time.

use crate::damage::Notice;
use crate::error::{Error, Result};
use crate::input::Input;
use crate::pcm::PcmFormat;

/// How packets are coded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Codec {
    Pcm(PcmFormat),
    Aac,
    /// Layer 1 to 3.
    Mpeg(u8),
    Alac,
    Flac,
    Vorbis,
    Opus,
    /// ADPCM in WAV; samples per channel of a block.
    ImaAdpcm(u32),
    MsAdpcm(u32),
    /// Known by name, and not built in.
    Other(String),
}

/// What a decoder needs to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Format {
    pub(crate) codec: Codec,
    /// 0 where only the packets tell.
    pub(crate) rate: u32,
    pub(crate) channels: usize,
    /// What the codec itself keeps apart from its packets.
    pub(crate) setup: Vec<u8>,
}

impl Format {
    pub(crate) fn new(codec: Codec, rate: u32, channels: usize) -> Self {
        Self { codec, rate, channels, setup: Vec::new() }
    }

    pub(crate) fn other(name: impl Into<String>) -> Self {
        Self::new(Codec::Other(name.into()), 0, 0)
    }

    /// As messages name it.
    pub(crate) fn name(&self) -> &str {
        match &self.codec {
            Codec::Pcm(_) => "PCM",
            Codec::Aac => "AAC",
            Codec::Mpeg(1) => "MPEG layer I",
            Codec::Mpeg(2) => "MP2",
            Codec::Mpeg(_) => "MP3",
            Codec::Alac => "ALAC",
            Codec::Flac => "FLAC",
            Codec::Vorbis => "Vorbis",
            Codec::Opus => "Opus",
            Codec::ImaAdpcm(_) => "IMA ADPCM",
            Codec::MsAdpcm(_) => "Microsoft ADPCM",
            Codec::Other(name) => name,
        }
    }
}

/// An audio track of a container.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    pub(crate) format: Format,
    /// Whether the container says that it is the one to play.
    pub(crate) default: bool,
}

/// Where samples belong, in seconds of the presentation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    /// Of the first sample; `None` right behind those before.
    pub(crate) start: Option<f64>,
    /// Samples before `from` or from `until` on are decoded and not heard.
    pub(crate) from: f64,
    pub(crate) until: f64,
}

impl Span {
    pub(crate) const NEXT: Self = Self { start: None, from: 0.0, until: f64::INFINITY };

    pub(crate) fn at(start: f64) -> Self {
        Self { start: Some(start), ..Self::NEXT }
    }
}

/// What reading a container gives.
#[derive(Debug)]
pub(crate) enum Event {
    /// A packet to decode: it is in the buffer that was handed in. `seconds` is what is missing if it cannot be decoded,
    /// 0 where that is not known.
    Packet { span: Span, seconds: f64 },
    /// What follows is coded otherwise.
    Format(Format),
    /// Something is missing or wrong here. `seconds` of it count as silence; 0 where the next packet's time tells.
    Lost { seconds: f64, what: &'static str },
    /// There is no more.
    End,
}

/// A container, opened.
pub(crate) trait Container: Send {
    /// As messages name it.
    fn name(&self) -> &'static str;

    /// Its audio tracks, in its order.
    fn tracks(&self) -> &[Track];

    /// Chooses the track that is read, by its index; once, before the first event.
    fn choose(&mut self, track: usize) -> Result<()>;

    /// Seconds of the presentation, where a header says so.
    fn seconds(&self) -> Option<f64> {
        None
    }

    /// What is worth a line, once.
    fn take_notice(&mut self) -> Option<Notice> {
        None
    }

    /// The next event from `input`, from which it was opened; the bytes of a packet replace those in `packet`.
    ///
    /// # Errors
    /// [`Error::Io`] only: whatever the bytes are, what can be read of them is.
    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event>;
}

/// Big- and little-endian numbers at a place in some bytes, where there are enough.
pub(crate) trait Numbers {
    fn bytes_at<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    fn be16(&self, at: usize) -> Option<u16> {
        self.bytes_at(at).map(u16::from_be_bytes)
    }
    fn be32(&self, at: usize) -> Option<u32> {
        self.bytes_at(at).map(u32::from_be_bytes)
    }
    fn be64(&self, at: usize) -> Option<u64> {
        self.bytes_at(at).map(u64::from_be_bytes)
    }
    fn le16(&self, at: usize) -> Option<u16> {
        self.bytes_at(at).map(u16::from_le_bytes)
    }
    fn le32(&self, at: usize) -> Option<u32> {
        self.bytes_at(at).map(u32::from_le_bytes)
    }
    fn le64(&self, at: usize) -> Option<u64> {
        self.bytes_at(at).map(u64::from_le_bytes)
    }
}

impl Numbers for [u8] {
    fn bytes_at<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

/// The index of the track to read: the one asked for (counted from 1), else those with the default flag and then all in
/// their order, the first of which `opens`.
pub(crate) fn choose_track<T>(
    tracks: &[Track],
    asked: Option<usize>,
    mut opens: impl FnMut(&Format) -> Result<T>,
) -> Result<(usize, T)> {
    if tracks.is_empty() {
        return Err(Error::NoTrack);
    }
    if let Some(asked) = asked {
        let index = asked.wrapping_sub(1);
        let track = tracks.get(index).ok_or(Error::NoSuchTrack { asked, there: tracks.len() })?;
        return Ok((index, opens(&track.format)?));
    }
    let flagged = (0..tracks.len()).filter(|&i| tracks[i].default);
    let mut first_error = None;
    for index in flagged.chain((0..tracks.len()).filter(|&i| !tracks[i].default)) {
        match opens(&tracks[index].format) {
            Ok(opened) => return Ok((index, opened)),
            Err(e) => first_error = first_error.or(Some(e)),
        }
    }
    Err(first_error.unwrap_or(Error::NoTrack))
}
