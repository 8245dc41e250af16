//! What comes after the tokens: text, words with times, files, scores.
//!
//! [`Transcript`] takes the generated tokens of one stream, one at a time, and hands out text as soon as it is
//! certain and words as soon as they are complete. The rest works on what it made: [`render`] writes it as it comes, as text,
//! subtitles or JSON ([`Report`]), and [`score`] compares a text with a reference.
//!
//! ```
//! use voxtral_transcript::{Piece, Transcript};
//!
//! let mut transcript = Transcript::new();
//! let mut live = String::new();
//! for piece in [Piece::Special, Piece::Word, Piece::Text(b" fo"), Piece::Text(b"ur"), Piece::Special] {
//!     live += transcript.push(piece, -0.01);
//! }
//! live += transcript.finish(0.4);
//! assert_eq!(live, "four");
//! assert_eq!(transcript.words()[0].text, "four");
//! assert_eq!(transcript.words()[0].end_s, 0.16); // the marker is token 1, whose 80 ms end at 160 ms
//! ```
#![forbid(unsafe_code)]

mod edits;
mod event;
pub mod format;
pub mod render;
mod report;
pub mod score;
mod similarity;
mod transcript;

pub use event::{Event, SessionStats, Summary};
pub use report::{Audio, Report, Segment, Stats, TokenRecord};
pub use transcript::{Alternative, Piece, Transcript, Word};
