//! AVX-512 with bf16: two inputs of 16 outputs at once.

// The loops run over registers, by index in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;
use voxtral_model::{BLOCK, Encoding, LANES, Packed, Panel, escapes_of};

use super::{HALF, ROWS};
use crate::kernels::panels::finish;
use crate::kernels::product::Output;
use crate::kernels::rounded::Rounded;
use crate::kernels::unroll;

/// Vectors of half a block, each two inputs of all outputs of a panel.
const PAIRS: usize = HALF / 2;
/// Panels at a time.
const WIDE: usize = 2;
/// Bytes of weights that are on their way from memory.
const AHEAD: usize = 4096;

/// A panel of weights, however it is stored.
///
/// # Safety
/// The CPU has AVX-512.
trait Weights {
    /// Up to so many rows are bound by memory, which is read best one panel at a time.
    const ALONE: usize = 0;
    /// Half a block: two inputs of all outputs in each vector.
    unsafe fn half_block(&self, half: usize) -> [__m512i; PAIRS];
}

/// `panels` of `y = x · w` for weights row by row, `[n, k]`.
///
/// # Safety
/// The CPU has AVX-512 with bf16. The caller asserts the shapes, and that no other thread computes the same columns.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(in crate::kernels) fn rows(x: &Rounded, w: &[bf16], out: &Output<'_>, panels: Range<usize>) {
    let (k, n) = (x.k, out.y.columns());
    let panel = |i: usize| RowMajor { w: &w[i * LANES * k..n.min((i + 1) * LANES) * k], k };
    // SAFETY: this function's own target features are what it asks for (here and below).
    unsafe { all_panels(x, panel, out, panels) }
}

/// `panels` of `y = x · w` for packed bf16.
///
/// # Safety
/// As [`rows`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(in crate::kernels) fn packed(x: &Rounded, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
    // SAFETY: as above.
    unsafe {
        if w.encoding() == Encoding::Bf12 {
            all_panels(x, |i| Bf12::new(w.panel(i)), out, panels)
        } else {
            all_panels(x, |i| Bf16 { panel: w.panel(i) }, out, panels)
        }
    }
}

#[inline(always)]
unsafe fn all_panels<W: Weights>(x: &Rounded, panel: impl Fn(usize) -> W, out: &Output<'_>, panels: Range<usize>) {
    for first in (0..x.rows).step_by(ROWS) {
        let rows = first..x.rows.min(first + ROWS);
        let mut index = panels.start;
        // SAFETY: the caller's promises, passed on.
        unsafe {
            while rows.len() > W::ALONE && index + WIDE <= panels.end {
                let wide: [W; WIDE] = std::array::from_fn(|i| panel(index + i));
                some_rows(x, &wide, out, index, rows.clone());
                index += WIDE;
            }
            while index < panels.end {
                some_rows(x, &[panel(index)], out, index, rows.clone());
                index += 1;
            }
        }
    }
}

/// Up to [`ROWS`] rows over the panels from the `index`-th on.
#[inline(always)]
unsafe fn some_rows<W: Weights, const N: usize>(
    x: &Rounded,
    panels: &[W; N],
    out: &Output<'_>,
    index: usize,
    rows: Range<usize>,
) {
    let mut sums = [const { MaybeUninit::<[__m512; N]>::uninit() }; ROWS];
    // SAFETY: the panels have all blocks of x. `rows` are rows of x, and of the output, whose columns are the caller's alone.
    unsafe {
        for sum in &mut sums[..rows.len()] {
            sum.write([_mm512_setzero_ps(); N]);
        }
        let sums = sums.as_mut_ptr().cast::<[__m512; N]>();
        // One row alone has its sums in registers.
        let mut one = [[_mm512_setzero_ps(); N]];
        for half in 0..x.k.div_ceil(HALF) {
            let mut weights = [[_mm512_setzero_si512(); PAIRS]; N];
            for i in 0..N {
                weights[i] = panels[i].half_block(half);
            }
            let x = x.blocks.as_ptr().add(half / 2 * x.rows + rows.start).cast::<bf16>().add(half % 2 * HALF);
            if rows.len() == 1 {
                one = multiply(x, &weights, one);
                continue;
            }
            let mut row = 0;
            while N == 1 && row + 8 <= rows.len() {
                let some = sums.add(row).cast::<[[__m512; N]; 8]>();
                *some = multiply(x.add(row * BLOCK), &weights, *some);
                row += 8;
            }
            while row + 4 <= rows.len() {
                let some = sums.add(row).cast::<[[__m512; N]; 4]>();
                *some = multiply(x.add(row * BLOCK), &weights, *some);
                row += 4;
            }
            while row < rows.len() {
                let some = sums.add(row).cast::<[[__m512; N]; 1]>();
                *some = multiply(x.add(row * BLOCK), &weights, *some);
                row += 1;
            }
        }
        if rows.len() == 1 {
            *sums = one[0];
        }
        for (i, row) in rows.enumerate() {
            for (p, &sum) in (*sums.add(i)).iter().enumerate() {
                finish(out, row, (index + p) * LANES, sum);
            }
        }
    }
}

/// Adds to the sums of `M` rows what half a block of weights comes to.
#[inline(always)]
unsafe fn multiply<const N: usize, const M: usize>(
    x: *const bf16,
    weights: &[[__m512i; PAIRS]; N],
    mut sums: [[__m512; N]; M],
) -> [[__m512; N]; M] {
    // SAFETY: x has M rows, by the caller's promise; a pair of bf16 are 4 bytes, read without alignment, and the vector types are 64
    // bytes without invalid values.
    unsafe {
        unroll!(pair {
            for m in 0..M {
                let both = x.add(m * BLOCK + 2 * pair).cast::<i32>().read_unaligned();
                let both = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(both));
                for i in 0..N {
                    let weights = std::mem::transmute::<__m512i, __m512bh>(weights[i][pair]);
                    sums[m][i] = _mm512_dpbf16_ps(sums[m][i], weights, both);
                }
            }
        });
    }
    sums
}

/// Tells the CPU that what is [`AHEAD`] of these bytes is soon read.
#[inline(always)]
fn soon(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch reads nothing that the program sees, and any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + line).cast()) };
    }
}

/// Rows as checkpoints store them: turned in registers.
struct RowMajor<'a> {
    /// `[up to LANES, k]`
    w: &'a [bf16],
    k: usize,
}

impl RowMajor<'_> {
    /// Rows lie far from each other, and memory likes to be read in one go: while a chunk of all rows is multiplied, the next comes row by
    /// row.
    #[inline(always)]
    fn prefetch(&self, half: usize) {
        /// Halves of a chunk, two to a line.
        const STEPS: usize = 32;
        let (chunk, step) = (half / STEPS, half % STEPS);
        let lines = STEPS / 2;
        for line in LANES / 2 * step..LANES / 2 * (step + 1) {
            let (row, line) = (line / lines, line % lines);
            let at = self.w.as_ptr().wrapping_add(row * self.k + ((chunk + 1) * lines + line) * BLOCK);
            // SAFETY: a prefetch reads nothing that the program sees, and any address will do.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
        }
    }
}

impl Weights for RowMajor<'_> {
    const ALONE: usize = 32;

    #[inline(always)]
    unsafe fn half_block(&self, half: usize) -> [__m512i; PAIRS] {
        let first = half * HALF;
        if self.w.len() == LANES * self.k && first + HALF <= self.k {
            self.prefetch(half);
            // SAFETY: there are LANES rows, each with HALF inputs from `first` on; the CPU has AVX-512.
            return unsafe { turned(self.w.as_ptr().add(first), self.k) };
        }
        let mut padded = [[bf16::ZERO; HALF]; LANES];
        for (padded, row) in padded.iter_mut().zip(self.w.chunks_exact(self.k)) {
            let inputs = &row[first..self.k.min(first + HALF)];
            padded[..inputs.len()].copy_from_slice(inputs);
        }
        // SAFETY: LANES rows of HALF inputs; the CPU has AVX-512.
        unsafe { turned(padded.as_flattened().as_ptr(), HALF) }
    }
}

/// Pairs of `[LANES, HALF]`, rows `stride` apart, turned: each vector two inputs of all rows.
#[inline(always)]
unsafe fn turned(w: *const bf16, stride: usize) -> [__m512i; PAIRS] {
    // SAFETY: the caller's promise. Each quarter of a vector is 8 inputs of one row, and the four are rows i, i + 4, i + 8, i + 12:
    // turning 4 by 4 pairs within quarters then leaves the rows in order.
    unsafe {
        let mut out = [_mm512_setzero_si512(); PAIRS];
        for four in 0..PAIRS / 4 {
            let mut rows = [_mm512_setzero_si512(); 4];
            for i in 0..4 {
                let at = w.add(i * stride + 8 * four);
                let quarters = [0, 4, 8, 12].map(|row| at.add(row * stride).cast::<__m128i>());
                let low = _mm256_loadu2_m128i(quarters[1], quarters[0]);
                let high = _mm256_loadu2_m128i(quarters[3], quarters[2]);
                rows[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
            }
            let [a, b, c, d] = rows;
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            out[4 * four] = _mm512_unpacklo_epi64(ab_low, cd_low);
            out[4 * four + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
            out[4 * four + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
            out[4 * four + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
        }
        out
    }
}

/// bf16 as it is to be multiplied.
struct Bf16<'a> {
    panel: Panel<'a>,
}

impl Weights for Bf16<'_> {
    #[inline(always)]
    unsafe fn half_block(&self, half: usize) -> [__m512i; PAIRS] {
        // SAFETY: the panel has this half block of 64 bytes for each pair; the CPU has AVX-512.
        unsafe {
            let at = self.panel.blocks.as_ptr().add(half * PAIRS * 64);
            soon(at, PAIRS * 64);
            let mut pairs = [_mm512_setzero_si512(); PAIRS];
            unroll!(pair {
                pairs[pair] = _mm512_loadu_si512(at.add(pair * 64).cast());
            });
            pairs
        }
    }
}

/// bf16 in 12 bits: put together in registers.
struct Bf12<'a> {
    panel: Panel<'a>,
    /// The exponents of the table, at their place in a bf16.
    table: [u16; 32],
}

impl<'a> Bf12<'a> {
    fn new(panel: Panel<'a>) -> Self {
        let mut table = [0; 32];
        table.iter_mut().zip(panel.table).for_each(|(out, &exponent)| *out = u16::from(exponent) << 7);
        Self { panel, table }
    }
}

impl Weights for Bf12<'_> {
    #[inline(always)]
    unsafe fn half_block(&self, half: usize) -> [__m512i; PAIRS] {
        // SAFETY: the panel has this half block, of 96 bytes for each two pairs; the CPU has AVX-512.
        let mut pairs = unsafe {
            let mut pairs = [_mm512_setzero_si512(); PAIRS];
            let (sign_and_mantissa, nibble) = (_mm512_set1_epi16(0x807F_u16 as i16), _mm512_set1_epi16(15));
            let table = _mm512_loadu_si512(self.table.as_ptr().cast());
            soon(self.panel.blocks.as_ptr().wrapping_add(half * PAIRS * 48), PAIRS * 48);
            for two in 0..PAIRS / 2 {
                let at = self.panel.blocks.as_ptr().add((half * PAIRS / 2 + two) * 96);
                let codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(at.add(64).cast()));
                let codes = [_mm512_and_si512(codes, nibble), _mm512_srli_epi16(codes, 4)];
                for i in 0..2 {
                    let low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(at.add(i * 32).cast()));
                    // The sign is bit 7 of the low byte and comes to bit 15.
                    let spread = _mm512_or_si512(low, _mm512_slli_epi16(low, 8));
                    let exponent = _mm512_permutexvar_epi16(codes[i], table);
                    // exponent | (spread & sign_and_mantissa)
                    pairs[2 * two + i] = _mm512_ternarylogic_epi32(exponent, spread, sign_and_mantissa, 0xF8);
                }
            }
            pairs
        };
        if !self.panel.escapes.is_empty() {
            for escape in escapes_of(self.panel.escapes, half / 2).filter(|escape| escape.k / HALF == half) {
                // SAFETY: all bit patterns are vectors, and arrays of u16.
                let words: &mut [[u16; 32]; PAIRS] = unsafe { std::mem::transmute(&mut pairs) };
                let word = &mut words[escape.k % HALF / 2][escape.lane * 2 + escape.k % 2];
                *word = *word & 0x807F | u16::from(escape.exponent) << 7;
            }
        }
        pairs
    }
}
