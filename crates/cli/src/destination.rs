//! Where each transcript goes: all to one output, or each to files of its own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf, is_separator};

use anyhow::Context;
use clap::error::ErrorKind;

use crate::args::{Format, Transcribe, usage};
use crate::input::{Input, spare};
use crate::microphone;
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
    /// What the flags say. It is tried before anything is computed, so that a wrong path is known at once.
    pub(crate) fn open(args: &Transcribe, inputs: &[Input]) -> anyhow::Result<Self> {
        let formats = formats(args);
        let path = args.output.as_deref().filter(|path| *path != Path::new("-"));
        if let Some(folder) = path.filter(|path| names_folder(path)) {
            let files = files(folder, inputs, &formats);
            fs::create_dir_all(folder).with_context(|| cannot_write(folder))?;
            for (_, path) in files.iter().flatten() {
                Output::open(Some(path))?;
            }
            return Ok(Self::Folder(files));
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
fn formats(args: &Transcribe) -> Vec<Format> {
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
    formats
}

/// Whether a path ends as those of folders do.
fn names_folder(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| is_separator(byte.into()))
}

/// The files of each input, named after it; two that would have the same are refused.
fn files(folder: &Path, inputs: &[Input], formats: &[Format]) -> Vec<Vec<(Format, PathBuf)>> {
    let mut owners = HashMap::new();
    let mut file = |input: &Input, format: Format| {
        let mut name = match input {
            Input::File(path) => path.file_stem().unwrap_or_default(),
            Input::Stdin(_) => OsStr::new("stdin"),
            Input::Microphone(_) => OsStr::new(microphone::NAME),
        }
        .to_owned();
        name.push(".");
        name.push(format.extension());
        let path = folder.join(name);
        if let Some(other) = owners.insert(path.clone(), input.name()) {
            let (one, path) = (input.name(), path.display());
            let message =
                format!("{other} and {one} would both be written to {path}: transcribe them into two folders");
            usage(ErrorKind::ArgumentConflict, escaped(&message));
        }
        spare(inputs.iter().filter_map(Input::path), Some(&path));
        (format, path)
    };
    inputs.iter().map(|input| formats.iter().map(|&format| file(input, format)).collect()).collect()
}
