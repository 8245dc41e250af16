//! Products of bf16 activations and bf16 weights on CPUs with dot products of bf16.
//!
//! Sums go along k, two inputs after two, however the weights are stored, so that what is packed without loss comes to the same bits as
//! row by row. Each weight is read, and unpacked, once: half a block of it stays in registers while all rows pass, whose sums are in the
//! first-level cache.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use voxtral_model::BLOCK;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::{packed, rows};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{packed, rows};

/// Inputs of half a block.
const HALF: usize = BLOCK / 2;
/// Rows whose sums stay in the first-level cache.
const ROWS: usize = 256;
