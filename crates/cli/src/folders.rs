//! Folders and patterns, and the recordings in them.

use std::path::Path;

use anyhow::anyhow;
use glob::MatchOptions;
use walkdir::{DirEntry, WalkDir};

use crate::input::Input;

/// Names that sound and videos usually end with. Other files of a folder are looked into.
const ENDINGS: [&str; 43] = [
    "3ga", "3gp", "aac", "ac3", "aif", "aifc", "aiff", "amr", "asf", "au", "avi", "caf", "dts", "eac3", "flac", "flv",
    "m4a", "m4b", "m4v", "mka", "mkv", "mov", "mp1", "mp2", "mp3", "mp4", "mpeg", "mpg", "mts", "oga", "ogg", "ogv",
    "opus", "spx", "ts", "voc", "vob", "w64", "wav", "wave", "webm", "wma", "wmv",
];

/// Why there is nothing to transcribe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Nothing {
    /// No recording in a folder, whose folders were not looked into.
    InFolder,
    /// No recording in a folder or below it.
    InFolders,
    /// No file that a pattern names.
    Named,
    /// An address on the internet.
    Address,
}

impl Nothing {
    pub(crate) fn error(self) -> anyhow::Error {
        match self {
            Self::InFolder => anyhow!("no recordings in this folder; --recursive looks into its folders too"),
            Self::InFolders => anyhow!("no recordings in this folder"),
            Self::Named => anyhow!("no file has such a name"),
            Self::Address => anyhow!("addresses are not opened; pipe what is there: curl -L ADDRESS | voxtral --stdin"),
        }
    }
}

/// What a FILE of the command line stands for: itself, the recordings in a folder, or those that a pattern names which the shell has
/// left as it is.
pub(crate) fn expand(path: &Path, recursive: bool) -> Vec<Input> {
    let nothing = |why| vec![Input::Nothing { path: path.to_owned(), why }];
    if path.is_dir() {
        let found = recordings(path, recursive);
        return match found.is_empty() {
            true if recursive => nothing(Nothing::InFolders),
            true => nothing(Nothing::InFolder),
            false => found,
        };
    }
    let no_file = path.to_str().filter(|_| !path.exists());
    if no_file.is_some_and(|text| text.contains("://")) {
        return nothing(Nothing::Address);
    }
    // As a shell does.
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
    let pattern = no_file.filter(|text| text.contains(['*', '?', '[']));
    let Some(Ok(named)) = pattern.map(|pattern| glob::glob_with(pattern, options)) else {
        return vec![Input::file(path)];
    };
    // What cannot be looked into is told where it is opened.
    let named = named.map(|path| path.unwrap_or_else(|error| error.path().to_owned()));
    let found: Vec<_> = named.filter(|path| path.is_file()).map(|path| Input::file(&path)).collect();
    if found.is_empty() { nothing(Nothing::Named) } else { found }
}

/// The recordings in a folder, by their names. What begins with a dot is hidden, and passed over.
fn recordings(folder: &Path, recursive: bool) -> Vec<Input> {
    let depth = if recursive { usize::MAX } else { 1 };
    let is_hidden = |entry: &DirEntry| entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
    let entries = WalkDir::new(folder).min_depth(1).max_depth(depth).follow_links(true).sort_by_file_name();
    let found = entries.into_iter().filter_entry(|entry| !is_hidden(entry)).filter_map(|entry| match entry {
        Ok(entry) => (entry.file_type().is_file() && is_recording(entry.path())).then(|| entry.into_path()),
        // A link to a folder that it is in: what is there is found without it.
        Err(error) if error.loop_ancestor().is_some() => None,
        // A link that leads nowhere is no recording, unless it is called like one.
        Err(error) if is_missing(&error) => error.path().filter(|path| ends_as_one(path)).map(Path::to_owned),
        // A folder that cannot be read is not passed over in silence: opening it fails, and says why.
        Err(error) => error.path().map(Path::to_owned),
    });
    found.map(|path| Input::in_folder(folder, path)).collect()
}

fn is_missing(error: &walkdir::Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether a file is one, by its name or by its content.
fn is_recording(path: &Path) -> bool {
    ends_as_one(path) || voxtral_audio::is_audio(path).unwrap_or(true)
}

fn ends_as_one(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&&*ending))
}
