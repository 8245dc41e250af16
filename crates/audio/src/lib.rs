//! Sound as it comes to what the model hears: any file, pipe or raw stream to 16 kHz mono, and that to log-mel frames.
//!
//! ```text
//! bytes ─Decoder─ mono samples ─Resampler─ 16 kHz mono ─MelStream─ log-mel [frames, bins]
//!       └──────────── AudioSource ──────────────────┘
//! ```
//! Every stage takes what there is, keeps what it cannot use yet and gives what is ready, so a file, a pipe and a microphone
//! are the same to it, and an hour needs no more memory than a second. However the input is cut, the output has the same bits.
//!
//! ```no_run
//! use voxtral_audio::{AudioSource, MelConfig, MelStream, SAMPLE_RATE};
//!
//! # fn main() -> voxtral_audio::Result<()> {
//! let shape = MelConfig { sample_rate: SAMPLE_RATE as usize, mel_bins: 128, hop: 160, window: 400, log_mel_max: 1.5 };
//! let mut source = AudioSource::open("interview.m4a")?;
//! let mut mel = MelStream::new(shape)?;
//! let mut frames = Vec::new(); // [frames, 128], a frame every 10 ms
//! while let Some(block) = source.next_block()? {
//!     mel.push(block, &mut frames);
//! }
//! mel.finish(&mut frames);
//! # Ok(())
//! # }
//! ```
//!
//! [`Pauses`] finds where speech has paused, beside [`MelStream`].
//!
//! # What can be read
//! WAV (8 to 32 bit, float, A-law, µ-law, ADPCM; RF64), FLAC, MP3, AAC-LC, ALAC, Vorbis, in their own streams or in MP4,
//! Ogg, Matroska, AIFF and CAF, at any rate from [`MIN_RATE`] to [`MAX_RATE`], and raw samples. No Opus, WMA or AMR:
//! `ffmpeg -i FILE -f wav -` piped in serves for those.
//!
//! # What is wrong is said
//! A file that is shorter than its header says, a last half sample, a broken structure or a checksum that does not hold: the
//! samples up to there come first, then the error. Damaged packets inside a stream become silence and are counted:
//! [`AudioSource::damaged_packets`]. So do samples that are no numbers: [`AudioSource::not_finite`].

#![forbid(unsafe_code)]

mod coded;
mod decode;
mod error;
mod input;
mod mel;
mod mix;
mod pauses;
mod pcm;
mod resample;
mod sniff;
mod source;
mod wait;
mod wav;

pub use coded::is_containing_panics;
pub use decode::Decoder;
pub use error::{Error, Result};
pub use mel::{MelConfig, MelStream};
pub use pauses::Pauses;
pub use pcm::{RawFormat, SampleFormat};
pub use resample::Resampler;
pub use source::AudioSource;
pub use wait::Waiting;

/// Samples a second that the model hears, and that [`AudioSource`] and [`Resampler`] give.
pub const SAMPLE_RATE: u32 = 16_000;
/// The lowest sample rate that is taken for sound.
pub const MIN_RATE: u32 = 1_000;
/// The highest sample rate that is taken for sound.
pub const MAX_RATE: u32 = 768_000;
/// The most channels that are taken for sound.
pub const MAX_CHANNELS: usize = 256;

#[cfg(test)]
mod testing;
