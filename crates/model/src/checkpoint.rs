//! The weights of a folder, in either layout, as [`Weights`]; bytes stay where they lie but for what must be rearranged.

mod finite;
mod layout;
mod shard;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::Deserialize;

use crate::error::{JsonError, brief};
use crate::tensor::DType;
use crate::threads::on_all_cores;
use crate::weights::Fetch;
use crate::{ConfigError, ModelConfig, ModelError, Part, Storage, Tensor, Weight, Weights, files};
use shard::Entry;

pub(crate) use layout::Layout;

/// The tensors of a model by the names that [`Layout::name`] gives them.
pub(crate) struct Checkpoint {
    layout: Layout,
    config: PathBuf,
    /// The weights file, or the index of several.
    weights: PathBuf,
    entries: HashMap<String, Entry>,
    shards: Vec<(PathBuf, Arc<Storage>)>,
}

/// The tensors of a model, as a checkpoint stores them.
#[derive(Default)]
pub(crate) struct Listed {
    /// Those that are never packed, by their names in the file.
    pub others: Vec<(String, Tensor)>,
    pub matrices: Vec<Matrix>,
}

/// The matrix of a product, as it is to be packed.
pub(crate) struct Matrix {
    /// As the file names it.
    pub name: String,
    pub tensor: Tensor,
    pub part: Part,
    /// The head width, where its rows are stored with split halves.
    pub head_dim: Option<usize>,
}

impl Checkpoint {
    /// Of a folder. Where both layouts are there, the native one is taken: it needs no rearranging.
    pub(crate) fn open(dir: &Path) -> Result<Self, ModelError> {
        let there = |name: &str| {
            let path = dir.join(name);
            Ok::<_, ModelError>(files::look(&path)?.map(|_| path))
        };
        let native = (there("params.json")?, there("consolidated.safetensors")?);
        let hf = (there("config.json")?, there("model.safetensors")?.or(there("model.safetensors.index.json")?));
        match (native, hf) {
            ((Some(config), Some(weights)), _) => {
                let storage = files::map(&weights)?;
                Self::of_shards(Layout::Native, config, weights.clone(), [(weights, storage)])
            }
            (_, (Some(config), Some(weights))) => {
                let paths = match weights.extension() {
                    Some(extension) if extension == "json" => shards_of(&weights)?,
                    _ => vec![weights.clone()],
                };
                let shards: Vec<_> =
                    paths.into_iter().map(|path| Ok((path.clone(), files::map(&path)?))).collect::<Result<_, _>>()?;
                Self::of_shards(Layout::HuggingFace, config, weights, shards)
            }
            ((Some(_), None), (None, _)) => Err(ModelError::Missing { path: dir.join("consolidated.safetensors") }),
            ((None, Some(_)), (None, _)) => Err(ModelError::Missing { path: dir.join("params.json") }),
            (_, (Some(_), None)) => Err(ModelError::Missing { path: dir.join("model.safetensors") }),
            (_, (None, Some(_))) => Err(ModelError::Missing { path: dir.join("config.json") }),
            ((None, None), (None, None)) => Err(ModelError::NoModel { dir: dir.to_owned() }),
        }
    }

    /// Of weights that lie anywhere; `weights` and the paths of the shards are for messages.
    pub(crate) fn of_shards(
        layout: Layout,
        config: PathBuf,
        weights: PathBuf,
        shards: impl IntoIterator<Item = (PathBuf, Arc<Storage>)>,
    ) -> Result<Self, ModelError> {
        let mut entries = HashMap::new();
        let shards: Vec<_> = shards.into_iter().collect();
        for (path, storage) in &shards {
            for entry in shard::entries(&Arc::from(path.as_path()), storage)? {
                if layout.ignores(&entry.name) {
                    continue;
                }
                if let Some(twin) = entries.insert(layout.normal(&entry.name), entry) {
                    return Err(files::broken(&twin.path, format!("{} is there twice", brief(twin.name))));
                }
            }
        }
        Ok(Self { layout, config, weights, entries, shards })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The contents of the file that describes the model.
    pub(crate) fn read_config(&self) -> Result<Vec<u8>, ModelError> {
        files::read(&self.config, files::MOST_CONFIG_BYTES)
    }

    /// The description of the model, from the contents of its file.
    pub(crate) fn parse_config(&self, json: &[u8]) -> Result<ModelConfig, ModelError> {
        let failed = |source: ConfigError| ModelError::Config { path: self.config.clone(), source };
        match self.layout {
            Layout::Native => ModelConfig::from_params_json(json).map_err(failed),
            Layout::HuggingFace => {
                let mut config = ModelConfig::from_hf_json(json).map_err(failed)?;
                let rows = self.entries.get(&self.layout.name(Layout::ADA_DOWN)).and_then(|entry| entry.shape.first());
                config.ada_dim = rows.copied().unwrap_or(config.ada_dim);
                config.validate().map_err(failed)?;
                Ok(config)
            }
        }
    }

    /// All weights, every shape checked and every value known to be finite, which reads all of the file once.
    pub(crate) fn weights(mut self, config: &ModelConfig) -> Result<Weights, ModelError> {
        let mut reader = Reader { checkpoint: &mut self, config, taken: Vec::new() };
        let weights = Weights::collect(config, &mut reader)?;
        let taken = reader.taken;
        self.check(&taken)?;
        Ok(weights)
    }

    /// SHA-256 of each file of weights.
    pub(crate) fn checksums(&self) -> BTreeMap<String, String> {
        self.shards.iter().map(|(path, storage)| (files::name(path), files::sha256(storage.bytes()))).collect()
    }

    /// All tensors as they are stored, checked as [`Checkpoint::weights`] does it.
    pub(crate) fn list(mut self, config: &ModelConfig) -> Result<Listed, ModelError> {
        let mut lister = Lister { checkpoint: &mut self, config, taken: Vec::new(), listed: Listed::default() };
        Weights::collect(config, &mut lister)?;
        let Lister { taken, listed, .. } = lister;
        self.check(&taken)?;
        Ok(listed)
    }

    /// Takes out the tensor of this name in the native layout.
    fn take(&mut self, native: &str) -> Result<Entry, ModelError> {
        let name = self.layout.name(native);
        let missing = || ModelError::MissingTensor { path: self.weights.clone(), tensor: name.clone() };
        self.entries.remove(&name).ok_or_else(missing)
    }

    /// Whether nothing is left, and all values of what was taken are finite.
    fn check(&self, taken: &[Entry]) -> Result<(), ModelError> {
        // The first by name, so that the message is the same every time.
        if let Some(entry) = self.entries.values().min_by(|a, b| a.name.cmp(&b.name)) {
            return Err(ModelError::UnknownTensor { path: entry.path.to_path_buf(), tensor: entry.name.clone() });
        }
        match on_all_cores(|| finite::first_bad(taken)) {
            None => Ok(()),
            Some(entry) => Err(ModelError::NotFinite { path: entry.path.to_path_buf(), tensor: entry.name.clone() }),
        }
    }
}

/// Takes a model's tensors out of a checkpoint.
struct Reader<'a> {
    checkpoint: &'a mut Checkpoint,
    config: &'a ModelConfig,
    taken: Vec<Entry>,
}

impl Reader<'_> {
    /// The tensor with its rows in the native order, in which packed ones already are.
    fn weight(&mut self, native: &str, entry: Entry, weight: Weight) -> Weight {
        self.taken.push(entry);
        match (weight, self.checkpoint.layout.split_halves(native, self.config)) {
            (Weight::Dense(tensor), Some(head_dim)) => Weight::Dense(on_all_cores(|| interleaved(&tensor, head_dim))),
            (weight, _) => weight,
        }
    }
}

impl Fetch for Reader<'_> {
    type Error = ModelError;

    fn tensor(&mut self, native: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let entry = self.checkpoint.take(native)?;
        let tensor = entry.tensor(shape)?;
        match self.weight(native, entry, Weight::Dense(tensor)) {
            Weight::Dense(tensor) => Ok(tensor),
            Weight::Packed(_) => unreachable!("what is dense stays dense"),
        }
    }

    fn matrix(&mut self, native: &str, shape: &[usize], _: Part) -> Result<Weight, ModelError> {
        let entry = self.checkpoint.take(native)?;
        let weight = entry.weight(shape)?;
        Ok(self.weight(native, entry, weight))
    }
}

/// Lists a model's tensors as a checkpoint stores them.
struct Lister<'a> {
    checkpoint: &'a mut Checkpoint,
    config: &'a ModelConfig,
    taken: Vec<Entry>,
    listed: Listed,
}

impl Fetch for Lister<'_> {
    type Error = ModelError;

    fn tensor(&mut self, native: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let entry = self.checkpoint.take(native)?;
        self.listed.others.push((entry.name.clone(), entry.tensor(shape)?));
        self.taken.push(entry);
        Ok(Tensor::none())
    }

    fn matrix(&mut self, native: &str, shape: &[usize], part: Part) -> Result<Weight, ModelError> {
        let entry = self.checkpoint.take(native)?;
        let Weight::Dense(tensor) = entry.weight(shape)? else {
            return Err(ModelError::PackedAlready { path: entry.path.to_path_buf(), tensor: entry.name });
        };
        let head_dim = self.checkpoint.layout.split_halves(native, self.config);
        self.listed.matrices.push(Matrix { name: entry.name.clone(), tensor, part, head_dim });
        self.taken.push(entry);
        Ok(Weight::Dense(Tensor::none()))
    }
}

/// The files that an index names, each once.
fn shards_of(index: &Path) -> Result<Vec<PathBuf>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index = serde_json::from_slice(&files::read(index, files::MOST_INDEX_BYTES)?)
        .map_err(|e| files::broken(index, format!("not an index: {}", JsonError(e))))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(files::broken(index, "it names no files"));
    }
    // An index comes from elsewhere; it must not make us open anything outside its folder. No file has a longer name.
    let elsewhere = |name: &String| name.contains(['/', '\\', ':']) || name == ".." || name.len() > 255;
    if let Some(name) = names.iter().find(|name| elsewhere(name)) {
        return Err(files::broken(index, format!("{:?} is not a file of this folder", brief(name))));
    }
    Ok(names.into_iter().map(|name| index.with_file_name(name)).collect())
}

/// Rows `j` and `j + head_dim / 2` of each head, a rotary pair in the Hugging Face layout, become rows `2j` and `2j + 1`.
fn interleaved(tensor: &Tensor, head_dim: usize) -> Tensor {
    let bytes = tensor.as_bytes();
    let row = bytes.len() / tensor.shape()[0];
    let head = head_dim * row;
    Tensor::filled(tensor.dtype(), tensor.shape().to_vec(), |out| {
        out.par_chunks_exact_mut(head).zip(bytes.par_chunks_exact(head)).for_each(|(out, head)| {
            let (first, second) = head.split_at(head.len() / 2);
            let pairs = first.chunks_exact(row).zip(second.chunks_exact(row));
            for (out, (a, b)) in out.chunks_exact_mut(2 * row).zip(pairs) {
                out[..row].copy_from_slice(a);
                out[row..].copy_from_slice(b);
            }
        });
    })
}
