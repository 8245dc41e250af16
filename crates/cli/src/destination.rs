//! Where each transcript goes: all to one output, or each to files of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf, is_separator};
use std::{fs, iter};

use anyhow::Context;
use clap::error::ErrorKind;

use crate::args::{Format, Outputs, usage};
use crate::input::{Input, spare};
use crate::output::{Output, cannot_write, complain, escaped};
use crate::turns::Turns;

/// Where the transcripts of all inputs go.
pub(crate) enum Destination {
    /// To one output, in the order of the inputs.
    Shared(Format, Turns),
    /// To a file for each input, by its number, and each format.
    Folder(Vec<Vec<(Format, PathBuf)>>),
}

impl Destination {
    /// What the flags say. It is tried before anything is computed, so that a wrong path is known at once. With --skip-existing,
    /// inputs that have all their files are taken out.
    pub(crate) fn open(args: &Outputs, inputs: &mut Vec<Input>) -> anyhow::Result<Self> {
        let formats = formats(args);
        let path = args.output.as_deref();
        if let Some(folder) = path.filter(|path| names_folder(path)) {
            let mut files = files(folder, inputs, &formats);
            spare(inputs.iter().filter_map(Input::path), files.iter().flatten().map(|(_, path)| &**path));
            if args.skip_existing {
                (*inputs, files) = iter::zip(inputs.drain(..), files).filter(|(_, files)| !all_exist(files)).unzip();
            }
            for (_, path) in files.iter().flatten() {
                let folder = path.parent().unwrap_or(folder);
                fs::create_dir_all(folder).with_context(|| cannot_write(folder))?;
                Output::open(Some(path))?;
            }
            return Ok(Self::Folder(files));
        }
        if let Some(folder) = path.filter(|path| path.is_dir()).map(Path::display) {
            anyhow::bail!("{folder} is a folder: for a file of each input in it, end it with a slash, -o {folder}/");
        }
        if args.skip_existing {
            usage(ErrorKind::ArgumentConflict, "--skip-existing looks for a file of each input, in a folder: -o DIR/");
        }
        let &[format] = &formats[..] else {
            usage(ErrorKind::ArgumentConflict, "several formats need a folder, for a file each: -o DIR/")
        };
        if inputs.len() > 1 && matches!(format, Format::Srt | Format::Vtt | Format::Tsv) {
            usage(
                ErrorKind::ArgumentConflict,
                "times of several inputs would be mixed up in one output; name a folder, for a file each: -o DIR/",
            );
        }
        spare(inputs.iter().filter_map(Input::path), path);
        Ok(Self::Shared(format, Turns::new(Output::open(path)?)))
    }

    /// Whether it is standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Self::Shared(_, turns) if turns.is_stdout())
    }

    /// Writes what was heard, where the program ends before all is. It says itself what goes wrong.
    pub(crate) fn break_off(&self) {
        if let Self::Shared(_, turns) = self
            && let Err(error) = turns.break_off()
        {
            complain(&error);
        }
    }
}

/// The formats, each once, if the other flags go with them.
fn formats(args: &Outputs) -> Vec<Format> {
    let mut formats = Vec::new();
    for &format in &args.format {
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    if args.timestamps && !formats.contains(&Format::Text) {
        usage(
            ErrorKind::ArgumentConflict,
            "--timestamps is for --format text: the other formats have times of their own",
        );
    }
    if args.words && formats.iter().all(|format| matches!(format, Format::Json | Format::Jsonl)) {
        usage(
            ErrorKind::ArgumentConflict,
            "--words is for --format text, srt, vtt and tsv: in JSON, words have their times anyway",
        );
    }
    let shows_alternatives = |format: &Format| match format {
        Format::Text => !args.words && !args.timestamps,
        Format::Json | Format::Jsonl => true,
        Format::Srt | Format::Vtt | Format::Tsv => false,
    };
    if args.alt.is_some() && !formats.iter().any(shows_alternatives) {
        usage(
            ErrorKind::ArgumentConflict,
            "--alt is for --format text, without --timestamps or --words, and for json and jsonl: nothing else shows what it asks for",
        );
    }
    formats
}

fn all_exist(files: &[(Format, PathBuf)]) -> bool {
    files.iter().all(|(_, path)| path.is_file())
}

/// Whether a path ends as those of folders do.
fn names_folder(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| is_separator(byte.into()))
}

/// The files of each input, named after it: `talk.srt` for `talk.mp3`, and `talk.mp3.srt` where there is a `talk.wav` too.
fn files(folder: &Path, inputs: &[Input], formats: &[Format]) -> Vec<Vec<(Format, PathBuf)>> {
    let mut namesakes: HashMap<&Path, usize> = HashMap::new();
    for input in inputs {
        *namesakes.entry(input.place()).or_default() += 1;
    }
    let mut owners = HashMap::new();
    let mut file = |input: &Input, format: Format| {
        let mut name = folder.join(input.place()).into_os_string();
        if let Some(ending) = input.path().and_then(|path| path.extension()).filter(|_| namesakes[input.place()] > 1) {
            name.push(".");
            name.push(ending);
        }
        name.push(".");
        name.push(format.extension());
        let path = PathBuf::from(name);
        if let Some(other) = owners.insert(path.clone(), input.name()) {
            let (one, path) = (input.name(), path.display());
            let message =
                format!("{other} and {one} would both be written to {path}: transcribe them into two folders");
            usage(ErrorKind::ArgumentConflict, escaped(&message));
        }
        (format, path)
    };
    inputs.iter().map(|input| formats.iter().map(|&format| file(input, format)).collect()).collect()
}
