//! Why a model could not be opened: every case says which file, and what can be done where that is known.

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
    #[error("{}: {tensor} is missing", path.display())]
    MissingTensor {
        /// The file that the weights were looked for in, or the index of several.
        path: PathBuf,
        /// The tensor, as this layout names it.
        tensor: String,
    },
    /// The weights hold a tensor that such a model has not, so it is another kind of model.
    #[error("{}: {tensor} has no place in this model", path.display())]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
    },
    /// A tensor has not the shape that the model's description asks for.
    #[error("{}: {tensor}: expected {expected:?}, file has {got:?}", path.display())]
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
    #[error("{}: {tensor} is stored as {dtype}: this engine reads BF16, F16 and F32", path.display())]
    DType {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// The type, as safetensors names it.
        dtype: String,
    },
    /// A weight is infinite or not a number.
    #[error("{}: {tensor} holds a value that is not finite: the file is damaged", path.display())]
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
