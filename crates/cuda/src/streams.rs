//! One speaker's state on the device.
//!
//! Rings are indexed by absolute position modulo their length, which is at least the window plus the longest span, so that a span that
//! is decoded again finds its whole window. A stream that will end is given no more than its positions need. Lengths are multiples of
//! half a chunk of keys, so that each half of a chunk, which attention copies whole, lies in one piece.

use std::sync::Arc;

use voxtral_model::{AUDIO_WINDOW, MAX_DECODE_ROWS, ModelConfig, TransformerConfig};

use crate::driver::{Buffer, DriverError, Stream};
use crate::table::{KEY_CHUNK, Row, Span};

/// Sizes of a stream's parts, which lie one after the other in one allocation: decoder ring, encoder ring, audio embeddings, carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Slots of the decoder's ring.
    pub decoder_ring: usize,
    /// Slots of the encoder's ring.
    pub encoder_ring: usize,
    /// Slots of the audio embeddings' ring.
    pub audio_ring: usize,
    decoder_slot: usize,
    decoder_layers: usize,
    encoder_slot: usize,
    encoder_layers: usize,
    audio_slot: usize,
    mel_carry: usize,
    column_carry: usize,
}

fn ring(window: usize, span: usize) -> usize {
    (window + span).next_multiple_of(KEY_CHUNK / 2)
}

/// Bytes of one slot of one layer: its key, or its value.
fn slot(c: &TransformerConfig) -> usize {
    c.kv_dim() * 2
}

impl Shape {
    /// Of a stream whose encode spans have up to `span` tokens.
    pub fn new(config: &ModelConfig, span: usize) -> Self {
        let (enc, dec) = (&config.encoder, &config.decoder);
        let d = config.downsample;
        Self {
            decoder_ring: ring(dec.window, MAX_DECODE_ROWS),
            encoder_ring: ring(enc.window, span * d),
            audio_ring: AUDIO_WINDOW,
            decoder_slot: slot(dec),
            decoder_layers: dec.layers,
            encoder_slot: slot(enc),
            encoder_layers: enc.layers,
            audio_slot: dec.dim * 4,
            mel_carry: (ModelConfig::CONV_KERNEL - 1) * config.audio.mel_bins * 4,
            column_carry: (enc.dim * 2).next_multiple_of(16),
        }
    }

    fn encoder_at(&self) -> usize {
        2 * self.decoder_layers * self.decoder_ring * self.decoder_slot
    }

    fn audio_at(&self) -> usize {
        self.encoder_at() + 2 * self.encoder_layers * self.encoder_ring * self.encoder_slot
    }

    fn mel_at(&self) -> usize {
        self.audio_at() + self.audio_ring * self.audio_slot
    }

    fn column_at(&self) -> usize {
        self.mel_at() + self.mel_carry.next_multiple_of(16)
    }

    /// Device memory of a stream.
    pub fn bytes(&self) -> usize {
        self.column_at() + self.column_carry
    }
}

/// A stream's state.
#[derive(Debug)]
pub struct State {
    /// Sizes.
    pub shape: Shape,
    /// f32 `[layers][dim]`, shared by the streams of a delay.
    pub ada: Arc<Buffer>,
    buffer: Buffer,
}

impl State {
    /// A stream that has heard nothing, in `buffer` of [`Shape::bytes`], which is filled with zeros.
    pub fn new(config: &ModelConfig, span: usize, ada: Arc<Buffer>, buffer: Buffer) -> Self {
        Self { shape: Shape::new(config, span), ada, buffer }
    }

    /// Device memory that it takes.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes()
    }

    fn address(&self, at: usize) -> u64 {
        self.buffer.address() + at as u64
    }

    fn audio(&self, token: usize) -> u64 {
        self.address(self.shape.audio_at() + token % self.shape.audio_ring * self.shape.audio_slot)
    }

    /// The decoder's row of a position.
    pub fn decoder_row(&self, position: usize, id: u32) -> Row {
        let (kv, audio, ada) = (self.address(0), self.audio(position), self.ada.address());
        Row { audio, ada, id, ..Row::new(kv, self.shape.decoder_ring, position) }
    }

    /// The encoder's row of a position.
    pub fn encoder_row(&self, position: usize) -> Row {
        Row::new(self.address(self.shape.encoder_at()), self.shape.encoder_ring, position)
    }

    /// Where a token's audio embedding goes.
    pub fn token_row(&self, token: usize) -> Row {
        Row { audio: self.audio(token), ..Row::default() }
    }

    /// Where, in bytes, a token's audio embedding lies, and in what.
    pub fn audio_of(&self, token: usize) -> (&Buffer, usize) {
        (&self.buffer, self.shape.audio_at() + token % self.shape.audio_ring * self.shape.audio_slot)
    }

    /// Its part of an encode pass.
    pub fn span(&self, frame: usize, frames: usize) -> Span {
        let (mel, column) = (self.address(self.shape.mel_at()), self.address(self.shape.column_at()));
        Span { mel_carry: mel, column_carry: column, frame: frame as u32, frames: frames as u32 }
    }

    /// Queues copies of all that `of`, which has encoded and decoded so many tokens, still needs into this fresh stream, whose rings may
    /// have other lengths.
    pub fn copy_from(
        &mut self,
        of: &Self,
        encoded: usize,
        decoded: usize,
        config: &ModelConfig,
        stream: &Stream,
    ) -> Result<(), DriverError> {
        let (to, from) = (self.shape, of.shape);
        let keys =
            |at: usize, layers: usize, ring: usize, slot: usize| (0..2 * layers).map(move |l| at + l * ring * slot);
        let copy = |to_at: usize, to_ring: usize, from_at: usize, from_ring: usize, slot: usize, range| {
            for (to, from, slots) in segments(range, to_ring, from_ring) {
                stream.copy(&self.buffer, to_at + to * slot, &of.buffer, from_at + from * slot, slots * slot)?;
            }
            Ok::<_, DriverError>(())
        };
        let newest = |end: usize, keep: usize| end.saturating_sub(keep)..end;
        let range = newest(decoded, config.decoder.window);
        let (slot, layers) = (to.decoder_slot, to.decoder_layers);
        for (a, b) in keys(0, layers, to.decoder_ring, slot).zip(keys(0, layers, from.decoder_ring, slot)) {
            copy(a, to.decoder_ring, b, from.decoder_ring, slot, range.clone())?;
        }
        let range = newest(encoded * config.downsample, config.encoder.window);
        let (slot, layers) = (to.encoder_slot, to.encoder_layers);
        let to_keys = keys(to.encoder_at(), layers, to.encoder_ring, slot);
        for (a, b) in to_keys.zip(keys(from.encoder_at(), layers, from.encoder_ring, slot)) {
            copy(a, to.encoder_ring, b, from.encoder_ring, slot, range.clone())?;
        }
        let range = newest(encoded, to.audio_ring.min(from.audio_ring));
        copy(to.audio_at(), to.audio_ring, from.audio_at(), from.audio_ring, to.audio_slot, range)?;
        stream.copy(&self.buffer, to.mel_at(), &of.buffer, from.mel_at(), to.mel_carry)?;
        stream.copy(&self.buffer, to.column_at(), &of.buffer, from.column_at(), to.column_carry)?;
        Ok(())
    }
}

/// Cuts positions into runs that wrap in neither of two rings: (slot in the one, slot in the other, slots).
fn segments(range: std::ops::Range<usize>, a: usize, b: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let run = (range.end - at).min(a - at % a).min(b - at % b);
        let segment = (run > 0).then_some((at % a, at % b, run));
        at += run;
        segment
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_hold_window_and_span() {
        assert_eq!(ring(8192, 128), 8320);
        assert_eq!(ring(750, 16), 768);
        assert_eq!(ring(20, 128), 160);
    }

    #[test]
    fn segments_cover_a_range_once_and_wrap_nowhere() {
        for (range, a, b) in [(5..77, 32, 96), (0..0, 32, 32), (100..228, 160, 32), (31..33, 32, 32)] {
            let mut at = range.start;
            for (to, from, slots) in segments(range.clone(), a, b) {
                assert_eq!((to, from), (at % a, at % b));
                assert!(to + slots <= a && from + slots <= b && slots > 0);
                at += slots;
            }
            assert_eq!(at, range.end);
        }
    }
}
