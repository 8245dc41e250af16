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
use crate::parallel::SharedColumns;

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

/// What lies between the products of a layer. Its memory is used again from layer to layer and from call to call.
#[derive(Default)]
pub(crate) struct Scratch {
    /// What comes out of a norm, the last one in the end.
    pub normed: Input,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// What comes out of attention, then of the gate.
    attended: Input,
    gate: Vec<f32>,
    up: Vec<f32>,
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

    /// Runs `x`, `[rows, dim]`, through all layers, and leaves what comes out of the last norm in `scratch.normed`. The spans cover the
    /// rows.
    pub(crate) fn forward(
        &self,
        arithmetic: Arithmetic<'_>,
        x: &mut [f32],
        spans: &mut [Span<'_>],
        scratch: &mut Scratch,
    ) {
        let (config, team) = (&self.config, arithmetic.team);
        let Scratch { normed, q, k, v, attended, gate, up } = scratch;
        let positions = spans.iter().flat_map(|s| s.position..s.position + s.rows);
        let cos_sin: Vec<Vec<(f32, f32)>> = positions.map(|p| self.rope.cos_sin(p).collect()).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            self.norm(arithmetic, x, &layer.attention_norm, |_| None, normed);
            layer.wq.apply(arithmetic, normed, q);
            layer.wk.apply(arithmetic, normed, k);
            layer.wv.apply(arithmetic, normed, v);
            let cost = 4 * q.len();
            team.each_row(q, config.q_dim(), cost, |row, q| rotate_pairs(q, &cos_sin[row]));
            team.each_row(k, config.kv_dim(), cost, |row, k| rotate_pairs(k, &cos_sin[row]));
            for span in spans.iter_mut() {
                let rows = span.row * config.kv_dim()..(span.row + span.rows) * config.kv_dim();
                span.cache.put(team, index, span.position, &k[rows.clone()], &v[rows]);
            }
            self.attention(arithmetic, index, q, spans, attended.begin(q.len()));
            layer.wo.add_to(arithmetic, attended, x);

            let ada = |row: usize| {
                let span = spans.iter().find(|s| (s.row..s.row + s.rows).contains(&row))?;
                Some(span.ada?[index].as_slice())
            };
            self.norm(arithmetic, x, &layer.ffn_norm, ada, normed);
            layer.gate.apply(arithmetic, normed, gate);
            layer.up.apply(arithmetic, normed, up);
            // An exponential weighs as much as a dozen multiply-adds.
            team.each_row(attended.begin(gate.len()), config.ffn_dim, 12 * gate.len(), |row, out| {
                let row = row * config.ffn_dim..(row + 1) * config.ffn_dim;
                silu_mul(arithmetic.isa, &gate[row.clone()], &up[row], out);
            });
            layer.down.add_to(arithmetic, attended, x);
        }
        self.norm(arithmetic, x, &self.norm, |_| None, normed);
    }

    fn norm<'a>(
        &self,
        arithmetic: Arithmetic<'_>,
        x: &[f32],
        weight: &[f32],
        scale: impl Fn(usize) -> Option<&'a [f32]> + Sync,
        out: &mut Input,
    ) {
        let dim = self.config.dim;
        arithmetic.team.each_row(out.begin(x.len()), dim, 4 * x.len(), |row, out| {
            rms_norm(arithmetic.isa, &x[row * dim..][..dim], weight, scale(row), self.config.norm_eps, out);
        });
    }

    /// Attention of all rows in one layer, `[rows, heads * head_dim]`.
    fn attention(&self, arithmetic: Arithmetic<'_>, layer: usize, q: &[f32], spans: &[Span<'_>], out: &mut [f32]) {
        /// Rows of a piece of work: a head's keys and values stay in cache while they pass.
        const ROWS: usize = 16;
        let config = &self.config;
        let group = config.heads / config.kv_heads;
        let mut work = Vec::new();
        let mut cost = 0;
        for span in spans {
            for h in 0..config.kv_heads {
                work.extend((0..span.rows).step_by(ROWS).map(|first| (span, h, first)));
            }
            cost += 2 * span.rows * config.q_dim() * config.window.min(span.position + span.rows);
        }
        let shared = SharedColumns::new(out, config.q_dim());
        arithmetic.team.split(work.len(), 1, cost, |range| {
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
    }
}
