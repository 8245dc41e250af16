//! Every dimension of a model, from its `params.json` (native) or `config.json` (Hugging Face).

/// The log-mel front-end.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioConfig {
    /// Samples a second of the audio that the model hears.
    pub sample_rate: usize,
    /// Mel bins of a frame.
    pub mel_bins: usize,
    /// Samples between two frames.
    pub hop: usize,
    /// Samples under the window of a frame, also the length of the Fourier transform.
    pub window: usize,
    /// log10 of the loudest mel power; features are clamped to 8 below it.
    pub log_mel_max: f32,
    /// Samples of one token: 80 ms, one decoder position.
    pub samples_per_token: usize,
}

/// One stack of transformer layers; encoder and decoder are both described by it.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformerConfig {
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; `heads` is a multiple of it.
    pub kv_heads: usize,
    /// Width of a head. `heads * head_dim` need not be `dim`.
    pub head_dim: usize,
    /// Width of the SwiGLU hidden layer.
    pub ffn_dim: usize,
    /// Positions that a query sees, its own included.
    pub window: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm.
    pub norm_eps: f32,
}

impl TransformerConfig {
    /// Width of the queries of one position: `heads * head_dim`.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the keys, and of the values, of one position: `kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Every dimension of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Front-end.
    pub audio: AudioConfig,
    /// Audio encoder, causal, 50 positions a second.
    pub encoder: TransformerConfig,
    /// Encoder positions that the adapter joins into one token.
    pub downsample: usize,
    /// Text decoder, one position a token.
    pub decoder: TransformerConfig,
    /// Rows of the embedding, which is also the output projection.
    pub vocab: usize,
    /// Bottleneck of the delay conditioning.
    pub ada_dim: usize,
}

impl ModelConfig {
    /// Stride of the second convolution: mel frames of one encoder position.
    pub const CONV_STRIDE: usize = 2;
    /// Taps of both convolutions.
    pub const CONV_KERNEL: usize = 3;

    /// Mel frames of one token.
    pub fn frames_per_token(&self) -> usize {
        Self::CONV_STRIDE * self.downsample
    }
}
