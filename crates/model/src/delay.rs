//! The transcription delay: how much audio after a word the model waits for before it writes the word.

use std::fmt;

/// Milliseconds of audio of one token, that is, of one decoder position.
pub const TOKEN_MS: u32 = 80;

/// A delay that the model was trained for, in tokens of 80 ms: 1 to 15, or 30.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Delay(usize);

/// A delay that the model was not trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delay of {ms} ms is not one the model knows: it takes 80 to 1200 ms in steps of 80, or 2400 ms")]
pub struct DelayError {
    /// What was asked for.
    pub ms: u32,
}

impl Delay {
    /// The delay of `ms` milliseconds.
    ///
    /// # Errors
    /// When `ms` is neither a multiple of 80 from 80 to 1200, nor 2400.
    pub fn from_ms(ms: u32) -> Result<Self, DelayError> {
        let known = ms.is_multiple_of(TOKEN_MS) && matches!(ms, 80..=1200 | 2400);
        known.then_some(Self((ms / TOKEN_MS) as usize)).ok_or(DelayError { ms })
    }

    /// In tokens.
    pub fn tokens(self) -> usize {
        self.0
    }

    /// In milliseconds.
    pub fn ms(self) -> u32 {
        self.0 as u32 * TOKEN_MS
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_model_was_trained_for_and_nothing_else() {
        let known: Vec<u32> = (0..=4000).filter(|&ms| Delay::from_ms(ms).is_ok()).collect();
        let expected: Vec<u32> = (1..=15).chain([30]).map(|tokens| tokens * 80).collect();
        assert_eq!(known, expected);
        assert_eq!(Delay::from_ms(480).unwrap().tokens(), 6);
    }
}
