//! Every dimension of a model, and what of it makes sense. [`parse`] reads them from `params.json` and `config.json`.

mod parse;

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

use crate::{JsonError, TOKEN_MS};

/// Why a model's description was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not JSON.
    #[error("not valid JSON: {0}")]
    Json(#[from] JsonError),
    /// The file does not say what the arithmetic depends on.
    #[error("{field} is missing, and every result depends on it")]
    Missing {
        /// The field, with the objects that it lies in.
        field: String,
    },
    /// A field has a value that no model can have.
    #[error("{field} is {value}: {why}")]
    Value {
        /// The field, with the objects that it lies in.
        field: String,
        /// What it says.
        value: String,
        /// What it should have been.
        why: String,
    },
    /// The model uses something that this engine has not.
    #[error("{field} is {value}: this engine runs only models where it is {only}")]
    Unsupported {
        /// The field, with the objects that it lies in.
        field: String,
        /// What it says.
        value: String,
        /// The one value that is supported.
        only: String,
    },
}

impl ConfigError {
    fn value(field: impl Into<String>, value: impl Display, why: impl Into<String>) -> Self {
        Self::Value { field: field.into(), value: value.to_string(), why: why.into() }
    }
}

/// The log-mel front-end.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioConfig {
    /// Samples a second of the audio that the model hears: [`AudioConfig::SAMPLE_RATE`].
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

impl AudioConfig {
    /// The one rate that audio is resampled to.
    pub const SAMPLE_RATE: usize = 16_000;

    fn check_rate(field: impl Into<String>, rate: usize) -> Result<(), ConfigError> {
        if rate == Self::SAMPLE_RATE {
            return Ok(());
        }
        let only = Self::SAMPLE_RATE.to_string();
        Err(ConfigError::Unsupported { field: field.into(), value: rate.to_string(), only })
    }
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

    /// Bounds are far beyond any real model and far below what would overflow or exhaust memory.
    fn validate(&self, stack: &str) -> Result<(), ConfigError> {
        let field = |name: &str| format!("{stack}.{name}");
        within(field("dim"), self.dim, 2..=65_536)?;
        within(field("layers"), self.layers, 1..=512)?;
        within(field("heads"), self.heads, 1..=1024)?;
        within(field("kv_heads"), self.kv_heads, 1..=1024)?;
        within(field("head_dim"), self.head_dim, 2..=512)?;
        within(field("ffn_dim"), self.ffn_dim, 1..=262_144)?;
        within(field("window"), self.window, 1..=1 << 17)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let why = format!("it must divide {stack}.heads, which is {}", self.heads);
            return Err(ConfigError::value(field("kv_heads"), self.kv_heads, why));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::value(field("head_dim"), self.head_dim, "it must be even: rotary pairs"));
        }
        // Below 1, powers of it overflow.
        within(field("rope_theta"), self.rope_theta, 1.0..=1e12)?;
        // The square root of less is too small to divide by in f32.
        within(field("norm_eps"), self.norm_eps, 1e-30..=1.0)
    }

    fn parameters(&self) -> u64 {
        let attention = 2 * self.dim * (self.q_dim() + self.kv_dim());
        self.layers as u64 * (attention + 3 * self.dim * self.ffn_dim + 2 * self.dim) as u64
    }
}

pub(crate) fn within<T: PartialOrd + Debug>(
    field: impl Into<String>,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    // What is written like this stays short, however large or small it is.
    let why = format!("it must be {:?} to {:?}", range.start(), range.end());
    Err(ConfigError::value(field, format!("{value:?}"), why))
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

    /// The released model, Voxtral Mini 4B Realtime.
    pub fn released() -> Self {
        let encoder = TransformerConfig {
            dim: 1280,
            layers: 32,
            heads: 32,
            kv_heads: 32,
            head_dim: 64,
            ffn_dim: 5120,
            window: 750,
            rope_theta: 1e6,
            norm_eps: 1e-5,
        };
        let decoder = TransformerConfig {
            dim: 3072,
            layers: 26,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            ffn_dim: 9216,
            window: 8192,
            ..encoder.clone()
        };
        let audio = AudioConfig {
            sample_rate: 16_000,
            mel_bins: 128,
            hop: 160,
            window: 400,
            log_mel_max: 1.5,
            samples_per_token: 1280,
        };
        Self { audio, encoder, downsample: 4, decoder, vocab: 131_072, ada_dim: 32 }
    }

    /// Whether the dimensions are sane and fit each other.
    ///
    /// # Errors
    /// Names the first field that is not, and its value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let audio = &self.audio;
        AudioConfig::check_rate("audio.sample_rate", audio.sample_rate)?;
        within("audio.mel_bins", audio.mel_bins, 1..=512)?;
        within("audio.hop", audio.hop, 1..=audio.sample_rate)?;
        within("downsample", self.downsample, 1..=64)?;
        within("vocab", self.vocab, 34..=1 << 20)?;
        within("ada_dim", self.ada_dim, 1..=4096)?;
        within("audio.log_mel_max", audio.log_mel_max, -10.0..=10.0)?;
        if audio.samples_per_token * 1000 != audio.sample_rate * TOKEN_MS as usize {
            let why = format!("a token must be {TOKEN_MS} ms of {} samples a second", audio.sample_rate);
            return Err(ConfigError::value("audio.samples_per_token", audio.samples_per_token, why));
        }
        if audio.samples_per_token != audio.hop * self.frames_per_token() {
            let why = format!(
                "it must be hop {} times stride {} times downsample {}",
                audio.hop,
                Self::CONV_STRIDE,
                self.downsample
            );
            return Err(ConfigError::value("audio.samples_per_token", audio.samples_per_token, why));
        }
        // What the silence before the audio brings is computed ahead but for its last token: the window of a frame may reach one
        // token into the future, and no further.
        within("audio.window", audio.window, audio.hop..=2 * (audio.samples_per_token + audio.hop))?;
        self.encoder.validate("encoder")?;
        self.decoder.validate("decoder")?;
        if !self.decoder.dim.is_multiple_of(2) {
            let why = "it must be even: the delay's cosines and sines are half of it each";
            return Err(ConfigError::value("decoder.dim", self.decoder.dim, why));
        }
        Ok(())
    }

    /// Weights of such a model, all elements of all tensors.
    pub fn parameters(&self) -> u64 {
        let (enc, dec) = (&self.encoder, &self.decoder);
        let conv = Self::CONV_KERNEL * enc.dim * (self.audio.mel_bins + enc.dim) + 2 * enc.dim;
        let encoder_biases = enc.layers * (2 * enc.dim + enc.q_dim() + enc.kv_dim());
        let adapter = dec.dim * (self.downsample * enc.dim + dec.dim);
        let ada = dec.layers * 2 * dec.dim * self.ada_dim;
        let rest = conv + encoder_biases + enc.dim + adapter + self.vocab * dec.dim + ada + dec.dim;
        enc.parameters() + dec.parameters() + rest as u64
    }

    /// Bytes of weights that a step of the decoder reads, with so many bytes for each: its products and the output projection.
    pub fn decode_step_bytes(&self, weight_bytes: u64) -> u64 {
        let d = &self.decoder;
        let layer = 2 * d.dim * (d.q_dim() + d.kv_dim()) + 3 * d.dim * d.ffn_dim;
        weight_bytes * (d.layers * layer + self.vocab * d.dim) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_released_model_has_as_many_parameters_as_its_file() {
        let config = ModelConfig::released();
        config.validate().unwrap();
        assert_eq!(config.parameters(), 4_429_679_360);
    }

    #[test]
    fn a_step_of_the_released_model_reads_most_of_it() {
        assert_eq!(ModelConfig::released().decode_step_bytes(2), 6_857_687_040);
    }

    #[test]
    fn names_the_field_that_makes_no_sense() {
        type Break = fn(&mut ModelConfig);
        let cases: [(Break, &str); 21] = [
            (|c| c.decoder.dim = 0, "decoder.dim is 0: "),
            (|c| c.decoder.dim = 1 << 40, "decoder.dim is 1099511627776: "),
            (|c| c.decoder.dim = 3073, "decoder.dim is 3073: it must be even"),
            (|c| c.encoder.layers = 1_000_000, "encoder.layers is 1000000: "),
            (|c| c.decoder.kv_heads = 5, "decoder.kv_heads is 5: it must divide decoder.heads, which is 32"),
            (|c| c.encoder.head_dim = 33, "encoder.head_dim is 33: it must be even"),
            (|c| c.encoder.window = 0, "encoder.window is 0: "),
            (|c| c.decoder.rope_theta = f64::NAN, "decoder.rope_theta is NaN: "),
            (|c| c.decoder.norm_eps = 0.0, "decoder.norm_eps is 0.0: "),
            (|c| c.vocab = 33, "vocab is 33: "),
            (|c| c.ada_dim = 0, "ada_dim is 0: "),
            (|c| c.audio.hop = 80, "audio.samples_per_token is 1280: it must be hop 80"),
            (|c| c.audio.window = 159, "audio.window is 159: "),
            (|c| c.audio.window = 2881, "audio.window is 2881: it must be 160 to 2880"),
            (
                |c| c.audio.sample_rate = 8000,
                "audio.sample_rate is 8000: this engine runs only models where it is 16000",
            ),
            (|c| c.audio.log_mel_max = f32::INFINITY, "audio.log_mel_max is inf: "),
            (|c| c.audio.log_mel_max = 11.0, "audio.log_mel_max is 11.0: it must be -10.0 to 10.0"),
            (|c| c.encoder.rope_theta = 1e-300, "encoder.rope_theta is 1e-300: it must be 1.0 to 1000000000000.0"),
            (|c| c.encoder.norm_eps = 1e-40, "encoder.norm_eps is 1e-40: it must be 1e-30 to 1.0"),
            (|c| c.audio.samples_per_token = 640, "audio.samples_per_token is 640: a token must be 80 ms"),
            (|c| c.downsample = 8, "audio.samples_per_token is 1280: it must be hop"),
        ];
        for (break_it, message) in cases {
            let mut config = ModelConfig::released();
            break_it(&mut config);
            let said = config.validate().unwrap_err().to_string();
            assert!(said.starts_with(message), "{said}");
        }
    }
}
