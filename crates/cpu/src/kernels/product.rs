//! `y[m, n] = x[m, :] · w[n, :]`: every linear layer, each convolution and the output projection.
//!
//! A tile of several rows of `x` and 4 rows of `w` walks along k together, so that each load serves several products; weights are
//! widened as they are read. One (m, n) is always the same sum in the same order: along k lane by lane, then over the lanes. How
//! many rows share a call, and in which tile a row falls, cannot change a bit.

// The tiles' loops run over registers, by index in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;
use std::ops::Range;

use voxtral_model::{LANES, Packed, TensorData};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::pairs;
use super::quads;
use super::rounded::{Quantised, Rounded};
use super::vector::{Element, Vector};
use super::{Isa, dispatch, panels};
use crate::parallel::SharedColumns;

/// The left side of a product, `[m, k]`.
#[derive(Clone, Copy)]
pub(crate) enum Activations<'a> {
    F32(&'a [f32]),
    /// Rounded, for bf16 weights on CPUs with bf16 dot products.
    Bf16(&'a Rounded),
    /// Rounded to 8 bits, for weights of 8 and 4 bits.
    Int8(&'a Quantised),
}

impl Activations<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
            Self::Int8(x) => x.len(),
        }
    }
}

/// The right side of a product, `[n, k]`.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// Row by row.
    Rows(TensorData<'a>),
    /// In panels.
    Panels(&'a Packed),
}

impl Weights<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Rows(data) => data.len(),
            Self::Panels(packed) => packed.n() * packed.k(),
        }
    }
}

/// Where the sums go: `y = sum + bias (+ y)`.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    /// `[m, n]`
    pub y: SharedColumns<'a>,
    /// `[n]`
    pub bias: Option<&'a [f32]>,
    /// Add to what `y` holds.
    pub accumulate: bool,
}

/// Computes `columns` of the output, which begin with a panel. `x` is `[m, k]`, `w` is `[n, k]`.
///
/// # Safety
/// No other thread computes the same columns of the same output.
///
/// # Panics
/// When the shapes do not fit each other, or rounded activations meet other weights than those that they are for.
pub(crate) unsafe fn product_columns(
    isa: Isa,
    x: Activations<'_>,
    w: Weights<'_>,
    k: usize,
    out: &Output<'_>,
    columns: Range<usize>,
) {
    assert!(columns.end <= out.y.columns() && w.len() == out.y.columns() * k && x.len() == out.y.rows() * k);
    assert!(!matches!(w, Weights::Panels(w) if w.k() != k), "{:?} for k {k}", w.len());
    assert!(out.bias.is_none_or(|bias| bias.len() == out.y.columns()));
    match (x, w) {
        (Activations::F32(x), Weights::Panels(w)) => {
            panels::widening(isa, x, w, out, panels_of(out, columns));
        }
        (Activations::Int8(x), Weights::Panels(w)) => {
            assert!(w.encoding().group().is_some(), "8 bit activations need weights with scales");
            quads::product(isa, x, w, out, panels_of(out, columns));
        }
        (Activations::F32(x), Weights::Rows(TensorData::Bf16(w))) => widening(isa, x, w, k, out, columns),
        (Activations::F32(x), Weights::Rows(TensorData::F16(w))) => widening(isa, x, w, k, out, columns),
        (Activations::F32(x), Weights::Rows(TensorData::F32(w))) => widening(isa, x, w, k, out, columns),
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        (Activations::Bf16(x), Weights::Rows(TensorData::Bf16(w))) if isa.has_bf16_dot() => {
            // SAFETY: the Isa says that the CPU has the instructions; shapes are asserted above, and the columns are the caller's alone
            // (here and below).
            unsafe { pairs::rows(x, w, out, panels_of(out, columns)) }
        }
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        (Activations::Bf16(x), Weights::Panels(w)) if isa.has_bf16_dot() && w.encoding().group().is_none() => {
            // SAFETY: as above.
            unsafe { pairs::packed(x, w, out, panels_of(out, columns)) }
        }
        _ => panic!("activations do not fit the weights or the CPU"),
    }
}

/// The panels that are these columns.
fn panels_of(out: &Output<'_>, columns: Range<usize>) -> Range<usize> {
    let n = out.y.columns();
    assert!([columns.start, columns.end].iter().all(|&end| end.is_multiple_of(LANES) || end == n), "half a panel");
    columns.start.div_ceil(LANES)..columns.end.div_ceil(LANES)
}

fn widening<E: Element>(isa: Isa, x: &[f32], w: &[E], k: usize, out: &Output<'_>, columns: Range<usize>) {
    dispatch!(isa, [E: Element] widening_columns(x: &[f32], w: &[E], k: usize, out: &Output<'_>, columns: Range<usize>))
}

#[inline(always)]
unsafe fn widening_columns<V: Vector, E: Element>(
    x: &[f32],
    w: &[E],
    k: usize,
    out: &Output<'_>,
    columns: Range<usize>,
) {
    // Tiles as tall as the registers allow: 4 · rows sums, a row's worth of x and one w must fit in 32 or 16 of them
    // (of 256 bits; NEON has as many bits).
    // SAFETY: the caller's promises, passed on.
    unsafe {
        match V::LANES {
            16 => walk::<Widening<V, E>, 6>(x, w, k, out, columns),
            _ => walk::<Widening<V, E>, 2>(x, w, k, out, columns),
        }
    }
}

/// One step along k of a dot product.
trait Dot {
    type X: Copy;
    type W: Copy;
    type Lanes: Copy;
    type Sum: Copy;
    /// Elements of a step.
    const STEP: usize;
    const X_ZERO: Self::X;
    const W_ZERO: Self::W;
    unsafe fn zero() -> Self::Sum;
    unsafe fn load_x(p: *const Self::X) -> Self::Lanes;
    unsafe fn load_w(p: *const Self::W) -> Self::Lanes;
    unsafe fn step(x: Self::Lanes, w: Self::Lanes, sum: Self::Sum) -> Self::Sum;
    unsafe fn finish(sum: Self::Sum) -> f32;
}

/// f32 activations, weights widened to f32.
struct Widening<V, E>(PhantomData<(V, E)>);

impl<V: Vector, E: Element> Dot for Widening<V, E> {
    type X = f32;
    type W = E;
    type Lanes = V;
    type Sum = V;
    const STEP: usize = V::LANES;
    const X_ZERO: f32 = 0.0;
    const W_ZERO: E = E::ZERO;

    #[inline(always)]
    unsafe fn zero() -> V {
        // SAFETY: the caller's promise (here and below).
        unsafe { V::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn load_x(p: *const f32) -> V {
        // SAFETY: as above.
        unsafe { V::load(p) }
    }

    #[inline(always)]
    unsafe fn load_w(p: *const E) -> V {
        // SAFETY: as above.
        unsafe { E::load(p) }
    }

    #[inline(always)]
    unsafe fn step(x: V, w: V, sum: V) -> V {
        // SAFETY: as above.
        unsafe { x.mul_add(w, sum) }
    }

    #[inline(always)]
    unsafe fn finish(sum: V) -> f32 {
        // SAFETY: as above.
        unsafe { sum.sum() }
    }
}

/// Weight rows of a tile.
const NR: usize = 4;
/// Bytes of weights that stay in the second-level cache while all rows of x pass by.
const PANEL_BYTES: usize = 256 << 10;

/// All rows of x over `columns`, panel of weights by panel, so that weights come from memory once.
#[inline(always)]
unsafe fn walk<D: Dot, const MR: usize>(x: &[D::X], w: &[D::W], k: usize, out: &Output<'_>, columns: Range<usize>) {
    let rows = out.y.rows();
    let panel = (PANEL_BYTES / (k * size_of::<D::W>())).max(1).next_multiple_of(NR);
    for n0 in columns.clone().step_by(panel) {
        let n1 = columns.end.min(n0 + panel);
        let mut m = 0;
        while m < rows {
            let height = MR.min(rows - m);
            for n in (n0..n1).step_by(NR) {
                let width = NR.min(n1 - n);
                // SAFETY: rows m..m+height of x and n..n+width of w exist, by the assertions of `product_columns`.
                unsafe {
                    let (x, w) = (x.as_ptr().add(m * k), w.as_ptr().add(n * k));
                    match (height, width) {
                        (6, NR) => tile::<D, 6, NR>(x, w, k, out, m, n),
                        (5, NR) => tile::<D, 5, NR>(x, w, k, out, m, n),
                        (4, NR) => tile::<D, 4, NR>(x, w, k, out, m, n),
                        (3, NR) => tile::<D, 3, NR>(x, w, k, out, m, n),
                        (2, NR) => tile::<D, 2, NR>(x, w, k, out, m, n),
                        (1, NR) => tile::<D, 1, NR>(x, w, k, out, m, n),
                        _ => {
                            for (i, j) in (0..height).flat_map(|i| (0..width).map(move |j| (i, j))) {
                                tile::<D, 1, 1>(x.add(i * k), w.add(j * k), k, out, m + i, n + j);
                            }
                        }
                    }
                }
            }
            m += height;
        }
    }
}

/// `M` rows of x against `N` rows of w.
#[inline(always)]
unsafe fn tile<D: Dot, const M: usize, const N: usize>(
    x: *const D::X,
    w: *const D::W,
    k: usize,
    out: &Output<'_>,
    m0: usize,
    n0: usize,
) {
    // SAFETY: x has M rows and w has N rows of k elements, by the caller's promise; the tail is read from padded copies.
    unsafe {
        let mut sums = [[D::zero(); N]; M];
        let whole = k - k % D::STEP;
        let mut at = 0;
        while at < whole {
            let mut xs = [D::load_x(x.add(at)); M];
            for m in 1..M {
                xs[m] = D::load_x(x.add(m * k + at));
            }
            for n in 0..N {
                let lanes = D::load_w(w.add(n * k + at));
                for m in 0..M {
                    sums[m][n] = D::step(xs[m], lanes, sums[m][n]);
                }
            }
            at += D::STEP;
        }
        if whole < k {
            let mut xs = [D::load_x(pad(x.add(whole), k - whole, D::X_ZERO).as_ptr()); M];
            for m in 1..M {
                xs[m] = D::load_x(pad(x.add(m * k + whole), k - whole, D::X_ZERO).as_ptr());
            }
            for n in 0..N {
                let lanes = D::load_w(pad(w.add(n * k + whole), k - whole, D::W_ZERO).as_ptr());
                for m in 0..M {
                    sums[m][n] = D::step(xs[m], lanes, sums[m][n]);
                }
            }
        }
        for m in 0..M {
            for n in 0..N {
                let sum = D::finish(sums[m][n]) + out.bias.map_or(0.0, |bias| bias[n0 + n]);
                // (m0 + m, n0 + n) is in bounds, and this thread's alone.
                let y = out.y.cell(m0 + m, n0 + n);
                *y = if out.accumulate { *y + sum } else { sum };
            }
        }
    }
}

/// `len` elements, then zeros: as many as the widest step.
#[inline(always)]
unsafe fn pad<T: Copy>(p: *const T, len: usize, zero: T) -> [T; 32] {
    let mut padded = [zero; 32];
    // SAFETY: `len` elements can be read, by the caller's promise, and are fewer than a step.
    unsafe { std::ptr::copy_nonoverlapping(p, padded.as_mut_ptr(), len) };
    padded
}

#[cfg(test)]
mod tests;
