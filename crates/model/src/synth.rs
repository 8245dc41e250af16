//! Models of any size with random weights, for tests, benchmarks and demonstrations without a download.
//!
//! They write nonsense, but like a real model: mostly words and pauses that depend on the audio and on what was written before. The
//! same description and seed give the same bytes on every machine, on disk and in memory.

mod spec;
mod text;
mod values;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;

use crate::packed::{Encoding, Packer, Part, Plan};
use crate::tensor::DType;
use crate::weights::{Fetch, Weight};
use crate::write::{self, Folder, Form, Item};
use crate::{ConfigError, Model, ModelConfig, ModelError, Tensor, Tokenizer, Weights};
use values::Values;

pub use spec::SpecError;

const PARAMS: &str = "params.json";
const TEKKEN: &str = "tekken.json";
const WEIGHTS: &str = "consolidated.safetensors";

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
        let mut maker = Maker { config, recipe: recipe.into(), index: 0 };
        let Ok(weights) = Weights::collect(config, &mut maker);
        let tokenizer = Tokenizer::from_json(text::tekken(config.vocab).as_bytes(), config.vocab)
            .expect("a generated vocabulary is well formed");
        Ok(Self { name: "synthetic".to_owned(), config: config.clone(), weights, tokenizer })
    }
}

/// Writes a model with random weights into `dir`, in the native layout: in bf16 or, with a `plan`, packed. Tells `progress` how many
/// bytes of weights are written, and of how many. The folder is made if need be. Memory stays below 200 MB whatever the size.
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
    plan: Option<&Plan>,
    mut progress: impl FnMut(u64, u64) -> io::Result<()>,
) -> Result<(), ModelError> {
    check(config).map_err(|source| ModelError::Config { path: dir.join(PARAMS), source })?;
    let mut lister = Lister { maker: Maker { config, recipe: recipe.into(), index: 0 }, plan, items: Vec::new() };
    let Ok(_) = Weights::collect(config, &mut lister);
    let small = [(PARAMS, text::params(config).into_bytes()), (TEKKEN, text::tekken(config.vocab).into_bytes())];
    let folder = Folder { dir, small, weights: WEIGHTS, items: lister.items, source: BTreeMap::new() };
    folder.write(&mut progress).map(drop)
}

fn check(config: &ModelConfig) -> Result<(), ConfigError> {
    config.validate()?;
    crate::config::within("vocab", config.vocab, text::FEWEST_IDS..=1 << 20)
}

/// Makes one tensor after the other.
struct Maker<'a> {
    config: &'a ModelConfig,
    recipe: Recipe,
    index: u64,
}

impl Maker<'_> {
    fn values(&mut self, name: &str, shape: &[usize]) -> Values {
        self.index += 1;
        Values::new(self.config, name, shape, self.recipe, self.index - 1)
    }
}

impl Fetch for Maker<'_> {
    type Error = Infallible;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Infallible> {
        let values = self.values(name, shape);
        Ok(Tensor::filled(DType::Bf16, shape.to_vec(), |out| write::fill(&values, DType::Bf16, 0, out)))
    }

    fn matrix(&mut self, name: &str, shape: &[usize], _: Part) -> Result<Weight, Infallible> {
        self.tensor(name, shape).map(Weight::Dense)
    }
}

/// Lists all tensors to be written.
struct Lister<'a> {
    maker: Maker<'a>,
    plan: Option<&'a Plan>,
    items: Vec<Item<'a>>,
}

impl Lister<'_> {
    fn add(&mut self, name: &str, shape: &[usize], encoding: Option<Encoding>) -> Tensor {
        let rows = Box::new(self.maker.values(name, shape));
        let (n, k) = (shape[0], shape[1..].iter().product());
        let packer = encoding.and_then(|encoding| Packer::new(encoding, n, k, DType::Bf16, &*rows));
        let form = packer.map_or(Form::Dense(DType::Bf16), Form::Packed);
        self.items.push(Item { name: name.to_owned(), shape: shape.to_vec(), form, rows });
        Tensor::none()
    }
}

impl Fetch for Lister<'_> {
    type Error = Infallible;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Infallible> {
        Ok(self.add(name, shape, None))
    }

    fn matrix(&mut self, name: &str, shape: &[usize], part: Part) -> Result<Weight, Infallible> {
        Ok(Weight::Dense(self.add(name, shape, self.plan.map(|plan| plan.of(part)))))
    }
}
