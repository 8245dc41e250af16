//! From tokens to text and words.
//!
//! The model writes one token per 80 ms of audio. Generated token k (0, 1, 2 …) refers to the audio
//! `[80 k, 80 (k + 1))` ms, the trained delay already taken off. When a word has been spoken completely the model
//! writes `[STREAMING_WORD]` and then the pieces of the word, one per token; everything else is `[STREAMING_PAD]`.
//! So the marker tells where a word *ends*, to about ±80 ms. Nothing tells where it starts: starts are estimates.
//!
//! Words that end in the same 80 ms share one marker. They are told apart by the space that a piece opens with; a
//! marker begins a new word whether or not a space follows, since some languages write none.

use crate::report::{decimals3, decimals6};
use serde::{Deserialize, Serialize};

/// The audio that one token stands for.
const TOKEN_MS: u64 = 80;

/// One generated token, as far as text is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The bytes of a vocabulary entry. They may begin or end inside a UTF-8 character.
    Text(&'a [u8]),
    /// `[STREAMING_WORD]`: a word ended in the 80 ms of this token, its text follows.
    Word,
    /// Any other special token: `[STREAMING_PAD]`, end of sequence, unknown ids. Carries no text.
    Special,
}

/// What the model nearly wrote instead of a token.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Alternative {
    /// What it wrote: the token's text, part of a word or all of it, with the space before it if there is one.
    pub instead_of: String,
    /// What it nearly wrote.
    pub text: String,
    /// Natural logarithm of the probability that the model gave it.
    #[serde(serialize_with = "decimals6")]
    pub logprob: f32,
}

/// A word and where it was spoken.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Word {
    /// The word with its punctuation. Holds no white space and is never empty.
    pub text: String,
    /// Seconds from the start of the audio. An estimate from the word's length, never before the last word's end.
    #[serde(serialize_with = "decimals3")]
    pub start_s: f64,
    /// Seconds from the start of the audio, to about ±0.08.
    #[serde(serialize_with = "decimals3")]
    pub end_s: f64,
    /// Mean natural log-probability of the word's tokens. A space goes with the word after it.
    #[serde(serialize_with = "decimals6")]
    pub logprob: f32,
    /// What the model nearly wrote instead of the word's tokens, in their order, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// Whether white space separates this word from the one before; false for the first. Not in the JSON, and false when read.
    #[serde(skip)]
    pub after_space: bool,
}

/// The transcript of one stream, built token by token.
///
/// [`push`](Self::push) every generated token in order, specials too: they count the time. [`finish`](Self::finish)
/// when there are no more. Memory grows with the speech; a session without end takes its words out as they are
/// completed ([`take_words`](Self::take_words)), and what is left is about 1 MB of text a day.
#[derive(Debug, Default)]
pub struct Transcript {
    next_token: u64,
    /// The first bytes of a character that is not complete yet; at most 3.
    tail: Vec<u8>,
    /// Begins with a visible character, may end in white space.
    text: String,
    /// Complete, with times, not taken yet.
    words: Vec<Word>,
    /// Words that end with the same token, and wait for others that do before they share out the time.
    group: Vec<Draft>,
    /// The word that the next visible character continues.
    open: Option<Draft>,
    /// The marker that the text to come belongs to.
    marker: Option<u64>,
    /// Tokens that have not shown a visible character yet: a space, the first bytes of a character.
    unseen: Written,
    last_end_ms: u64,
    /// The length of the audio, once it is known.
    audio_ms: Option<u64>,
}

impl Transcript {
    /// An empty transcript, at token 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what the model nearly wrote instead of the token that is pushed next. It goes with that token's word.
    pub fn nearly(&mut self, alternatives: impl IntoIterator<Item = Alternative>) {
        self.unseen.alternatives.extend(alternatives);
    }

    /// Takes the next generated token and returns the text that became certain with it, often none.
    ///
    /// Characters may be cut by tokens, and even by specials between those; only whole ones come out. Bytes that
    /// are no UTF-8 come out as U+FFFD, exactly as in [`String::from_utf8_lossy`], and hold nothing up. NUL bytes
    /// are not text and vanish. The first text to come out begins with a visible character.
    pub fn push(&mut self, piece: Piece<'_>, logprob: f32) -> &str {
        let (k, before) = (self.next_token, self.text.len());
        self.next_token += 1;
        match piece {
            Piece::Text(bytes) => self.read(bytes, k, logprob),
            Piece::Word => {
                // In the middle of a character it interrupts neither the character nor its word.
                if self.tail.is_empty() {
                    self.close_group();
                }
                self.marker = Some(k);
            }
            Piece::Special => self.marker = None,
        }
        &self.text[before..]
    }

    /// Tells how much audio there was, in seconds; no word's times go beyond it, to the millisecond.
    ///
    /// `finish` does this too; a live session that takes words out while it decodes its last tokens, which refer to
    /// padding after the audio, says it beforehand. Words already taken are not changed.
    pub fn audio_ended(&mut self, audio_s: f64) {
        let audio_ms = (audio_s * 1000.0).round() as u64;
        self.audio_ms = Some(audio_ms);
        self.last_end_ms = self.last_end_ms.min(audio_ms);
        for word in &mut self.words {
            word.start_s = word.start_s.min(seconds(audio_ms));
            word.end_s = word.end_s.min(seconds(audio_ms));
        }
    }

    /// Ends the stream after `audio_s` seconds of audio: the last words are completed, and an incomplete character
    /// becomes U+FFFD. Returns the text that this adds.
    pub fn finish(&mut self, audio_s: f64) -> &str {
        self.audio_ended(audio_s);
        self.flush()
    }

    /// Completes the words that wait for others, and makes an incomplete character U+FFFD, at a place where all that was said has been
    /// written. Returns the text that this adds. The stream may go on.
    pub fn flush(&mut self) -> &str {
        let before = self.text.len();
        if !self.tail.is_empty() {
            self.tail.clear();
            self.show(char::REPLACEMENT_CHARACTER, self.next_token.saturating_sub(1));
        }
        self.close_group();
        &self.text[before..]
    }

    /// Ends the open word at a pause in the speech, which lasts until `until_s` at least: no later word starts before that. In the middle
    /// of a character it does nothing and returns false.
    pub fn pause(&mut self, until_s: f64) -> bool {
        if self.tail.is_empty() {
            self.close_group();
            // A word that comes later ends with a later token.
            let until_ms = ((until_s * 1000.0).round() as u64).min(self.next_token * TOKEN_MS);
            self.last_end_ms = self.last_end_ms.max(until_ms);
        }
        self.tail.is_empty()
    }

    /// All the text so far, without white space at its ends.
    pub fn text(&self) -> &str {
        self.text.trim_end()
    }

    /// The complete words that were not taken, in order. A word is complete once a later marker or a word of a later
    /// token has come, or at `finish`: until then its text may go on and its time may have to be shared.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// Moves the complete words out, so that they are reported once and need no memory.
    pub fn take_words(&mut self) -> Vec<Word> {
        std::mem::take(&mut self.words)
    }

    fn read(&mut self, bytes: &[u8], k: u64, logprob: f32) {
        if bytes.iter().all(|&byte| byte == 0) {
            return;
        }
        self.tail.extend(bytes.iter().filter(|&&byte| byte != 0));
        self.unseen.add(logprob);
        let (complete, tail) = split_complete(&self.tail);
        self.tail = tail;
        for c in complete.chars() {
            if !c.is_whitespace() {
                self.show(c, k);
                continue;
            }
            self.group.extend(self.open.take());
            if !self.text.is_empty() {
                self.text.push(c);
            }
            // The token has shown a word already; the one after this space is its word too.
            if self.unseen.count == 0 {
                self.unseen.add(logprob);
            }
        }
    }

    /// Appends a visible character that token `k` completed.
    fn show(&mut self, c: char, k: u64) {
        let mut word = self.open.take().unwrap_or_else(|| self.begin_word(k));
        word.text.push(c);
        word.written.merge(std::mem::take(&mut self.unseen));
        self.open = Some(word);
        self.text.push(c);
    }

    fn begin_word(&mut self, k: u64) -> Draft {
        // Without a marker the first piece stands where it would stand if there were one: right after it.
        let end_token = self.marker.map_or(k, |marker| marker + 1);
        if self.group.last().is_some_and(|word| word.end_token != end_token) {
            self.close_group();
        }
        let after_space = self.text.ends_with(char::is_whitespace);
        Draft { text: String::new(), written: Written::default(), end_token, after_space }
    }

    /// Completes the words that wait: fixes the end of their common span, estimates its start, shares it out.
    fn close_group(&mut self) {
        self.group.extend(self.open.take());
        let Some(end_token) = self.group.last().map(|word| word.end_token) else { return };
        // Never before the last end: a later marker, or a later first piece without one, is a later token.
        let end_ms = (end_token * TOKEN_MS).min(self.audio_ms.unwrap_or(u64::MAX));
        let usual_ms: u64 = self.group.iter().map(Draft::usual_ms).sum();
        let span_ms = usual_ms.min(end_ms - self.last_end_ms);
        let start_ms = end_ms - span_ms;
        // Each word takes of the span what it usually takes of the usual time.
        let mut done_ms = 0;
        for word in self.group.drain(..) {
            let begun_ms = done_ms;
            done_ms += word.usual_ms();
            self.words.push(Word {
                start_s: seconds(start_ms + span_ms * begun_ms / usual_ms),
                end_s: seconds(start_ms + span_ms * done_ms / usual_ms),
                logprob: word.written.mean_logprob(),
                alternatives: word.written.alternatives,
                after_space: word.after_space,
                text: word.text,
            });
        }
        self.last_end_ms = end_ms;
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// A word without times.
#[derive(Debug)]
struct Draft {
    text: String,
    written: Written,
    /// The number of tokens before the word's end.
    end_token: u64,
    after_space: bool,
}

impl Draft {
    /// How long a word of this length usually takes: a guess, as good as speakers are alike.
    fn usual_ms(&self) -> u64 {
        160 + 80 * self.text.chars().count() as u64
    }
}

/// What the model made of some tokens.
#[derive(Debug, Default)]
struct Written {
    /// Of log-probabilities.
    sum: f64,
    count: u32,
    alternatives: Vec<Alternative>,
}

impl Written {
    fn add(&mut self, logprob: f32) {
        self.sum += f64::from(logprob);
        self.count += 1;
    }

    fn merge(&mut self, other: Written) {
        self.sum += other.sum;
        self.count += other.count;
        self.alternatives.extend(other.alternatives);
    }

    fn mean_logprob(&self) -> f32 {
        (self.sum / f64::from(self.count)) as f32
    }
}

/// The text of `bytes` with U+FFFD for what cannot become a character, and the first bytes of one that still can.
fn split_complete(bytes: &[u8]) -> (String, Vec<u8>) {
    let mut text = String::new();
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let broken = chunk.invalid();
        let is_last = chunks.peek().is_none();
        if is_last && std::str::from_utf8(broken).is_err_and(|error| error.error_len().is_none()) {
            return (text, broken.to_vec());
        }
        if !broken.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    (text, Vec::new())
}

#[cfg(test)]
mod tests;
