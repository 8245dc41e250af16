//! Products of 8 and 4 bit weights: activations are rounded to 8 bits with a scale for each row and block, and multiplied as integers.
//!
//! ```text
//! y[m, n] = Σ_blocks  scale_w[n, group] · scale_x[m, block] · ( Σ_k (w + zero) · x  −  zero · Σ_k x )
//! ```
//! The inner sums are exact. The outer one goes along k, block by block, whatever rows and panels are computed together. Each weight is
//! read, and unpacked, once: a block of it stays in registers while all rows pass, whose sums are in the first-level cache.

// The loops run over registers, by index in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::mem::MaybeUninit;
use std::ops::Range;

use voxtral_model::{BLOCK, Encoding, INT4_ZERO, INT8_ZERO, LANES, Packed};

use super::panels::finish;
use super::product::Output;
use super::vector::{Portable, Vector};
use super::{Isa, Level};

/// Four inputs of an output are multiplied at once.
const QUAD: usize = 4;
const QUADS: usize = BLOCK / QUAD;
/// Rows whose sums stay in the first-level cache.
const ROWS: usize = 256;

/// Rows in 8 bits, block by block: `[blocks, rows, …]`.
pub(crate) struct Quantised {
    rows: usize,
    k: usize,
    /// `[blocks, rows, BLOCK]`, zeros past k
    codes: Vec<i8>,
    /// `[blocks, rows]`
    scales: Vec<f32>,
    /// `[blocks, rows]`, each the negative sum of a block's codes
    offsets: Vec<i32>,
}

impl Quantised {
    /// Rounds `x`, `[rows, k]`: the largest of a block comes to 127. What is no finite number makes the scale none either, and so all
    /// that comes of it.
    pub(crate) fn new(isa: Isa, x: &[f32], k: usize) -> Self {
        assert!(k > 0 && x.len().is_multiple_of(k));
        let (rows, blocks) = (x.len() / k, k.div_ceil(BLOCK));
        let mut quantised = Self {
            rows,
            k,
            codes: vec![0; blocks * rows * BLOCK],
            scales: vec![0.0; blocks * rows],
            offsets: vec![0; blocks * rows],
        };
        let all = &mut quantised;
        super::dispatch!(isa, [] quantise_rows(x: &[f32], all: &mut Quantised));
        quantised
    }

    pub(crate) fn len(&self) -> usize {
        self.rows * self.k
    }
}

#[inline(always)]
unsafe fn quantise_rows<V: Vector>(x: &[f32], all: &mut Quantised) {
    // Added, this rounds to an integer, which the sum's low bits hold.
    const ROUND: f32 = 12_582_912.0;
    for (row, x) in x.chunks_exact(all.k).enumerate() {
        for (block, x) in x.chunks(BLOCK).enumerate() {
            let at = block * all.rows + row;
            let mut padded = [0.0f32; BLOCK];
            padded[..x.len()].copy_from_slice(x);
            let mut largest = [0.0f32; LANES];
            let mut nothing = [0.0f32; LANES];
            for half in padded.as_chunks::<LANES>().0 {
                for lane in 0..LANES {
                    largest[lane] = largest[lane].max(half[lane].abs());
                    // 0, or NaN of what is not finite.
                    nothing[lane] += half[lane] * 0.0;
                }
            }
            let largest = largest.into_iter().fold(0.0, f32::max);
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let codes = &mut all.codes[at * BLOCK..][..BLOCK];
            let mut sum = 0;
            for (code, x) in codes.iter_mut().zip(padded) {
                *code = (x * inverse + ROUND).to_bits() as i8;
                sum += i32::from(*code);
            }
            all.scales[at] = largest / 127.0 + nothing.into_iter().sum::<f32>();
            all.offsets[at] = -sum;
        }
    }
}

/// Multiplies unsigned with signed bytes, four of a lane at a time.
///
/// # Safety
/// As for [`Vector`]; pointers must be valid for as many bytes as a register has, `x` for four.
trait Quads {
    type V: Vector;
    /// Four bytes a lane.
    type Bytes: Copy;
    /// An integer a lane.
    type Ints: Copy;
    unsafe fn splat(x: i32) -> Self::Ints;
    unsafe fn load(p: *const u8) -> Self::Bytes;
    unsafe fn low_nibbles(bytes: Self::Bytes) -> Self::Bytes;
    unsafe fn high_nibbles(bytes: Self::Bytes) -> Self::Bytes;
    /// `sum + Σ w · x` of each lane, exactly.
    unsafe fn dot(sum: Self::Ints, w: Self::Bytes, x: *const i8) -> Self::Ints;
    unsafe fn widen(sum: Self::Ints) -> Self::V;
}

/// `panels` of `y = x · w`.
///
/// The caller asserts the shapes, and that no other thread computes the same columns.
pub(super) fn product(isa: Isa, x: &Quantised, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
    match isa.level {
        // SAFETY: this asks for no instructions.
        Level::Portable => unsafe { all_rows::<PortableQuads, 1>(x, w, out, panels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an Isa with these properties exists only after the CPU was seen to have these instructions (here and below).
        Level::Avx512 if isa.vnni => unsafe { x86::vnni512(x, w, out, panels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 if isa.vnni => unsafe { x86::vnni256(x, w, out, panels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 | Level::Avx512 => unsafe { x86::avx2(x, w, out, panels) },
    }
}

/// `WIDE` registers of outputs at a time.
#[inline(always)]
unsafe fn all_rows<Q: Quads, const WIDE: usize>(x: &Quantised, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
    let slices = LANES / Q::V::LANES;
    for first in (0..x.rows).step_by(ROWS) {
        let rows = first..x.rows.min(first + ROWS);
        let mut slice = panels.start * slices;
        // SAFETY: the slices are those of the panels; the caller's promises, passed on.
        unsafe {
            while slice + WIDE <= panels.end * slices {
                some_rows::<Q, WIDE>(x, w, out, slice, rows.clone());
                slice += WIDE;
            }
            while slice < panels.end * slices {
                some_rows::<Q, 1>(x, w, out, slice, rows.clone());
                slice += 1;
            }
        }
    }
}

/// Up to [`ROWS`] rows over the outputs of `WIDE` registers, from the `slice`-th on.
#[inline(always)]
unsafe fn some_rows<Q: Quads, const WIDE: usize>(
    x: &Quantised,
    w: &Packed,
    out: &Output<'_>,
    slice: usize,
    rows: Range<usize>,
) {
    let encoding = w.encoding();
    let blocks_a_scale = encoding.group().unwrap_or(BLOCK) / BLOCK;
    let slices = LANES / Q::V::LANES;
    let lane = |i: usize| (slice + i) % slices * Q::V::LANES;
    let panels: [_; WIDE] = std::array::from_fn(|i| w.panel((slice + i) / slices));
    let mut sums = [const { MaybeUninit::<[Q::V; WIDE]>::uninit() }; ROWS];
    // SAFETY: a panel has a block of weights for each of the blocks of x, and scales for their groups; a lane has 4 bytes of each 64
    // and 2 bytes of each scale. `rows` are rows of x, and of the output, whose columns are the caller's alone.
    unsafe {
        for sum in &mut sums[..rows.len()] {
            sum.write([Q::V::splat(0.0); WIDE]);
        }
        let sums = sums.as_mut_ptr().cast::<[Q::V; WIDE]>();
        for block in 0..x.k.div_ceil(BLOCK) {
            let scales: [Q::V; WIDE] = std::array::from_fn(|i| {
                let scales = panels[i].scales.as_ptr().cast::<half::f16>();
                Q::V::load_f16(scales.add(block / blocks_a_scale * LANES + lane(i)))
            });
            let bytes = |i: usize| panels[i].blocks.as_ptr().add(block * encoding.block_bytes() + lane(i) * QUAD);
            let x = Block {
                codes: x.codes.as_ptr().add((block * x.rows + rows.start) * BLOCK),
                scales: x.scales.as_ptr().add(block * x.rows + rows.start),
                offsets: x.offsets.as_ptr().add(block * x.rows + rows.start),
            };
            if matches!(encoding, Encoding::Int4(_)) {
                let weights: [[Q::Bytes; QUADS]; WIDE] = std::array::from_fn(|i| {
                    std::array::from_fn(|quad| {
                        let both = Q::load(bytes(i).add(quad % (QUADS / 2) * LANES * QUAD));
                        if quad < QUADS / 2 { Q::low_nibbles(both) } else { Q::high_nibbles(both) }
                    })
                });
                pass::<Q, WIDE, INT4_ZERO>(&x, &weights, &scales, sums, rows.len());
            } else {
                let weights: [[Q::Bytes; QUADS]; WIDE] =
                    std::array::from_fn(|i| std::array::from_fn(|quad| Q::load(bytes(i).add(quad * LANES * QUAD))));
                pass::<Q, WIDE, INT8_ZERO>(&x, &weights, &scales, sums, rows.len());
            }
        }
        for (i, row) in rows.enumerate() {
            for (s, &sum) in (*sums.add(i)).iter().enumerate() {
                finish(out, row, (slice + s) / slices * LANES + lane(s), sum);
            }
        }
    }
}

/// Where a block of some rows lies.
struct Block {
    codes: *const i8,
    scales: *const f32,
    offsets: *const i32,
}

/// All rows past a block of weights.
#[inline(always)]
unsafe fn pass<Q: Quads, const WIDE: usize, const ZERO: i32>(
    x: &Block,
    weights: &[[Q::Bytes; QUADS]; WIDE],
    scales: &[Q::V; WIDE],
    sums: *mut [Q::V; WIDE],
    rows: usize,
) {
    let mut row = 0;
    // SAFETY: x and sums have so many rows, by the caller's promise.
    unsafe {
        while row + 4 <= rows {
            add::<Q, WIDE, ZERO, 4>(x, weights, scales, sums, row);
            row += 4;
        }
        while row < rows {
            add::<Q, WIDE, ZERO, 1>(x, weights, scales, sums, row);
            row += 1;
        }
    }
}

/// `M` rows past a block of weights.
#[inline(always)]
unsafe fn add<Q: Quads, const WIDE: usize, const ZERO: i32, const M: usize>(
    x: &Block,
    weights: &[[Q::Bytes; QUADS]; WIDE],
    scales: &[Q::V; WIDE],
    sums: *mut [Q::V; WIDE],
    row: usize,
) {
    // SAFETY: x and sums have M rows from `row` on, by the caller's promise.
    unsafe {
        let mut ints: [[Q::Ints; WIDE]; M] = std::array::from_fn(|m| [Q::splat(ZERO * *x.offsets.add(row + m)); WIDE]);
        for quad in 0..QUADS {
            for m in 0..M {
                for i in 0..WIDE {
                    let codes = x.codes.add((row + m) * BLOCK + quad * QUAD);
                    ints[m][i] = Q::dot(ints[m][i], weights[i][quad], codes);
                }
            }
        }
        for m in 0..M {
            let scale = Q::V::splat(*x.scales.add(row + m));
            let sums = &mut *sums.add(row + m);
            for i in 0..WIDE {
                sums[i] = Q::widen(ints[m][i]).mul_add(scales[i].mul(scale), sums[i]);
            }
        }
    }
}

/// The scalar twin.
struct PortableQuads;

impl Quads for PortableQuads {
    type V = Portable;
    type Bytes = [[u8; QUAD]; Portable::LANES];
    type Ints = [i32; Portable::LANES];

    #[inline(always)]
    unsafe fn splat(x: i32) -> Self::Ints {
        [x; Portable::LANES]
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self::Bytes {
        // SAFETY: valid for as many bytes, by the trait's contract; bytes need no alignment.
        unsafe { p.cast::<Self::Bytes>().read() }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|quad| quad.map(|byte| byte & 15))
    }

    #[inline(always)]
    unsafe fn high_nibbles(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|quad| quad.map(|byte| byte >> 4))
    }

    #[inline(always)]
    unsafe fn dot(sum: Self::Ints, w: Self::Bytes, x: *const i8) -> Self::Ints {
        // SAFETY: valid for four bytes, by the trait's contract.
        let x = unsafe { x.cast::<[i8; QUAD]>().read() };
        std::array::from_fn(|lane| {
            sum[lane] + w[lane].iter().zip(x).map(|(&w, x)| i32::from(w) * i32::from(x)).sum::<i32>()
        })
    }

    #[inline(always)]
    unsafe fn widen(sum: Self::Ints) -> Portable {
        Portable::each(|lane| sum[lane] as f32)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::ops::Range;

    use voxtral_model::Packed;

    use super::{Output, Quads, Quantised, all_rows};

    /// AVX-512 with VNNI.
    struct Vnni512;

    impl Quads for Vnni512 {
        type V = __m512;
        type Bytes = __m512i;
        type Ints = __m512i;

        #[inline(always)]
        unsafe fn splat(x: i32) -> __m512i {
            // SAFETY: the CPU has AVX-512 with VNNI, by the trait's contract (here and below).
            unsafe { _mm512_set1_epi32(x) }
        }

        #[inline(always)]
        unsafe fn load(p: *const u8) -> __m512i {
            // SAFETY: `p` is valid for 64 bytes, by the trait's contract.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn low_nibbles(bytes: __m512i) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(15)) }
        }

        #[inline(always)]
        unsafe fn high_nibbles(bytes: __m512i) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15)) }
        }

        #[inline(always)]
        unsafe fn dot(sum: __m512i, w: __m512i, x: *const i8) -> __m512i {
            // SAFETY: `x` is valid for four bytes, by the trait's contract; what is read needs no alignment.
            unsafe { _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x.cast::<i32>().read_unaligned())) }
        }

        #[inline(always)]
        unsafe fn widen(sum: __m512i) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_cvtepi32_ps(sum) }
        }
    }

    /// What AVX2 with VNNI and AVX2 without have in common.
    macro_rules! avx2_quads {
        ($name:ident, |$sum:ident, $w:ident, $x:ident| $dot:expr) => {
            impl Quads for $name {
                type V = __m256;
                type Bytes = __m256i;
                type Ints = __m256i;

                #[inline(always)]
                unsafe fn splat(x: i32) -> __m256i {
                    // SAFETY: the CPU has AVX2, by the trait's contract (here and below).
                    unsafe { _mm256_set1_epi32(x) }
                }

                #[inline(always)]
                unsafe fn load(p: *const u8) -> __m256i {
                    // SAFETY: `p` is valid for 32 bytes, by the trait's contract.
                    unsafe { _mm256_loadu_si256(p.cast()) }
                }

                #[inline(always)]
                unsafe fn low_nibbles(bytes: __m256i) -> __m256i {
                    // SAFETY: as above.
                    unsafe { _mm256_and_si256(bytes, _mm256_set1_epi8(15)) }
                }

                #[inline(always)]
                unsafe fn high_nibbles(bytes: __m256i) -> __m256i {
                    // SAFETY: as above.
                    unsafe { _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15)) }
                }

                #[inline(always)]
                unsafe fn dot($sum: __m256i, $w: __m256i, x: *const i8) -> __m256i {
                    // SAFETY: `x` is valid for four bytes, by the trait's contract; what is read needs no alignment. The CPU has
                    // the instructions that the name says.
                    unsafe {
                        let $x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                        $dot
                    }
                }

                #[inline(always)]
                unsafe fn widen(sum: __m256i) -> __m256 {
                    // SAFETY: as above.
                    unsafe { _mm256_cvtepi32_ps(sum) }
                }
            }
        };
    }

    /// AVX2 with VNNI.
    struct Vnni256;

    avx2_quads!(Vnni256, |sum, w, x| _mm256_dpbusd_avx_epi32(sum, w, x));

    /// AVX2 alone. Two products are added in 16 bits, which overflows where a weight has all of its 8: its highest bit is multiplied
    /// apart.
    struct Avx2;

    avx2_quads!(Avx2, |sum, w, x| {
        let ones = _mm256_set1_epi16(1);
        let high = _mm256_set1_epi8(i8::MIN);
        let low = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_andnot_si256(high, w), x), ones);
        let high = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_and_si256(high, w), x), ones);
        _mm256_add_epi32(_mm256_add_epi32(sum, low), high)
    });

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(super) fn vnni512(x: &Quantised, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
        // SAFETY: this function's own target features are what it asks for (here and below).
        unsafe { all_rows::<Vnni512, 2>(x, w, out, panels) }
    }

    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(super) fn vnni256(x: &Quantised, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
        // SAFETY: as above.
        unsafe { all_rows::<Vnni256, 1>(x, w, out, panels) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn avx2(x: &Quantised, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
        // SAFETY: as above.
        unsafe { all_rows::<Avx2, 1>(x, w, out, panels) }
    }
}
