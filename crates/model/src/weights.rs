//! The weights by their place in the model. Names, shapes and what is absent (most biases) follow the released checkpoint.

use crate::{ModelConfig, Packed, Part, Tensor, TransformerConfig};

/// A matrix, `[out, in]`. What is longer than two dimensions has all but the first as inputs.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Row by row, as released checkpoints store it.
    Dense(Tensor),
    /// Packed for the kernels.
    Packed(Packed),
}

impl Weight {
    /// Outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Dense(tensor) => tensor.shape(),
            Self::Packed(packed) => packed.shape(),
        }
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.shape()[0]
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.shape()[1..].iter().product()
    }

    /// The bytes that a product reads, as they are stored.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Dense(tensor) => tensor.as_bytes(),
            Self::Packed(packed) => packed.as_bytes(),
        }
    }

    /// How its weights are stored: "bf16" and so on; what is packed is called by its encoding.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Dense(tensor) => tensor.type_name(),
            Self::Packed(packed) => packed.encoding().name(),
        }
    }

    /// A copy of all weights in single precision, `[out, in]`; meant for tests.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.n() * self.k()];
        values.chunks_exact_mut(self.k()).enumerate().for_each(|(row, out)| self.row(row, out));
        values
    }

    /// The weights of output `row`, `[in]`, in single precision.
    ///
    /// # Panics
    /// When there is no such row, or `out` has another length.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n() && out.len() == self.k(), "row {row} of {:?} into {}", self.shape(), out.len());
        match self {
            Self::Dense(tensor) => tensor.read(row * out.len(), out),
            Self::Packed(packed) => packed.row(row, out),
        }
    }
}

/// `y = W x + b`, weight `[out, in]`, bias `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Weight,
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
    /// Two convolutions over time, `[enc_dim, mel_bins | enc_dim, 3]` with bias, never packed; tap 0 meets the oldest input.
    pub conv: [Linear; 2],
    /// Encoder layers.
    pub encoder: Vec<LayerWeights>,
    /// `[enc_dim]`
    pub encoder_norm: Tensor,
    /// `[dec_dim, downsample * enc_dim]` and `[dec_dim, dec_dim]`, GELU between them, no biases.
    pub adapter: [Linear; 2],
    /// `[vocab, dec_dim]`, input embedding and output projection.
    pub embedding: Weight,
    /// Decoder layers.
    pub decoder: Vec<LayerWeights>,
    /// `[dec_dim]`
    pub decoder_norm: Tensor,
}

const STREAMS: &str = "mm_streams_embeddings.embedding_module.";
const WHISPER: &str = "mm_streams_embeddings.embedding_module.whisper_encoder.";

/// Where weights come from, by their names in the native layout.
pub(crate) trait Fetch {
    type Error;
    /// A tensor that is never packed.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Self::Error>;
    /// The matrix of a product.
    fn matrix(&mut self, name: &str, shape: &[usize], part: Part) -> Result<Weight, Self::Error>;
}

impl Weights {
    /// The name of the embedding in the native layout.
    pub(crate) const EMBEDDING: &str = "mm_streams_embeddings.embedding_module.tok_embeddings.weight";

    /// Asks for everything, in a fixed order. This is the one list of what a model is made of.
    pub(crate) fn collect<F: Fetch>(config: &ModelConfig, from: &mut F) -> Result<Self, F::Error> {
        let (enc, dec) = (&config.encoder, &config.decoder);
        let mut conv = |i: usize, inputs: usize| {
            let name = format!("{WHISPER}conv_layers.{i}.conv");
            let weight = from.tensor(&format!("{name}.weight"), &[enc.dim, inputs, ModelConfig::CONV_KERNEL])?;
            let bias = Some(from.tensor(&format!("{name}.bias"), &[enc.dim])?);
            Ok(Linear { weight: Weight::Dense(weight), bias })
        };
        let conv = [conv(0, config.audio.mel_bins)?, conv(1, enc.dim)?];
        let layers = (0..enc.layers).map(|i| layer(from, &format!("{WHISPER}transformer.layers.{i}."), enc, None));
        let encoder = layers.collect::<Result<_, F::Error>>()?;
        let encoder_norm = from.tensor(&format!("{WHISPER}transformer.norm.weight"), &[enc.dim])?;
        let mut adapter = |i: usize, inputs: usize| {
            let name = format!("{STREAMS}audio_language_projection.{i}");
            linear(from, &name, &[dec.dim, inputs], Part::Encoder, false)
        };
        let adapter = [adapter(0, config.downsample * enc.dim)?, adapter(2, dec.dim)?];
        let embedding = from.matrix(Self::EMBEDDING, &[config.vocab, dec.dim], Part::Head)?;
        let layers = (0..dec.layers).map(|i| layer(from, &format!("layers.{i}."), dec, Some(config.ada_dim)));
        let decoder = layers.collect::<Result<_, F::Error>>()?;
        let decoder_norm = from.tensor("norm.weight", &[dec.dim])?;
        Ok(Self { conv, encoder, encoder_norm, adapter, embedding, decoder, decoder_norm })
    }

    /// The matrices of products, with the part that each belongs to.
    pub(crate) fn matrices_mut(&mut self) -> impl Iterator<Item = (&mut Weight, Part)> {
        fn of(layers: &mut [LayerWeights], part: Part) -> impl Iterator<Item = (&mut Weight, Part)> {
            fn linears(l: &mut LayerWeights) -> [&mut Weight; 7] {
                let LayerWeights { wq, wk, wv, wo, gate, up, down, .. } = l;
                [wq, wk, wv, wo, gate, up, down].map(|linear| &mut linear.weight)
            }
            layers.iter_mut().flat_map(linears).map(move |weight| (weight, part))
        }
        of(&mut self.encoder, Part::Encoder)
            .chain(self.adapter.iter_mut().map(|linear| (&mut linear.weight, Part::Encoder)))
            .chain([(&mut self.embedding, Part::Head)])
            .chain(of(&mut self.decoder, Part::Decoder))
    }

    /// Bytes of all weights, as they are stored.
    pub fn bytes(&self) -> u64 {
        let linear = |l: &Linear| l.weight.as_bytes().len() + l.bias.as_ref().map_or(0, |bias| bias.as_bytes().len());
        let layer = |l: &LayerWeights| {
            let products = [&l.wq, &l.wk, &l.wv, &l.wo, &l.gate, &l.up, &l.down].map(linear).into_iter().sum::<usize>();
            let ada = l.ada.iter().flat_map(|ada| [&ada.down, &ada.up]);
            let others = ada.chain([&l.attention_norm, &l.ffn_norm]).map(|tensor| tensor.as_bytes().len());
            products + others.sum::<usize>()
        };
        let layers: usize = self.encoder.iter().chain(&self.decoder).map(layer).sum();
        let linears: usize = self.conv.iter().chain(&self.adapter).map(linear).sum();
        let norms = [&self.encoder_norm, &self.decoder_norm].map(|norm| norm.as_bytes().len());
        (layers + linears + norms.into_iter().sum::<usize>() + self.embedding.as_bytes().len()) as u64
    }

    /// Bytes of weights that a pass of the decoder reads.
    pub fn decode_pass_bytes(&self) -> u64 {
        let layer = |l: &LayerWeights| {
            [&l.wq, &l.wk, &l.wv, &l.wo, &l.gate, &l.up, &l.down].map(|linear| linear.weight.as_bytes().len() as u64)
        };
        self.decoder.iter().flat_map(layer).sum::<u64>() + self.embedding.as_bytes().len() as u64
    }
}

/// A layer of the decoder where `ada_dim` is given, else of the encoder.
fn layer<F: Fetch>(
    from: &mut F,
    prefix: &str,
    stack: &TransformerConfig,
    ada_dim: Option<usize>,
) -> Result<LayerWeights, F::Error> {
    let &TransformerConfig { dim, ffn_dim, .. } = stack;
    let (q_dim, kv_dim) = (stack.q_dim(), stack.kv_dim());
    let biased = ada_dim.is_none();
    let part = if biased { Part::Encoder } else { Part::Decoder };
    let name = |rest: &str| format!("{prefix}{rest}");
    Ok(LayerWeights {
        attention_norm: from.tensor(&name("attention_norm.weight"), &[dim])?,
        wq: linear(from, &name("attention.wq"), &[q_dim, dim], part, biased)?,
        wk: linear(from, &name("attention.wk"), &[kv_dim, dim], part, false)?,
        wv: linear(from, &name("attention.wv"), &[kv_dim, dim], part, biased)?,
        wo: linear(from, &name("attention.wo"), &[dim, q_dim], part, biased)?,
        ffn_norm: from.tensor(&name("ffn_norm.weight"), &[dim])?,
        gate: linear(from, &name("feed_forward.w1"), &[ffn_dim, dim], part, false)?,
        up: linear(from, &name("feed_forward.w3"), &[ffn_dim, dim], part, false)?,
        down: linear(from, &name("feed_forward.w2"), &[dim, ffn_dim], part, biased)?,
        ada: match ada_dim {
            None => None,
            Some(ada_dim) => Some(AdaNorm {
                down: from.tensor(&name("ada_rms_norm_t_cond.0.weight"), &[ada_dim, dim])?,
                up: from.tensor(&name("ada_rms_norm_t_cond.2.weight"), &[dim, ada_dim])?,
            }),
        },
    })
}

fn linear<F: Fetch>(from: &mut F, name: &str, shape: &[usize], part: Part, biased: bool) -> Result<Linear, F::Error> {
    let weight = from.matrix(&format!("{name}.weight"), shape, part)?;
    let bias = if biased { Some(from.tensor(&format!("{name}.bias"), &shape[..1])?) } else { None };
    Ok(Linear { weight, bias })
}
