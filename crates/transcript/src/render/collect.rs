//! Words and tokens, for a program that goes on with them.

use std::io;

use super::Sink;
use crate::{TokenRecord, Word};

/// Keeps words and tokens; the text is in the [`Summary`](crate::Summary).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collect {
    /// All words so far.
    pub words: Vec<Word>,
    /// All tokens so far.
    pub tokens: Vec<TokenRecord>,
}

impl Sink for Collect {
    fn token(&mut self, token: &TokenRecord) -> io::Result<()> {
        self.tokens.push(*token);
        Ok(())
    }

    fn word(&mut self, word: &Word) -> io::Result<()> {
        self.words.push(word.clone());
        Ok(())
    }
}
