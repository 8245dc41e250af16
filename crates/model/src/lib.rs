//! The model as it lies on disk and as a backend runs it.
//!
//! ```text
//! params.json | config.json ─ModelConfig─┐
//! *.safetensors ────────Weights──────────┼─ Model ─→ a Backend (crates cpu, cuda)
//! tekken.json ──────────Tokenizer────────┘
//! ```
//!
//! [`Backend`] is the whole contract between the model's arithmetic and everything above it.

mod backend;
mod config;
mod delay;
mod numerics;
mod tensor;
mod weights;

pub use backend::{
    AUDIO_WINDOW, Backend, BackendError, BackendInfo, DecodeSpan, EncodeSpan, MAX_DECODE_ROWS, MAX_ENCODE_TOKENS,
    Prediction, Stage, StreamId,
};
pub use config::{AudioConfig, ModelConfig, TransformerConfig};
pub use delay::{Delay, DelayError, TOKEN_MS};
pub use numerics::{Rope, ada_scales, gelu};
pub use tensor::{Storage, Tensor, TensorData};
pub use weights::{AdaNorm, LayerWeights, Linear, Weights};
