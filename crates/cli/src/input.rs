//! Where audio comes from, as the command line names it.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;
use clap::error::ErrorKind;
use voxtral::{AudioOptions, RawFormat, Source};
use voxtral_audio::Waiting;

use crate::args::{Inputs, usage};
use crate::folders::{self, Nothing};
use crate::microphone;
use crate::output::escaped;

/// One thing to transcribe.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    File {
        path: PathBuf,
        /// Where its transcript goes in a folder of transcripts, but for the ending.
        place: PathBuf,
    },
    /// A folder or a pattern in which there is no recording.
    Nothing {
        path: PathBuf,
        why: Nothing,
    },
    Stdin(RawFormat),
    /// The default device if none is named.
    Microphone(Option<String>),
}

impl Input {
    /// All that the command line names, in its order.
    pub(crate) fn all(args: &Inputs) -> Vec<Self> {
        let raw = RawFormat { sample: args.raw_format.into(), rate: args.raw_rate, channels: args.raw_channels.into() };
        let mut all = Vec::new();
        for path in args.inputs.iter().chain(&args.files) {
            if path == Path::new("-") {
                all.push(Self::Stdin(raw));
            } else {
                all.extend(folders::expand(path, args.recursive));
            }
        }
        if args.stdin {
            all.push(Self::Stdin(raw));
        }
        all.extend(args.mic.clone().map(Self::Microphone));
        if all.iter().filter(|input| matches!(input, Self::Stdin(_))).count() > 1 {
            usage(ErrorKind::ArgumentConflict, "standard input can be read only once");
        }
        if io::stdin().is_terminal() && all.iter().any(|input| matches!(input, Self::Stdin(_))) {
            usage(ErrorKind::InvalidValue, "standard input is a terminal: pipe audio into it, or use --mic");
        }
        if all.is_empty() {
            usage(ErrorKind::MissingRequiredArgument, "nothing to transcribe: name a FILE, --stdin or --mic");
        }
        all
    }

    /// A file that the command line names: its transcript is named after it.
    pub(crate) fn file(path: &Path) -> Self {
        let place = path.file_stem().map_or_else(|| path.to_owned(), PathBuf::from);
        Self::File { path: path.to_owned(), place }
    }

    /// A file that was found in a folder: transcripts are in the same folders as their recordings.
    pub(crate) fn in_folder(folder: &Path, path: PathBuf) -> Self {
        let place = path.strip_prefix(folder).unwrap_or(&path).with_extension("");
        Self::File { path, place }
    }

    /// Where its transcript goes in a folder of transcripts, but for the ending.
    pub(crate) fn place(&self) -> &Path {
        match self {
            Self::File { place, .. } => place,
            Self::Nothing { path, .. } => path,
            Self::Stdin(_) => Path::new("stdin"),
            Self::Microphone(_) => Path::new(microphone::NAME),
        }
    }

    /// The file that it is.
    pub(crate) fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Nothing { .. } | Self::Stdin(_) | Self::Microphone(_) => None,
        }
    }

    /// Its length, which says how much work it is; 0 for what is read as it comes.
    pub(crate) fn bytes(&self) -> u64 {
        self.path().and_then(|path| fs::metadata(path).ok()).filter(fs::Metadata::is_file).map_or(0, |file| file.len())
    }

    /// As the command line has it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Nothing { path, .. } => path.display().to_string(),
            Self::Stdin(_) => "-".to_owned(),
            Self::Microphone(_) => microphone::NAME.to_owned(),
        }
    }

    /// Opens it; waits for the first bytes of a pipe.
    pub(crate) fn open(&self, options: &AudioOptions) -> anyhow::Result<Source> {
        let source = match self {
            Self::File { path, .. } => Source::file_with(path, options),
            Self::Nothing { why, .. } => return Err(why.error()).with_context(|| self.name()),
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
            Self::File { path, .. } if !Source::is_pipe(path) => self.open(options).map(drop),
            Self::Nothing { .. } => self.open(options).map(drop),
            Self::Microphone(device) => microphone::open(device.as_deref()).map(drop),
            Self::File { .. } | Self::Stdin(_) => Ok(()),
        }
    }
}

/// Refuses outputs that would replace a recording.
pub(crate) fn spare<'a>(
    recordings: impl IntoIterator<Item = &'a PathBuf>,
    outputs: impl IntoIterator<Item = &'a Path>,
) {
    let place = |path: &Path| path.canonicalize().ok().filter(|path| path.is_file());
    let mut replaced = outputs.into_iter().filter_map(|output| Some((output, place(output)?))).peekable();
    if replaced.peek().is_none() {
        return;
    }
    let recordings: HashSet<PathBuf> = recordings.into_iter().filter_map(|path| place(path)).collect();
    if let Some((output, _)) = replaced.find(|(_, place)| recordings.contains(place)) {
        let message = format!("{} is an input, and --output would replace it", escaped(&output.display().to_string()));
        usage(ErrorKind::ArgumentConflict, message);
    }
}

/// A text file, without the mark that editors of Windows put before the first letter.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
