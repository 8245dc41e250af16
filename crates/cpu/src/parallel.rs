//! Work split over threads.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// Multiply-adds below which waking another thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 17;

/// Runs `work` on consecutive ranges that cover `0..n`, each a multiple of `grain` long but for the last. `cost` is the number of
/// multiply-adds of all of it. What a range computes must not depend on how the ranges are cut.
pub(crate) fn split(n: usize, grain: usize, cost: usize, work: impl Fn(Range<usize>) + Sync) {
    if cost < WORTH_A_THREAD || n <= grain || rayon::current_num_threads() == 1 {
        return work(0..n);
    }
    // Several pieces a thread, so that one that lags is helped out.
    let pieces = (cost / WORTH_A_THREAD).clamp(1, 8 * rayon::current_num_threads());
    let len = n.div_ceil(pieces).next_multiple_of(grain);
    (0..n.div_ceil(len)).into_par_iter().for_each(|i| work(i * len..n.min((i + 1) * len)));
}

/// A row-major matrix that threads fill together, each its own cells.
#[derive(Clone, Copy)]
pub(crate) struct SharedColumns<'a> {
    cells: *mut f32,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: cells are only reached through `cell`, whose callers promise that no two threads touch the same one.
unsafe impl Sync for SharedColumns<'_> {}

impl<'a> SharedColumns<'a> {
    /// Over `matrix`, `[rows, columns]`.
    pub(crate) fn new(matrix: &'a mut [f32], columns: usize) -> Self {
        assert!(columns > 0 && matrix.len().is_multiple_of(columns));
        Self { cells: matrix.as_mut_ptr(), rows: matrix.len() / columns, columns, matrix: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The cell (row, column).
    ///
    /// # Safety
    /// `row < rows`, `column < columns`, and no other thread touches the cell while the result is in use.
    pub(crate) unsafe fn cell(&self, row: usize, column: usize) -> *mut f32 {
        // SAFETY: in bounds, by the caller's promise.
        unsafe { self.cells.add(row * self.columns + column) }
    }
}

/// Runs `work` on every row of a matrix of `width` columns; `cost` is that of all rows.
pub(crate) fn each_row(matrix: &mut [f32], width: usize, cost: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if cost < WORTH_A_THREAD {
        matrix.chunks_exact_mut(width).enumerate().for_each(|(row, data)| work(row, data));
    } else {
        matrix.par_chunks_exact_mut(width).enumerate().for_each(|(row, data)| work(row, data));
    }
}
