//! The model as it lies on disk and as a backend runs it.
//!
//! ```text
//! params.json | config.json ─ModelConfig─┐
//! *.safetensors ────────Weights──────────┼─ Model ─→ a Backend (crates cpu, cuda)
//! tekken.json ──────────Tokenizer────────┘
//! ```
//!
//! [`Backend`] is the whole contract between the model's arithmetic and everything above it; [`conformance`] holds a backend to it.
//! [`Model::open`] takes a folder, [`Model::embedded`] a model that is part of the program, [`Model::synthetic`] and
//! [`write_synthetic`] make one of any size.

#![deny(unsafe_code)]

mod backend;
mod checkpoint;
mod config;
pub mod conformance;
mod delay;
mod error;
mod files;
mod ledger;
mod mapping;
mod model;
mod numerics;
mod packed;
mod quantise;
mod synth;
mod tensor;
pub mod testing;
mod threads;
mod tokenizer;
mod weights;
mod write;

pub use backend::{
    AUDIO_WINDOW, Backend, BackendError, BackendInfo, DecodeSpan, EncodeSpan, LIVE_SPAN, MAX_DECODE_ROWS, Prediction,
    RUNNERS_UP, RunnerUp, Stage, StreamId,
};
pub use config::{AudioConfig, ConfigError, ModelConfig, TransformerConfig};
pub use delay::{Delay, DelayError, TOKEN_MS};
pub use error::{JsonError, ModelError};
pub use ledger::{Entry, Ledger};
pub use mapping::Mapping;
pub use model::{Embedded, Model};
pub use numerics::{Rope, ada_scales, gelu};
pub use packed::{
    BLOCK, Deviation, Encoding, Escape, Group, INT4_ZERO, INT8_ZERO, LANES, Packed, Panel, Part, Plan, escapes_of,
};
pub use quantise::{Quantised, quantise};
pub use synth::{Recipe, SpecError, write_synthetic};
pub use tensor::{Storage, Tensor, TensorData};
pub use tokenizer::{Kind, Tokenizer, TokenizerError};
pub use weights::{AdaNorm, LayerWeights, Linear, Weight, Weights};

// Tensors are views of files that are little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "big-endian machines are not supported");
