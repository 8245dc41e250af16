//! Where audio comes from, and feeding it to a session.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::error::ErrorKind;
use voxtral_audio::{AudioSource, RawFormat};
use voxtral_engine::{AudioIn, EngineError};

use crate::args::{Transcribe, usage};

/// One thing to transcribe.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    File(PathBuf),
    Stdin(RawFormat),
}

impl Input {
    /// All that the command line names, in its order.
    pub(crate) fn all(args: &Transcribe) -> Vec<Self> {
        let raw = RawFormat { sample: args.raw_format.into(), rate: args.raw_rate, channels: args.raw_channels.into() };
        let one = |path: &PathBuf| if path == Path::new("-") { Self::Stdin(raw) } else { Self::File(path.clone()) };
        let mut all: Vec<Self> = args.inputs.iter().chain(&args.files).map(one).collect();
        if args.stdin {
            all.push(Self::Stdin(raw));
        }
        if all.iter().filter(|input| input.is_live()).count() > 1 {
            usage(ErrorKind::ArgumentConflict, "standard input can be read only once");
        }
        if all.is_empty() {
            usage(ErrorKind::MissingRequiredArgument, "nothing to transcribe: name a FILE, or --stdin");
        }
        if let Some(output) = args.output.as_deref().filter(|output| all.iter().any(|input| input.is_in(output))) {
            usage(
                ErrorKind::ArgumentConflict,
                format!("{} is an input, and --output would replace it", output.display()),
            );
        }
        all
    }

    /// Whether it is this very file.
    fn is_in(&self, path: &Path) -> bool {
        let place = |path: &Path| path.canonicalize().ok().filter(|path| path.is_file());
        matches!(self, Self::File(file) if place(file).is_some_and(|file| place(path) == Some(file)))
    }

    /// Whether it goes on until it is interrupted.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self, Self::Stdin(_))
    }

    /// As it is shown.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin(_) => "-".to_owned(),
        }
    }

    /// Opens it; waits for the first bytes of a pipe.
    pub(crate) fn open(&self) -> anyhow::Result<AudioSource> {
        let source = match self {
            Self::File(path) => AudioSource::open(path),
            Self::Stdin(raw) => AudioSource::from_reader(io::stdin(), Some(*raw)),
        };
        source.with_context(|| self.name())
    }

    /// Pushes all of `source` into a session. Ends early, without an error, where the session does.
    pub(crate) fn feed(&self, mut source: AudioSource, session: &AudioIn) -> anyhow::Result<()> {
        while let Some(block) = source.next_block().with_context(|| self.name())? {
            match session.push_samples(block) {
                Err(EngineError::Ended) => return Ok(()),
                pushed => pushed?,
            }
        }
        if source.damaged_packets() > 0 {
            tracing::warn!("{}: {} damaged packets were replaced by silence", self.name(), source.damaged_packets());
        }
        Ok(())
    }
}
