//! Headers of frames that follow one another without a container: MPEG audio, ADTS, and two that are only recognised.
//!
//! A header has no magic beyond 11 or 12 set bits, which raw samples near −1 have too. What tells a stream is a chain: headers
//! at exactly the distances that they name, which agree in what does not change from frame to frame.

use crate::aac;

/// Bytes that must be there to read any of the headers.
pub(crate) const HEADER: usize = 8;

/// What a stream of frames is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// MPEG-1, 2 or 2.5 audio, layer 1 to 3.
    Mpeg(u8),
    /// AAC in ADTS.
    Adts,
    /// AAC in LOAS.
    Loas,
    /// AC-3 or E-AC-3.
    Ac3,
}

/// One frame by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) stream: Stream,
    /// Bytes, with the header.
    pub(crate) len: usize,
    pub(crate) rate: u32,
    pub(crate) channels: usize,
    /// Samples per channel.
    pub(crate) samples: u32,
    /// Bytes before the payload of an ADTS frame.
    pub(crate) header: usize,
    /// What else never changes within a stream: version, profile.
    kind: u32,
}

impl Frame {
    /// The frame that begins here.
    pub(crate) fn at(head: &[u8]) -> Option<Self> {
        if head.len() < HEADER {
            return None;
        }
        mpeg(head).or_else(|| adts(head)).or_else(|| loas(head)).or_else(|| ac3(head))
    }

    /// Whether both may be of one stream: only rate and channels may change, where two streams were joined.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        (self.stream, self.kind, self.rate) == (other.stream, other.kind, other.rate)
    }

    /// Frames that must follow one another to be believed. Layer I is all but extinct, and its header begins like −1.
    fn chain(&self) -> usize {
        if self.stream == Stream::Mpeg(1) { 8 } else { 4 }
    }
}

/// Where in `bytes` a chain of frames begins, looking no further than `reach`; `ended` if nothing follows `bytes`.
pub(crate) fn find_chain(bytes: &[u8], reach: usize, ended: bool) -> Option<(usize, Frame)> {
    (0..bytes.len().min(reach)).find_map(|at| {
        let first = Frame::at(&bytes[at..])?;
        is_chain(bytes, at, &first, first.chain(), ended).then_some((at, first))
    })
}

/// Whether `count` frames follow one another from `at`; fewer if they end where `bytes` do.
pub(crate) fn is_chain(bytes: &[u8], at: usize, first: &Frame, count: usize, ended: bool) -> bool {
    let mut next = at + first.len;
    for seen in 1..count {
        if next + HEADER > bytes.len() {
            // The last frame may be cut off, and tags may follow the frames.
            return ended && seen >= 2;
        }
        match Frame::at(&bytes[next..]) {
            Some(frame) if frame.agrees(first) => next += frame.len,
            _ => return ended && seen >= 2 && is_tag(&bytes[next..]),
        }
    }
    true
}

/// Whether tags begin here, as they stand behind or between frames.
pub(crate) fn is_tag(bytes: &[u8]) -> bool {
    [&b"TAG"[..], b"APETAGEX", b"ID3", b"3DI", b"LYRICSBEGIN"].iter().any(|tag| bytes.starts_with(tag))
}

/// An MPEG-1, 2 or 2.5 layer I, II or III frame.
fn mpeg(head: &[u8]) -> Option<Frame> {
    // kbit/s by index 1 to 14: MPEG-1 layers I, II, III, MPEG-2 layer I, MPEG-2 layers II and III.
    const KBIT: [[u32; 14]; 5] = [
        [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    if head[0] != 0xff || head[1] & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = (head[1] >> 3 & 3, head[1] >> 1 & 3);
    let (kbit_index, rate_index) = (head[2] >> 4, head[2] >> 2 & 3);
    // The last two are reserved: an emphasis of 2, and a layer of 0, which is ADTS.
    if version == 1 || layer == 0 || !(1..=14).contains(&kbit_index) || rate_index == 3 || head[3] & 3 == 2 {
        return None;
    }
    let mpeg1 = version == 3;
    let table = match (mpeg1, layer) {
        (true, 3) => 0,
        (true, 2) => 1,
        (true, _) => 2,
        (false, 3) => 3,
        (false, _) => 4,
    };
    let bits = 1000 * KBIT[table][usize::from(kbit_index) - 1];
    let halvings = [2, 0, 1, 0][usize::from(version)];
    let rate = [44_100u32, 48_000, 32_000][usize::from(rate_index)] >> halvings;
    let padding = u32::from(head[2] >> 1 & 1);
    let (len, samples) = match (layer, mpeg1) {
        (3, _) => ((12 * bits / rate + padding) * 4, 384),
        (1, false) => (72 * bits / rate + padding, 576),
        _ => (144 * bits / rate + padding, 1152),
    };
    Some(Frame {
        stream: Stream::Mpeg(4 - layer),
        len: len as usize,
        rate,
        channels: if head[3] >> 6 == 3 { 1 } else { 2 },
        samples,
        header: 0,
        kind: u32::from(version),
    })
}

/// An ADTS frame.
fn adts(head: &[u8]) -> Option<Frame> {
    let rate_index = usize::from(head[2] >> 2 & 15);
    if head[0] != 0xff || head[1] & 0xf6 != 0xf0 || rate_index > 12 {
        return None;
    }
    let header = if head[1] & 1 == 1 { 7 } else { 9 };
    let len = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5]) >> 5;
    let blocks = u32::from(head[6] & 3) + 1;
    let channels = match head[2] << 2 & 4 | head[3] >> 6 {
        7 => 8,
        n => usize::from(n),
    };
    (len > header).then_some(Frame {
        stream: Stream::Adts,
        len,
        rate: aac::RATES[rate_index],
        channels,
        samples: 1024 * blocks,
        header,
        // Version and profile.
        kind: u32::from(head[1] & 8) << 8 | u32::from(head[2] >> 6),
    })
}

/// A frame of LOAS, in which broadcasts have AAC.
fn loas(head: &[u8]) -> Option<Frame> {
    let len = 3 + (usize::from(head[1] & 0x1f) << 8 | usize::from(head[2]));
    let found = head[0] == 0x56 && head[1] & 0xe0 == 0xe0 && len > 8;
    found.then_some(Frame { stream: Stream::Loas, len, rate: 0, channels: 0, samples: 0, header: 0, kind: 0 })
}

/// An AC-3 or E-AC-3 frame.
fn ac3(head: &[u8]) -> Option<Frame> {
    const KBIT: [u32; 19] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];
    // Samples that are all alike would be a chain too.
    if head[0] != 0x0b || head[1] != 0x77 || head[2..4] == head[..2] {
        return None;
    }
    let (rate_index, size_code, version) = (usize::from(head[4] >> 6), usize::from(head[4] & 63), head[5] >> 3);
    let rate = *[48_000u32, 44_100, 32_000].get(rate_index)?;
    let len = match version {
        0..=10 => 2 * (96_000 * KBIT.get(size_code / 2)? / rate + u32::from(rate_index == 1 && size_code % 2 == 1)),
        11..=16 => 2 * (1 + (u32::from(head[2] & 7) << 8 | u32::from(head[3]))),
        _ => return None,
    };
    let len = len as usize;
    Some(Frame { stream: Stream::Ac3, len, rate, channels: 0, samples: 1536, header: 0, kind: u32::from(version) })
}
