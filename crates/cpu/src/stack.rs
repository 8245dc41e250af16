//! A stack of transformer layers: the encoder (with biases) and the decoder (with delay conditioning) are both one.
//!
//! ```text
//! u = RMSNorm(x)          q, k, v = W u + b      q, k = RoPE(q, k)
//! x = x + Wo attention(q, ring of k, v)
//! u = RMSNorm(x) ⊙ ada
//! x = x + W2 (SiLU(W1 u) ⊙ W3 u)
//! ```

use voxtral_model::{LayerWeights, Rope, Tensor, TransformerConfig};

use crate::kernels::{Query, attend, rms_norm, rotate_pairs, silu_mul};
use crate::kv::KvCache;
use crate::linear::{Arithmetic, Input, Linear};
use crate::parallel::{self, SharedColumns};

/// Rows of one stream, consecutive in a batch and in position.
pub(crate) struct Span<'a> {
    /// First row in the batch.
    pub row: usize,
    pub rows: usize,
    /// Position of the first row.
    pub position: usize,
    pub cache: &'a mut KvCache,
    /// What multiplies the output of each layer's second norm, `[layers][dim]`.
    pub ada: Option<&'a [Vec<f32>]>,
}

struct Layer {
    attention_norm: Vec<f32>,
    wq: Linear,
    wk: Linear,
    wv: Linear,
    wo: Linear,
    ffn_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// The layers and the norm behind the last.
pub(crate) struct Stack {
    config: TransformerConfig,
    rope: Rope,
    layers: Vec<Layer>,
    norm: Vec<f32>,
}

impl Stack {
    pub(crate) fn new(config: &TransformerConfig, layers: &[LayerWeights], norm: &Tensor) -> Self {
        let linear = |l: &voxtral_model::Linear| Linear::new(&l.weight, l.bias.as_ref());
        let layer = |l: &LayerWeights| Layer {
            attention_norm: l.attention_norm.to_f32(),
            wq: linear(&l.wq),
            wk: linear(&l.wk),
            wv: linear(&l.wv),
            wo: linear(&l.wo),
            ffn_norm: l.ffn_norm.to_f32(),
            gate: linear(&l.gate),
            up: linear(&l.up),
            down: linear(&l.down),
        };
        Self {
            config: config.clone(),
            rope: Rope::new(config.head_dim, config.rope_theta),
            layers: layers.iter().map(layer).collect(),
            norm: norm.to_f32(),
        }
    }

    /// Runs `x`, `[rows, dim]`, through all layers and the last norm. The spans cover the rows.
    pub(crate) fn forward(&self, arithmetic: Arithmetic, mut x: Vec<f32>, spans: &mut [Span<'_>]) -> Vec<f32> {
        let config = &self.config;
        let positions = spans.iter().flat_map(|s| s.position..s.position + s.rows);
        let cos_sin: Vec<Vec<(f32, f32)>> = positions.map(|p| self.rope.cos_sin(p).collect()).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            let u = self.normed(arithmetic, &x, &layer.attention_norm, |_| None);
            let u = Input::new(&u);
            let mut q = layer.wq.apply(arithmetic, &u);
            let mut k = layer.wk.apply(arithmetic, &u);
            let v = layer.wv.apply(arithmetic, &u);
            parallel::each_row(&mut q, config.q_dim(), cos_sin.len() * config.q_dim(), |row, q| {
                rotate_pairs(q, &cos_sin[row])
            });
            parallel::each_row(&mut k, config.kv_dim(), cos_sin.len() * config.kv_dim(), |row, k| {
                rotate_pairs(k, &cos_sin[row])
            });
            for span in spans.iter_mut() {
                for i in 0..span.rows {
                    let row = (span.row + i) * config.kv_dim()..(span.row + i + 1) * config.kv_dim();
                    span.cache.put(index, span.position + i, &k[row.clone()], &v[row]);
                }
            }
            let o = self.attention(arithmetic, index, &q, spans);
            layer.wo.add_to(arithmetic, &Input::new(&o), &mut x);

            let ada = |row: usize| {
                let span = spans.iter().find(|s| (s.row..s.row + s.rows).contains(&row))?;
                Some(span.ada?[index].as_slice())
            };
            let u = self.normed(arithmetic, &x, &layer.ffn_norm, ada);
            let u = Input::new(&u);
            let mut hidden = layer.gate.apply(arithmetic, &u);
            let up = layer.up.apply(arithmetic, &u);
            // An exponential weighs as much as a dozen multiply-adds.
            parallel::each_row(&mut hidden, config.ffn_dim, 12 * up.len(), |row, hidden| {
                silu_mul(arithmetic.isa, hidden, &up[row * config.ffn_dim..][..config.ffn_dim]);
            });
            layer.down.add_to(arithmetic, &Input::new(&hidden), &mut x);
        }
        self.normed(arithmetic, &x, &self.norm, |_| None)
    }

    fn normed<'a>(
        &self,
        arithmetic: Arithmetic,
        x: &[f32],
        weight: &[f32],
        scale: impl Fn(usize) -> Option<&'a [f32]> + Sync,
    ) -> Vec<f32> {
        let dim = self.config.dim;
        let mut out = vec![0.0; x.len()];
        parallel::each_row(&mut out, dim, 4 * x.len(), |row, out| {
            rms_norm(arithmetic.isa, &x[row * dim..][..dim], weight, scale(row), self.config.norm_eps, out);
        });
        out
    }

    /// Attention of all rows in one layer, `[rows, heads * head_dim]`.
    fn attention(&self, arithmetic: Arithmetic, layer: usize, q: &[f32], spans: &[Span<'_>]) -> Vec<f32> {
        /// Rows of a piece of work: a head's keys and values stay in cache while they pass.
        const ROWS: usize = 16;
        let config = &self.config;
        let group = config.heads / config.kv_heads;
        let mut out = vec![0.0; q.len()];
        let mut work = Vec::new();
        let mut cost = 0;
        for span in spans {
            for h in 0..config.kv_heads {
                work.extend((0..span.rows).step_by(ROWS).map(|first| (span, h, first)));
            }
            cost += 2 * span.rows * config.q_dim() * config.window.min(span.position + span.rows);
        }
        let shared = SharedColumns::new(&mut out, config.q_dim());
        parallel::split(work.len(), 1, cost, |range| {
            let mut queries = Vec::new();
            for &(span, h, first) in &work[range] {
                queries.clear();
                for i in first..span.rows.min(first + ROWS) {
                    let query = |g| Query {
                        row: span.row + i,
                        column: (h * group + g) * config.head_dim,
                        position: span.position + i,
                    };
                    queries.extend((0..group).map(query));
                }
                // SAFETY: each head of a row is in one piece of work, and `out` is nobody else's.
                unsafe { attend(arithmetic.isa, &span.cache.head(layer, h), q, &queries, &shared) };
            }
        });
        out
    }
}
