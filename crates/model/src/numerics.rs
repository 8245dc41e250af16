//! Small computations that every backend does once a stream or once a call, on the host, so that all agree on them.

use crate::{Delay, ModelConfig, TensorData, Weights};

/// Rotary angles: position `p`, pair `j` turns by `p * theta^(-2j / head_dim)`.
///
/// Frequencies are rounded to f32 as in the reference implementations; the product and its sine and cosine are taken in f64,
/// so that a position hours into a stream is as exact as the first.
#[derive(Clone, Debug)]
pub struct Rope {
    frequencies: Vec<f32>,
}

impl Rope {
    /// For heads of `head_dim`.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        let frequency = |j: usize| theta.powf(-((2 * j) as f64) / head_dim as f64) as f32;
        Self { frequencies: (0..head_dim / 2).map(frequency).collect() }
    }

    /// The frequencies, `[head_dim / 2]`.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// Cosine and sine of each pair at `position`.
    pub fn cos_sin(&self, position: usize) -> impl Iterator<Item = (f32, f32)> + '_ {
        self.frequencies.iter().map(move |&f| {
            let (sin, cos) = (position as f64 * f64::from(f)).sin_cos();
            (cos as f32, sin as f32)
        })
    }
}

/// `1 + up · GELU(down · t_cond)` of each decoder layer, `[layers][dim]`: what multiplies the output of the layer's second norm
/// at delay `delay` (`t_cond = [cos(d f_i).., sin(d f_i)..]`, `f_i = 10000^(-i / (dim / 2))`).
pub fn ada_scales(config: &ModelConfig, weights: &Weights, delay: Delay) -> Vec<Vec<f32>> {
    let half = config.decoder.dim / 2;
    let angle = |i: usize| delay.tokens() as f32 * (-(10000f32.ln()) * i as f32 / half as f32).exp();
    let t_cond: Vec<f32> = (0..half).map(|i| angle(i).cos()).chain((0..half).map(|i| angle(i).sin())).collect();
    let scale = |layer: &crate::LayerWeights| match &layer.ada {
        None => vec![1.0; config.decoder.dim],
        Some(ada) => {
            let hidden: Vec<f32> = matvec(ada.down.data(), &t_cond).into_iter().map(gelu).collect();
            matvec(ada.up.data(), &hidden).into_iter().map(|g| 1.0 + g).collect()
        }
    };
    weights.decoder.iter().map(scale).collect()
}

fn matvec(weight: TensorData<'_>, x: &[f32]) -> Vec<f32> {
    fn rows<T: Copy>(weight: &[T], x: &[f32], widen: impl Fn(T) -> f32) -> Vec<f32> {
        let dot = |row: &[T]| row.iter().zip(x).map(|(&w, &x)| f64::from(widen(w)) * f64::from(x)).sum::<f64>() as f32;
        weight.chunks_exact(x.len()).map(dot).collect()
    }
    match weight {
        TensorData::Bf16(w) => rows(w, x, |w| w.to_f32()),
        TensorData::F16(w) => rows(w, x, |w| w.to_f32()),
        TensorData::F32(w) => rows(w, x, |w| w),
    }
}

/// Exact GELU: `x/2 * (1 + erf(x / sqrt 2))`.
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}
