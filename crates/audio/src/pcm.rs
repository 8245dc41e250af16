//! Samples as plain numbers: raw streams and the data chunk of a WAV file, read as they arrive.

use std::io::Read;

use crate::error::{Error, Result, check_channels, check_rate};
use crate::input::Input;
use crate::mix::Mixer;

/// How one sample is written. Multi-byte samples have their least significant byte first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleFormat {
    /// Unsigned 8 bit.
    U8,
    /// Signed 16 bit.
    #[default]
    S16,
    /// Signed 24 bit in three bytes.
    S24,
    /// Signed 32 bit.
    S32,
    /// IEEE 32 bit, full scale ±1.
    F32,
    /// IEEE 64 bit, full scale ±1.
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
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
            Self::F64 => 8,
        }
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

/// Reads plain samples and mixes them to mono.
pub(crate) struct PcmReader {
    input: Input,
    format: RawFormat,
    /// Samples per channel by the header.
    promised: Option<u64>,
    got: u64,
    /// Bytes read, beginning with what was left of the last block; the first `filled` count.
    bytes: Vec<u8>,
    filled: usize,
    mixer: Mixer,
    mono: Vec<f32>,
}

impl PcmReader {
    /// Reads `input` from here on: `promised` samples per channel, or to its end.
    pub(crate) fn new(input: Input, format: RawFormat, promised: Option<u64>) -> Result<Self> {
        check_rate(format.rate)?;
        let frame = check_channels(format.channels)? * format.sample.bytes();
        // A multiple of the frame, so that whole frames are what is left for the next read.
        let bytes = vec![0; (16 * 1024usize).next_multiple_of(frame)];
        Ok(Self { input, format, promised, got: 0, bytes, filled: 0, mixer: Mixer::default(), mono: Vec::new() })
    }

    pub(crate) fn format(&self) -> RawFormat {
        self.format
    }

    pub(crate) fn promised(&self) -> Option<u64> {
        self.promised
    }

    pub(crate) fn mixer(&self) -> &Mixer {
        &self.mixer
    }

    /// What [`read_block`](Self::read_block) read.
    pub(crate) fn block(&self) -> &[f32] {
        &self.mono
    }

    /// Reads the next samples, as many as one read brings: does not wait for more than one. `false` at the end.
    pub(crate) fn read_block(&mut self) -> Result<bool> {
        let frame = self.format.channels * self.format.sample.bytes();
        let left = self.promised.map_or(u64::MAX, |p| (p - self.got).saturating_mul(frame as u64));
        let room = self.bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        while self.filled < frame && room > 0 {
            match self.input.read(&mut self.bytes[self.filled..room]) {
                Ok(0) => return self.end(frame),
                Ok(n) => self.filled += n,
                Err(e) => return Err(e.into()),
            }
        }
        if room == 0 {
            return Ok(false);
        }
        let whole = self.filled / frame * frame;
        let sample = self.format.sample;
        let mixer = &mut self.mixer;
        let mean = |frame: &[u8]| mixer.mean(frame.chunks_exact(sample.bytes()).map(|b| sample.value(b)));
        self.mono.clear();
        self.mono.extend(self.bytes[..whole].chunks_exact(frame).map(mean));
        self.bytes.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        self.got += self.mono.len() as u64;
        Ok(true)
    }

    fn end(&self, frame: usize) -> Result<bool> {
        match self.promised {
            Some(expected) => Err(Error::Truncated { expected, got: self.got }),
            None if self.filled > 0 => Err(Error::PartialFrame { extra: self.filled, frame }),
            None => Ok(false),
        }
    }
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
