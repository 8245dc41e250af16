//! The weights by their place in the model. Names, shapes and what is absent (most biases) follow the released checkpoint.

use crate::Tensor;

/// `y = W x + b`, weight `[out, in]`, bias `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

/// Delay conditioning of one decoder layer: `g = 1 + up · GELU(down · t_cond)`.
#[derive(Clone, Debug)]
pub struct AdaNorm {
    /// `[ada_dim, dim]`
    pub down: Tensor,
    /// `[dim, ada_dim]`
    pub up: Tensor,
}

/// One transformer layer of the encoder (with biases, without `ada`) or of the decoder (the other way round).
///
/// Rows of `wq` and `wk` are in the native order: rows `2j` and `2j + 1` of a head are rotary pair `j`.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// `[dim]`
    pub attention_norm: Tensor,
    /// `[heads * head_dim, dim]`
    pub wq: Linear,
    /// `[kv_heads * head_dim, dim]`, never a bias
    pub wk: Linear,
    /// `[kv_heads * head_dim, dim]`
    pub wv: Linear,
    /// `[dim, heads * head_dim]`
    pub wo: Linear,
    /// `[dim]`
    pub ffn_norm: Tensor,
    /// w1, `[ffn_dim, dim]`, never a bias
    pub gate: Linear,
    /// w3, `[ffn_dim, dim]`, never a bias
    pub up: Linear,
    /// w2, `[dim, ffn_dim]`
    pub down: Linear,
    /// Decoder only.
    pub ada: Option<AdaNorm>,
}

/// All weights of a model.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Two convolutions over time, `[enc_dim, mel_bins | enc_dim, 3]` with bias; tap 0 meets the oldest input.
    pub conv: [Linear; 2],
    /// Encoder layers.
    pub encoder: Vec<LayerWeights>,
    /// `[enc_dim]`
    pub encoder_norm: Tensor,
    /// `[dec_dim, downsample * enc_dim]` and `[dec_dim, dec_dim]`, GELU between them, no biases.
    pub adapter: [Linear; 2],
    /// `[vocab, dec_dim]`, input embedding and output projection.
    pub embedding: Tensor,
    /// Decoder layers.
    pub decoder: Vec<LayerWeights>,
    /// `[dec_dim]`
    pub decoder_norm: Tensor,
}
