//! Packets that decode between packets that do not.
//!
//! Some codecs have no checksum: of random bytes in AAC, about half of the packets decode, to noise that a model takes for words.

use std::collections::VecDeque;

use crate::codec::Samples;
use crate::decode::{Piece, Reader};
use crate::error::Result;
use crate::packet::Codec;

/// After so many seconds of packets that decode, damage is over.
const OVER_S: f64 = 0.35;

/// Reads pieces, and gives up what decodes between two packets that do not and are close to each other, or right behind one.
#[derive(Default)]
pub(crate) struct Suspect {
    /// What was read to see how damage goes on, with its samples.
    ahead: VecDeque<Result<(Piece, Samples)>>,
}

impl Suspect {
    /// As [`Reader::next`].
    pub(crate) fn next(&mut self, reader: &mut Reader, samples: &mut Samples) -> Result<Piece> {
        if let Some(read) = self.ahead.pop_front() {
            let (piece, its) = read?;
            if matches!(piece, Piece::Samples(_)) {
                *samples = its;
            }
            return Ok(piece);
        }
        let piece = reader.next(samples)?;
        if matches!(piece, Piece::BadPacket(..)) && reader.codec() == &Codec::Aac {
            self.look_ahead(reader);
        }
        Ok(piece)
    }

    /// Reads on until damage is over, or something else is.
    fn look_ahead(&mut self, reader: &mut Reader) {
        // From here on, what was read decodes.
        let (mut decoded, mut decoded_s) = (0, 0.0);
        while decoded_s < OVER_S {
            let mut samples = Samples::default();
            let read = reader.next(&mut samples);
            let more = matches!(read, Ok(Piece::Samples(_) | Piece::BadPacket(..)));
            if let Ok(Piece::BadPacket(..)) = read {
                self.ahead.range_mut(decoded..).for_each(give_up);
                (decoded, decoded_s) = (self.ahead.len() + 1, 0.0);
            }
            decoded_s += samples.seconds();
            self.ahead.push_back(read.map(|piece| (piece, samples)));
            if !more {
                break;
            }
        }
        // Samples are sums of two packets, and one of those behind the damage is bad.
        self.ahead.range_mut(decoded..).take(1).for_each(give_up);
    }
}

/// What decoded is as bad as its neighbours.
fn give_up(read: &mut Result<(Piece, Samples)>) {
    if let Ok((piece, samples)) = read
        && let Piece::Samples(span) = piece
    {
        *piece = Piece::BadPacket(*span, samples.seconds());
    }
}
