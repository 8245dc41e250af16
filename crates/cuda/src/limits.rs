//! The numbers on which host code and kernels agree; everything else is derived from them.

use voxtral_model::MAX_DECODE_ROWS;

/// Bytes of device memory that the driver keeps for recorded passes and loaded kernels; streams leave them free.
pub const RESERVE: u64 = 64 << 20;

/// Most tokens of an encode pass: enough tiles for every SM of a large GPU.
pub const MAX_ENCODE_TOKENS: usize = 256;

/// The most rows of each streaming product kernel.
pub const STREAM_ROWS: [usize; 2] = [8, 32];

/// Rows of a decode pass that share a recording.
pub const DECODE_BUCKETS: [usize; 4] = [STREAM_ROWS[0], STREAM_ROWS[1], 64, MAX_DECODE_ROWS];

/// Rows whose logits are kept at a time, for their runners-up: what the longest streaming product takes.
pub const LOGIT_ROWS: usize = STREAM_ROWS[1];

/// Tokens of an encode pass that share a recording.
pub const ENCODE_BUCKETS: [usize; 7] = [2, 8, 16, 32, 64, 128, MAX_ENCODE_TOKENS];

/// Widest row that `add_rms_norm` holds.
pub const MAX_DIM: usize = 4096;

/// Columns of k that a product takes at once; weights and what they meet are padded to it.
pub const CHUNK: usize = 32;

/// Outputs of a tile of `product_tile`, to which weights are padded, and of which the head leaves the best.
pub const TILE_OUTPUTS: usize = 128;

/// Rows of a tile of `product_tile`.
pub const TILE_ROWS: usize = 64;

/// The most splits of k over blocks (split-K).
pub const MAX_SPLITS: usize = 2;

/// The most slices of a split over the warps of a block (sliced-K).
pub const MAX_SLICES: usize = 8;

/// Widest head of attention.
pub const MAX_HEAD_DIM: usize = 128;

/// Slots of a block of a key and value ring (`SLOT_BLOCK` in kernels/common.cuh); a ring is some of these.
pub const SLOT_BLOCK: usize = 32;

/// Keys that attention takes at once, at absolute positions (`CHUNK` in kernels/attention.cuh): two blocks of a ring.
pub const KEY_CHUNK: usize = 2 * SLOT_BLOCK;

/// Keys whose chunks attention joins before it joins them with others.
pub const KEY_RUN: usize = 256;

/// Queries of an item of attention: many share their keys, a `few` have nobody to share with.
pub const fn queries(few: bool) -> usize {
    if few { 16 } else { 64 }
}

/// Most query heads that share a key head: an item holds those of one row at least.
pub const MAX_GROUP: usize = queries(true);
