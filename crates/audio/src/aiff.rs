//! The headers of AIFF, AIFF-C and AU files, up to their samples.

use crate::error::{Error, Result, check_channels};
use crate::input::Input;
use crate::packet::Numbers;
use crate::pcm::{PcmFormat, PcmStart, SampleFormat};

/// Longer headers are not believed.
const MAX_HEADER: usize = 16 << 20;

/// Where the samples are, or the codec that is not built in.
pub(crate) type Found = Result<PcmStart, String>;

/// Looks for the samples of an AIFF file, without reading anything.
pub(crate) fn read_aiff(input: &mut Input) -> Result<Found> {
    let compressed = input.peek(12)?.get(8..12) == Some(b"AIFC");
    let mut offset = 12usize;
    let mut common = None;
    let mut sound = None;
    while offset <= MAX_HEADER {
        let head = input.peek(offset + 16)?;
        let (Some(id), Some(size)) = (head.bytes_at::<4>(offset), head.be32(offset + 4)) else { break };
        if id == *b"SSND" {
            let skip = head.be32(offset + 8).ok_or(Error::NoSamples)? as usize;
            let bytes = match size {
                // Writers that cannot go back.
                0 | 8 | 0x7f00_0000.. => None,
                size => Some(u64::from(size).saturating_sub(8)),
            };
            sound = Some(((offset + 16).saturating_add(skip) as u64, bytes.map(|b| b.saturating_sub(skip as u64))));
            if common.is_some() {
                break;
            }
        }
        let end = (offset + 8).saturating_add(size as usize).saturating_add(size as usize % 2);
        // The samples may come first, then the format is behind them.
        if end > MAX_HEADER && input.len().is_none() {
            break;
        }
        let end = end.min(input.len().unwrap_or(u64::MAX) as usize);
        if id == *b"COMM" {
            let body = input.peek(end)?.get(offset + 8..end).map(<[u8]>::to_vec);
            common = Some(body.ok_or(Error::Corrupt("an AIFF file without its format"))?);
            if sound.is_some() {
                break;
            }
        }
        if end <= offset {
            break;
        }
        offset = end;
    }
    let common = common.ok_or(Error::Corrupt("an AIFF file without its format"))?;
    let format = read_common(&common, compressed)?;
    let (offset, bytes) = sound.ok_or(Error::NoSamples)?;
    Ok(format.map(|format| PcmStart { format, offset, bytes }))
}

fn read_common(body: &[u8], compressed: bool) -> Result<Result<PcmFormat, String>> {
    let (Some(channels), Some(bits), Some(rate)) = (body.be16(0), body.be16(6), body.bytes_at(8).map(extended)) else {
        return Err(Error::Corrupt("an AIFF file without its format"));
    };
    let (channels, bytes) = (check_channels(usize::from(channels))?, usize::from(bits).div_ceil(8));
    let rate = rate.round() as u32;
    let kind = if compressed { body.bytes_at(18).unwrap_or(*b"NONE") } else { *b"NONE" };
    let law = |sample| Some(PcmFormat { sample, big_endian: false, signed_byte: false, rate, channels });
    let format = match &kind {
        b"NONE" | b"twos" => PcmFormat::of(bytes, false, true, rate, channels),
        b"sowt" => PcmFormat::of(bytes, false, false, rate, channels),
        b"in24" => PcmFormat::of(3, false, true, rate, channels),
        b"in32" => PcmFormat::of(4, false, true, rate, channels),
        b"fl32" | b"FL32" => PcmFormat::of(4, true, true, rate, channels),
        b"fl64" | b"FL64" => PcmFormat::of(8, true, true, rate, channels),
        b"raw " => return Ok(PcmFormat::of(bytes, false, true, rate, channels).ok_or_else(|| "raw samples".to_owned())),
        b"alaw" | b"ALAW" => law(SampleFormat::ALaw),
        b"ulaw" | b"ULAW" => law(SampleFormat::MuLaw),
        _ => None,
    };
    let format = format.map(|format| PcmFormat { signed_byte: format.sample == SampleFormat::U8, ..format });
    Ok(format.ok_or_else(|| match &kind {
        b"NONE" | b"twos" | b"sowt" => format!("samples of {bits} bits"),
        kind => format!("codec {}", kind.escape_ascii()),
    }))
}

/// A number in the 80 bits of IEEE 754's extended format.
fn extended(bytes: [u8; 10]) -> f64 {
    let exponent = i32::from(u16::from_be_bytes([bytes[0], bytes[1]]) & 0x7fff) - 16383 - 63;
    let mantissa = bytes[2..].be64(0).unwrap_or(0);
    mantissa as f64 * 2f64.powi(exponent)
}

/// Looks for the samples of an AU file, without reading anything. `.snd` is big-endian, `dns.` its mirror image.
pub(crate) fn read_au(input: &mut Input) -> Result<Found> {
    let head = input.peek(24)?;
    let big = head.starts_with(b".snd");
    let at = |i: usize| if big { head.be32(i) } else { head.le32(i) };
    let (Some(offset), Some(size), Some(encoding), Some(rate), Some(channels)) = (at(4), at(8), at(12), at(16), at(20))
    else {
        return Err(Error::NoSamples);
    };
    let channels = check_channels(channels as usize)?;
    let law = |sample| Some(PcmFormat { sample, big_endian: false, signed_byte: false, rate, channels });
    let format = match encoding {
        1 => law(SampleFormat::MuLaw),
        27 => law(SampleFormat::ALaw),
        2..=5 => PcmFormat::of(encoding as usize - 1, false, big, rate, channels),
        6 | 7 => PcmFormat::of(4 * (encoding as usize - 5), true, big, rate, channels),
        _ => return Ok(Err(format!("AU encoding {encoding}"))),
    };
    let format = format.map(|format| PcmFormat { signed_byte: encoding == 2, ..format });
    let bytes = Some(u64::from(size)).filter(|&size| size != 0 && size < 0xffff_0000);
    let start = format.map(|format| PcmStart { format, offset: u64::from(offset.max(24)), bytes });
    Ok(start.ok_or_else(|| format!("AU encoding {encoding}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_numbers_are_read() {
        // From the AIFF specification's table and by hand.
        assert_eq!(extended([0x40, 0x0e, 0xac, 0x44, 0, 0, 0, 0, 0, 0]), 44_100.0);
        assert_eq!(extended([0x40, 0x0c, 0xfa, 0, 0, 0, 0, 0, 0, 0]), 16_000.0);
        assert_eq!(extended([0x40, 0x0d, 0xac, 0x44, 0, 0, 0, 0, 0, 0]), 22_050.0);
    }
}
