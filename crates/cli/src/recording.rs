//! Whole recordings through an engine, for the commands that measure.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use voxtral_audio::{AudioSource, SAMPLE_RATE};
use voxtral_engine::{AudioIn, Decoding, Engine, Event, SessionOptions, Summary};
use voxtral_model::{Delay, TOKEN_MS};
use voxtral_transcript::{TokenRecord, Word};

use crate::input::Input;

/// Somebody saying digits.
pub(crate) const SAMPLE: &[u8] = include_bytes!("../../../samples/digits.wav");
/// What is said in it.
pub(crate) const SAMPLE_WORDS: &str = "four seven one one nine zero two six three five eight";
/// Live audio comes in pieces of a token.
const PIECE: Duration = Duration::from_millis(TOKEN_MS as u64);

/// A recording, decoded.
pub(crate) struct Recording {
    pub name: String,
    samples: Vec<f32>,
}

/// What a session gave.
pub(crate) struct Heard {
    pub summary: Summary,
    pub tokens: Vec<TokenRecord>,
    pub words: Vec<Word>,
}

/// How fast audio comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All of it is there.
    AtOnce,
    /// Each piece when it has been spoken.
    Live,
}

impl Recording {
    /// The files, or the built-in sample where there are none.
    pub(crate) fn all(files: &[PathBuf]) -> anyhow::Result<Vec<Self>> {
        if files.is_empty() { Ok(vec![Self::sample()?]) } else { files.iter().map(|path| Self::open(path)).collect() }
    }

    /// The built-in sample.
    pub(crate) fn sample() -> anyhow::Result<Self> {
        Self::decode("built-in sample".to_owned(), AudioSource::from_reader(Cursor::new(SAMPLE), None)?)
    }

    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let input = Input::File(path.to_owned());
        let name = input.name();
        Self::decode(name.clone(), input.open()?).context(name)
    }

    fn decode(name: String, mut source: AudioSource) -> anyhow::Result<Self> {
        let mut samples = Vec::new();
        while let Some(block) = source.next_block()? {
            samples.extend_from_slice(block);
        }
        Ok(Self { name, samples })
    }

    /// Transcribes it as `voxtral FILE` does.
    pub(crate) fn hear(&self, engine: &Engine, delay: Option<Delay>, decoding: Decoding) -> anyhow::Result<Heard> {
        let (mut words, mut tokens) = (Vec::new(), Vec::new());
        let summary = self.transcribe(engine, delay, decoding, Pace::AtOnce, |event, _| match event {
            Event::Token(token) => tokens.push(token),
            Event::Word(word) => words.push(word),
            Event::Text(_) | Event::Done(_) => {}
        })?;
        Ok(Heard { summary, tokens, words })
    }

    /// Transcribes it; `hear` gets each event with the time since the first sample.
    pub(crate) fn transcribe(
        &self,
        engine: &Engine,
        delay: Option<Delay>,
        decoding: Decoding,
        pace: Pace,
        mut hear: impl FnMut(Event, Duration),
    ) -> anyhow::Result<Summary> {
        let start = Instant::now();
        let (interval, samples) = match pace {
            Pace::AtOnce => (usize::MAX, Some(self.samples.len() as u64)),
            Pace::Live => (1, None),
        };
        let live = pace == Pace::Live;
        let options = SessionOptions { delay, decoding, live, interval, samples, ..SessionOptions::default() };
        let (audio, events) = engine.session(options)?.split();
        std::thread::scope(|scope| {
            scope.spawn(move || self.feed(&audio, pace, start));
            for event in events {
                match event.with_context(|| self.name.clone())? {
                    Event::Done(summary) => return Ok(summary),
                    event => hear(event, start.elapsed()),
                }
            }
            anyhow::bail!("{}: the engine ended without a result", self.name)
        })
    }

    /// Ends early where the session does; its last event says why.
    fn feed(&self, audio: &AudioIn, pace: Pace, start: Instant) {
        let piece = (PIECE.as_millis() as usize) * SAMPLE_RATE as usize / 1000;
        for (piece, spoken) in self.samples.chunks(piece).zip(1..) {
            if pace == Pace::Live {
                std::thread::sleep((start + PIECE * spoken).saturating_duration_since(Instant::now()));
            }
            if audio.push_samples(piece).is_err() {
                return;
            }
        }
    }
}

/// A time in milliseconds, as figures have it.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// When live audio up to `seconds` has been fed.
pub(crate) fn fed_at(seconds: f64) -> Duration {
    PIECE * (seconds / PIECE.as_secs_f64()).ceil() as u32
}

/// Characters that are no white space: what words and text have in common.
pub(crate) fn letters(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}
