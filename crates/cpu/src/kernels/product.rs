//! `y[m, n] = x[m, :] · w[n, :]`: every linear layer, each convolution and the output projection.
//!
//! A tile of several rows of `x` and 4 rows of `w` walks along k together, so that each load serves several products; weights are
//! widened as they are read. One (m, n) is always the same sum in the same order: along k lane by lane, then over the lanes. How
//! many rows share a call, and in which tile a row falls, cannot change a bit.

// The tiles' loops run over registers, by index in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;
use voxtral_model::TensorData;

use super::vector::{Element, Vector};
use super::{Isa, dispatch};
use crate::parallel::SharedColumns;

/// The left side of a product, `[m, k]`.
#[derive(Clone, Copy)]
pub(crate) enum Activations<'a> {
    F32(&'a [f32]),
    /// Rounded, for bf16 weights on CPUs with bf16 dot products.
    Bf16(&'a [bf16]),
}

impl Activations<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
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

/// Computes `columns` of the output. `x` is `[m, k]`, `w` is `[n, k]`.
///
/// # Safety
/// No other thread computes the same columns of the same output.
///
/// # Panics
/// When the shapes do not fit each other, or bf16 activations meet other weights or a CPU without bf16 dot products.
pub(crate) unsafe fn product_columns(
    isa: Isa,
    x: Activations<'_>,
    w: TensorData<'_>,
    k: usize,
    out: &Output<'_>,
    columns: Range<usize>,
) {
    assert!(columns.end <= out.y.columns() && columns.end * k <= w.len() && x.len() == out.y.rows() * k);
    assert!(out.bias.is_none_or(|bias| bias.len() == out.y.columns()));
    match (x, w) {
        (Activations::F32(x), TensorData::Bf16(w)) => widening(isa, x, w, k, out, columns),
        (Activations::F32(x), TensorData::F16(w)) => widening(isa, x, w, k, out, columns),
        (Activations::F32(x), TensorData::F32(w)) => widening(isa, x, w, k, out, columns),
        #[cfg(target_arch = "x86_64")]
        (Activations::Bf16(x), TensorData::Bf16(w)) if isa.has_bf16_dot() => {
            // SAFETY: the Isa says that the CPU has the features; shapes were asserted above, and the columns are the caller's alone.
            unsafe { bf16_dot::columns(x, w, k, out, columns) }
        }
        _ => panic!("bf16 activations need bf16 weights and a CPU with bf16 dot products"),
    }
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
    // Tiles as tall as the registers allow: 4 · rows sums, a row's worth of x and one w must fit in 32 or 16 of them.
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

#[cfg(target_arch = "x86_64")]
mod bf16_dot {
    //! Both sides bf16: two products a lane and step, summed in f32 by the CPU.

    use std::arch::x86_64::*;
    use std::ops::Range;

    use half::bf16;

    use super::{Dot, Output, walk};
    use crate::kernels::vector::Vector;

    struct Bf16Dot;

    impl Dot for Bf16Dot {
        type X = bf16;
        type W = bf16;
        type Lanes = __m512bh;
        type Sum = __m512;
        const STEP: usize = 32;
        const X_ZERO: bf16 = bf16::ZERO;
        const W_ZERO: bf16 = bf16::ZERO;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the CPU has AVX-512 with bf16, by the caller's promise (here and below).
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load_x(p: *const bf16) -> __m512bh {
            // SAFETY: 32 elements can be read, by the caller's promise; both types are 64 bytes without invalid values.
            unsafe { std::mem::transmute(_mm512_loadu_si512(p.cast())) }
        }

        #[inline(always)]
        unsafe fn load_w(p: *const bf16) -> __m512bh {
            // SAFETY: as above.
            unsafe { Self::load_x(p) }
        }

        #[inline(always)]
        unsafe fn step(x: __m512bh, w: __m512bh, sum: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_dpbf16_ps(sum, x, w) }
        }

        #[inline(always)]
        unsafe fn finish(sum: __m512) -> f32 {
            // SAFETY: as above.
            unsafe { sum.sum() }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    pub(super) fn columns(x: &[bf16], w: &[bf16], k: usize, out: &Output<'_>, columns: Range<usize>) {
        // SAFETY: this function's own target features are what the dot product asks for; `product_columns` asserted the shapes.
        unsafe { walk::<Bf16Dot, 6>(x, w, k, out, columns) }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    use voxtral_model::TensorData;

    use super::*;

    fn values(rng: &mut SmallRng, n: usize) -> Vec<f32> {
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn run(isa: Isa, x: Activations<'_>, w: TensorData<'_>, (m, n, k): (usize, usize, usize)) -> Vec<f32> {
        let mut y = vec![f32::NAN; m * n];
        let out = Output { y: SharedColumns::new(&mut y, n), bias: None, accumulate: false };
        // Two ranges, so that a range that starts in the middle is seen too.
        // SAFETY: there is no other thread.
        unsafe {
            product_columns(isa, x, w, k, &out, 0..n / 3);
            product_columns(isa, x, w, k, &out, n / 3..n);
        }
        y
    }

    /// The scalar twin, in f64.
    fn twin(x: &[f32], w: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        (0..m * n).map(|i| dot(&x[i / n * k..][..k], &w[i % n * k..][..k])).collect()
    }

    /// k terms below 1, each rounded and added with a relative error of `ulp`.
    fn assert_close(isa: Isa, what: &str, got: &[f32], want: &[f64], k: usize, ulp: f64) {
        for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(g) - w).abs();
            assert!(error <= ulp * (k as f64).sqrt() * 4.0, "{} {what} [{i}]: {g} for {w}", isa.name());
        }
    }

    proptest! {
        #[test]
        fn equals_its_twin_on_every_instruction_set(m in 1usize..15, n in 1usize..23, k in 1usize..150, seed: u64) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (x, w) = (values(&mut rng, m * k), values(&mut rng, n * k));
            let halves: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
            let f16s: Vec<f16> = w.iter().map(|&v| f16::from_f32(v)).collect();
            let x16: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
            let widen = |v: &[bf16]| v.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
            let shape = (m, n, k);
            for isa in Isa::available() {
                let ulp = f64::from(f32::EPSILON);
                assert_close(isa, "f32", &run(isa, Activations::F32(&x), TensorData::F32(&w), shape), &twin(&x, &w, shape), k, ulp);
                let want = twin(&x, &widen(&halves), shape);
                assert_close(isa, "bf16", &run(isa, Activations::F32(&x), TensorData::Bf16(&halves), shape), &want, k, ulp);
                let wide: Vec<f32> = f16s.iter().map(|v| v.to_f32()).collect();
                assert_close(isa, "f16", &run(isa, Activations::F32(&x), TensorData::F16(&f16s), shape), &twin(&x, &wide, shape), k, ulp);
                if isa.has_bf16_dot() {
                    let want = twin(&widen(&x16), &widen(&halves), shape);
                    assert_close(isa, "dot", &run(isa, Activations::Bf16(&x16), TensorData::Bf16(&halves), shape), &want, k, ulp);
                }
            }
        }

        #[test]
        fn a_row_has_the_same_bits_in_any_company(m in 2usize..15, n in 1usize..23, k in 1usize..150, seed: u64) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (x, w) = (values(&mut rng, m * k), values(&mut rng, n * k));
            let w: Vec<bf16> = w.into_iter().map(bf16::from_f32).collect();
            let x16: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
            for isa in Isa::available() {
                let together = run(isa, Activations::F32(&x), TensorData::Bf16(&w), (m, n, k));
                let last = run(isa, Activations::F32(&x[(m - 1) * k..]), TensorData::Bf16(&w), (1, n, k));
                prop_assert_eq!(&together[(m - 1) * n..], &last[..], "{}", isa.name());
                if isa.has_bf16_dot() {
                    let together = run(isa, Activations::Bf16(&x16), TensorData::Bf16(&w), (m, n, k));
                    let last = run(isa, Activations::Bf16(&x16[(m - 1) * k..]), TensorData::Bf16(&w), (1, n, k));
                    prop_assert_eq!(&together[(m - 1) * n..], &last[..], "{}", isa.name());
                }
            }
        }
    }

    #[test]
    fn adds_bias_and_what_was_there() {
        let mut y = vec![1.0, 2.0];
        let out = Output { y: SharedColumns::new(&mut y, 2), bias: Some(&[10.0, 20.0]), accumulate: true };
        let (x, w) = (Activations::F32(&[3.0]), TensorData::F32(&[1.0, 2.0]));
        // SAFETY: there is no other thread.
        unsafe { product_columns(Isa::detect(), x, w, 1, &out, 0..2) };
        assert_eq!(y, [14.0, 28.0]);
    }
}
