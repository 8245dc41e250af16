//! Why a model could not be opened: every case says which file, and what can be done where that is known.

use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;

use crate::{ConfigError, TokenizerError};

/// Why a model could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The folder holds neither layout.
    #[error(
        "{}: no model here: looked for params.json with consolidated.safetensors, and for config.json with model.safetensors or \
         model.safetensors.index.json", dir.display()
    )]
    NoModel {
        /// The folder.
        dir: PathBuf,
    },
    /// A file that belongs to the model is not there.
    #[error("{}: there is no such file: copy it there from where the model came from", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file is larger than any of its kind, and was not read.
    #[error("{}: {bytes} bytes are more than the {most} that such a file can have", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest that is read.
        most: u64,
    },
    /// A file is not what its name says, or was cut short.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The description of the model makes no sense or asks for what this engine has not.
    #[error("{}: {source}", path.display())]
    Config {
        /// `params.json` or `config.json`.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// The vocabulary makes no sense.
    #[error("{}: {source}", path.display())]
    Tokenizer {
        /// `tekken.json`.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenizerError,
    },
    /// A tensor that the model needs is not in the weights.
    #[error("{}: {} is missing", path.display(), brief(tensor))]
    MissingTensor {
        /// The file that the weights were looked for in, or the index of several.
        path: PathBuf,
        /// The tensor, as this layout names it.
        tensor: String,
    },
    /// The weights hold a tensor that such a model has not, so it is another kind of model.
    #[error("{}: {} has no place in this model", path.display(), brief(tensor))]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
    },
    /// A tensor has not the shape that the model's description asks for.
    #[error("{}: {}: expected {expected:?}, file has {}", path.display(), brief(tensor), brief(format_args!("{got:?}")))]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// What the description asks for.
        expected: Vec<usize>,
        /// What the file has.
        got: Vec<usize>,
    },
    /// The elements of a tensor are of a type that this engine does not read.
    #[error("{}: {} is stored as {dtype}: this engine reads BF16, F16 and F32", path.display(), brief(tensor))]
    DType {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// The type, as safetensors names it.
        dtype: String,
    },
    /// Packed weights are not what the file says of them.
    #[error("{}: {}: its packed weights cannot be read: {what}", path.display(), brief(tensor))]
    Packed {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Weights are packed in a layout that this program does not know.
    #[error("{}: its weights are packed in version {version} of the layout, this program knows version {known}", path.display())]
    PackedVersion {
        /// The file.
        path: PathBuf,
        /// The file's version.
        version: u64,
        /// The one that is read.
        known: u64,
    },
    /// Weights that are packed were to be packed.
    #[error("{}: {} is packed already: take the model that it was made of", path.display(), brief(tensor))]
    PackedAlready {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
    },
    /// A weight is infinite or not a number.
    #[error("{}: {} holds a value that is not finite: the file is damaged", path.display(), brief(tensor))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
    },
    /// A model would have been written over another.
    #[error("{}: there already is such a file: choose another folder, or delete it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

/// Why JSON was refused. What the parser quotes of a file may be of any length, so its beginning is told.
#[derive(Debug)]
pub struct JsonError(pub(crate) serde_json::Error);

impl Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is wrong stands at the beginning, and where at the end.
        let place = format!(" at line {} column {}", self.0.line(), self.0.column());
        let said = self.0.to_string();
        match said.strip_suffix(&place) {
            Some(what) => write!(f, "{}{place}", brief(what)),
            None => f.write_str(&brief(said)),
        }
    }
}

// The parser's own error says the same at any length, so it is not a source that a chain of causes would show.
impl std::error::Error for JsonError {}

/// What a message tells of something that a file says: its beginning, in one line.
pub(crate) fn brief(said: impl Display) -> String {
    const MOST: usize = 100;
    let said = said.to_string();
    let mut shown: String = said.chars().take(MOST).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    if said.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_is_told_in_one_short_line() {
        assert_eq!(brief("layers.0.wq"), "layers.0.wq");
        assert_eq!(brief("two\nlines"), "two\u{FFFD}lines");
        assert_eq!(brief("ä".repeat(100)), "ä".repeat(100));
        assert_eq!(brief("ä".repeat(100_000)), "ä".repeat(100) + "…");
    }
}
