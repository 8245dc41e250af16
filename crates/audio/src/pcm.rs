//! Samples as plain numbers: raw streams and what WAV, AIFF, AU and CAF files have behind their headers, as it arrives.

use std::io::Read;

use serde::Deserialize;

use crate::damage::Notice;
use crate::error::{Result, check_channels, check_rate};
use crate::frames::is_tag;
use crate::input::Input;
use crate::packet::{Codec, Container, Event, Format, Span, Track};

/// How one sample is written. Multi-byte samples have their least significant byte first. Its names in text are those of `ffmpeg`: `s16le`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleFormat {
    /// Unsigned 8 bit.
    U8,
    /// Signed 16 bit.
    #[default]
    #[serde(rename = "s16le")]
    S16,
    /// Signed 24 bit in three bytes.
    #[serde(rename = "s24le")]
    S24,
    /// Signed 32 bit.
    #[serde(rename = "s32le")]
    S32,
    /// IEEE 16 bit, full scale ±1.
    #[serde(rename = "f16le")]
    F16,
    /// IEEE 32 bit, full scale ±1.
    #[serde(rename = "f32le")]
    F32,
    /// IEEE 64 bit, full scale ±1.
    #[serde(rename = "f64le")]
    F64,
    /// G.711 A-law.
    ALaw,
    /// G.711 µ-law.
    MuLaw,
}

impl SampleFormat {
    /// Bytes of one sample of one channel.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::ALaw | Self::MuLaw => 1,
            Self::S16 | Self::F16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Appends the samples in `bytes`, full scale ±1, to `samples`. Returns what is left: the first bytes of a sample that is not complete.
    pub fn decode<'a>(self, bytes: &'a [u8], samples: &mut Vec<f32>) -> &'a [u8] {
        let whole = bytes.chunks_exact(self.bytes());
        let left = whole.remainder();
        samples.extend(whole.map(|sample| self.value(sample)));
        left
    }

    /// The sample in [`bytes`](Self::bytes) bytes, full scale ±1.
    fn value(self, b: &[u8]) -> f32 {
        match (self, b) {
            (Self::U8, &[a]) => (f32::from(a) - 128.0) / 128.0,
            (Self::ALaw, &[a]) => f32::from(a_law(a)) / 32768.0,
            (Self::MuLaw, &[a]) => f32::from(mu_law(a)) / 32768.0,
            (Self::S16, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32768.0,
            (Self::S24, &[a, b, c]) => i32::from_le_bytes([0, a, b, c]) as f32 / 2_147_483_648.0,
            (Self::S32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32 / 2_147_483_648.0,
            (Self::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => unreachable!("callers cut by bytes()"),
        }
    }
}

/// What raw samples are, as nothing in them says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFormat {
    /// How a sample is written.
    pub sample: SampleFormat,
    /// Samples a second.
    pub rate: u32,
    /// Channels, interleaved.
    pub channels: usize,
}

/// Signed 16 bit, 16 kHz, mono.
impl Default for RawFormat {
    fn default() -> Self {
        Self { sample: SampleFormat::S16, rate: crate::SAMPLE_RATE, channels: 1 }
    }
}

/// Plain samples as containers have them: also with the most significant byte first, and with signed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PcmFormat {
    pub(crate) sample: SampleFormat,
    pub(crate) big_endian: bool,
    /// Of one byte, around 0 and not around 128.
    pub(crate) signed_byte: bool,
    pub(crate) rate: u32,
    pub(crate) channels: usize,
}

impl From<RawFormat> for PcmFormat {
    fn from(raw: RawFormat) -> Self {
        let RawFormat { sample, rate, channels } = raw;
        Self { sample, big_endian: false, signed_byte: false, rate, channels }
    }
}

impl PcmFormat {
    /// Samples in `bits` bits of `bytes` bytes.
    pub(crate) fn of(bytes: usize, float: bool, big_endian: bool, rate: u32, channels: usize) -> Option<Self> {
        let sample = match (bytes, float) {
            (1, false) => SampleFormat::U8,
            (2, false) => SampleFormat::S16,
            (3, false) => SampleFormat::S24,
            (4, false) => SampleFormat::S32,
            (4, true) => SampleFormat::F32,
            (8, true) => SampleFormat::F64,
            _ => return None,
        };
        Some(Self { sample, big_endian, signed_byte: false, rate, channels })
    }

    /// Bytes of one sample of every channel.
    pub(crate) fn frame(&self) -> usize {
        self.sample.bytes() * self.channels
    }

    /// The sample in so many bytes, full scale ±1.
    pub(crate) fn value(&self, bytes: &[u8]) -> f32 {
        if self.signed_byte
            && let (SampleFormat::U8, &[byte]) = (self.sample, bytes)
        {
            return f32::from(byte as i8) / 128.0;
        }
        if !self.big_endian || bytes.len() == 1 {
            return self.sample.value(bytes);
        }
        let mut swapped = [0; 8];
        let swapped = &mut swapped[..bytes.len()];
        swapped.copy_from_slice(bytes);
        swapped.reverse();
        self.sample.value(swapped)
    }
}

/// Where plain samples begin in a file, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PcmStart {
    pub(crate) format: PcmFormat,
    /// Bytes before the samples.
    pub(crate) offset: u64,
    /// Bytes of samples; `None` where the header holds a placeholder and they go on to the end.
    pub(crate) bytes: Option<u64>,
}

/// A header that is off by less than this lies about nothing that matters.
pub(crate) const SLACK_S: f64 = 0.08;

/// Reads plain samples as they arrive.
pub(crate) struct PcmReader {
    format: PcmFormat,
    /// Bytes by the header, from here on.
    promised: Option<u64>,
    /// Seconds, by the header.
    seconds: Option<f64>,
    got: u64,
    /// Bytes read, beginning with what was left of the last block; the first `filled` count.
    bytes: Vec<u8>,
    filled: usize,
    /// What follows the samples that a header promises is looked at for more of them.
    may_go_on: bool,
    another: bool,
    tracks: [Track; 1],
    notice: Option<Notice>,
}

impl PcmReader {
    /// Reads an input from where it is: `promised` bytes, or to its end.
    pub(crate) fn new(format: PcmFormat, promised: Option<u64>) -> Result<Self> {
        check_rate(format.rate)?;
        check_channels(format.channels)?;
        let frame = format.frame();
        // A multiple of the frame, so that whole frames are what is left for the next read.
        let bytes = vec![0; (16 * 1024usize).next_multiple_of(frame)];
        let format_of = Format::new(Codec::Pcm(format), format.rate, format.channels);
        let tracks = [Track { format: format_of, default: true }];
        let may_go_on = promised.is_some();
        let promised = promised.map(|bytes| bytes / frame as u64 * frame as u64);
        let seconds = promised.map(|bytes| bytes as f64 / frame as f64 / f64::from(format.rate));
        Ok(Self {
            format,
            promised,
            seconds,
            got: 0,
            bytes,
            filled: 0,
            may_go_on,
            another: false,
            tracks,
            notice: None,
        })
    }

    /// Whether what follows the promised samples is neither the end nor another chunk.
    fn goes_on(&mut self, input: &mut Input) -> Result<bool> {
        if !std::mem::take(&mut self.may_go_on) {
            return Ok(false);
        }
        let next = input.peek(12)?;
        if [&b"RIFF"[..], b"RIFX", b"RF64", b"FORM", b"caff", b"fLaC", b"OggS"]
            .iter()
            .any(|magic| next.starts_with(magic))
        {
            self.another = true;
            return Ok(false);
        }
        // A chunk may be padded by a byte.
        let ends =
            next.len() < 10 || is_chunk(next) || is_chunk(&next[1..]) || next.iter().all(|&b| b == 0) || is_tag(next);
        if !ends {
            self.promised = None;
            self.notice = Some(Notice::LongerThanHeader);
        }
        Ok(!ends)
    }

    fn end(&mut self) -> Event {
        self.may_go_on = false;
        let frame = self.format.frame();
        let (extra, rest) = (std::mem::take(&mut self.filled), self.promised.map(|p| p - self.got));
        // There is no more.
        self.promised = Some(self.got);
        let seconds = rest.map_or(0.0, |bytes| bytes as f64 / frame as f64 / f64::from(self.format.rate));
        if seconds >= SLACK_S {
            return Event::Lost { seconds, what: "cut off: the header promises more samples" };
        }
        if extra > 0 && rest.is_none() {
            self.notice = Some(Notice::PartialSample { extra, frame });
        }
        Event::End
    }
}

impl Container for PcmReader {
    fn name(&self) -> &'static str {
        "PCM"
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, _track: usize) -> Result<()> {
        Ok(())
    }

    fn seconds(&self) -> Option<f64> {
        self.seconds
    }

    fn take_notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    /// As many as one read brings: does not wait for more than one.
    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event> {
        packet.clear();
        let frame = self.format.frame();
        while self.filled < frame {
            let left = self.promised.map_or(u64::MAX, |promised| promised - self.got);
            let room = self.bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if room == 0 {
                if !self.goes_on(input)? {
                    let another = std::mem::take(&mut self.another);
                    let lost = Event::Lost { seconds: 0.0, what: "another file follows, which is not read" };
                    return Ok(if another { lost } else { Event::End });
                }
                continue;
            }
            let room = room.max(frame).min(self.bytes.len());
            match input.read(&mut self.bytes[self.filled..room])? {
                0 => return Ok(self.end()),
                n => self.filled += n,
            }
        }
        let whole = self.filled / frame * frame;
        packet.extend_from_slice(&self.bytes[..whole]);
        self.bytes.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        self.got += whole as u64;
        Ok(Event::Packet { span: Span::NEXT, seconds: 0.0 })
    }
}

/// Whether a chunk of RIFF, AIFF or CAF seems to begin here.
pub(crate) fn is_chunk(bytes: &[u8]) -> bool {
    bytes.len() >= 4
        && bytes[..4].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'_' | b'-'))
        && bytes[..3].iter().all(|&b| b != b' ')
}

/// G.711: sign, 3 bits of exponent, 4 of mantissa, every other bit inverted; to 16 bits.
fn a_law(code: u8) -> i16 {
    let code = code ^ 0x55;
    let (exponent, mantissa) = ((code >> 4) & 7, i16::from(code & 15));
    let magnitude = match exponent {
        0 => (mantissa << 4) + 8,
        e => ((mantissa << 4) + 0x108) << (e - 1),
    };
    if code & 0x80 != 0 { magnitude } else { -magnitude }
}

/// G.711: sign, 3 bits of exponent, 4 of mantissa, all inverted, biased by 132; to 16 bits.
fn mu_law(code: u8) -> i16 {
    let code = !code;
    let magnitude = (((i16::from(code & 15) << 3) + 132) << ((code >> 4) & 7)) - 132;
    if code & 0x80 != 0 { -magnitude } else { magnitude }
}
