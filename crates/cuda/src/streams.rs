//! A stream's memory on the device: the key and value rings of encoder and decoder, and the newest audio embeddings.
//!
//! Position p lies in slot p modulo the ring's length, which is at least the window plus the longest span, so that a span that is decoded
//! again finds its whole window. A ring is made of blocks of slots, each with the keys and values of all layers. So it grows at its end,
//! as far as the stream has been heard; what is in it stays where it is.

use std::ops::Range;
use std::sync::Arc;

use voxtral_model::{AUDIO_WINDOW, MAX_DECODE_ROWS, ModelConfig, TransformerConfig};

use crate::driver::{Address, Buffer, Device, DriverError, Growable, Growth, Region, Stream};
use crate::limits::{KEY_CHUNK, MAX_ENCODE_TOKENS, SLOT_BLOCK};
use crate::table::{Row, Span};

type Result<T> = std::result::Result<T, DriverError>;

/// A ring: bf16 `[slots / 32][layers][key, value][32 slots][kv_dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingShape {
    /// Its length, whole blocks.
    slots: usize,
    /// The newest so many are kept: those that a position sees, and those before which it may be decoded again.
    kept: usize,
    /// Keys, and values, of each layer.
    planes: usize,
    /// Bytes of one slot of a plane.
    slot_bytes: usize,
}

impl RingShape {
    fn new(c: &TransformerConfig, span: usize, again: usize) -> Self {
        let slots = (c.window + span).next_multiple_of(SLOT_BLOCK);
        Self { slots, kept: c.window + again, planes: 2 * c.layers, slot_bytes: c.kv_dim() * 2 }
    }

    fn block_bytes(&self) -> usize {
        self.planes * self.plane_bytes()
    }

    /// Of a block.
    fn plane_bytes(&self) -> usize {
        SLOT_BLOCK * self.slot_bytes
    }

    /// What so many positions need. Attention reads chunks of keys whole, whatever of them it masks.
    fn bytes(&self, positions: usize) -> usize {
        let slots = positions.min(self.slots).next_multiple_of(KEY_CHUNK).min(self.slots);
        slots / SLOT_BLOCK * self.block_bytes()
    }
}

/// Sizes of a stream's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    decoder: RingShape,
    encoder: RingShape,
    downsample: usize,
    /// f32 `[2][mel_bins]`
    mel_carry: usize,
    /// bf16 `[enc_dim]`
    column_carry: usize,
    /// f32 `[dec_dim]`, an audio embedding.
    audio_slot: usize,
}

impl Shape {
    /// Of a stream whose spans have up to `span` tokens of audio.
    pub fn new(config: &ModelConfig, span: usize) -> Self {
        let (enc, dec) = (&config.encoder, &config.decoder);
        Self {
            decoder: RingShape::new(dec, MAX_DECODE_ROWS, MAX_DECODE_ROWS),
            encoder: RingShape::new(enc, span.min(MAX_ENCODE_TOKENS) * config.downsample, 0),
            downsample: config.downsample,
            mel_carry: (ModelConfig::CONV_KERNEL - 1) * config.audio.mel_bins * 4,
            column_carry: enc.dim * 2,
            audio_slot: dec.dim * 4,
        }
    }

    /// Where the carry of the columns lies, behind that of the frames.
    fn column_at(&self) -> usize {
        self.mel_carry.next_multiple_of(16)
    }

    /// Where the embeddings lie, behind the carries.
    fn audio_at(&self) -> usize {
        (self.column_at() + self.column_carry).next_multiple_of(256)
    }

    /// Bytes of decoder ring, encoder ring, and carries and embeddings, once there is memory for `tokens`.
    fn parts(&self, tokens: usize) -> [usize; 3] {
        if tokens == 0 {
            return [0; 3];
        }
        let audio = self.audio_at() + tokens.min(AUDIO_WINDOW) * self.audio_slot;
        [self.decoder.bytes(tokens), self.encoder.bytes(tokens.saturating_mul(self.downsample)), audio]
    }

    /// Device memory of a stream that has memory for `tokens`, where it is mapped in units of `granularity` bytes.
    pub fn bytes(&self, tokens: usize, granularity: usize) -> usize {
        self.parts(tokens).map(|bytes| bytes.next_multiple_of(granularity)).iter().sum()
    }

    /// The same on a device; one that cannot map memory takes all of it at once.
    pub fn bytes_on(&self, device: &Device, tokens: usize) -> usize {
        let all_at_once = tokens > 0 && !device.maps_memory();
        self.bytes(if all_at_once { usize::MAX } else { tokens }, device.granularity())
    }
}

/// A stream's memory.
#[derive(Debug)]
pub struct State {
    shape: Shape,
    decoder: Growable,
    encoder: Growable,
    /// Carries, then a ring of embeddings.
    audio: Growable,
    /// f32 `[layers][dim]`, shared by the streams of a delay.
    pub ada: Arc<Buffer>,
    device: Arc<Device>,
}

impl State {
    /// A stream that has heard nothing and has memory for nothing.
    pub fn new(shape: Shape, device: &Arc<Device>, ada: Arc<Buffer>) -> Result<Self> {
        let [decoder, encoder, audio] = shape.parts(usize::MAX).map(|bytes| Growable::reserve(device, bytes));
        Ok(Self { shape, decoder: decoder?, encoder: encoder?, audio: audio?, ada, device: device.clone() })
    }

    /// Device memory that it takes.
    pub fn bytes(&self) -> usize {
        self.decoder.bytes() + self.encoder.bytes() + self.audio.bytes()
    }

    /// Device memory that it takes once it has grown to `tokens`.
    pub fn bytes_for(&self, tokens: usize) -> usize {
        self.shape.bytes_on(&self.device, tokens).max(self.bytes())
    }

    /// Grows to have memory for `tokens`; what is new is zeros, by work queued on `stream`. A masked key is multiplied by 0, which would
    /// not undo what is no number. When memory runs out it is as it was.
    pub fn grow(&mut self, tokens: usize, stream: &Stream) -> Result<()> {
        let parts = [&mut self.decoder, &mut self.encoder, &mut self.audio].into_iter().zip(self.shape.parts(tokens));
        // All of it is taken before any of it is added.
        let taken: Vec<(&mut Growable, Option<Growth>)> = parts
            .map(|(part, bytes)| {
                let growth = part.allocate(bytes)?;
                Ok((part, growth))
            })
            .collect::<Result<_>>()?;
        for (part, growth) in taken {
            if let Some(growth) = growth {
                part.add(growth, stream)?;
            }
        }
        Ok(())
    }

    fn audio_at(&self, token: usize) -> usize {
        self.shape.audio_at() + token % AUDIO_WINDOW * self.shape.audio_slot
    }

    fn audio_address(&self, token: usize) -> Address {
        self.audio.address() + self.audio_at(token)
    }

    /// The decoder's row of a position.
    pub fn decoder_row(&self, position: usize, id: u32) -> Row {
        let (audio, ada) = (self.audio_address(position), self.ada.address());
        Row { audio, ada, id, ..Row::new(self.decoder.address(), self.shape.decoder.slots, position) }
    }

    /// The encoder's rows of some tokens.
    pub fn encoder_rows(&self, tokens: Range<usize>) -> impl Iterator<Item = Row> {
        let d = self.shape.downsample;
        (tokens.start * d..tokens.end * d)
            .map(|position| Row::new(self.encoder.address(), self.shape.encoder.slots, position))
    }

    /// Where a token's audio embedding goes.
    pub fn token_row(&self, token: usize) -> Row {
        Row { audio: self.audio_address(token), ..Row::default() }
    }

    /// A token's audio embedding, f32 `[dec_dim]`.
    pub fn audio_of(&self, token: usize) -> Region<'_> {
        self.audio.region(self.audio_at(token), self.shape.audio_slot)
    }

    /// Its part of an encode pass.
    pub fn span(&self, frame: usize, frames: usize) -> Span {
        let carries = self.audio.address();
        let column_carry = carries + self.shape.column_at();
        Span { mel_carry: carries, column_carry, frame: frame as u32, frames: frames as u32 }
    }

    /// Queues copies of all that `of`, which has `encoded` and `decoded` tokens, still needs into this stream, which has memory for as
    /// many. The encoder's rings may have other lengths.
    pub fn copy_from(&self, of: &Self, encoded: usize, decoded: usize, stream: &Stream) -> Result<()> {
        let copy = |to: &Growable, to_shape, from: &Growable, from_shape: &RingShape, end| -> Result<()> {
            for Piece { to: to_at, from: from_at, bytes } in pieces(to_shape, from_shape, end) {
                stream.copy(to.region(to_at, bytes), from.region(from_at, bytes))?;
            }
            Ok(())
        };
        copy(&self.decoder, &self.shape.decoder, &of.decoder, &of.shape.decoder, decoded)?;
        copy(&self.encoder, &self.shape.encoder, &of.encoder, &of.shape.encoder, encoded * self.shape.downsample)?;
        let [.., bytes] = self.shape.parts(encoded);
        stream.copy(self.audio.region(0, bytes), of.audio.region(0, bytes))
    }
}

/// What is contiguous in two rings; offsets in bytes.
struct Piece {
    to: usize,
    from: usize,
    bytes: usize,
}

/// What is kept of the positions before `end`, in pieces that are contiguous in two rings of one width: as many whole blocks as wrap
/// in neither, and a plane at a time where only a part of a block is kept. The rest of such a block may be newer positions, which lie
/// elsewhere in the other ring.
fn pieces(to: &RingShape, from: &RingShape, end: usize) -> Vec<Piece> {
    let mut at = end.saturating_sub(to.kept);
    let mut all = Vec::new();
    while at < end {
        let (a, b) = (at % to.slots, at % from.slots);
        let in_block = at % SLOT_BLOCK;
        let block = |slot: usize| slot / SLOT_BLOCK * to.block_bytes();
        let whole = (end - at).min(to.slots - a).min(from.slots - b) / SLOT_BLOCK;
        if in_block == 0 && whole > 0 {
            all.push(Piece { to: block(a), from: block(b), bytes: whole * to.block_bytes() });
            at += whole * SLOT_BLOCK;
        } else {
            let slots = (SLOT_BLOCK - in_block).min(end - at);
            let planes = (0..to.planes).map(|plane| plane * to.plane_bytes() + in_block * to.slot_bytes);
            all.extend(planes.map(|plane| Piece {
                to: block(a) + plane,
                from: block(b) + plane,
                bytes: slots * to.slot_bytes,
            }));
            at += slots;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::TYPICAL_GRANULARITY;

    #[test]
    fn rings_hold_window_and_span() {
        let shape = |span| Shape::new(&ModelConfig::released(), span);
        assert_eq!(shape(4).decoder.slots, 8320);
        assert_eq!([1, 4, 256, usize::MAX].map(|span| shape(span).encoder.slots), [768, 768, 1792, 1792]);
    }

    #[test]
    fn a_live_stream_takes_what_it_has_heard() {
        let shape = Shape::new(&ModelConfig::released(), 4);
        let megabytes = |tokens| shape.bytes(tokens, TYPICAL_GRANULARITY) / 1_000_000;
        assert_eq!(megabytes(0), 0);
        // At the start, after ten seconds, a minute, five minutes, an hour.
        let taken = [31, 31 + 125, 31 + 750, 31 + 3750, 31 + 45_000].map(megabytes);
        let most = [60, 200, 300, 630, 1100];
        assert!(taken.iter().zip(most).all(|(&taken, most)| taken < most), "{taken:?} of {most:?} MB");
        assert_eq!(megabytes(usize::MAX), megabytes(31 + 45_000));
    }

    #[test]
    fn memory_grows_with_tokens_until_the_windows_are_full() {
        for span in [1, 4, 32, 256] {
            let shape = Shape::new(&ModelConfig::released(), span);
            for tokens in 1..9000 {
                let (slots, before) = (shape.parts(tokens), shape.parts(tokens - 1));
                assert!(slots.iter().zip(before).all(|(&now, before)| now >= before));
                let chunk = |positions: usize, ring: &RingShape| {
                    positions.next_multiple_of(KEY_CHUNK).min(ring.slots) / SLOT_BLOCK * ring.block_bytes()
                };
                assert_eq!(slots[0], chunk(tokens, &shape.decoder));
                assert_eq!(slots[1], chunk(4 * tokens, &shape.encoder));
            }
        }
    }

    /// Bytes of a ring, each of which says which position of which plane it holds: 1 + position * planes + plane.
    fn filled(ring: &RingShape, end: usize) -> Vec<u32> {
        let mut all = vec![0; ring.slots / SLOT_BLOCK * ring.block_bytes()];
        for (position, plane) in (0..end).flat_map(|p| (0..ring.planes).map(move |plane| (p, plane))) {
            all[at(ring, position, plane)] = (1 + position * ring.planes + plane) as u32;
        }
        all
    }

    fn at(ring: &RingShape, position: usize, plane: usize) -> usize {
        let slot = position % ring.slots;
        slot / SLOT_BLOCK * ring.block_bytes() + plane * ring.plane_bytes() + slot % SLOT_BLOCK * ring.slot_bytes
    }

    #[test]
    fn what_is_kept_is_copied_between_rings_of_other_lengths() {
        let ring = |slots| RingShape { slots, kept: 50, planes: 6, slot_bytes: 1 };
        // 50 positions may lie in three blocks; in a ring of two its first and its last share one.
        for (to, from) in [(64, 64), (64, 160), (160, 64), (96, 128), (1024, 64)].map(|(a, b)| (ring(a), ring(b))) {
            for end in (0..200).chain([511, 512, 513, 1000]) {
                let (mut copy, source) = (vec![0; filled(&to, 0).len()], filled(&from, end));
                for Piece { to, from, bytes } in pieces(&to, &from, end) {
                    copy[to..to + bytes].copy_from_slice(&source[from..from + bytes]);
                }
                let want = filled(&from, end);
                for (position, plane) in (end.saturating_sub(50)..end).flat_map(|p| (0..6).map(move |plane| (p, plane)))
                {
                    assert_eq!(
                        copy[at(&to, position, plane)],
                        want[at(&from, position, plane)],
                        "{to:?} {from:?} {end}"
                    );
                    assert_eq!(copy[at(&to, position, plane)] as usize, 1 + position * 6 + plane);
                }
            }
        }
    }

    #[test]
    fn what_is_copied_has_memory_in_both() {
        let ring = |slots| RingShape { slots, kept: 50, planes: 6, slot_bytes: 1 };
        for (to, from) in [(64, 64), (64, 160), (160, 64), (1024, 64)].map(|(a, b)| (ring(a), ring(b))) {
            for end in 0..1100 {
                for piece in pieces(&to, &from, end) {
                    assert!(piece.to + piece.bytes <= to.bytes(end) && piece.from + piece.bytes <= from.bytes(end));
                }
            }
        }
    }
}
