//! Whole recordings through an engine, for the commands that measure.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use voxtral_audio::{AudioSource, SAMPLE_RATE};
use voxtral_engine::{AudioIn, Engine, Event, SessionOptions, Summary};
use voxtral_model::TOKEN_MS;

use crate::input::Input;

const SAMPLE: &[u8] = include_bytes!("../../../samples/digits.wav");
/// Live audio comes in pieces of a token.
const PIECE: Duration = Duration::from_millis(TOKEN_MS as u64);

/// A recording, decoded.
pub(crate) struct Recording {
    pub name: String,
    samples: Vec<f32>,
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
        if files.is_empty() {
            let source = AudioSource::from_reader(Cursor::new(SAMPLE), None)?;
            return Ok(vec![Self::decode("built-in sample".to_owned(), source)?]);
        }
        files.iter().map(|path| Self::open(path)).collect()
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

    pub(crate) fn samples(&self) -> u64 {
        self.samples.len() as u64
    }

    /// Transcribes it; `hear` gets each event with the time since the first sample.
    pub(crate) fn transcribe(
        &self,
        engine: &Engine,
        options: SessionOptions,
        pace: Pace,
        mut hear: impl FnMut(Event, Duration),
    ) -> anyhow::Result<Summary> {
        let start = Instant::now();
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

/// When live audio up to `seconds` has been fed.
pub(crate) fn fed_at(seconds: f64) -> Duration {
    PIECE * (seconds / PIECE.as_secs_f64()).ceil() as u32
}
