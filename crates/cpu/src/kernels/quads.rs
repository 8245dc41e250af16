//! Products of 8 and 4 bit weights: activations are rounded to 8 bits with a scale for each row and block, and multiplied as integers.
//!
//! ```text
//! y[m, n] = Σ_blocks  scale_w[n, group] · scale_x[m, block] · ( Σ_k (w + zero) · x  −  zero · Σ_k x )
//! ```
//! The inner sums are exact. The outer one goes along k, block by block, whatever rows and panels are computed together. Each weight is
//! read, and unpacked, once: a block of it stays in registers while all rows pass, whose sums are in the first-level cache.

// The loops run over registers, by index in several arrays at once. A closure would not have the instructions of its function.
#![allow(clippy::needless_range_loop)]

use std::mem::MaybeUninit;
use std::ops::Range;

use voxtral_model::{BLOCK, Encoding, INT4_ZERO, INT8_ZERO, LANES, Packed};

use super::panels::finish;
use super::product::Output;
use super::rounded::{Codes, Quantised};
use super::vector::{Portable, Vector};
use super::{Isa, Level, unroll};

/// Four inputs of an output are multiplied at once.
const QUAD: usize = 4;
const QUADS: usize = BLOCK / QUAD;
/// Rows whose sums stay in the first-level cache.
const ROWS: usize = 256;
/// Bytes of weights that are on their way from memory.
const AHEAD: usize = 8192;

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
    unsafe fn splat_bytes(x: u8) -> Self::Bytes;
    unsafe fn load(p: *const u8) -> Self::Bytes;
    unsafe fn low_nibbles(bytes: Self::Bytes) -> Self::Bytes;
    unsafe fn high_nibbles(bytes: Self::Bytes) -> Self::Bytes;
    /// `sum + Σ w · x` of each lane, exactly.
    unsafe fn dot(sum: Self::Ints, w: Self::Bytes, x: *const i8) -> Self::Ints;
    unsafe fn widen(sum: Self::Ints) -> Self::V;
    /// Tells the CPU that the line at `p` is soon read; `p` may be anything.
    fn prefetch(p: *const u8);
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
            // One row is bound by memory, which likes to be read in one go.
            while rows.len() > 1 && slice + WIDE <= panels.end * slices {
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
    let four_bits = matches!(encoding, Encoding::Int4(_));
    let zero = if four_bits { INT4_ZERO } else { INT8_ZERO };
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
        // One row alone has its sums in registers.
        let mut one = [Q::V::splat(0.0); WIDE];
        for block in 0..x.k.div_ceil(BLOCK) {
            let mut scales = [Q::V::splat(0.0); WIDE];
            let mut weights = [[Q::splat_bytes(0); QUADS]; WIDE];
            for i in 0..WIDE {
                let at = panels[i].scales.as_ptr().cast::<half::f16>();
                scales[i] = Q::V::load_f16(at.add(block / blocks_a_scale * LANES + lane(i)));
                let at = panels[i].blocks.as_ptr().add(block * encoding.block_bytes() + lane(i) * QUAD);
                for line in (0..encoding.block_bytes()).step_by(64) {
                    Q::prefetch(at.wrapping_add(AHEAD + line));
                }
                if four_bits {
                    for quad in 0..QUADS / 2 {
                        let both = Q::load(at.add(quad * LANES * QUAD));
                        weights[i][quad] = Q::low_nibbles(both);
                        weights[i][quad + QUADS / 2] = Q::high_nibbles(both);
                    }
                } else {
                    unroll!(quad {
                        weights[i][quad] = Q::load(at.add(quad * LANES * QUAD));
                    });
                }
            }
            let x = &x.blocks[block * x.rows..][rows.clone()];
            match x {
                [x] => add::<Q, WIDE, 1>(std::array::from_ref(x), zero, &weights, &scales, &mut one),
                x => pass::<Q, WIDE>(x, zero, &weights, &scales, sums),
            }
        }
        if rows.len() == 1 {
            *sums = one;
        }
        for (i, row) in rows.enumerate() {
            for (s, &sum) in (*sums.add(i)).iter().enumerate() {
                finish(out, row, (slice + s) / slices * LANES + lane(s), sum);
            }
        }
    }
}

/// All rows past a block of weights.
#[inline(always)]
unsafe fn pass<Q: Quads, const WIDE: usize>(
    x: &[Codes],
    zero: i32,
    weights: &[[Q::Bytes; QUADS]; WIDE],
    scales: &[Q::V; WIDE],
    sums: *mut [Q::V; WIDE],
) {
    let (fours, rest) = x.as_chunks::<4>();
    // SAFETY: there are as many sums as rows, by the caller's promise.
    unsafe {
        for (i, four) in fours.iter().enumerate() {
            add::<Q, WIDE, 4>(four, zero, weights, scales, sums.add(4 * i));
        }
        for (i, x) in rest.iter().enumerate() {
            add::<Q, WIDE, 1>(std::array::from_ref(x), zero, weights, scales, sums.add(4 * fours.len() + i));
        }
    }
}

/// `M` rows past a block of weights.
#[inline(always)]
unsafe fn add<Q: Quads, const WIDE: usize, const M: usize>(
    x: &[Codes; M],
    zero: i32,
    weights: &[[Q::Bytes; QUADS]; WIDE],
    scales: &[Q::V; WIDE],
    sums: *mut [Q::V; WIDE],
) {
    // SAFETY: there are M sums, by the caller's promise, and a block has QUADS times four codes.
    unsafe {
        let mut ints = [[Q::splat(0); WIDE]; M];
        for m in 0..M {
            ints[m] = [Q::splat(zero * x[m].offset); WIDE];
        }
        unroll!(quad {
            for m in 0..M {
                for i in 0..WIDE {
                    ints[m][i] = Q::dot(ints[m][i], weights[i][quad], x[m].codes.as_ptr().add(quad * QUAD));
                }
            }
        });
        for m in 0..M {
            let scale = Q::V::splat(x[m].scale);
            let sums = &mut *sums.add(m);
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
    unsafe fn splat_bytes(x: u8) -> Self::Bytes {
        [[x; QUAD]; Portable::LANES]
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
        let x = unsafe { x.cast::<[i8; QUAD]>().read() }.map(i16::from);
        let mut out = sum;
        for lane in 0..Portable::LANES {
            // A product of a byte and a signed byte fits 16 bits.
            let product = |i: usize| i32::from(i16::from(w[lane][i]) * x[i]);
            out[lane] += (product(0) + product(1)) + (product(2) + product(3));
        }
        out
    }

    #[inline(always)]
    fn prefetch(_: *const u8) {}

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
        unsafe fn splat_bytes(x: u8) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_set1_epi8(x as i8) }
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
        fn prefetch(p: *const u8) {
            // SAFETY: a prefetch reads nothing that the program sees, and any address will do.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
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
                unsafe fn splat_bytes(x: u8) -> __m256i {
                    // SAFETY: as above.
                    unsafe { _mm256_set1_epi8(x as i8) }
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
                fn prefetch(p: *const u8) {
                    // SAFETY: a prefetch reads nothing that the program sees, and any address will do.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
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
