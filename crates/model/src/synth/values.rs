//! The values of generated tensors. Value `p` is a function of seed, tensor and `p` alone, so that any number of threads make the
//! same file.

use half::bf16;

use super::Recipe;
use super::text::{EOS, PAD, SPECIAL_IDS, WORD};
use crate::packed::Rows;
use crate::{ModelConfig, Weights};

const TABLE_BITS: u32 = 12;
/// Values from one random word of 64 bits.
const PER_WORD: usize = 4;

/// The values of one tensor: normally distributed, in steps of a table.
pub(super) struct Values {
    /// Each of them a bf16.
    table: Vec<f32>,
    key: u64,
    /// Width of a row, where rows of the embedding have their own scales.
    embedding: Option<usize>,
}

impl Values {
    /// Of the `index`-th tensor of a model.
    pub(super) fn new(config: &ModelConfig, name: &str, shape: &[usize], recipe: Recipe, index: u64) -> Self {
        let (mean, deviation) = spread(config, name, shape, recipe.audio);
        let table = quantiles().iter().map(|q| rounded(mean + deviation * q)).collect();
        let embedding = (name == Weights::EMBEDDING).then_some(config.decoder.dim);
        Self { table, key: mix(recipe.seed ^ mix(index)), embedding }
    }
}

impl Rows for Values {
    fn read(&self, start: usize, out: &mut [f32]) {
        debug_assert!(start.is_multiple_of(PER_WORD));
        for (i, values) in out.chunks_mut(PER_WORD).enumerate() {
            let word = mix(self.key.wrapping_add((start / PER_WORD + i) as u64));
            for (lane, value) in values.iter_mut().enumerate() {
                let bits = word >> (16 * lane) & ((1 << TABLE_BITS) - 1);
                *value = self.table[bits as usize];
            }
        }
        let Some(dim) = self.embedding else { return };
        let special = SPECIAL_IDS * dim;
        for (i, value) in out.iter_mut().enumerate().take(special.saturating_sub(start)) {
            *value = rounded(*value * row_scale((start + i) / dim));
        }
    }
}

fn rounded(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}

/// Rows are also what is written: a longer one is written more often. The end never is, a pause and a word's beginning often are,
/// and no other special id takes the place of text.
fn row_scale(id: usize) -> f32 {
    match id {
        EOS => 0.0,
        PAD => 3.0,
        WORD => 2.0,
        _ => 0.25,
    }
}

/// Mean and standard deviation of a tensor, so that a signal neither dies nor drowns on its way through any number of layers.
///
/// The decoder's unit is the embedding: `LOGITS` is the deviation of the logits that it gives. All layers together add to it three
/// times as much and audio `audio` times, so that all of them decide what is written. The last norm has both signs: with the embedding
/// also being the head, a model would else write the id that it just read for ever.
fn spread(config: &ModelConfig, name: &str, shape: &[usize], audio: f32) -> (f32, f32) {
    const LOGITS: f32 = 4.0;
    let fan_in = (shape[1..].iter().product::<usize>() as f32).sqrt();
    let decoder = name.starts_with("layers.");
    let unit = LOGITS / (config.decoder.dim as f32).sqrt();
    let branch = match decoder {
        true => 3.0 * unit / (config.decoder.layers as f32).sqrt(),
        false => 1.0 / (config.encoder.layers as f32).sqrt(),
    };
    let deviation = match name.rsplit('.').take(2).collect::<Vec<_>>()[..] {
        _ if name == Weights::EMBEDDING => unit,
        _ if name == "norm.weight" => return (0.0, 1.0),
        ["weight", "norm" | "attention_norm" | "ffn_norm"] => return (1.0, 0.2),
        ["weight", "conv"] => 2.0 / fan_in,
        ["weight", "wq" | "wk"] => 1.6 / fan_in,
        ["weight", "wo"] => 1.5 * branch / fan_in,
        ["weight", "w1" | "w3"] => 1.5 / fan_in,
        ["weight", "w2"] => branch / fan_in,
        ["weight", "0"] => 2.0 / fan_in,
        ["weight", "2"] if decoder => 1.0 / fan_in,
        ["weight", "2"] => audio * unit / fan_in,
        ["weight", _] => 1.0 / fan_in,
        ["bias", "wo" | "w2"] => 0.1 * branch,
        _ => 0.2,
    };
    (0.0, deviation)
}

/// The standard normal distribution at the middles of equal steps of probability, found by halving.
fn quantiles() -> &'static [f32] {
    static QUANTILES: std::sync::OnceLock<Vec<f32>> = std::sync::OnceLock::new();
    QUANTILES.get_or_init(|| {
        let steps = 1 << TABLE_BITS;
        let quantile = |i: u32| {
            let wanted = (f64::from(i) + 0.5) / f64::from(steps);
            let (mut low, mut high) = (-8.0, 8.0);
            for _ in 0..40 {
                let middle = 0.5 * (low + high);
                let below = 0.5 * libm::erfc(-middle * std::f64::consts::FRAC_1_SQRT_2);
                if below < wanted { low = middle } else { high = middle }
            }
            low as f32
        };
        (0..steps).map(quantile).collect()
    })
}

/// splitmix64: a random word for every number. Sebastiano Vigna, public domain.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normal_and_do_not_depend_on_how_they_are_cut() {
        let config = ModelConfig::synthetic("small", &["vocab=1536"]).unwrap();
        let shape = [512, 512];
        let values = Values::new(&config, "layers.0.attention.wv.weight", &shape, 7.into(), 3);
        let mut whole = vec![0.0; 512 * 512];
        values.read(0, &mut whole);
        let mut cut = vec![0.0; 512 * 512];
        for (i, piece) in cut.chunks_mut(1020).enumerate() {
            values.read(i * 1020, piece);
        }
        assert!(whole == cut);
        let wide: Vec<f64> = whole.iter().map(|&v| f64::from(v) * 512f64.sqrt()).collect();
        let moment = |power: i32| wide.iter().map(|v| v.powi(power)).sum::<f64>() / wide.len() as f64;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02 && (moment(4) - 3.0).abs() < 0.1);
    }
}
