//! Activations, rounded to what weights are: block by block, so that what is multiplied with a block of weights lies together.

use half::bf16;
use voxtral_model::{BLOCK, LANES};

use super::vector::Vector;
use super::{Isa, dispatch};
use crate::parallel::Team;

/// Rows in bf16.
#[derive(Default)]
pub(crate) struct Rounded {
    pub(super) rows: usize,
    pub(super) k: usize,
    /// `[blocks, rows]`, zeros past k
    pub(super) blocks: Vec<[bf16; BLOCK]>,
}

/// Rows in 8 bits.
#[derive(Default)]
pub(crate) struct Quantised {
    pub(super) rows: usize,
    pub(super) k: usize,
    /// `[blocks, rows]`
    pub(super) blocks: Vec<Codes>,
}

/// A block of a row in 8 bits.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    /// The largest is 127, or -127; zeros past k.
    pub(super) codes: [i8; BLOCK],
    /// What a code counts.
    pub(super) scale: f32,
    /// The negative sum of the codes.
    pub(super) offset: i32,
}

impl Rounded {
    /// Rounds `x`, `[rows, k]`, ties to even; NaN stays NaN.
    pub(crate) fn set(&mut self, isa: Isa, team: &Team, x: &[f32], k: usize) {
        let rows = begin(x, k, &mut self.blocks, [bf16::ZERO; BLOCK]);
        (self.rows, self.k) = (rows, k);
        team.each_row(&mut self.blocks, rows, 2 * x.len(), |block, out| {
            dispatch!(isa, [] round_block(x: &[f32], k: usize, block: usize, out: &mut [[bf16; BLOCK]]));
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.rows * self.k
    }
}

impl Quantised {
    /// Rounds `x`, `[rows, k]`. What is no finite number makes the scale of its block none either, and so all that comes of it.
    pub(crate) fn set(&mut self, isa: Isa, team: &Team, x: &[f32], k: usize) {
        let rows = begin(x, k, &mut self.blocks, Codes { codes: [0; BLOCK], scale: 0.0, offset: 0 });
        (self.rows, self.k) = (rows, k);
        team.each_row(&mut self.blocks, rows, 4 * x.len(), |block, out| {
            dispatch!(isa, [] quantise_block(x: &[f32], k: usize, block: usize, out: &mut [Codes]));
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.rows * self.k
    }
}

/// Makes room for all blocks of `x`, which are to be overwritten, and returns its rows.
fn begin<T: Clone>(x: &[f32], k: usize, blocks: &mut Vec<T>, empty: T) -> usize {
    assert!(k > 0 && !x.is_empty() && x.len().is_multiple_of(k));
    let rows = x.len() / k;
    blocks.resize(rows * k.div_ceil(BLOCK), empty);
    rows
}

/// The `block`-th block of each row, filled up with zeros.
#[inline(always)]
fn each_block(x: &[f32], k: usize, block: usize) -> impl Iterator<Item = [f32; BLOCK]> {
    let inputs = block * BLOCK..k.min((block + 1) * BLOCK);
    x.chunks_exact(k).map(move |row| {
        let mut padded = [0.0; BLOCK];
        padded[..inputs.len()].copy_from_slice(&row[inputs.clone()]);
        padded
    })
}

#[inline(always)]
unsafe fn round_block<V: Vector>(x: &[f32], k: usize, block: usize, out: &mut [[bf16; BLOCK]]) {
    for (out, x) in out.iter_mut().zip(each_block(x, k, block)) {
        for (out, x) in out.iter_mut().zip(x) {
            let bits = x.to_bits();
            let even = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            *out = bf16::from_bits(if x.is_nan() { 0x7fc0 } else { even as u16 });
        }
    }
}

#[inline(always)]
unsafe fn quantise_block<V: Vector>(x: &[f32], k: usize, block: usize, out: &mut [Codes]) {
    // Added, this rounds to an integer, which the sum's low bits hold.
    const ROUND: f32 = 12_582_912.0;
    for (out, x) in out.iter_mut().zip(each_block(x, k, block)) {
        let (mut largest, mut nothing) = ([0.0f32; LANES], [0.0f32; LANES]);
        for half in x.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                largest[lane] = largest[lane].max(half[lane].abs());
                // 0, or NaN of what is not finite.
                nothing[lane] += half[lane] * 0.0;
            }
        }
        let largest = largest.into_iter().fold(0.0, f32::max);
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        out.codes = x.map(|x| (x * inverse + ROUND).to_bits() as i8);
        out.scale = largest / 127.0 + nothing.into_iter().sum::<f32>();
        out.offset = -out.codes.iter().map(|&code| i32::from(code)).sum::<i32>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_like_half() {
        let mut x: Vec<f32> = (0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(42_949_673))).collect();
        x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE]);
        let team = Team::new(2).unwrap();
        for isa in Isa::available() {
            let mut rounded = Rounded::default();
            rounded.set(isa, &team, &x, x.len());
            for (x, out) in x.iter().zip(rounded.blocks.as_flattened()) {
                let want = bf16::from_f32(*x);
                assert!(
                    out.to_bits() == want.to_bits() || out.is_nan() && want.is_nan(),
                    "{x:e}: {out:?} for {want:?}"
                );
            }
        }
    }

    #[test]
    fn what_was_there_before_does_not_matter() {
        let team = Team::new(1).unwrap();
        let isa = Isa::detect();
        let (mut used, mut rounded) = (Quantised::default(), Rounded::default());
        used.set(isa, &team, &[7.0; 3 * 200], 200);
        rounded.set(isa, &team, &[7.0; 3 * 200], 200);
        used.set(isa, &team, &[1.0; 2 * 40], 40);
        rounded.set(isa, &team, &[1.0; 2 * 40], 40);
        assert_eq!(used.blocks.len(), 4);
        // Inputs 40 to 63 are none.
        assert!(used.blocks[2..].iter().all(|codes| codes.codes[..8] == [127; 8] && codes.codes[8..] == [0; 24]));
        assert!(rounded.blocks[2..].iter().all(|block| block[8..] == [bf16::ZERO; 24]));
    }
}
