//! Speech to text with Voxtral Realtime, on your own machine.
//!
//! ```
//! use voxtral::{Config, Options, Source, Text, Voxtral};
//!
//! # std::env::set_current_dir("../..").unwrap();
//! # let config = Config { backend: voxtral::BackendChoice::Cpu, ..Config::default() };
//! let voxtral = Voxtral::open(&config, &mut |_| {})?;
//! let recording = Source::file("samples/digits.wav")?;
//! voxtral.transcribe(recording, &Options::default(), &mut Text::new(std::io::stdout()))?;
//! # Ok::<_, voxtral::Error>(())
//! ```
//!
//! A [`Config`] says which model is opened and what computes; its default is the demo model, which knows spoken English digits only, on
//! the GPU if there is one, else on the CPU ([`Voxtral::fallback`] says why). A [`Source`] is where audio comes from. A [`Sink`] is
//! where its transcript goes: [`Text`], [`Subtitles`], [`Json`], [`JsonLines`], [`Collect`] for a program that goes on with words and
//! tokens, or your own.
//!
//! # How do I transcribe what a microphone hears?
//!
//! Whatever gives samples (16 kHz, mono) sends them through a channel. Text comes as soon as it is certain, the delay after a word.
//!
//! ```
//! use std::io;
//! use std::sync::mpsc;
//! use voxtral::{Config, Options, Sink, Source, Voxtral};
//!
//! struct Subtitles;
//!
//! impl Sink for Subtitles {
//!     fn text(&mut self, text: &str) -> io::Result<()> {
//!         print!("{text}"); // or onto a screen
//!         Ok(())
//!     }
//! }
//!
//! # let config = Config { backend: voxtral::BackendChoice::Cpu, ..Config::default() };
//! let voxtral = Voxtral::open(&config, &mut |_| {})?;
//! let (microphone, samples) = mpsc::sync_channel(100);
//! std::thread::spawn(move || {
//!     for _ in 0..10 {
//!         microphone.send(vec![0.0; 1280]).expect("somebody listens"); // 80 ms of silence
//!     }
//! });
//! let summary = voxtral.transcribe(Source::live(samples), &Options::default(), &mut Subtitles)?;
//! assert_eq!(summary.audio_s, 0.8);
//! # Ok::<_, voxtral::Error>(())
//! ```
//!
//! A program that has its own loop, such as a server, takes a [`Session`] instead: [`Voxtral::session`]. It pushes samples and gets
//! events, on one thread or, [`split`](Session::split), on two.
//!
//! # How do I transcribe many at once?
//!
//! From as many threads as there are inputs. All share one copy of the weights, and each pass over the weights serves all.
//!
//! ```
//! use voxtral::{Collect, Config, Options, Source, Voxtral};
//!
//! # std::env::set_current_dir("../..").unwrap();
//! # let config = Config { backend: voxtral::BackendChoice::Cpu, ..Config::default() };
//! let voxtral = Voxtral::open(&config, &mut |_| {})?;
//! let words = std::thread::scope(|scope| {
//!     let transcribe = |path| {
//!         let mut all = Collect::default();
//!         voxtral.transcribe(Source::file(path)?, &Options::default(), &mut all)?;
//!         Ok::<_, voxtral::Error>(all.words)
//!     };
//!     let running = ["samples/digits.wav"; 2].map(|path| scope.spawn(move || transcribe(path)));
//!     running.map(|thread| thread.join().expect("it does not panic"))
//! });
//! for words in words {
//!     assert_eq!(words?[0].text, "four");
//! }
//! # Ok::<_, voxtral::Error>(())
//! ```
//!
//! More than [`EngineOptions::max_sessions`] at a time are refused, and so is one for which there is no memory. One that fails leaves
//! the others as they are.
//!
//! # What happens when I …
//!
//! * **finish**: when the source ends, what was heard is transcribed to its end. Then [`Sink::end`] is called, and
//!   [`transcribe`](Voxtral::transcribe) returns the [`Summary`].
//! * **cancel**: a [`Stop`] in the [`Options`] ends the audio from any thread, as if the source had ended there. To have no more text
//!   either, return an error from the sink: the session ends at once, and that error is the transcription's.
//! * **flush**: [`Session::flush`] brings out all that was said so far, and [`Event::Flushed`] follows it. The session goes on.
//! * **wait for a pause**: with [`Options::endpoint`], [`Sink::endpoint`] is called (or [`Event::Endpoint`] comes) when speech has paused for
//!   so long, after all that was said before. The session goes on.
//! * **have damaged audio**: what can be read is transcribed. Silence stands in for what is missing, so that all else keeps its time,
//!   and the sink is told of each [`Damage`]. Only where reading itself fails an error is returned, after the sink is told the end.
//! * **fall behind**: nothing is lost. A session holds ten seconds of audio and a minute of events. Beyond that, whoever pushes waits,
//!   and a session whose events nobody takes pauses; the others go on.
//! * **drop** the [`Voxtral`]: its sessions end with [`EngineError::Stopped`]. Dropping a [`Session`] ends it and frees its memory.

#![forbid(unsafe_code)]

mod config;
mod error;
mod memory;
pub mod microphone;
mod source;
mod stop;
mod transcribe;

pub use config::{BackendChoice, Config, ModelRef, Opened};
pub use error::Error;
pub use memory::peak_rss_bytes;
pub use source::Source;
pub use stop::Stop;
pub use transcribe::Options;

pub use voxtral_audio::{
    AudioOptions, AudioSource, Channel, Damage, Error as AudioError, Notice, Pauses, RawFormat, Resampler, SAMPLE_RATE,
    SampleFormat,
};
pub use voxtral_cpu::{Isa, Precision};
pub use voxtral_engine::{
    AudioIn, Decoding, Engine, EngineError, EngineOptions, Event, Events, Session, SessionOptions, Stopper, Summary,
};
pub use voxtral_model::{Backend, BackendError, BackendInfo, Delay, Model, ModelError, TOKEN_MS};
pub use voxtral_transcript::render::{About, Collect, CueFormat, Cues, End, Json, JsonLines, Sink, Subtitles, Text};
pub use voxtral_transcript::{Alternative, TokenRecord, Word};

use std::time::Duration;

/// What opening does, for somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The weights go to the device.
    Loading {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// A model at work, for any number of transcriptions at a time.
pub struct Voxtral {
    model: Model,
    engine: Engine,
    fallback: Option<BackendError>,
    delay: Delay,
    decoding: Decoding,
}

impl Voxtral {
    /// Opens the model, puts it on what computes and starts the engine. `progress` is called with what is done so far.
    ///
    /// # Errors
    /// When the model's files are not as they must be, the backend that is asked for cannot be used, or there is no memory.
    pub fn open(config: &Config, progress: &mut dyn FnMut(Progress)) -> Result<Self, Error> {
        let model = config.model.open()?;
        let Opened { backend, fallback } = config.open_backend(&model, progress)?;
        Ok(Self { fallback, ..Self::with_backend(config, model, backend)? })
    }

    /// Starts the engine on a backend that holds `model`: one of [`Config::open_backend`], perhaps with something around it, or your
    /// own. Of the configuration only what is not about opening counts.
    ///
    /// # Errors
    /// When the engine cannot be started.
    pub fn with_backend(config: &Config, model: Model, backend: Box<dyn Backend>) -> Result<Self, Error> {
        let engine = Engine::new(&model, backend, config.engine)?;
        let delay = config.delay.unwrap_or(model.tokenizer.default_delay());
        Ok(Self { model, engine, fallback: None, delay, decoding: config.decoding })
    }

    /// The engine, for sessions with other options and for its memory.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What computes, and the memory that is taken there.
    pub fn info(&self) -> BackendInfo {
        self.engine.info()
    }

    /// Why it is the CPU that computes, where [`BackendChoice::Auto`] tried a GPU first.
    pub fn fallback(&self) -> Option<&BackendError> {
        self.fallback.as_ref()
    }

    /// The delay of transcriptions that ask for no other.
    pub fn delay(&self) -> Delay {
        self.delay
    }

    /// How many live transcriptions the device has memory for at a time, each as long as [`EngineOptions::expected`]; `None` where the device
    /// is the host, whose memory nobody promises.
    ///
    /// # Errors
    /// When the device fails, or the engine has stopped.
    pub fn capacity(&self) -> Result<Option<usize>, Error> {
        Ok(self.engine.capacity(self.delay)?)
    }

    /// What a report of one input says that is known beforehand; `path` is what the input is called, `load` what opening took.
    pub fn about(&self, path: String, options: &Options, load: Duration) -> About {
        let info = self.info();
        About {
            model: self.model.name.clone(),
            backend: info.backend.to_owned(),
            device: info.device,
            path,
            delay_ms: options.delay.unwrap_or(self.delay).ms(),
            load,
            segments: options.endpoint.is_some(),
            tokens: false,
        }
    }

    /// Opens a live session, to push samples into and take events from. Where the device has no memory for another, its first event says so.
    ///
    /// # Errors
    /// When the engine has stopped or has as many sessions as it may.
    pub fn session(&self, options: &Options) -> Result<Session, Error> {
        Ok(self.engine.session(self.session_options(true, None, options))?)
    }
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
