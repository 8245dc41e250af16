//! Dot products of bytes on x86-64.

use std::arch::x86_64::*;
use std::ops::Range;

use voxtral_model::{BLOCK, Packed};

use super::{Output, QUAD, Quads, Quantised, all_rows};

/// AVX-512 with VNNI.
struct Vnni512;

impl Quads for Vnni512 {
    type V = __m512;
    type Bytes = __m512i;
    type Ints = __m512i;
    type Row = *const i8;

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
    unsafe fn row(codes: &[i8; BLOCK]) -> *const i8 {
        codes.as_ptr()
    }

    #[inline(always)]
    unsafe fn dot(sum: __m512i, w: __m512i, x: *const i8, quad: usize) -> __m512i {
        // SAFETY: a row has QUADS times four codes; what is read needs no alignment.
        unsafe {
            let x = x.add(quad * QUAD).cast::<i32>().read_unaligned();
            _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x))
        }
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
            type Row = *const i8;

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
            unsafe fn row(codes: &[i8; BLOCK]) -> *const i8 {
                codes.as_ptr()
            }

            #[inline(always)]
            unsafe fn dot($sum: __m256i, $w: __m256i, x: *const i8, quad: usize) -> __m256i {
                // SAFETY: a row has QUADS times four codes; what is read needs no alignment. The CPU has the instructions that
                // the name says.
                unsafe {
                    let $x = _mm256_set1_epi32(x.add(quad * QUAD).cast::<i32>().read_unaligned());
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
