//! What products over panels of [`LANES`] outputs share, and the plainest of them: any packed matrix, widened to f32.
//!
//! Lane by lane along k, then over the lanes, each sum is the one that `product` takes over the same weights row by row, so that a
//! matrix that is packed without loss comes to the same bits.

use std::ops::Range;

use voxtral_model::{BLOCK, LANES, Packed};

use super::product::Output;
use super::vector::Vector;
use super::{Isa, dispatch};

/// Rows that share the widening of a block.
const ROWS: usize = 8;

/// `panels` of `y = x · w` for f32 `x`, `[m, k]`.
///
/// The caller asserts the shapes, and that no other thread computes the same columns.
pub(super) fn widening(isa: Isa, x: &[f32], w: &Packed, out: &Output<'_>, panels: Range<usize>) {
    dispatch!(isa, [] widening_panels(x: &[f32], w: &Packed, out: &Output<'_>, panels: Range<usize>))
}

#[inline(always)]
unsafe fn widening_panels<V: Vector>(x: &[f32], w: &Packed, out: &Output<'_>, panels: Range<usize>) {
    let k = w.k();
    let mut weights = [[0.0f32; LANES]; BLOCK];
    // Sums of each row: lanes along k, by outputs.
    let mut sums = [[[0.0f32; LANES]; LANES]; ROWS];
    for index in panels {
        let panel = w.panel(index);
        for (chunk, rows) in x.chunks(ROWS * k).enumerate() {
            let rows = rows.chunks_exact(k);
            sums[..rows.len()].as_flattened_mut().fill([0.0; LANES]);
            for block in 0..k.div_ceil(BLOCK) {
                w.unpack(&panel, block, &mut weights);
                let inputs = block * BLOCK..k.min((block + 1) * BLOCK);
                for (row, sums) in rows.clone().zip(&mut sums) {
                    // SAFETY: the caller's promise about V.
                    unsafe { add_block::<V>(&row[inputs.clone()], &weights, sums) };
                }
            }
            for (row, sums) in sums[..rows.len()].iter_mut().enumerate() {
                let mut half = V::LANES / 2;
                while half > 0 {
                    let (low, high) = sums.split_at_mut(half);
                    for (low, high) in low.iter_mut().zip(&*high) {
                        low.iter_mut().zip(high).for_each(|(low, high)| *low += high);
                    }
                    half /= 2;
                }
                for slice in (0..LANES).step_by(V::LANES) {
                    // SAFETY: the row is one of x's; the caller's promises about V and about `out`.
                    unsafe {
                        finish(out, chunk * ROWS + row, index * LANES + slice, V::load(sums[0].as_ptr().add(slice)));
                    }
                }
            }
        }
    }
}

/// Adds the products of a block, input by input, to the lane that the input falls into.
#[inline(always)]
unsafe fn add_block<V: Vector>(x: &[f32], weights: &[[f32; LANES]; BLOCK], sums: &mut [[f32; LANES]; LANES]) {
    for (lane, sums) in sums.iter_mut().enumerate().take(V::LANES) {
        for slice in (0..LANES).step_by(V::LANES) {
            // SAFETY: slice + V::LANES is at most LANES, the length of each row of weights and sums; x has at most BLOCK inputs.
            unsafe {
                let at = sums.as_mut_ptr().add(slice);
                let mut sum = V::load(at);
                let mut k = lane;
                while k < x.len() {
                    sum = V::splat(*x.as_ptr().add(k))
                        .mul_add(V::load(weights.as_ptr().add(k).cast::<f32>().add(slice)), sum);
                    k += V::LANES;
                }
                sum.store(at);
            }
        }
    }
}

/// Puts the sums of a row from `column` on where they go; those of columns that there are not are left out.
///
/// # Safety
/// The CPU has V's instructions; `row` is one of the output's, and its cells from `column` on are this thread's alone.
#[inline(always)]
pub(super) unsafe fn finish<V: Vector>(out: &Output<'_>, row: usize, column: usize, sum: V) {
    let columns = out.y.columns();
    // SAFETY: the caller's promises; whole vectors are read and written only where they lie inside.
    unsafe {
        if column + V::LANES <= columns {
            let mut y = sum;
            if let Some(bias) = out.bias {
                y = y.add(V::load(bias.as_ptr().add(column)));
            }
            let at = out.y.cell(row, column);
            if out.accumulate {
                y = V::load(at).add(y);
            }
            y.store(at);
        } else {
            let mut lanes = [0.0; LANES];
            sum.store(lanes.as_mut_ptr());
            for (column, sum) in (column..columns).zip(lanes) {
                let y = sum + out.bias.map_or(0.0, |bias| bias[column]);
                let at = out.y.cell(row, column);
                *at = if out.accumulate { *at + y } else { y };
            }
        }
    }
}
