//! Whole recordings, decoded before anything is measured, for the commands that measure.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use voxtral::{AudioSource, Collect, Damage, Decoding, Options, Sink, Source, Summary, TokenRecord, Voxtral, Word};

use crate::output::say;

/// What is said in the built-in sample.
pub(crate) const SAMPLE_WORDS: &str = "four seven one one nine zero two six three five eight";

/// A recording, decoded.
pub(crate) struct Recording {
    pub name: String,
    /// 16 kHz, mono.
    pub samples: Arc<[f32]>,
    /// What of them is missing or wrong.
    pub damage: Vec<Damage>,
}

/// What was heard in it.
pub(crate) struct Heard {
    pub summary: Summary,
    pub tokens: Vec<TokenRecord>,
    pub words: Vec<Word>,
}

impl Recording {
    /// The files, or the built-in sample where there are none.
    pub(crate) fn all(files: &[PathBuf]) -> anyhow::Result<Vec<Self>> {
        if files.is_empty() { Ok(vec![Self::sample()?]) } else { files.iter().map(|path| Self::open(path)).collect() }
    }

    /// The built-in sample.
    pub(crate) fn sample() -> anyhow::Result<Self> {
        Self::decode("built-in sample".to_owned(), AudioSource::from_reader(Cursor::new(voxtral_digits::SAMPLE), None)?)
    }

    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let source = AudioSource::open(path).with_context(|| name.clone())?;
        Self::decode(name.clone(), source).context(name)
    }

    fn decode(name: String, mut source: AudioSource) -> anyhow::Result<Self> {
        let mut samples = Vec::new();
        while let Some(block) = source.next_block()? {
            samples.extend_from_slice(block);
        }
        source.take_notices().iter().for_each(|notice| say(&format!("{name}: {notice}")));
        let damage = source.take_damage();
        damage.iter().for_each(|damage| say(&format!("{name}: {damage}")));
        Ok(Self { name, samples: samples.into(), damage })
    }

    /// As a recording, or as fast as it is spoken.
    pub(crate) fn source(&self, spoken: bool) -> Source {
        let samples = Arc::clone(&self.samples);
        if spoken { Source::spoken(samples) } else { Source::samples(samples) }
    }

    /// Transcribes it as `voxtral FILE` does, with another decoding perhaps.
    pub(crate) fn hear(&self, voxtral: &Voxtral, decoding: Option<Decoding>) -> anyhow::Result<Heard> {
        let mut all = Collect::default();
        let options = Options { decoding, ..Options::default() };
        let summary = self.tell(voxtral, self.source(false), &options, &mut all)?;
        Ok(Heard { summary, tokens: all.tokens, words: all.words })
    }

    /// Tells a sink what is heard in it.
    pub(crate) fn tell(
        &self,
        voxtral: &Voxtral,
        source: Source,
        options: &Options,
        sink: &mut dyn Sink,
    ) -> anyhow::Result<Summary> {
        voxtral.transcribe(source, options, sink).with_context(|| self.name.clone())
    }
}

/// A time in milliseconds, as figures have it.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Characters that are no white space: what words and text have in common.
pub(crate) fn letters(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}
