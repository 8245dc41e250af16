//! Track entries: which tracks there are, and what they are coded in.

use super::ebml::{elements, float, number};
use super::id;
use crate::packet::{Codec, Format, Numbers, Track};
use crate::pcm::PcmFormat;
use crate::{aac, opus, vorbis, wav};

/// What is known of a track beside its format.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// Seconds of a frame.
    pub(super) frame: Option<f64>,
    /// Seconds that the decoder gives before what is to be heard.
    pub(super) delay: f64,
    /// Bytes that were taken from the beginning of each frame.
    pub(super) stripped: Vec<u8>,
}

/// The type of an audio track.
const AUDIO: u64 = 2;

/// The track of an entry; `None` for what is none of audio.
pub(super) fn read_track(body: &[u8]) -> Option<(Track, Entry)> {
    let (mut codec, mut private, mut kind, mut default, mut enabled) = (String::new(), Vec::new(), 0, true, true);
    let (mut rate, mut channels, mut bits) = (8000.0, 1, 0);
    let mut entry = Entry::default();
    let mut encoded = None;
    for (id, body) in elements(body) {
        match id {
            id::TRACK_NUMBER => entry.number = number(body),
            id::TRACK_TYPE => kind = number(body),
            id::FLAG_DEFAULT => default = number(body) != 0,
            id::FLAG_ENABLED => enabled = number(body) != 0,
            id::DEFAULT_DURATION => entry.frame = Some(number(body) as f64 / 1e9).filter(|&s| s > 0.0 && s < 10.0),
            id::CODEC_ID => codec = String::from_utf8_lossy(body).trim_end_matches('\0').to_owned(),
            id::CODEC_PRIVATE => private = body.to_vec(),
            id::CODEC_DELAY => entry.delay = (number(body) as f64 / 1e9).min(10.0),
            id::AUDIO => {
                for (id, body) in elements(body) {
                    match id {
                        id::SAMPLING_FREQUENCY => rate = float(body),
                        id::CHANNELS => channels = number(body) as usize,
                        id::BIT_DEPTH => bits = number(body) as usize,
                        _ => {}
                    }
                }
            }
            id::ENCODINGS => {
                for (_, body) in elements(body).filter(|(id, _)| *id == id::ENCODING) {
                    encoded = read_encoding(body, &mut entry.stripped).or(encoded);
                }
            }
            _ => {}
        }
    }
    if kind != AUDIO {
        return None;
    }
    let rate = rate.clamp(0.0, 1e9) as u32;
    let format = match encoded {
        Some(encoded) => Format::other(format!("{encoded} ({codec})")),
        None => format_of(&codec, private, rate, channels, bits),
    };
    if format.codec == Codec::Opus && entry.delay == 0.0 {
        entry.delay = opus::Head::read(&format.setup).map_or(0.0, |head| f64::from(head.skip) / f64::from(opus::RATE));
    }
    Some((Track { format, default: default && enabled }, entry))
}

/// What an encoding makes of a track that cannot be read then. Bytes that are only left out of each frame become `stripped`.
fn read_encoding(body: &[u8], stripped: &mut Vec<u8>) -> Option<&'static str> {
    const STRIPPING: u64 = 3;
    // The default is zlib, which is not built in.
    let mut algorithm = 0;
    for (id, body) in elements(body) {
        match id {
            id::ENCRYPTION => return Some("encrypted audio"),
            id::COMPRESSION => {
                for (id, body) in elements(body) {
                    match id {
                        id::COMPRESSION_ALGORITHM => algorithm = number(body),
                        id::COMPRESSION_SETTINGS => *stripped = body.to_vec(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (algorithm != STRIPPING).then_some("compressed audio")
}

/// What a codec of Matroska is here.
fn format_of(codec: &str, private: Vec<u8>, rate: u32, channels: usize, bits: usize) -> Format {
    let plain = |codec| Format::new(codec, rate, channels);
    let with = |codec, setup| Format { setup, ..plain(codec) };
    let pcm = |float, big| PcmFormat::of(bits / 8, float, big, rate, channels).map(|pcm| plain(Codec::Pcm(pcm)));
    let format = match codec {
        "A_OPUS" => Some(Format { rate: opus::RATE, ..with(Codec::Opus, private) }),
        "A_VORBIS" => vorbis::unlace(&private).map(|setup| with(Codec::Vorbis, setup)),
        "A_AAC" => Some(aac::format(&private)),
        "A_MPEG/L1" => Some(plain(Codec::Mpeg(1))),
        "A_MPEG/L2" => Some(plain(Codec::Mpeg(2))),
        "A_MPEG/L3" => Some(plain(Codec::Mpeg(3))),
        "A_FLAC" => private
            .strip_prefix(b"fLaC")
            .and_then(|blocks| blocks.get(4..38))
            .map(|info| with(Codec::Flac, info.to_vec())),
        "A_ALAC" => Some(with(Codec::Alac, private)),
        "A_PCM/INT/LIT" => pcm(false, false),
        "A_PCM/INT/BIG" => pcm(false, true),
        "A_PCM/FLOAT/IEEE" => pcm(true, false),
        "A_AC3" | "A_AC3/BSID9" | "A_AC3/BSID10" => Some(Format::other("AC-3")),
        "A_EAC3" => Some(Format::other("E-AC-3")),
        "A_DTS" => Some(Format::other("DTS")),
        "A_MS/ACM" => private.le16(0).map(|tag| match (tag, private.le16(14)) {
            (0x55, _) => plain(Codec::Mpeg(3)),
            (1, Some(bits)) => pcm_or_other(PcmFormat::of(usize::from(bits) / 8, false, false, rate, channels)),
            (0xff, _) => private.get(18..).map_or_else(|| Format::other("AAC"), aac::format),
            (tag, _) => Format::other(wav::codec_name(tag, 0)),
        }),
        _ if codec.starts_with("A_AAC") => Some(aac_of_name(codec, rate, channels)),
        _ => None,
    };
    format.unwrap_or_else(|| Format::other(codec.trim_start_matches("A_")))
}

fn pcm_or_other(pcm: Option<PcmFormat>) -> Format {
    pcm.map_or_else(|| Format::other("PCM"), |pcm| Format::new(Codec::Pcm(pcm), pcm.rate, pcm.channels))
}

/// What older writers put into the name.
fn aac_of_name(codec: &str, rate: u32, channels: usize) -> Format {
    if codec.ends_with("/LC") {
        return Format::new(Codec::Aac, rate, channels);
    }
    let rate = if codec.ends_with("/SBR") { rate / 2 } else { rate };
    Format::new(Codec::Aac, rate, channels)
}
