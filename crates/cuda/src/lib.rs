//! The model on NVIDIA GPUs (compute capability 8.0 and newer), with nothing but the driver installed.
//!
//! ```text
//! kernels/*.cu ─cargo xtask kernels→ prebuilt/*.{cubin,ptx} ─images─┐
//! Weights ─weights→ device memory ──────────────────────────────────┼─ passes: recorded launches ─ backend: CudaBackend
//! driver: libcuda, loaded when asked for ─ kernels: one launcher each┘
//! limits, cut: what host and kernels agree on, and how work is cut
//! ```
//!
//! Per pass the host writes a table of rows (stream, position, id) and reads ids and log-probabilities; weights, key and value rings
//! and audio embeddings never leave the device. What a row comes to has the same bits for every number of rows in the call: no
//! kernel's order of additions depends on it.
//!
//! Weights are bf16 (other checkpoints are rounded to it on upload) or packed, and then decoded to bf16 in registers. bf16 are keys, values and the inputs of products; sums, norms,
//! softmax and the residual stream are f32.

mod backend;
mod device;
mod passes;
mod per_pass;
mod scratch;
mod streams;
mod weights;

// Public for the tests that check every kernel against its twin; no promise is made about them.
#[doc(hidden)]
pub mod cut;
#[doc(hidden)]
pub mod driver;
#[doc(hidden)]
pub mod images;
#[doc(hidden)]
pub mod kernels;
#[doc(hidden)]
pub mod limits;
#[doc(hidden)]
pub mod packed;
#[doc(hidden)]
pub mod table;

pub use backend::{CudaBackend, CudaOptions};
pub use device::DeviceReport;
pub use driver::DriverError;
