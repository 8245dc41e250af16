//! The header of a WAV file, up to its samples: RIFF, RIFX, RF64 and BW64.
//!
//! WAV is the most common live stream too, with a header in front that was written before anyone knew the length, so a
//! placeholder is told from a length, and samples are read as they arrive.

use crate::error::{Error, Result, check_channels};
use crate::input::Input;
use crate::packet::{Codec, Format, Numbers};
use crate::pcm::{PcmFormat, PcmStart, SampleFormat, is_chunk};

/// Longer headers are not believed.
const MAX_HEADER: usize = 16 << 20;
/// Writers that cannot go back put the largest length they know: ffmpeg 0xffff_ffff, sox and arecord near 0x7fff_ffff.
const PLACEHOLDER: u32 = 0x7fff_0000;

/// What a WAV file holds.
pub(crate) enum Wav {
    Pcm(PcmStart),
    /// Blocks of equal size.
    Blocks {
        format: Format,
        offset: u64,
        bytes: Option<u64>,
        block: usize,
    },
    /// A stream of MPEG or ADTS frames.
    Frames {
        offset: u64,
        bytes: Option<u64>,
    },
    /// A codec that is not built in, by its name.
    Other(String),
}

/// What the `fmt ` chunk says.
enum Kind {
    Pcm(PcmFormat),
    Blocks(Format, usize),
    Frames,
    Other(String),
}

/// Looks for the samples of a WAV file, without reading anything.
pub(crate) fn read_header(input: &mut Input) -> Result<Wav> {
    let big = input.peek(4)?.starts_with(b"RIFX");
    let u32_at = |bytes: &[u8], at| if big { bytes.be32(at) } else { bytes.le32(at) };
    let mut offset = 12usize;
    let mut kind = None;
    let mut long_size = None;
    while offset <= MAX_HEADER {
        let head = input.peek(offset + 8)?;
        let (Some(id), Some(size)) = (head.bytes_at::<4>(offset), u32_at(head, offset + 4)) else { break };
        offset += 8;
        if id == *b"data" {
            let Some(kind) = kind else { return Err(Error::Corrupt("samples before their format")) };
            let bytes = length(input, offset, size, long_size)?;
            let offset = offset as u64;
            return Ok(match kind {
                Kind::Pcm(format) => Wav::Pcm(PcmStart { format, offset, bytes }),
                Kind::Blocks(format, block) => Wav::Blocks { format, offset, bytes, block },
                Kind::Frames => Wav::Frames { offset, bytes },
                Kind::Other(name) => Wav::Other(name),
            });
        }
        let end = offset.saturating_add(size as usize);
        if end > MAX_HEADER {
            break;
        }
        let head = input.peek(end + 5)?;
        let Some(body) = head.get(offset..end) else { break };
        match &id {
            b"fmt " => kind = Some(read_format(body, big)?),
            // Lengths beyond 4 GiB are in a chunk of their own, the second of them that of the samples.
            b"ds64" => long_size = body.le64(8),
            _ => {}
        }
        // A byte follows a chunk of odd length, unless its writer forgot it.
        let begins = |at: usize| head.get(at..).is_some_and(is_chunk);
        let is_needed = |at: usize| matches!(head.get(at..at + 4), Some(b"data" | b"fmt "));
        let padded = size % 2 == 1 && !is_needed(end) && (begins(end + 1) || !begins(end));
        offset = end + usize::from(padded);
    }
    match kind {
        Some(_) => Err(Error::NoSamples),
        None => Err(Error::Corrupt("a WAV file without its format")),
    }
}

/// Bytes of samples; `None` where nobody knew.
fn length(input: &mut Input, offset: usize, size: u32, long_size: Option<u64>) -> Result<Option<u64>> {
    Ok(match (size, long_size) {
        (u32::MAX, Some(long)) => Some(long).filter(|&long| long != 0 && long != u64::MAX),
        // Nothing, where another chunk follows.
        (0, _) => {
            let known: [&[u8; 4]; 8] = [b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"fact", b"JUNK", b"_PMX"];
            let next = input.peek(offset + 4)?.get(offset..offset + 4);
            next.is_some_and(|next| known.iter().any(|id| next == *id)).then_some(0)
        }
        (PLACEHOLDER.., _) => None,
        (size, _) => Some(u64::from(size)),
    })
}

fn read_format(body: &[u8], big: bool) -> Result<Kind> {
    let u16_at = |at| if big { body.be16(at) } else { body.le16(at) };
    let rate = if big { body.be32(4) } else { body.le32(4) };
    let (Some(tag), Some(channels), Some(rate), Some(frame), Some(bits)) =
        (u16_at(0), u16_at(2), rate, u16_at(12), u16_at(14))
    else {
        return Err(Error::Corrupt("a WAV file without its format"));
    };
    let channels = check_channels(usize::from(channels))?;
    let (frame, bits) = (usize::from(frame), usize::from(bits));
    // The extensible format moves the tag into the first two bytes of a GUID.
    let tag = if tag == 0xfffe { u16_at(24).unwrap_or(0) } else { tag };
    // A sample may have unused low bits, as 20 in three bytes; its bytes decide how to read it.
    let bytes = if frame == 0 { bits / 8 } else { frame / channels };
    let whole = bytes > 0 && (frame == 0 || bytes * channels == frame) && bits <= bytes * 8;
    let pcm = |float| PcmFormat::of(bytes, float, big, rate, channels);
    let law = |sample| PcmFormat { sample, big_endian: false, signed_byte: false, rate, channels };
    let kind = match (tag, bytes) {
        (1, _) if whole => pcm(false).map(Kind::Pcm),
        (3, _) if whole => pcm(true).map(Kind::Pcm),
        (6, 1) => Some(Kind::Pcm(law(SampleFormat::ALaw))),
        (7, 1) => Some(Kind::Pcm(law(SampleFormat::MuLaw))),
        (0x11, _) if !big && bits == 4 && channels <= 2 => {
            // Four bytes a channel begin a block, the first sample among them.
            let data = frame.saturating_sub(4 * channels);
            let samples = data * 2 / channels + 1;
            (data > 0 && data % (4 * channels) == 0)
                .then(|| Kind::Blocks(Format::new(Codec::ImaAdpcm(samples as u32), rate, channels), frame))
        }
        (0x02, _) if !big && bits == 4 && channels <= 2 => {
            // Seven bytes a channel begin a block, the first two samples among them.
            let data = frame.saturating_sub(7 * channels);
            let samples = data * 2 / channels + 2;
            (data > 0).then(|| Kind::Blocks(Format::new(Codec::MsAdpcm(samples as u32), rate, channels), frame))
        }
        (0x50 | 0x55 | 0x00ff | 0x1600 | 0x706d, _) => Some(Kind::Frames),
        _ => None,
    };
    Ok(kind.unwrap_or_else(|| Kind::Other(codec_name(tag, bits))))
}

/// The codec of a format tag.
pub(crate) fn codec_name(tag: u16, bits: usize) -> String {
    let name = match tag {
        1 | 3 => return format!("samples of {bits} bits"),
        0x02 => "Microsoft ADPCM",
        0x11 => "IMA ADPCM",
        0x22 => "TrueSpeech",
        0x31 | 0x32 => "GSM 6.10",
        0x40 | 0x45 | 0x64 | 0x65 => "G.726",
        0x55 => "MP3",
        0x161 => "WMA",
        0x160 => "WMA 1",
        0x162 => "WMA Pro",
        0x163 => "WMA Lossless",
        0x270 => "ATRAC3",
        0x2000 => "AC-3",
        0x2001 => "DTS",
        0x704f => "Opus",
        0xf1ac => "FLAC",
        _ => return format!("codec {tag:#06x}"),
    };
    name.to_owned()
}
