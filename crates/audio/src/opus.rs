//! Opus packets, with opus-pure: mono, stereo, and the surround layouts of RFC 7845.

use opus_pure::{OpusDecoder, OpusMSDecoder};

use crate::codec::{BadPacket, Samples};
use crate::packet::Numbers;

/// Opus decodes at whatever rate one asks for; this one loses nothing.
pub(crate) const RATE: u32 = 48_000;
/// Samples per channel of the longest packet, 120 ms.
const LONGEST: usize = 5760;

pub(crate) struct OpusReader {
    decoder: Layout,
    channels: usize,
    output: Vec<f32>,
}

enum Layout {
    Plain(Box<OpusDecoder>),
    Surround(OpusMSDecoder),
}

impl OpusReader {
    /// By the identification header (`OpusHead`), or for `channels` where there is none. `None` for layouts that are not
    /// standard.
    pub(crate) fn new(head: &[u8], channels: usize) -> Option<Self> {
        let head = Head::read(head).unwrap_or(Head { channels: channels.clamp(1, 2), skip: 0, family: 0 });
        let rate = RATE as i32;
        let decoder = match (head.family, head.channels) {
            (0, 1 | 2) => Layout::Plain(Box::new(OpusDecoder::new(rate, head.channels).ok()?)),
            (1, 1..=8) => Layout::Surround(OpusMSDecoder::new(rate, head.channels, 1).ok()?),
            _ => return None,
        };
        Some(Self { decoder, channels: head.channels, output: vec![0.0; LONGEST * head.channels] })
    }

    pub(crate) fn decode(&mut self, packet: &[u8], samples: &mut Samples) -> Result<(), BadPacket> {
        let count = samples_of(packet).ok_or(BadPacket)?;
        let made = match &mut self.decoder {
            Layout::Plain(decoder) => decoder.decode(packet, count, &mut self.output),
            Layout::Surround(decoder) => decoder.decode(packet, count, &mut self.output),
        };
        let made = made.map_err(|_| BadPacket)?;
        (samples.rate, samples.channels) = (RATE, self.channels);
        samples.interleaved.extend_from_slice(self.output.get(..made * self.channels).ok_or(BadPacket)?);
        Ok(())
    }

    /// What the decoder makes up for `count` samples per channel that are missing, from those before; nothing where it
    /// cannot.
    pub(crate) fn conceal(&mut self, count: usize, interleaved: &mut Vec<f32>) {
        let made = match &mut self.decoder {
            Layout::Plain(decoder) => decoder.decode(&[], count.min(LONGEST), &mut self.output),
            Layout::Surround(_) => return,
        };
        if let Ok(made) = made
            && let Some(samples) = self.output.get(..made * self.channels)
        {
            interleaved.extend_from_slice(samples);
        }
    }

    pub(crate) fn reset(&mut self) {
        let _ = match &mut self.decoder {
            Layout::Plain(decoder) => decoder.reset_state(),
            Layout::Surround(decoder) => decoder.reset_state(),
        };
    }
}

/// The identification header. Its gain is left out: loudness does not matter to who listens for words.
pub(crate) struct Head {
    pub(crate) channels: usize,
    /// Samples at 48 kHz before the first that is meant to be heard.
    pub(crate) skip: u16,
    family: u8,
}

impl Head {
    pub(crate) fn read(head: &[u8]) -> Option<Self> {
        let rest = head.strip_prefix(b"OpusHead")?;
        let (channels, family) = (usize::from(*rest.get(1)?), *rest.get(10)?);
        Some(Self { channels, skip: rest.le16(2)?, family })
    }
}

/// Samples at 48 kHz of a packet, by its first bytes; `None` for what is no packet.
pub(crate) fn samples_of(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let config = usize::from(first >> 3);
    let frame = match config {
        0..12 => [480, 960, 1920, 2880][config % 4],
        12..16 => [480, 960][config % 2],
        _ => [120, 240, 480, 960][config % 4],
    };
    let count = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(packet.get(1)? & 63),
    };
    Some(frame * count).filter(|&samples| (1..=LONGEST).contains(&samples))
}
