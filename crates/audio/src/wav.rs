//! The header of a WAV file, up to its samples.
//!
//! Plain samples in WAV are the most common audio there is, and the most common live stream, with a header in front that was
//! written before anyone knew the length. Reading them here, rather than in the general demuxer, delivers them as they
//! arrive and knows a placeholder from a length.

use crate::error::{Result, check_channels};
use crate::input::Input;
use crate::pcm::{RawFormat, SampleFormat};

/// Headers longer than this are left to the general demuxer.
const MAX_HEADER: usize = 1 << 20;
/// Writers that cannot go back put the largest length they know: ffmpeg 0xffff_ffff, sox and arecord near 0x7fff_ffff.
const PLACEHOLDER: u32 = 0x7fff_0000;

/// Where the samples of a WAV file begin, and what they are.
pub(crate) struct Samples {
    pub(crate) format: RawFormat,
    /// Bytes before the samples.
    pub(crate) offset: usize,
    /// Samples per channel; `None` where the header holds a placeholder and they go on to the end.
    pub(crate) count: Option<u64>,
}

/// Looks for the samples of a WAV file, without reading anything. `None` where they are coded (ADPCM and others) or the
/// header is not understood: a matter for the general demuxer.
pub(crate) fn find_samples(input: &mut Input) -> Result<Option<Samples>> {
    let mut offset = 12;
    let mut format = None;
    let mut long_size = None;
    while offset <= MAX_HEADER {
        let head = input.peek(offset + 8)?;
        let Some(&[a, b, c, d, s0, s1, s2, s3]) = head.get(offset..offset + 8) else { return Ok(None) };
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        offset += 8;
        if [a, b, c, d] == *b"data" {
            let Some(format) = format else { return Ok(None) };
            return Ok(Some(Samples { format, offset, count: count(format, size, long_size) }));
        }
        let end = offset.saturating_add(size as usize).saturating_add(size as usize & 1);
        if end > MAX_HEADER {
            return Ok(None);
        }
        let head = input.peek(end)?;
        let Some(body) = head.get(offset..offset + size as usize) else { return Ok(None) };
        match [a, b, c, d] {
            [b'f', b'm', b't', b' '] => format = plain_format(body)?,
            // RF64: lengths beyond 4 GiB are in a chunk of their own, the second of them that of the samples.
            [b'd', b's', b'6', b'4'] => {
                long_size = body.get(8..16).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
            }
            _ => {}
        }
        offset = end;
    }
    Ok(None)
}

fn count(format: RawFormat, size: u32, long_size: Option<u64>) -> Option<u64> {
    let bytes = match (size, long_size) {
        (u32::MAX, Some(long)) => Some(long).filter(|&long| long != 0 && long != u64::MAX),
        (0 | PLACEHOLDER.., _) => None,
        (size, _) => Some(u64::from(size)),
    };
    // A last sample that is only partly inside the chunk is no sample.
    bytes.map(|bytes| bytes / (format.channels * format.sample.bytes()) as u64)
}

/// The format in a `fmt ` chunk, where it is one of plain samples.
fn plain_format(body: &[u8]) -> Result<Option<RawFormat>> {
    let u16_at = |i: usize| body.get(i..i + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let rate = body.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let (Some(tag), Some(channels), Some(rate), Some(frame), Some(bits)) =
        (u16_at(0), u16_at(2), rate, u16_at(12), u16_at(14))
    else {
        return Ok(None);
    };
    let channels = check_channels(usize::from(channels))?;
    // The extensible format moves the tag into the first two bytes of a GUID.
    let tag = if tag == 0xfffe { u16_at(24) } else { Some(tag) };
    // A sample may have unused low bits, as 20 in three bytes; its bytes decide how to read it.
    let bytes = usize::from(frame) / channels;
    if bytes * channels != usize::from(frame) || usize::from(bits) > bytes * 8 {
        return Ok(None);
    }
    let sample = match (tag, bytes) {
        (Some(1), 1) => SampleFormat::U8,
        (Some(1), 2) => SampleFormat::S16,
        (Some(1), 3) => SampleFormat::S24,
        (Some(1), 4) => SampleFormat::S32,
        (Some(3), 4) => SampleFormat::F32,
        (Some(3), 8) => SampleFormat::F64,
        (Some(6), 1) => SampleFormat::ALaw,
        (Some(7), 1) => SampleFormat::MuLaw,
        _ => return Ok(None),
    };
    Ok(Some(RawFormat { sample, rate, channels }))
}
