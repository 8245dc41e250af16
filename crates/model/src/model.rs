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
        let name = name(&fs::canonicalize(dir).map_err(io)?);
        let checkpoint = Checkpoint::open(dir)?;
        let config = checkpoint.parse_config(&checkpoint.read_config()?)?;
        let tekken = dir.join(TEKKEN);
        let tokenizer = tokenizer(&tekken, &files::read(&tekken, files::MOST_TEKKEN_BYTES)?, &config)?;
        Ok(Self { name, weights: checkpoint.weights(&config)?, config, tokenizer })
    }

    /// The files that [`Model::open`] needs, by the names of all that a folder or a repository has: those of one layout, the native one
    /// where both are there. None where something is missing.
    pub fn files_among(names: &[String]) -> Vec<String> {
        let all_of = |wanted: &[&str]| -> Option<Vec<String>> {
            wanted.iter().map(|&name| names.iter().find(|there| *there == name).cloned()).collect()
        };
        let sharded = || {
            let mut files = all_of(&["config.json", TEKKEN, "model.safetensors.index.json"])?;
            let shards: Vec<&String> = names.iter().filter(|name| shards_with(name).is_some()).collect();
            let complete = shards_with(shards.first()?) == Some(shards.len());
            files.extend(shards.into_iter().cloned());
            complete.then_some(files)
        };
        let native = all_of(&["params.json", TEKKEN, "consolidated.safetensors"]);
        native.or_else(|| all_of(&["config.json", TEKKEN, "model.safetensors"])).or_else(sharded).unwrap_or_default()
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

/// How many shards there are with one of this name: 3 with `model-00001-of-00003.safetensors`.
fn shards_with(name: &str) -> Option<usize> {
    let (_, count) = name.strip_prefix("model-")?.strip_suffix(".safetensors")?.split_once("-of-")?;
    count.parse().ok()
}

/// What a model in a folder is called: as the folder, or, in Hugging Face's cache, where that is called after a commit
/// (`models--OWNER--NAME/snapshots/COMMIT`), as its repository.
fn name(dir: &Path) -> String {
    let part = |dir: Option<&Path>| dir.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let repository = || {
        let (snapshots, repository) = (dir.parent()?, dir.parent()?.parent());
        let repository = part(repository).filter(|_| snapshots.ends_with("snapshots"))?;
        repository.strip_prefix("models--")?.rsplit_once("--").map(|(_, name)| name.to_owned())
    };
    repository().or_else(|| part(Some(dir))).unwrap_or_else(|| dir.display().to_string())
}

pub(crate) fn tokenizer(path: &Path, json: &[u8], config: &ModelConfig) -> Result<Tokenizer, ModelError> {
    Tokenizer::for_model(json, config).map_err(|source| ModelError::Tokenizer { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_called_as_its_repository() {
        let names = [
            ("/models/mini", "mini"),
            ("/", "/"),
            ("/hub/models--mistralai--Voxtral-Mini/snapshots/0123", "Voxtral-Mini"),
            ("/hub/models--mistralai--Voxtral-Mini/blobs/0123", "0123"),
            ("/hub/snapshots/0123", "0123"),
        ];
        for (dir, expected) in names {
            assert_eq!(name(Path::new(dir)), expected);
        }
    }

    #[test]
    fn the_files_of_one_layout_are_chosen_if_all_are_there() {
        let files = |names: &[&str]| Model::files_among(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let native = ["params.json", "tekken.json", "consolidated.safetensors"];
        let hf = ["config.json", "tekken.json", "model.safetensors"];
        let shards = ["config.json", "tekken.json", "model.safetensors.index.json"];
        let pair = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(files(&[&native[..], &hf, &["README.md"]].concat()), native);
        assert_eq!(files(&[&["README.md"], &hf[..]].concat()), hf);
        assert_eq!(files(&[&pair[..], &shards].concat()), [&shards[..], &pair].concat());
        for missing in 0..3 {
            for layout in [native, hf] {
                let mut some = layout.to_vec();
                some.remove(missing);
                assert!(files(&some).is_empty(), "{some:?}");
            }
        }
        assert!(files(&[&shards[..], &pair[..1]].concat()).is_empty());
        assert!(files(&shards).is_empty());
    }
}
