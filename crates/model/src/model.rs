//! A whole model: description, weights and vocabulary, from a folder or built in.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Layout};
use crate::packed::{Packed, Plan};
use crate::{ModelConfig, ModelError, Storage, Tokenizer, Weight, Weights, files};

pub(crate) const TEKKEN: &str = "tekken.json";

/// A model, ready for a backend. Cloning it copies no weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name of the folder, or of the model that is part of the program.
    pub name: String,
    /// Every dimension.
    pub config: ModelConfig,
    /// All weights; every shape is as `config` says and every value is finite.
    pub weights: Weights,
    /// The vocabulary, as large as `config` says.
    pub tokenizer: Tokenizer,
}

/// The contents of the files of a model in the native layout that is part of the program.
#[derive(Clone, Copy)]
pub struct Embedded {
    /// What the model is called.
    pub name: &'static str,
    /// `params.json`
    pub params: &'static [u8],
    /// `tekken.json`
    pub tekken: &'static [u8],
    /// `consolidated.safetensors`. Aligned to 4 bytes, its tensors need not be copied.
    pub weights: &'static [u8],
}

impl Model {
    /// Opens the model in a folder: `params.json`, `consolidated.safetensors` and `tekken.json` as Mistral publishes them, or
    /// `config.json`, `model.safetensors` (or shards with an index) and `tekken.json` as Hugging Face transformers does.
    ///
    /// Weights are mapped, not copied, and read once to see that all are finite. **The files must not be written into as long as
    /// anything of this model is in use**: its values would change under way. Renaming another file over them is fine. Where a file is
    /// cut, or its disk fails, the process ends with exit code 1 and a line on standard error that names the file, as soon as a part
    /// is read that is gone (on Unix, by a handler of SIGBUS, which the first mapping installs and which leaves faults that are not of
    /// our files to the handler before it).
    ///
    /// # Errors
    /// When a file is missing, damaged, of another kind of model, or does not fit the others. The message names it.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: dir.to_owned(), source };
        if !fs::metadata(dir).map_err(io)?.is_dir() {
            return Err(files::broken(dir, "not a folder: a model is a folder of files"));
        }
        // Of "." and "/" the name is that of the folder it is.
        let name = fs::canonicalize(dir).map_err(io)?.file_name().unwrap_or(dir.as_os_str()).display().to_string();
        let checkpoint = Checkpoint::open(dir)?;
        let config = checkpoint.parse_config(&checkpoint.read_config()?)?;
        let tekken = dir.join(TEKKEN);
        let tokenizer = tokenizer(&tekken, &files::read(&tekken, files::MOST_TEKKEN_BYTES)?, &config)?;
        Ok(Self { name, weights: checkpoint.weights(&config)?, config, tokenizer })
    }

    /// Opens a model that is part of the program. Tensors are views of `files.weights` where those are aligned for their type.
    ///
    /// # Errors
    /// As [`Model::open`]; the message names a file of `(built in)/NAME`.
    pub fn embedded(files: &Embedded) -> Result<Self, ModelError> {
        let path = |name: &str| Path::new("(built in)").join(files.name).join(name);
        let weights = path("consolidated.safetensors");
        let shard = (weights.clone(), Arc::new(Storage::Static(files.weights)));
        let checkpoint = Checkpoint::of_shards(Layout::Native, path("params.json"), weights, [shard])?;
        let config = checkpoint.parse_config(files.params)?;
        let tokenizer = tokenizer(&path(TEKKEN), files.tekken, &config)?;
        Ok(Self { name: files.name.to_owned(), weights: checkpoint.weights(&config)?, config, tokenizer })
    }

    /// The same model with every matrix packed, in memory. A matrix that its encoding cannot hold stays as it is: bf16 and 12 bits hold
    /// bf16 only, and 12 bits no more than a few exponents besides the 16 most frequent.
    pub fn packed(&self, plan: &Plan) -> Self {
        let mut model = self.clone();
        for (weight, part) in model.weights.matrices_mut() {
            if let Weight::Dense(tensor) = weight
                && let Some(packed) = Packed::of(tensor, plan.of(part))
            {
                *weight = Weight::Packed(packed);
            }
        }
        model
    }
}

pub(crate) fn tokenizer(path: &Path, json: &[u8], config: &ModelConfig) -> Result<Tokenizer, ModelError> {
    Tokenizer::for_model(json, config).map_err(|source| ModelError::Tokenizer { path: path.to_owned(), source })
}
