//! Sample descriptions: what a track is coded in.

use super::atom::{atoms, find};
use crate::packet::{Codec, Format, Numbers};
use crate::pcm::{PcmFormat, SampleFormat};
use crate::{aac, flac, opus};

/// The first sample description.
pub(super) fn read_description(body: &[u8]) -> Format {
    let Some((kind, entry)) = body.get(8..).and_then(|body| atoms(body).next()) else {
        return Format::other("no codec");
    };
    let name = kind.escape_ascii().to_string();
    let version = entry.be16(8).unwrap_or(0);
    let mut channels = usize::from(entry.be16(16).unwrap_or(0));
    let mut bits = usize::from(entry.be16(18).unwrap_or(16));
    let mut rate = entry.be32(24).unwrap_or(0) >> 16;
    let mut lpcm_flags = 0;
    let children = match version {
        1 => 44,
        2 => {
            rate = entry.be64(32).map_or(0.0, f64::from_bits).clamp(0.0, 1e9) as u32;
            channels = entry.be32(40).unwrap_or(0) as usize;
            bits = entry.be32(48).unwrap_or(16) as usize;
            lpcm_flags = entry.be32(52).unwrap_or(0);
            64
        }
        _ => 28,
    };
    let children = entry.get(children..).unwrap_or(&[]);
    // QuickTime keeps what belongs to the codec in an atom of its own.
    let wave = find(children, b"wave");
    let child = |kind| find(children, kind).or_else(|| wave.and_then(|wave| find(wave, kind)));
    let little = child(b"enda").and_then(|body| body.be16(0)) == Some(1);
    let plain = |codec| Format::new(codec, rate, channels);
    let with = |codec, setup: &[u8]| Format { setup: setup.to_vec(), ..plain(codec) };
    let pcm = |bytes, float, big, signed_byte| {
        let pcm = PcmFormat::of(bytes, float, big, rate, channels).map(|pcm| PcmFormat { signed_byte, ..pcm });
        pcm.map(|pcm| plain(Codec::Pcm(pcm)))
    };
    let law =
        |sample| Some(plain(Codec::Pcm(PcmFormat { sample, big_endian: false, signed_byte: false, rate, channels })));
    let format = match &kind {
        b"mp4a" => child(b"esds").map(|body| elementary(body, rate, channels)),
        b"twos" | b"sowt" => pcm(bits.div_ceil(8), false, &kind == b"twos", true),
        b"raw " | b"NONE" => pcm(bits.div_ceil(8), false, true, false),
        b"in24" => pcm(3, false, !little, false),
        b"in32" => pcm(4, false, !little, false),
        b"fl32" => pcm(4, true, !little, false),
        b"fl64" => pcm(8, true, !little, false),
        b"lpcm" => pcm(bits.div_ceil(8), lpcm_flags & 1 != 0, lpcm_flags & 2 != 0, lpcm_flags & 4 != 0),
        b"ipcm" | b"fpcm" => child(b"pcmC").and_then(|body| {
            let (flags, bits) = (*body.get(4)?, *body.get(5)?);
            pcm(usize::from(bits).div_ceil(8), &kind == b"fpcm", flags & 1 == 0, true)
        }),
        b"ulaw" => law(SampleFormat::MuLaw),
        b"alaw" => law(SampleFormat::ALaw),
        b".mp3" | b"ms\0U" => Some(plain(Codec::Mpeg(3))),
        b".mp2" | b"ms\0P" => Some(plain(Codec::Mpeg(2))),
        b"alac" => child(b"alac").and_then(|body| body.get(4..)).map(|cookie| with(Codec::Alac, cookie)),
        b"fLaC" => child(b"dfLa").and_then(|body| body.get(8..42)).and_then(|info| {
            let read = flac::StreamInfo::read(info)?;
            Some(Format { setup: info.to_vec(), ..Format::new(Codec::Flac, read.rate, read.channels) })
        }),
        b"Opus" => {
            child(b"dOps").and_then(opus_head).map(|head| Format { rate: opus::RATE, ..with(Codec::Opus, &head) })
        }
        b"ac-3" | b"sac3" => Some(Format::other("AC-3")),
        b"ec-3" => Some(Format::other("E-AC-3")),
        b"samr" => Some(Format::other("AMR")),
        b"sawb" => Some(Format::other("AMR-WB")),
        b"ima4" => Some(Format::other("IMA ADPCM of QuickTime")),
        b"enca" | b"drms" => Some(Format::other("encrypted audio")),
        _ => None,
    };
    format.unwrap_or_else(|| Format::other(name))
}

/// The identification header of Opus, which MP4 has in big-endian numbers.
fn opus_head(body: &[u8]) -> Option<Vec<u8>> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(*body.get(1)?);
    head.extend(body.be16(2)?.to_le_bytes());
    head.extend(body.be32(4)?.to_le_bytes());
    head.extend(body.be16(8)?.to_le_bytes());
    head.extend_from_slice(body.get(10..)?);
    Some(head)
}

/// What an elementary stream descriptor says.
fn elementary(body: &[u8], rate: u32, channels: usize) -> Format {
    let mut at = 4;
    let mut object = 0;
    // Descriptors have a tag and a length of up to four bytes; those of interest are within one another.
    while let Some(&tag) = body.get(at) {
        at += 1;
        let mut len = 0usize;
        for _ in 0..4 {
            let Some(&byte) = body.get(at) else { break };
            at += 1;
            len = len << 7 | usize::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        match tag {
            3 => {
                let flags = body.get(at + 2).copied().unwrap_or(0);
                at += 3 + usize::from(flags >> 7) * 2 + usize::from(flags >> 5 & 1) * 2;
                if flags & 0x40 != 0 {
                    at += 1 + body.get(at).map_or(0, |&len| usize::from(len));
                }
            }
            4 => {
                object = body.get(at).copied().unwrap_or(0);
                at += 13;
            }
            5 if matches!(object, 0x40 | 0x66..=0x68) => {
                return aac::format(body.get(at..at.saturating_add(len).min(body.len())).unwrap_or(&[]));
            }
            _ => at = at.saturating_add(len),
        }
    }
    match object {
        0x69 | 0x6b => Format::new(Codec::Mpeg(3), rate, channels),
        0x40 | 0x66..=0x68 => Format::new(Codec::Aac, rate, channels),
        0xa5 => Format::other("AC-3"),
        0xa6 => Format::other("E-AC-3"),
        0xa9..=0xac => Format::other("DTS"),
        0xdd => Format::other("Vorbis in MP4"),
        0xe1 => Format::other("QCELP"),
        object => Format::other(format!("MPEG-4 object {object:#04x}")),
    }
}
