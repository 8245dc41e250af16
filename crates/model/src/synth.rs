//! Models of any size with random weights, for tests, benchmarks and demonstrations without a download.
//!
//! They write nonsense, but like a real model: mostly words and pauses that depend on the audio and on what was written before. The
//! same description and seed give the same bytes on every machine, on disk and in memory.

mod spec;
mod text;
mod values;

use std::convert::Infallible;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use half::bf16;
use rayon::prelude::*;
use voxtral_files::Writer;

use crate::tensor::DType;
use crate::threads::on_all_cores;
use crate::{ConfigError, Model, ModelConfig, ModelError, Tensor, Tokenizer, Weights};
use values::Values;

pub use spec::SpecError;

const PARAMS: &str = "params.json";
const TEKKEN: &str = "tekken.json";
const WEIGHTS: &str = "consolidated.safetensors";

/// Values that are made, then written, at a time: 32 MB.
const BATCH: usize = 16 << 20;
/// Values that one thread makes at a time.
const BLOCK: usize = 1 << 16;

/// Which random model of some dimensions: a seed alone makes one, `7.into()`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Another seed is another model.
    pub seed: u64,
    /// How much the audio counts where the last token counts 1 and all layers count 3. The more, the less a token depends on those
    /// before it, and the more of parallel decoding's guesses hold.
    pub audio: f32,
}

impl Recipe {
    /// What the audio counts unless said otherwise: as much as all layers.
    pub const AUDIO: f32 = 3.0;
}

impl From<u64> for Recipe {
    fn from(seed: u64) -> Self {
        Self { seed, audio: Self::AUDIO }
    }
}

impl Model {
    /// The model that [`write_synthetic`] would write, in memory.
    ///
    /// # Errors
    /// When `config` makes no sense, or its vocabulary has no room for the special ids and the 256 bytes.
    pub fn synthetic(config: &ModelConfig, recipe: impl Into<Recipe>) -> Result<Self, ConfigError> {
        check(config)?;
        let recipe = recipe.into();
        let mut index = 0;
        let collected = Weights::collect(config, &mut |name, shape| {
            let values = Values::new(config, name, shape, recipe, index);
            index += 1;
            let tensor =
                Tensor::filled(DType::Bf16, shape.to_vec(), |out| fill(&values, 0, bytemuck::cast_slice_mut(out)));
            Ok::<_, Infallible>(tensor)
        });
        let Ok(weights) = collected;
        let tokenizer = Tokenizer::from_json(text::tekken(config.vocab).as_bytes(), config.vocab)
            .expect("a generated vocabulary is well formed");
        Ok(Self { name: "synthetic".to_owned(), config: config.clone(), weights, tokenizer })
    }
}

/// Writes a model with random BF16 weights into `dir`, in the native layout, and tells `progress` how many bytes of weights are
/// written, and of how many. The folder is made if need be. Memory stays below 100 MB whatever the size.
///
/// Until all is written the files have other names, so that what is there never looks like a model that it is not. Of several that
/// write into one folder at once, one writes all files and the others fail.
///
/// # Errors
/// When `config` makes no sense, when the folder already holds a model's files, when it cannot be written, or when `progress` fails,
/// with its error; then none of the files stays.
pub fn write_synthetic(
    dir: &Path,
    config: &ModelConfig,
    recipe: impl Into<Recipe>,
    mut progress: impl FnMut(u64, u64) -> io::Result<()>,
) -> Result<(), ModelError> {
    check(config).map_err(|source| ModelError::Config { path: dir.join(PARAMS), source })?;
    let recipe = recipe.into();
    let path = |name: &str| dir.join(name);
    let failed = |path: PathBuf| {
        move |source: io::Error| match source.kind() {
            ErrorKind::AlreadyExists => ModelError::Exists { path },
            _ => ModelError::Io { path, source },
        }
    };
    fs::create_dir_all(dir).map_err(|source| ModelError::Io { path: dir.to_owned(), source })?;

    let begin = |name| Writer::create_new(&path(name)).map_err(failed(path(name)));
    let (mut params, mut tekken, mut weights) = (begin(PARAMS)?, begin(TEKKEN)?, begin(WEIGHTS)?);
    params.write_all(text::params(config).as_bytes()).map_err(failed(path(PARAMS)))?;
    tekken.write_all(text::tekken(config.vocab).as_bytes()).map_err(failed(path(TEKKEN)))?;
    write_weights(&mut weights, config, recipe, &mut progress).map_err(failed(path(WEIGHTS)))?;

    // Who is first to put the description there writes this model; nobody else gets further. The weights come last: a folder without
    // them is no model.
    let mut there = Vec::new();
    for (name, file) in [(PARAMS, params), (TEKKEN, tekken), (WEIGHTS, weights)] {
        if let Err(error) = file.commit() {
            // That they cannot be removed is less than what has failed.
            there.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(failed(path(name))(error));
        }
        there.push(path(name));
    }
    Ok(())
}

fn check(config: &ModelConfig) -> Result<(), ConfigError> {
    config.validate()?;
    crate::config::within("vocab", config.vocab, text::FEWEST_IDS..=1 << 20)
}

fn write_weights(
    file: &mut Writer,
    config: &ModelConfig,
    recipe: Recipe,
    progress: &mut impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let tensors = tensors(config);
    file.write_all(&header(&tensors))?;
    let total = config.parameters() * size_of::<bf16>() as u64;
    let mut written = 0;
    let mut buffer = vec![bf16::ZERO; BATCH];
    for (index, (name, shape)) in tensors.iter().enumerate() {
        let values = Values::new(config, name, shape, recipe, index as u64);
        let len: usize = shape.iter().product();
        for start in (0..len).step_by(BATCH) {
            let batch = &mut buffer[..BATCH.min(len - start)];
            on_all_cores(|| fill(&values, start, batch));
            let bytes: &[u8] = bytemuck::cast_slice(batch);
            file.write_all(bytes)?;
            written += bytes.len() as u64;
            progress(written, total)?;
        }
    }
    Ok(())
}

/// Values `start..` of a tensor, on all cores.
fn fill(values: &Values, start: usize, out: &mut [bf16]) {
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, block)| values.fill(start + i * BLOCK, block));
}

/// Name and shape of every tensor of such a model.
fn tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    let none = Tensor::owned(&[], DType::Bf16, vec![0]);
    let _: Result<_, Infallible> = Weights::collect(config, &mut |name, shape| {
        tensors.push((name.to_owned(), shape.to_vec()));
        Ok(none.clone())
    });
    tensors
}

/// Length and header of a safetensors file of BF16 tensors, padded so that their bytes are aligned.
fn header(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut start = 0;
    let mut entries = serde_json::Map::new();
    for (name, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * size_of::<bf16>();
        let entry = serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        entries.insert(name.clone(), entry);
        start = end;
    }
    let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
    json.resize((8 + json.len()).next_multiple_of(64) - 8, b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_length_are_whole_and_aligned() {
        for length in 1..=64 {
            let header = header(&[("x".repeat(length), vec![3, 5])]);
            assert_eq!(header.len() % 64, 0, "a name of {length}");
            let json: serde_json::Value = serde_json::from_slice(&header[8..]).unwrap();
            assert_eq!(json["x".repeat(length)]["shape"], serde_json::json!([3, 5]));
        }
    }
}
