//! A whole model: description, weights and vocabulary, from a folder or built in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Layout};
use crate::{ModelConfig, ModelError, Storage, Tokenizer, Weights, files};

const TEKKEN: &str = "tekken.json";

/// A model, ready for a backend. Cloning it copies no weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name of the folder, or "digits".
    pub name: String,
    /// Every dimension.
    pub config: ModelConfig,
    /// All weights; every shape is as `config` says and every value is finite.
    pub weights: Weights,
    /// The vocabulary, as large as `config` says.
    pub tokenizer: Tokenizer,
}

impl Model {
    /// Opens the model in a folder: `params.json`, `consolidated.safetensors` and `tekken.json` as Mistral publishes them, or
    /// `config.json`, `model.safetensors` (or shards with an index) and `tekken.json` as Hugging Face transformers does.
    ///
    /// Weights are mapped, not copied, and read once to see that all are finite. **The files must not be changed or cut as long as
    /// anything of this model is in use**: a process that reads a part of a mapped file that is gone is killed. Renaming another file
    /// over them is fine.
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
        let config = checkpoint.read_config()?;
        let tekken = dir.join(TEKKEN);
        let tokenizer = tokenizer(&tekken, &files::read(&tekken)?, &config)?;
        Ok(Self { name, weights: checkpoint.weights(&config)?, config, tokenizer })
    }

    /// The model that comes with the program: it writes down spoken English digits.
    pub fn digits() -> Self {
        /// Aligns the bytes of a file for every element type, so that no tensor is copied.
        #[repr(C, align(8))]
        struct Aligned<Bytes: ?Sized>(Bytes);

        static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../models/digits/consolidated.safetensors"));
        let open = || {
            let path = |name: &str| PathBuf::from("(built in)/digits").join(name);
            let weights = path("consolidated.safetensors");
            let shard = (weights.clone(), Arc::new(Storage::Static(&WEIGHTS.0)));
            let checkpoint = Checkpoint::of_shards(Layout::Native, path("params.json"), weights, [shard])?;
            let config = checkpoint.parse_config(include_bytes!("../../../models/digits/params.json"))?;
            let tekken = include_bytes!("../../../models/digits/tekken.json");
            let tokenizer = tokenizer(&path(TEKKEN), tekken, &config)?;
            Ok::<_, ModelError>(Self {
                name: "digits".to_owned(),
                weights: checkpoint.weights(&config)?,
                config,
                tokenizer,
            })
        };
        // Its files are part of the program, and a test opens them.
        open().expect("the built-in model is whole")
    }
}

fn tokenizer(path: &Path, json: &[u8], config: &ModelConfig) -> Result<Tokenizer, ModelError> {
    Tokenizer::from_json(json, config.vocab).map_err(|source| ModelError::Tokenizer { path: path.to_owned(), source })
}
