//! The weights by their place in the model. Names, shapes and what is absent (most biases) follow the released checkpoint.

use crate::{ModelConfig, Tensor, TransformerConfig};

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

const STREAMS: &str = "mm_streams_embeddings.embedding_module.";
const WHISPER: &str = "mm_streams_embeddings.embedding_module.whisper_encoder.";

impl Weights {
    /// The name of the embedding in the native layout.
    pub(crate) const EMBEDDING: &str = "mm_streams_embeddings.embedding_module.tok_embeddings.weight";

    /// Asks `get` for every tensor by its name in the native layout and its shape, in a fixed order. This is the one list of what a
    /// model is made of.
    pub(crate) fn collect<E>(
        config: &ModelConfig,
        get: &mut impl FnMut(&str, &[usize]) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let (enc, dec) = (&config.encoder, &config.decoder);
        let mut conv = |i: usize, inputs: usize| {
            let name = format!("{WHISPER}conv_layers.{i}.conv");
            linear(get, &name, &[enc.dim, inputs, ModelConfig::CONV_KERNEL], true)
        };
        Ok(Self {
            conv: [conv(0, config.audio.mel_bins)?, conv(1, enc.dim)?],
            encoder: (0..enc.layers)
                .map(|i| layer(get, &format!("{WHISPER}transformer.layers.{i}."), enc, None))
                .collect::<Result<_, E>>()?,
            encoder_norm: get(&format!("{WHISPER}transformer.norm.weight"), &[enc.dim])?,
            adapter: [
                linear(
                    get,
                    &format!("{STREAMS}audio_language_projection.0"),
                    &[dec.dim, config.downsample * enc.dim],
                    false,
                )?,
                linear(get, &format!("{STREAMS}audio_language_projection.2"), &[dec.dim, dec.dim], false)?,
            ],
            embedding: get(Self::EMBEDDING, &[config.vocab, dec.dim])?,
            decoder: (0..dec.layers)
                .map(|i| layer(get, &format!("layers.{i}."), dec, Some(config.ada_dim)))
                .collect::<Result<_, E>>()?,
            decoder_norm: get("norm.weight", &[dec.dim])?,
        })
    }
}

/// A layer of the decoder where `ada_dim` is given, else of the encoder.
fn layer<E>(
    get: &mut impl FnMut(&str, &[usize]) -> Result<Tensor, E>,
    prefix: &str,
    stack: &TransformerConfig,
    ada_dim: Option<usize>,
) -> Result<LayerWeights, E> {
    let &TransformerConfig { dim, ffn_dim, .. } = stack;
    let (q_dim, kv_dim) = (stack.q_dim(), stack.kv_dim());
    let biased = ada_dim.is_none();
    let name = |rest: &str| format!("{prefix}{rest}");
    Ok(LayerWeights {
        attention_norm: get(&name("attention_norm.weight"), &[dim])?,
        wq: linear(get, &name("attention.wq"), &[q_dim, dim], biased)?,
        wk: linear(get, &name("attention.wk"), &[kv_dim, dim], false)?,
        wv: linear(get, &name("attention.wv"), &[kv_dim, dim], biased)?,
        wo: linear(get, &name("attention.wo"), &[dim, q_dim], biased)?,
        ffn_norm: get(&name("ffn_norm.weight"), &[dim])?,
        gate: linear(get, &name("feed_forward.w1"), &[ffn_dim, dim], false)?,
        up: linear(get, &name("feed_forward.w3"), &[ffn_dim, dim], false)?,
        down: linear(get, &name("feed_forward.w2"), &[dim, ffn_dim], biased)?,
        ada: match ada_dim {
            None => None,
            Some(ada_dim) => Some(AdaNorm {
                down: get(&name("ada_rms_norm_t_cond.0.weight"), &[ada_dim, dim])?,
                up: get(&name("ada_rms_norm_t_cond.2.weight"), &[dim, ada_dim])?,
            }),
        },
    })
}

fn linear<E>(
    get: &mut impl FnMut(&str, &[usize]) -> Result<Tensor, E>,
    name: &str,
    shape: &[usize],
    biased: bool,
) -> Result<Linear, E> {
    let weight = get(&format!("{name}.weight"), shape)?;
    let bias = if biased { Some(get(&format!("{name}.bias"), &shape[..1])?) } else { None };
    Ok(Linear { weight, bias })
}
