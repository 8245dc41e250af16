//! Which encoding goes where.

use super::Encoding;

/// Parts of a model that may be encoded differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The encoder's layers and the adapter.
    Encoder,
    /// The decoder's layers.
    Decoder,
    /// The embedding, which is also the head.
    Head,
}

/// The encoding of every matrix of a model. Norms, biases, the convolutions and what follows from the delay stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of the encoder's layers and the adapter.
    pub encoder: Encoding,
    /// Of the decoder's layers.
    pub decoder: Encoding,
    /// Of the embedding, which is also the head.
    pub head: Encoding,
}

impl Plan {
    /// The same everywhere.
    pub fn all(encoding: Encoding) -> Self {
        Self { encoder: encoding, decoder: encoding, head: encoding }
    }

    /// The encoding of a part.
    pub fn of(&self, part: Part) -> Encoding {
        match part {
            Part::Encoder => self.encoder,
            Part::Decoder => self.decoder,
            Part::Head => self.head,
        }
    }
}
