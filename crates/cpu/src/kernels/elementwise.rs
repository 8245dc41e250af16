//! What happens between the products, row by row: plain loops that the compiler turns into the vectors of each instruction set.

use super::vector::Vector;
use super::{Isa, dispatch};

/// Partial sums of a long sum; a multiple of every vector's lanes.
const LANES: usize = 16;

/// e^x to about 1e-7 relative, branch-free so that loops over it become vectors. Below -87 it is e^-87 (1e-38); NaN stays NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Added and taken away again, this rounds to an integer, which the sum's low bits hold meanwhile.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let z = x * std::f32::consts::LOG2_E + ROUND;
    let n = z - ROUND;
    // ln 2 in two parts, the first of few bits, so that n times it is exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    p * f32::from_bits((z.to_bits() << 23).wrapping_add(127 << 23))
}

/// `out = x / sqrt(mean(x²) + eps) ⊙ weight (⊙ scale)`, one row.
pub(crate) fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], scale: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    assert!(weight.len() == x.len() && out.len() == x.len() && scale.is_none_or(|s| s.len() == x.len()));
    dispatch!(isa, [] rms_norm_row(x: &[f32], weight: &[f32], scale: Option<&[f32]>, eps: f32, out: &mut [f32]));
}

#[inline(always)]
unsafe fn rms_norm_row<V: Vector>(x: &[f32], weight: &[f32], scale: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let mut lanes = [0.0f32; LANES];
    let (blocks, tail) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, v) in lanes.iter_mut().zip(block) {
            *lane += v * v;
        }
    }
    let squares: f32 = lanes.iter().sum::<f32>() + tail.iter().map(|v| v * v).sum::<f32>();
    let norm = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * norm * w;
    }
    if let Some(scale) = scale {
        out.iter_mut().zip(scale).for_each(|(out, s)| *out *= s);
    }
}

/// `out = SiLU(gate) ⊙ up`.
pub(crate) fn silu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && out.len() == up.len());
    dispatch!(isa, [] silu_mul_row(gate: &[f32], up: &[f32], out: &mut [f32]));
}

#[inline(always)]
unsafe fn silu_mul_row<V: Vector>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
        *out = *g / (1.0 + exp(-*g)) * u;
    }
}

/// Turns the pairs `(2j, 2j + 1)` of each head of a row by the angles whose cosines and sines are given, `[head_dim / 2]` each.
pub(crate) fn rotate_pairs(row: &mut [f32], cos_sin: &[(f32, f32)]) {
    for head in row.chunks_exact_mut(2 * cos_sin.len()) {
        for (pair, &(cos, sin)) in head.chunks_exact_mut(2).zip(cos_sin) {
            let [a, b] = [pair[0], pair[1]];
            pair[0] = a * cos - b * sin;
            pair[1] = b * cos + a * sin;
        }
    }
}

/// The largest of `logits`, the first of those that tie, and the logarithm of its softmax; NaN anywhere makes that NaN.
pub(crate) fn argmax_logprob(isa: Isa, logits: &[f32]) -> (usize, f32) {
    dispatch!(isa, [] argmax_logprob_row(logits: &[f32]) -> (usize, f32))
}

#[inline(always)]
unsafe fn argmax_logprob_row<V: Vector>(logits: &[f32]) -> (usize, f32) {
    let mut best = [f32::NEG_INFINITY; LANES];
    let (blocks, tail) = logits.as_chunks::<LANES>();
    for block in blocks {
        for (best, &v) in best.iter_mut().zip(block) {
            *best = if v > *best { v } else { *best };
        }
    }
    let max = best.iter().chain(tail).fold(f32::NEG_INFINITY, |max, &v| if v > max { v } else { max });
    let mut lanes = [0.0f32; LANES];
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane += exp(v - max);
        }
    }
    let sum = lanes.iter().sum::<f32>() + tail.iter().map(|&v| exp(v - max)).sum::<f32>();
    (logits.iter().position(|&v| v == max).unwrap_or(0), -sum.ln())
}

/// The largest of `logits` from index `from` on whose index is not in `but`, the first of those that tie.
pub(crate) fn largest_but(logits: &[f32], from: usize, but: &[usize]) -> Option<usize> {
    (from..logits.len()).filter(|i| !but.contains(i)).reduce(|a, b| if logits[b] > logits[a] { b } else { a })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exp_is_exact_to_float_precision() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 3e-7, "exp({x}): relative error {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    proptest! {
        #[test]
        fn rows_equal_their_twins(x in proptest::collection::vec(-20.0f32..20.0, 1..100)) {
            let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let rms = (wide.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
            let log_sum = wide.iter().map(|v| v.exp()).sum::<f64>().ln();
            let best = x.iter().copied().fold(f32::MIN, f32::max);
            for isa in Isa::available() {
                let mut normed = vec![0.0; x.len()];
                let (weight, scale) = (vec![0.5; x.len()], vec![3.0; x.len()]);
                rms_norm(isa, &x, &weight, Some(&scale), 1e-5, &mut normed);
                let mut gated = vec![0.0; x.len()];
                silu_mul(isa, &x, &weight, &mut gated);
                for i in 0..x.len() {
                    prop_assert!((f64::from(normed[i]) - 1.5 * wide[i] / rms).abs() < 1e-5);
                    prop_assert!((f64::from(gated[i]) - 0.5 * wide[i] / (1.0 + (-wide[i]).exp())).abs() < 1e-5);
                }
                let (at, logprob) = argmax_logprob(isa, &x);
                prop_assert_eq!(Some(at), x.iter().position(|&v| v == best));
                prop_assert!((f64::from(logprob) - (f64::from(best) - log_sum)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn not_a_number_shows() {
        let mut logits = vec![1.0; 40];
        logits[17] = f32::NAN;
        assert!(argmax_logprob(Isa::detect(), &logits).1.is_nan());
    }

    #[test]
    fn the_largest_of_the_rest_is_the_first_of_those_that_tie() {
        let logits = [3.0, 9.0, 2.0, f32::NEG_INFINITY, 5.0, 5.0];
        let cases: [(usize, &[usize], Option<usize>); 6] = [
            (0, &[], Some(1)),
            (0, &[1], Some(4)),
            (0, &[1, 4], Some(5)),
            (5, &[], Some(5)),
            (5, &[5], None),
            (3, &[4, 5], Some(3)),
        ];
        for (from, but, expected) in cases {
            assert_eq!(largest_but(&logits, from, but), expected, "from {from} but {but:?}");
        }
    }

    #[test]
    fn a_quarter_turn_swaps_a_pair() {
        let mut row = [1.0, 2.0, 3.0, 4.0];
        rotate_pairs(&mut row, &[(0.0, 1.0)]);
        assert_eq!(row, [-2.0, 1.0, -4.0, 3.0]);
    }
}
