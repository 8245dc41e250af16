//! NEON with bf16: four inputs of two outputs and two rows at once.
//!
//! `bfmmla` rounds as two dot products of two inputs would, one after the other, whatever its second row is: a row comes to the same bits
//! in any company.

// The loops run over registers, by index in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use half::bf16;
use voxtral_model::{BLOCK, Encoding, LANES, Packed, Panel, escapes_of};

use super::{HALF, ROWS};
use crate::kernels::panels::finish;
use crate::kernels::product::Output;
use crate::kernels::rounded::Rounded;

/// Outputs at a time: their weights fill half of the registers.
const SLICE: usize = 8;
/// Registers of two outputs.
const TWOS: usize = SLICE / 2;
/// Steps of four inputs in half a block.
const FOURS: usize = HALF / 4;

/// Half a block of a slice: four inputs of two outputs in each register.
type Half = [[uint16x8_t; TWOS]; FOURS];
/// The sums of two rows: those of both with two outputs in each register.
type Sums = [float32x4_t; TWOS];

/// A slice of a panel of weights, however it is stored.
///
/// # Safety
/// The panel has this half block.
trait Weights {
    unsafe fn half_block(&self, half: usize) -> Half;
}

/// `panels` of `y = x · w` for weights row by row, `[n, k]`.
///
/// # Safety
/// The CPU has NEON with bf16. The caller asserts the shapes, and that no other thread computes the same columns.
#[target_feature(enable = "neon,bf16")]
pub(in crate::kernels) fn rows(x: &Rounded, w: &[bf16], out: &Output<'_>, panels: Range<usize>) {
    let (k, n) = (x.k, out.y.columns());
    let row = |output: usize| output.min(n) * k;
    let slice = |i: usize| RowMajor { w: &w[row(i * SLICE)..row((i + 1) * SLICE)], k };
    // SAFETY: this function's own target features are what it asks for (here and below).
    unsafe { all_slices(x, slice, out, panels) }
}

/// `panels` of `y = x · w` for packed bf16.
///
/// # Safety
/// As [`rows`].
#[target_feature(enable = "neon,bf16")]
pub(in crate::kernels) fn packed(x: &Rounded, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
    let place = |i: usize| (w.panel(i * SLICE / LANES), i * SLICE % LANES);
    // SAFETY: as above.
    unsafe {
        if w.encoding() == Encoding::Bf12 {
            all_slices(x, |i| Bf12::new(place(i)), out, panels)
        } else {
            all_slices(x, |i| Bf16::new(place(i)), out, panels)
        }
    }
}

#[inline(always)]
unsafe fn all_slices<W: Weights>(x: &Rounded, slice: impl Fn(usize) -> W, out: &Output<'_>, panels: Range<usize>) {
    for first in (0..x.rows).step_by(ROWS) {
        for index in panels.start * (LANES / SLICE)..panels.end * (LANES / SLICE) {
            // SAFETY: the caller's promises, passed on.
            unsafe { some_rows(x, &slice(index), out, index * SLICE, first..x.rows.min(first + ROWS)) }
        }
    }
}

/// Up to [`ROWS`] rows over the slice from `column` on.
#[inline(always)]
unsafe fn some_rows<W: Weights>(x: &Rounded, slice: &W, out: &Output<'_>, column: usize, rows: Range<usize>) {
    // SAFETY: the slice has all blocks of x. `rows` are rows of x, and of the output, whose columns are the caller's alone.
    unsafe {
        let zero = [vdupq_n_f32(0.0); TWOS];
        let mut sums = [zero; ROWS / 2];
        for half in 0..x.k.div_ceil(HALF) {
            let weights = slice.half_block(half);
            let x = x.blocks.as_ptr().add(half / 2 * x.rows + rows.start).cast::<u16>().add(half % 2 * HALF);
            let (fours, rest) = sums[..rows.len().div_ceil(2)].as_chunks_mut::<2>();
            let whole = rows.len() / 4;
            for (i, four) in fours.iter_mut().enumerate().take(whole) {
                let x = x.add(4 * i * BLOCK);
                multiply([[x, x.add(BLOCK)], [x.add(2 * BLOCK), x.add(3 * BLOCK)]], &weights, four);
            }
            // Up to three more rows. One without company is its own.
            let others = fours[whole..].as_flattened_mut().iter_mut().chain(rest);
            for (two, row) in others.zip((4 * whole..rows.len()).step_by(2)) {
                let second = (row + 1).min(rows.len() - 1);
                let x = [[x.add(row * BLOCK), x.add(second * BLOCK)]];
                multiply(x, &weights, std::array::from_mut(two));
            }
        }
        for (two, row) in sums.iter().zip(rows.clone().step_by(2)) {
            let [a, b, c, d] = two.map(|sums| vreinterpretq_f64_f32(sums));
            let floats = |low, high| float32x4x2_t(vreinterpretq_f32_f64(low), vreinterpretq_f32_f64(high));
            finish(out, row, column, floats(vzip1q_f64(a, b), vzip1q_f64(c, d)));
            if row + 1 < rows.end {
                finish(out, row + 1, column, floats(vzip2q_f64(a, b), vzip2q_f64(c, d)));
            }
        }
    }
}

/// Adds to the sums of `M` times two rows what half a block of weights comes to.
#[inline(always)]
unsafe fn multiply<const M: usize>(x: [[*const u16; 2]; M], weights: &Half, sums: &mut [Sums; M]) {
    // SAFETY: each row of x has half a block, by the caller's promise.
    unsafe {
        for four in 0..FOURS {
            for m in 0..M {
                let [first, second] = x[m].map(|row| vld1_u16(row.add(4 * four)));
                let rows = vcombine_u16(first, second);
                for two in 0..TWOS {
                    sums[m][two] = bfmmla(sums[m][two], rows, weights[four][two]);
                }
            }
        }
    }
}

/// `sum[r, o] + Σ x[r, :] · w[o, :]` for two rows and two outputs, of four inputs each. There is no stable intrinsic for it.
#[target_feature(enable = "neon,bf16")]
#[inline]
fn bfmmla(mut sum: float32x4_t, x: uint16x8_t, w: uint16x8_t) -> float32x4_t {
    // SAFETY: it works on registers only, and this function's own target features are what it asks for.
    unsafe {
        asm!(
            "bfmmla {sum:v}.4s, {x:v}.8h, {w:v}.8h",
            sum = inout(vreg) sum, x = in(vreg) x, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Rows as checkpoints store them: two outputs are put together in registers.
struct RowMajor<'a> {
    /// `[up to SLICE, k]`
    w: &'a [bf16],
    k: usize,
}

impl Weights for RowMajor<'_> {
    #[inline(always)]
    unsafe fn half_block(&self, half: usize) -> Half {
        let first = half * HALF;
        if self.w.len() == SLICE * self.k && first + HALF <= self.k {
            // SAFETY: there are SLICE rows, each with HALF inputs from `first` on.
            return unsafe { in_twos(self.w.as_ptr().add(first), self.k) };
        }
        let mut padded = [[bf16::ZERO; HALF]; SLICE];
        for (padded, row) in padded.iter_mut().zip(self.w.chunks_exact(self.k)) {
            let inputs = &row[first..self.k.min(first + HALF)];
            padded[..inputs.len()].copy_from_slice(inputs);
        }
        // SAFETY: SLICE rows of HALF inputs.
        unsafe { in_twos(padded.as_flattened().as_ptr(), HALF) }
    }
}

/// `[SLICE, HALF]`, rows `stride` apart.
#[inline(always)]
unsafe fn in_twos(w: *const bf16, stride: usize) -> Half {
    // SAFETY: the caller's promise; a vector is 8 inputs.
    unsafe {
        let mut out = [[vdupq_n_u16(0); TWOS]; FOURS];
        for two in 0..TWOS {
            for eight in 0..FOURS / 2 {
                let row = |i: usize| vreinterpretq_u64_u16(vld1q_u16(w.add((2 * two + i) * stride + 8 * eight).cast()));
                let (a, b) = (row(0), row(1));
                out[2 * eight][two] = vreinterpretq_u16_u64(vzip1q_u64(a, b));
                out[2 * eight + 1][two] = vreinterpretq_u16_u64(vzip2q_u64(a, b));
            }
        }
        out
    }
}

/// Four inputs of two outputs in each register, of two inputs of four outputs each: `[first or second two][outputs]`.
#[inline(always)]
unsafe fn joined(pairs: [[uint16x8_t; 2]; 2]) -> [uint16x8_t; TWOS] {
    // SAFETY: the CPU has NEON.
    unsafe {
        let [first, second] = pairs.map(|pairs| pairs.map(|outputs| vreinterpretq_u32_u16(outputs)));
        let (low, high) = (vzipq_u32(first[0], second[0]), vzipq_u32(first[1], second[1]));
        [low.0, low.1, high.0, high.1].map(|outputs| vreinterpretq_u16_u32(outputs))
    }
}

/// bf16 as it is to be multiplied.
struct Bf16<'a> {
    panel: Panel<'a>,
    /// First output, within the panel.
    lane: usize,
}

impl<'a> Bf16<'a> {
    fn new((panel, lane): (Panel<'a>, usize)) -> Self {
        Self { panel, lane }
    }
}

impl Weights for Bf16<'_> {
    #[inline(always)]
    unsafe fn half_block(&self, half: usize) -> Half {
        // SAFETY: the panel has this half block: for each two inputs a line of 64 bytes, of which the slice has half.
        unsafe {
            let at = self.panel.blocks.as_ptr().add(half * HALF * LANES * 2 + self.lane * 4).cast::<u16>();
            let mut out = [[vdupq_n_u16(0); TWOS]; FOURS];
            for four in 0..FOURS {
                let line = |i: usize| at.add((2 * four + i) * LANES * 2);
                out[four] = joined([line(0), line(1)].map(|at| [vld1q_u16(at), vld1q_u16(at.add(8))]));
            }
            out
        }
    }
}

/// bf16 in 12 bits: put together in registers.
struct Bf12<'a> {
    panel: Panel<'a>,
    /// First output, within the panel.
    lane: usize,
    table: [u8; 16],
}

impl<'a> Bf12<'a> {
    fn new((panel, lane): (Panel<'a>, usize)) -> Self {
        let mut table = [0; 16];
        table.iter_mut().zip(panel.table).for_each(|(out, &exponent)| *out = exponent);
        Self { panel, lane, table }
    }
}

impl Weights for Bf12<'_> {
    #[inline(always)]
    unsafe fn half_block(&self, half: usize) -> Half {
        // SAFETY: the panel has this half block: for each four inputs a piece of 96 bytes, in three lines, of each of which the slice has
        // half.
        let mut out = unsafe {
            let table = vld1q_u8(self.table.as_ptr());
            let mut out = [[vdupq_n_u16(0); TWOS]; FOURS];
            for four in 0..FOURS {
                let at = self.panel.blocks.as_ptr().add((half * FOURS + four) * 96 + self.lane * 2);
                let codes = vld1q_u8(at.add(64));
                let pair = |low: *const u8, code| {
                    let (low, exponent) = (vld1q_u8(low), vqtbl1q_u8(table, code));
                    // s mmmmmmm and eeeeeeee come to s eeeeeee and e mmmmmmm.
                    let words = vzipq_u8(vsliq_n_u8::<7>(low, exponent), vsriq_n_u8::<1>(low, exponent));
                    [vreinterpretq_u16_u8(words.0), vreinterpretq_u16_u8(words.1)]
                };
                let first = pair(at, vandq_u8(codes, vdupq_n_u8(15)));
                out[four] = joined([first, pair(at.add(32), vshrq_n_u8::<4>(codes))]);
            }
            out
        };
        if !self.panel.escapes.is_empty() {
            let lanes = self.lane..self.lane + SLICE;
            let here = escapes_of(self.panel.escapes, half / 2);
            for escape in here.filter(|escape| escape.k / HALF == half && lanes.contains(&escape.lane)) {
                let (k, lane) = (escape.k % HALF, escape.lane - self.lane);
                // SAFETY: all bit patterns are vectors, and arrays of u16.
                let words: &mut [[[u16; 8]; TWOS]; FOURS] = unsafe { std::mem::transmute(&mut out) };
                let word = &mut words[k / 4][lane / 2][lane % 2 * 4 + k % 4];
                *word = *word & 0x807F | u16::from(escape.exponent) << 7;
            }
        }
        out
    }
}
