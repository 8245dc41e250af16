//! Products of bf16 activations and bf16 weights on CPUs with dot products of bf16: two inputs of 16 outputs at once.
//!
//! Sums go along k, two inputs after two, however the weights are stored, so that what is packed without loss comes to the same bits as
//! row by row. Each weight is read, and unpacked, once: half a block of it stays in registers while all rows pass, whose sums are in the
//! first-level cache.

// The loops run over registers, by index in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;
use voxtral_model::{BLOCK, Encoding, LANES, Packed, Panel, escapes_of};

use super::panels::finish;
use super::product::Output;

/// Inputs of half a block.
const HALF: usize = BLOCK / 2;
/// Vectors of half a block, each two inputs of all outputs of a panel.
const PAIRS: usize = HALF / 2;
/// Panels at a time.
const WIDE: usize = 2;
/// Rows whose sums stay in the first-level cache.
const ROWS: usize = 256;

/// Rows in bf16, block by block.
pub(crate) struct Rounded {
    rows: usize,
    k: usize,
    /// `[blocks, rows, BLOCK]`, zeros past k
    values: Vec<bf16>,
}

impl Rounded {
    /// Rounds `x`, `[rows, k]`, ties to even.
    pub(crate) fn new(isa: super::Isa, x: &[f32], k: usize) -> Self {
        assert!(k > 0 && x.len().is_multiple_of(k));
        let (rows, blocks) = (x.len() / k, k.div_ceil(BLOCK));
        let mut values = vec![bf16::ZERO; blocks * rows * BLOCK];
        for (row, x) in x.chunks_exact(k).enumerate() {
            for (block, x) in x.chunks(BLOCK).enumerate() {
                let at = (block * rows + row) * BLOCK;
                super::round_bf16(isa, x, &mut values[at..at + x.len()]);
            }
        }
        Self { rows, k, values }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows * self.k
    }
}

/// A panel of weights, however it is stored.
///
/// # Safety
/// The CPU has AVX-512.
trait Weights {
    /// Half a block: two inputs of all outputs in each vector.
    unsafe fn half_block(&self, half: usize) -> [__m512i; PAIRS];
}

/// `panels` of `y = x · w` for weights row by row, `[n, k]`.
///
/// # Safety
/// The CPU has AVX-512 with bf16. The caller asserts the shapes, and that no other thread computes the same columns.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(super) fn rows(x: &Rounded, w: &[bf16], out: &Output<'_>, panels: Range<usize>) {
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
pub(super) fn packed(x: &Rounded, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
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
            while index + WIDE <= panels.end {
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
        for half in 0..x.k.div_ceil(HALF) {
            let weights: [_; N] = std::array::from_fn(|i| panels[i].half_block(half));
            let x = x.values.as_ptr().add((half / 2 * x.rows + rows.start) * BLOCK + half % 2 * HALF);
            let mut row = 0;
            while row + 4 <= rows.len() {
                add::<N, 4>(x, &weights, sums, row);
                row += 4;
            }
            while row < rows.len() {
                add::<N, 1>(x, &weights, sums, row);
                row += 1;
            }
        }
        for (i, row) in rows.enumerate() {
            for (p, &sum) in (*sums.add(i)).iter().enumerate() {
                finish(out, row, (index + p) * LANES, sum);
            }
        }
    }
}

/// `M` rows past half a block of weights.
#[inline(always)]
unsafe fn add<const N: usize, const M: usize>(
    x: *const bf16,
    weights: &[[__m512i; PAIRS]; N],
    sums: *mut [__m512; N],
    row: usize,
) {
    // SAFETY: x and sums have M rows from `row` on, by the caller's promise; a pair of bf16 are 4 bytes, read without alignment, and
    // the vector types are 64 bytes without invalid values.
    unsafe {
        let mut some: [[__m512; N]; M] = std::array::from_fn(|m| *sums.add(row + m));
        for pair in 0..PAIRS {
            for m in 0..M {
                let both = x.add((row + m) * BLOCK + 2 * pair).cast::<i32>().read_unaligned();
                let both: __m512bh = std::mem::transmute(_mm512_set1_epi32(both));
                for i in 0..N {
                    some[m][i] = _mm512_dpbf16_ps(some[m][i], std::mem::transmute(weights[i][pair]), both);
                }
            }
        }
        for m in 0..M {
            *sums.add(row + m) = some[m];
        }
    }
}

/// Rows as checkpoints store them: turned in registers.
struct RowMajor<'a> {
    /// `[up to LANES, k]`
    w: &'a [bf16],
    k: usize,
}

impl Weights for RowMajor<'_> {
    #[inline(always)]
    unsafe fn half_block(&self, half: usize) -> [__m512i; PAIRS] {
        let first = half * HALF;
        if self.w.len() == LANES * self.k && first + HALF <= self.k {
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
            let rows: [__m512i; 4] = std::array::from_fn(|i| {
                let quarter = |q: usize| _mm_loadu_si128(w.add((4 * q + i) * stride + 8 * four).cast());
                let low = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(0)), quarter(1), 1);
                let high = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(2)), quarter(3), 1);
                _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)
            });
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
            std::array::from_fn(|pair| _mm512_loadu_si512(at.add(pair * 64).cast()))
        }
    }
}

/// bf16 in 12 bits: put together in registers.
struct Bf12<'a> {
    panel: Panel<'a>,
    /// The exponents of the table, at their place in a bf16.
    table: __m512i,
}

impl<'a> Bf12<'a> {
    #[inline(always)]
    unsafe fn new(panel: Panel<'a>) -> Self {
        let mut exponents = [0u16; 32];
        exponents.iter_mut().zip(panel.table).for_each(|(out, &exponent)| *out = u16::from(exponent) << 7);
        // SAFETY: 64 bytes; the CPU has AVX-512.
        Self { panel, table: unsafe { _mm512_loadu_si512(exponents.as_ptr().cast()) } }
    }
}

impl Weights for Bf12<'_> {
    #[inline(always)]
    unsafe fn half_block(&self, half: usize) -> [__m512i; PAIRS] {
        // SAFETY: the panel has this half block, of 96 bytes for each two pairs; the CPU has AVX-512.
        let mut pairs = unsafe {
            let mut pairs = [_mm512_setzero_si512(); PAIRS];
            let (sign_and_mantissa, nibble) = (_mm512_set1_epi16(0x807F_u16 as i16), _mm512_set1_epi16(15));
            for two in 0..PAIRS / 2 {
                let at = self.panel.blocks.as_ptr().add((half * PAIRS / 2 + two) * 96);
                let load = |at: *const u8| _mm512_cvtepu8_epi16(_mm256_loadu_si256(at.cast()));
                let codes = load(at.add(64));
                for (i, codes) in [_mm512_and_si512(codes, nibble), _mm512_srli_epi16(codes, 4)].into_iter().enumerate()
                {
                    let low = load(at.add(i * 32));
                    // The sign is bit 7 of the low byte and comes to bit 15.
                    let spread = _mm512_or_si512(low, _mm512_slli_epi16(low, 8));
                    let exponent = _mm512_permutexvar_epi16(codes, self.table);
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
