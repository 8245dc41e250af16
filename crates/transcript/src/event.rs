//! What happens in a session: all that a transcription comes to, in order.

use std::time::Duration;

use crate::{Alternative, TokenRecord, Word};

/// What happens in a session, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The model wrote a token, one for each 80 ms of audio.
    Token(TokenRecord),
    /// What the model nearly wrote instead of the text that follows in the next event; only where that was asked for.
    Alternatives(Vec<Alternative>),
    /// Text became certain: the transcript goes on with it.
    Text(String),
    /// A word is complete.
    Word(Word),
    /// A pause in the speech has lasted as long as was asked for, and all that was said before it has come out. There was some since the
    /// last endpoint.
    Endpoint {
        /// Where it had lasted so long, in seconds of audio.
        at_s: f64,
    },
    /// All that was said before a flush has come out.
    Flushed {
        /// Seconds of audio up to the flush.
        audio_s: f64,
    },
    /// All audio is transcribed. Nothing follows.
    Done(Summary),
}

/// A whole session.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The transcript, without space around it.
    pub text: String,
    /// Seconds of audio.
    pub audio_s: f64,
    /// What it took.
    pub stats: SessionStats,
}

/// What a session took. Passes that it shared with others count whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SessionStats {
    /// Decoder positions, those of the prompt included.
    pub positions: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Decoder passes, the prompt's included.
    pub passes: usize,
    /// Passes that made so many positions certain: 1, 2 to 3, 4 to 7, and so on to 128. The prompt's is not among them.
    pub certain: [usize; 8],
    /// Time in the encoder.
    pub encode: Duration,
    /// Time in the decoder.
    pub decode: Duration,
    /// From the start of the session to its first text.
    pub first_text: Option<Duration>,
}
