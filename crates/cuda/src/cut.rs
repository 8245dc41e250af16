//! How work is cut: k of a product, and the rows and keys of attention. Shapes and positions decide, never the rows beside a row, so that
//! its sums never depend on its batch.

use voxtral_model::TransformerConfig;

use crate::limits::{CHUNK, KEY_CHUNK, KEY_RUN, MAX_SLICES, MAX_SPLITS, STREAM_ROWS, queries};

/// Into how many splits of k, for different blocks, a product is cut whose result `add_rms_norm` adds to the residual stream: few outputs
/// need the parallelism.
pub fn splits(n: usize, k: usize) -> usize {
    let wanted = if (2048..4096).contains(&n) { MAX_SPLITS } else { 1 };
    at_most(wanted, k.div_ceil(CHUNK))
}

/// Into how many slices, for the warps of a block, each of `splits` splits of k is cut.
pub fn slices(n: usize, k: usize, splits: usize) -> usize {
    let wanted = match n {
        65536.. => 1,
        _ if k < 2048 => MAX_SLICES / 2,
        _ => MAX_SLICES,
    };
    at_most(wanted, k.div_ceil(CHUNK) / splits)
}

/// `wanted`, a power of two, or a smaller one.
fn at_most(wanted: usize, chunks: usize) -> usize {
    wanted.min(1 << chunks.ilog2())
}

/// How attention shares the rows of a pass out. Results do not depend on `max_rows`, which says which kernel works and on how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Query heads that share a key head.
    pub group: usize,
    /// Keys that a row sees.
    pub window: usize,
    /// Most rows of the pass.
    pub max_rows: usize,
}

impl Cut {
    const FEW_ROWS: usize = STREAM_ROWS[0];
    /// An item is a chunk of keys where there are no more than this, so that there are enough of them, else a run.
    const FEW_KEYS: usize = 512;

    /// Of a stack's pass.
    pub fn new(c: &TransformerConfig, max_rows: usize) -> Self {
        Self { group: c.heads / c.kv_heads, window: c.window, max_rows }
    }

    /// Whether the rows are too few to share their keys.
    pub fn few(&self) -> bool {
        self.max_rows <= Self::FEW_ROWS
    }

    /// Most rows of an item.
    pub fn rows(&self) -> usize {
        queries(self.few()) / self.group
    }

    /// Keys of an item, where a tile of rows sees so many.
    pub fn keys(&self, seen: usize) -> usize {
        if self.few() || seen <= Self::FEW_KEYS { KEY_CHUNK } else { KEY_RUN }
    }

    /// Most partial results of a row, and most items of a tile of rows.
    pub fn partials(&self) -> usize {
        // Each further row of a tile sees one more key, and the first item begins before the first key.
        let most = |seen: usize| (seen + queries(false)).div_ceil(self.keys(seen)) + 1;
        most(self.window).max(most(self.window.min(Self::FEW_KEYS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_slices_follow_the_shape_alone() {
        assert_eq!(slices(131072, 3072, 1), 1);
        assert_eq!((splits(6144, 3072), slices(6144, 3072, 1)), (1, 8));
        assert_eq!((splits(3072, 9216), slices(3072, 9216, 2)), (2, 8));
        assert_eq!((splits(1280, 2048), slices(1280, 2048, 1)), (1, 8));
        assert_eq!((splits(2048, 16), slices(2048, 16, 1)), (1, 1));
        assert_eq!((slices(10240, 1280, 1), slices(64, 80, 1), slices(64, 80, 2)), (4, 2, 1));
    }
}
