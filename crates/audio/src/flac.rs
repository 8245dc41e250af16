//! FLAC: frames with checksums and numbers, so that what is damaged is known and what is not keeps its time.

use crate::error::{Error, Result};
use crate::frames::is_tag;
use crate::input::Input;
use crate::packet::{Codec, Container, Event, Format, Numbers, Span, Track};

/// The smallest frame: a header, a subframe of a constant, a checksum.
const MIN_FRAME: usize = 9;
/// Bytes in which the end of a frame must be found.
const MAX_FRAME: usize = 4 << 20;
/// Longer headers, with pictures in them, are not believed.
const MAX_HEADER: u64 = 64 << 20;
/// A frame that is so many later at most ends one whose own end is damaged.
const NEAR: u64 = 256;
/// Frames that may be missing in a row; numbers further ahead are no numbers.
const MAX_JUMP: u64 = 1 << 20;

/// What the header says of the whole stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamInfo {
    pub(crate) rate: u32,
    pub(crate) channels: usize,
    bits: u8,
    /// Samples per channel of a frame, where all have as many.
    block: Option<u32>,
    /// Samples per channel in all.
    samples: Option<u64>,
}

impl StreamInfo {
    pub(crate) fn read(block: &[u8]) -> Option<Self> {
        let (min, max) = (block.be16(0)?, block.be16(2)?);
        let packed = block.be64(10)?;
        let rate = (packed >> 44) as u32;
        let samples = packed & 0xf_ffff_ffff;
        (block.len() >= 34 && rate > 0 && max >= 16).then_some(Self {
            rate,
            channels: (packed >> 41 & 7) as usize + 1,
            bits: (packed >> 36 & 31) as u8 + 1,
            block: (min == max).then_some(u32::from(max)),
            samples: (samples > 0).then_some(samples),
        })
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FrameHeader {
    /// Samples per channel.
    pub(crate) samples: u32,
    /// Of the frame, or of its first sample where frames differ in length.
    number: u64,
    by_sample: bool,
    rate: Option<u32>,
    channels: usize,
    bits: Option<u8>,
}

impl FrameHeader {
    /// The header that begins here, if its checksum holds.
    pub(crate) fn read(head: &[u8]) -> Option<Self> {
        let &[0xff, sync, sizes, shape, first, ..] = head else { return None };
        if sync & 0xfe != 0xf8 || shape & 1 != 0 {
            return None;
        }
        // A number as UTF-8 codes it, of up to 36 bits.
        let more = match first.leading_ones() {
            0 => 0,
            n @ 2..=7 => n as usize - 1,
            _ => return None,
        };
        let mut number = u64::from(first) & if more == 0 { 0x7f } else { (1 << (6 - more.min(6))) - 1 };
        for &byte in head.get(5..5 + more)? {
            if byte & 0xc0 != 0x80 {
                return None;
            }
            number = number << 6 | u64::from(byte & 0x3f);
        }
        let mut at = 5 + more;
        let samples = match sizes >> 4 {
            0 => return None,
            1 => 192,
            n @ 2..=5 => 576 << (n - 2),
            6 => {
                at += 1;
                u32::from(*head.get(at - 1)?) + 1
            }
            7 => {
                at += 2;
                u32::from(head.be16(at - 2)?) + 1
            }
            n => 256 << (n - 8),
        };
        let rate = match sizes & 15 {
            0 => None,
            n @ 1..=11 => Some(
                [88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]
                    [usize::from(n) - 1],
            ),
            12 => {
                at += 1;
                Some(u32::from(*head.get(at - 1)?) * 1000)
            }
            n @ (13 | 14) => {
                at += 2;
                Some(u32::from(head.be16(at - 2)?) * if n == 14 { 10 } else { 1 })
            }
            _ => return None,
        };
        let channels = match shape >> 4 {
            n @ 0..=7 => usize::from(n) + 1,
            8..=10 => 2,
            _ => return None,
        };
        let bits = match shape >> 1 & 7 {
            0 => None,
            3 => return None,
            n => Some([8, 12, 0, 16, 20, 24, 32][usize::from(n) - 1]),
        };
        let good = crc8(head.get(..at)?) == *head.get(at)?;
        good.then_some(Self { samples, number, by_sample: sync & 1 == 1, rate, channels, bits })
    }

    /// Whether such a frame may be in a stream of `info`.
    fn fits(&self, info: &StreamInfo) -> bool {
        self.rate.is_none_or(|rate| rate == info.rate)
            && self.channels == info.channels
            && self.bits.is_none_or(|bits| bits == info.bits)
    }
}

pub(crate) struct Flac {
    tracks: [Track; 1],
    info: StreamInfo,
    /// Samples per channel so far, with those that are lost.
    at: u64,
    /// Of frames, where no frame has been shorter but the last one.
    block: u32,
    begun: bool,
    /// Bytes before the first frame were none of a frame.
    skipped: bool,
    /// The first sample, where the stream was cut out of a longer one.
    base: u64,
    /// Seconds of the files before, where several are joined.
    origin: f64,
    ended: bool,
}

impl Flac {
    pub(crate) fn open(input: &mut Input) -> Result<Self> {
        let (info, format) = read_headers(input)?;
        let block = info.block.unwrap_or(0);
        let tracks = [Track { format, default: true }];
        Ok(Self { tracks, info, at: 0, block, begun: false, skipped: false, base: 0, origin: 0.0, ended: false })
    }

    /// Another file begins where this one ends.
    fn next_file(&mut self, input: &mut Input) -> Result<Event> {
        let origin = self.origin + (self.at - self.base) as f64 / f64::from(self.info.rate);
        match Self::open(input) {
            Ok(next) => {
                *self = Self { origin, ..next };
                Ok(Event::Format(self.tracks[0].format.clone()))
            }
            Err(Error::Io(e)) => Err(e.into()),
            Err(_) => Ok(Event::Lost { seconds: 0.0, what: "another file follows, which cannot be read" }),
        }
    }

    /// The header that begins here, where it can be that of the next or a later frame.
    fn header(&self, bytes: &[u8]) -> Option<FrameHeader> {
        if bytes.first() != Some(&0xff) {
            return None;
        }
        let header = FrameHeader::read(bytes).filter(|header| header.fits(&self.info))?;
        let start = self.start_of(&header);
        let jump = MAX_JUMP * u64::from(header.samples.max(16));
        (start >= self.at && start - self.at <= jump || !self.begun).then_some(header)
    }

    /// The first sample of a frame.
    fn start_of(&self, header: &FrameHeader) -> u64 {
        if header.by_sample { header.number } else { header.number * u64::from(self.block.max(header.samples)) }
    }

    /// How many bytes the frame here has: up to the next frame or to where its checksum holds at the end. `None` where it is
    /// damaged.
    fn frame_len(&self, input: &mut Input, header: &FrameHeader) -> Result<Option<usize>> {
        let next = self.start_of(header) + u64::from(header.samples);
        let (mut at, mut crc, mut summed) = (MIN_FRAME, 0u16, 0);
        let mut whole = None;
        loop {
            let bytes = input.peek(at + 16)?;
            if bytes.len() < at + 2 {
                // The last frame. What its checksum says first may be chance, so the whole rest is believed first.
                let len = bytes.len();
                let tail = [len, len.saturating_sub(128)].into_iter().find(|&end| {
                    end >= MIN_FRAME && (end == len || is_tag(&bytes[end..])) && crc16(0, &bytes[..end]) == 0
                });
                return Ok(tail.or(whole));
            }
            while summed < at {
                crc = crc16(crc, &bytes[summed..summed + 1]);
                summed += 1;
            }
            let follower = if bytes[at] == 0xff { self.start_here(&bytes[at..]) } else { None };
            // The next frame, or a later one where the next was damaged too.
            let near = next..=next + NEAR * u64::from(header.samples);
            if crc != 0 && follower.is_some_and(|start| near.contains(&start)) {
                return Ok(None);
            }
            if crc == 0 {
                if follower.is_some_and(|start| start >= next) {
                    return Ok(Some(at));
                }
                if is_tag(&bytes[at..]) || bytes[at..].starts_with(b"fLaC") {
                    return Ok(Some(at));
                }
                whole = whole.or(Some(at));
            }
            if at > MAX_FRAME {
                return Ok(None);
            }
            at += 1;
        }
    }

    /// The first sample of the frame that begins here.
    fn start_here(&self, bytes: &[u8]) -> Option<u64> {
        FrameHeader::read(bytes).filter(|header| header.fits(&self.info)).map(|header| self.start_of(&header))
    }

    /// Reads over what is no frame; `false` at the end.
    fn resync(&self, input: &mut Input) -> Result<bool> {
        loop {
            input.skip(1)?;
            let bytes = input.peek(16)?;
            if bytes.is_empty() {
                return Ok(false);
            }
            if self.header(bytes).is_some() || bytes.starts_with(b"fLaC") {
                return Ok(true);
            }
        }
    }
}

impl Container for Flac {
    fn name(&self) -> &'static str {
        "FLAC"
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, _track: usize) -> Result<()> {
        Ok(())
    }

    fn seconds(&self) -> Option<f64> {
        Some(self.info.samples? as f64 / f64::from(self.info.rate))
    }

    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event> {
        let rate = f64::from(self.info.rate);
        loop {
            let bytes = input.peek(16)?;
            if bytes.is_empty() {
                if !std::mem::replace(&mut self.ended, true)
                    && let Some(samples) = self.info.samples.filter(|&samples| samples > self.at)
                {
                    let seconds = (samples - self.at) as f64 / rate;
                    return Ok(Event::Lost { seconds, what: "cut off: the header promises more samples" });
                }
                return Ok(Event::End);
            }
            if bytes.starts_with(b"fLaC") {
                return self.next_file(input);
            }
            let header = self.header(bytes);
            let tag = is_tag(bytes);
            let len = match header {
                Some(header) => {
                    if !self.begun && !header.by_sample {
                        self.block = self.block.max(header.samples);
                    }
                    self.frame_len(input, &header)?
                }
                None => None,
            };
            let (Some(header), Some(len)) = (header, len) else {
                let more = self.resync(input)?;
                if tag {
                    continue;
                }
                self.skipped |= !self.begun;
                if more {
                    return Ok(Event::Lost { seconds: 0.0, what: "a damaged frame" });
                }
                if self.info.samples.is_none() {
                    return Ok(Event::Lost { seconds: 0.0, what: "cut off in the middle of a frame" });
                }
                continue;
            };
            let start = self.start_of(&header);
            if !self.begun {
                // A stream that was cut out of a longer one begins when it begins, and has not the checksum of the whole.
                self.begun = true;
                if start > 0 && (!self.skipped || self.info.samples.is_none()) {
                    self.base = start;
                    let mut format = self.tracks[0].format.clone();
                    format.setup[18..34].fill(0);
                    return Ok(Event::Format(format));
                }
            }
            input.take(len, packet)?;
            self.at = start + u64::from(header.samples);
            let span = Span::at(self.origin + (start - self.base) as f64 / rate);
            return Ok(Event::Packet { span, seconds: f64::from(header.samples) / rate });
        }
    }
}

/// Reads the headers, up to the first frame.
fn read_headers(input: &mut Input) -> Result<(StreamInfo, Format)> {
    input.skip(4)?;
    let begin = input.position();
    let mut info = None;
    loop {
        let head: [u8; 4] = input.peek(4)?.bytes_at(0).ok_or(Error::NoSamples)?;
        let size = u64::from(u32::from_be_bytes(head) & 0xff_ffff);
        if head[0] & 0x7f == 0 && info.is_none() {
            let block = input.peek(4 + 34)?.get(4..38).ok_or(Error::Corrupt("a FLAC header that is cut off"))?;
            info = StreamInfo::read(block).map(|info| (info, block.to_vec()));
        }
        if input.position() + size > begin + MAX_HEADER || head[0] & 0x7f == 0x7f {
            return Err(Error::Corrupt("a FLAC header that does not end"));
        }
        input.skip(4 + size)?;
        if head[0] & 0x80 != 0 {
            break;
        }
    }
    let (info, setup) = info.ok_or(Error::Corrupt("a FLAC header without its format"))?;
    Ok((info, Format { setup, ..Format::new(Codec::Flac, info.rate, info.channels) }))
}

fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| {
        (0..8).fold(sum ^ byte, |sum: u8, _| if sum & 0x80 != 0 { sum << 1 ^ 0x07 } else { sum << 1 })
    })
}

/// The checksum of bytes behind others that have `sum`; 0 over a whole frame.
pub(crate) fn crc16(sum: u16, bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = (i as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 0x8000 != 0 { value << 1 ^ 0x8005 } else { value << 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    bytes.iter().fold(sum, |sum, &byte| sum << 8 ^ TABLE[usize::from((sum >> 8) as u8 ^ byte)])
}
