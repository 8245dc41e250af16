//! Work split over threads.

mod team;

use std::marker::PhantomData;
use std::ops::Range;

pub(crate) use team::Team;

/// Multiply-adds below which waking another thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 15;

impl Team {
    /// Runs `work` on consecutive ranges that cover `0..n`, each a multiple of `grain` long but for the last. `cost` is the number of
    /// multiply-adds of all of it. What a range computes must not depend on how the ranges are cut.
    pub(crate) fn split(&self, n: usize, grain: usize, cost: usize, work: impl Fn(Range<usize>) + Sync) {
        if cost < WORTH_A_THREAD || n <= grain || self.threads() == 1 {
            return work(0..n);
        }
        // Several pieces a thread, so that one that lags is helped out.
        let pieces = (cost / WORTH_A_THREAD).clamp(1, 8 * self.threads());
        let len = n.div_ceil(pieces).next_multiple_of(grain);
        self.run(n.div_ceil(len), &|i| work(i * len..n.min((i + 1) * len)));
    }

    /// Runs `work` on every row of a matrix of `width` columns; `cost` is that of all rows.
    pub(crate) fn each_row<T: Send>(
        &self,
        matrix: &mut [T],
        width: usize,
        cost: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let shared = SharedColumns::new(matrix, width);
        self.split(shared.rows(), 1, cost, |rows| {
            for row in rows {
                // SAFETY: the ranges of `split` do not overlap, and the matrix is nobody else's; a row is `width` cells.
                work(row, unsafe { std::slice::from_raw_parts_mut(shared.cell(row, 0), width) });
            }
        });
    }
}

/// A row-major matrix that threads fill together, each its own cells.
#[derive(Clone, Copy)]
pub(crate) struct SharedColumns<'a, T = f32> {
    cells: *mut T,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: cells are only reached through `cell`, whose callers promise that no two threads touch the same one.
unsafe impl<T: Send> Sync for SharedColumns<'_, T> {}

impl<'a, T> SharedColumns<'a, T> {
    /// Over `matrix`, `[rows, columns]`.
    pub(crate) fn new(matrix: &'a mut [T], columns: usize) -> Self {
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
    pub(crate) unsafe fn cell(&self, row: usize, column: usize) -> *mut T {
        // SAFETY: in bounds, by the caller's promise.
        unsafe { self.cells.add(row * self.columns + column) }
    }
}
