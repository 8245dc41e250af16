//! Where audio comes from, as the command line names it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;
use clap::error::ErrorKind;
use voxtral::{AudioOptions, RawFormat, Source};
use voxtral_audio::Waiting;

use crate::args::{Transcribe, usage};
use crate::microphone;
use crate::output::escaped;

/// One thing to transcribe.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    File(PathBuf),
    Stdin(RawFormat),
    /// The default device if none is named.
    Microphone(Option<String>),
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
        all.extend(args.mic.clone().map(Self::Microphone));
        if all.iter().filter(|input| matches!(input, Self::Stdin(_))).count() > 1 {
            usage(ErrorKind::ArgumentConflict, "standard input can be read only once");
        }
        if all.is_empty() {
            usage(ErrorKind::MissingRequiredArgument, "nothing to transcribe: name a FILE, --stdin or --mic");
        }
        all
    }

    /// The file that it is.
    pub(crate) fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Stdin(_) | Self::Microphone(_) => None,
        }
    }

    /// As the command line has it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin(_) => "-".to_owned(),
            Self::Microphone(_) => microphone::NAME.to_owned(),
        }
    }

    /// Opens it; waits for the first bytes of a pipe.
    pub(crate) fn open(&self, options: &AudioOptions) -> anyhow::Result<Source> {
        let source = match self {
            Self::File(path) => Source::file_with(path, options),
            Self::Stdin(raw) => {
                Source::stream(Waiting(io::stdin()), &AudioOptions { raw: Some(*raw), ..options.clone() })
            }
            Self::Microphone(device) => return Ok(Source::microphone(microphone::open(device.as_deref())?)),
        };
        source.with_context(|| self.name())
    }

    /// Opens it and closes it again, to see whether that works; not a pipe, whose first bytes would be lost.
    pub(crate) fn try_to_open(&self, options: &AudioOptions) -> anyhow::Result<()> {
        match self {
            Self::File(path) if !Source::is_pipe(path) => self.open(options).map(drop),
            Self::Microphone(device) => microphone::open(device.as_deref()).map(drop),
            Self::File(_) | Self::Stdin(_) => Ok(()),
        }
    }
}

/// Refuses an output that would replace a recording.
pub(crate) fn spare<'a>(recordings: impl IntoIterator<Item = &'a PathBuf>, output: Option<&Path>) {
    let place = |path: &Path| path.canonicalize().ok().filter(|path| path.is_file());
    let Some((output, replaced)) = output.and_then(|output| Some((output, place(output)?))) else { return };
    if recordings.into_iter().any(|path| place(path).as_ref() == Some(&replaced)) {
        let message = format!("{} is an input, and --output would replace it", escaped(&output.display().to_string()));
        usage(ErrorKind::ArgumentConflict, message);
    }
}

/// A text file, without the mark that editors of Windows put before the first letter.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
