//! Sound as it comes to what the model hears: any file, pipe or raw stream to 16 kHz mono, and that to log-mel frames.
//!
//! ```text
//! bytes ─ recognised, opened ─ packets with times ─ samples ─ mono ─ in their place, 16 kHz ─ MelStream ─ log-mel [frames, bins]
//!           sniff    containers            decoders     Mixer     Timeline, Resampler
//!       └──────────────────────────── AudioSource ─────────────────────────────────┘
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
//!     for damage in source.take_damage() {
//!         eprintln!("{damage}");
//!     }
//! }
//! mel.finish(&mut frames);
//! # Ok(())
//! # }
//! ```
//!
//! [`Pauses`] finds where speech has paused, beside [`MelStream`]. Samples that are at hand already go through a [`Mixer`] and a [`Resampler`].
//!
//! # What can be read
//! WAV (8 to 32 bit, float, A-law, µ-law, ADPCM; RIFX, RF64, BW64), AIFF, AU, CAF, FLAC, MP3, AAC-LC, ALAC, Vorbis and Opus, in
//! their own streams or in MP4, MOV, Ogg and Matroska, at any rate from [`MIN_RATE`] to [`MAX_RATE`], and raw samples. The rest
//! goes through an `ffmpeg` on the PATH. Documents and other files are named, and are never taken for samples.
//!
//! # What is wrong is said
//! Missing and bad packets, pages and ends cost nothing but themselves: silence stands in for them, all else keeps its time, and
//! [`AudioSource::take_damage`] tells of them as they come. [`AudioSource::take_notices`] tells what is worth a line and is no
//! damage. An [`Error`] is that there is nothing to hear.

#![forbid(unsafe_code)]

mod aac;
mod aiff;
mod caf;
mod codec;
mod containers;
mod damage;
mod decode;
mod error;
mod ffmpeg;
mod flac;
mod frames;
mod input;
mod mel;
mod mix;
mod mkv;
mod mp4;
mod mpeg;
mod ogg;
mod options;
mod opus;
mod packet;
mod pauses;
mod pcm;
mod resample;
mod sniff;
mod source;
mod suspect;
mod timeline;
mod vorbis;
mod wait;
mod wav;

pub use codec::is_containing_panics;
pub use damage::{Damage, Notice};
pub use error::{Error, Result};
pub use mel::{MelConfig, MelStream};
pub use mix::Mixer;
pub use options::{AudioOptions, Channel};
pub use pauses::Pauses;
pub use pcm::{RawFormat, SampleFormat};
pub use resample::Resampler;
pub use sniff::is_audio;
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
