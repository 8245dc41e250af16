//! Dot products of bytes on aarch64.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use voxtral_model::{BLOCK, INT8_ZERO, Packed};

use super::{Codes, Output, QUADS, Quads, Quantised, all_rows, quad_by_quad};

/// What NEON alone and with its extensions has in common; `$dot` adds to four sums the products with a quad of a row.
macro_rules! neon_quads {
    ($name:ident, $dot:ident $(, $several:item)*) => {
        impl Quads for $name {
            type V = float32x4x2_t;
            type Bytes = int8x16x2_t;
            type Ints = int32x4x2_t;
            type Row = int8x16x2_t;
            const CENTRE: i32 = INT8_ZERO;

            #[inline(always)]
            unsafe fn splat(x: i32) -> int32x4x2_t {
                // SAFETY: the CPU has NEON, by the trait's contract (here and below).
                unsafe { int32x4x2_t(vdupq_n_s32(x), vdupq_n_s32(x)) }
            }

            #[inline(always)]
            unsafe fn splat_bytes(x: u8) -> int8x16x2_t {
                // SAFETY: as above.
                unsafe { int8x16x2_t(vdupq_n_s8(x as i8), vdupq_n_s8(x as i8)) }
            }

            #[inline(always)]
            unsafe fn load(p: *const u8) -> int8x16x2_t {
                // SAFETY: `p` is valid for 32 bytes, by the trait's contract.
                unsafe { int8x16x2_t(vld1q_s8(p.cast()), vld1q_s8(p.add(16).cast())) }
            }

            #[inline(always)]
            unsafe fn load_centred(p: *const u8) -> int8x16x2_t {
                // SAFETY: as above. A byte less 128 is the byte with its highest bit turned, taken as signed.
                unsafe {
                    let (bytes, high) = (Self::load(p), vdupq_n_s8(i8::MIN));
                    int8x16x2_t(veorq_s8(bytes.0, high), veorq_s8(bytes.1, high))
                }
            }

            #[inline(always)]
            unsafe fn low_nibbles(bytes: int8x16x2_t) -> int8x16x2_t {
                // SAFETY: as above.
                unsafe { int8x16x2_t(vandq_s8(bytes.0, vdupq_n_s8(15)), vandq_s8(bytes.1, vdupq_n_s8(15))) }
            }

            #[inline(always)]
            unsafe fn high_nibbles(bytes: int8x16x2_t) -> int8x16x2_t {
                // SAFETY: as above.
                unsafe {
                    let high = |bytes| vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(bytes)));
                    int8x16x2_t(high(bytes.0), high(bytes.1))
                }
            }

            #[inline(always)]
            unsafe fn row(codes: &[i8; BLOCK]) -> int8x16x2_t {
                // SAFETY: the row has 32 codes.
                unsafe { int8x16x2_t(vld1q_s8(codes.as_ptr()), vld1q_s8(codes.as_ptr().add(16))) }
            }

            #[inline(always)]
            unsafe fn dot(sum: int32x4x2_t, w: int8x16x2_t, x: int8x16x2_t, quad: usize) -> int32x4x2_t {
                let x = if quad < QUADS / 2 { x.0 } else { x.1 };
                // SAFETY: the CPU has the instructions that the name says, by the trait's contract.
                unsafe {
                    match quad % 4 {
                        0 => int32x4x2_t($dot::<0>(sum.0, w.0, x), $dot::<0>(sum.1, w.1, x)),
                        1 => int32x4x2_t($dot::<1>(sum.0, w.0, x), $dot::<1>(sum.1, w.1, x)),
                        2 => int32x4x2_t($dot::<2>(sum.0, w.0, x), $dot::<2>(sum.1, w.1, x)),
                        _ => int32x4x2_t($dot::<3>(sum.0, w.0, x), $dot::<3>(sum.1, w.1, x)),
                    }
                }
            }

            // The CPU sees by itself that weights are read one after another.
            #[inline(always)]
            fn prefetch(_: *const u8) {}

            #[inline(always)]
            unsafe fn widen(sum: int32x4x2_t) -> float32x4x2_t {
                // SAFETY: as above.
                unsafe { float32x4x2_t(vcvtq_f32_s32(sum.0), vcvtq_f32_s32(sum.1)) }
            }

            $($several)*
        }
    };
}

/// NEON alone.
pub(super) struct Neon;

neon_quads!(Neon, smull);

/// Products in 16 bits, of which two fit: neither a weight less its zero nor a code is beyond ±128, and a code never is -128.
#[target_feature(enable = "neon")]
#[inline]
fn smull<const QUAD: i32>(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let x = vreinterpretq_s8_s32(vdupq_laneq_s32::<QUAD>(vreinterpretq_s32_s8(x)));
    let (low, high) = (vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x));
    vpadalq_s16(sum, vpaddq_s16(low, high))
}

/// NEON with dot products of bytes.
struct Dotprod;

neon_quads!(Dotprod, sdot);

// The intrinsics of these instructions are not stable yet.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const QUAD: i32>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: it works on registers only, and this function's own target features are what it asks for (here and below).
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{quad}]",
            sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x, quad = const QUAD,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// `sum[r, o] + Σ x[r, :] · w[o, :]` for two rows and two outputs, of eight inputs each.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn smmla(mut sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {x:v}.16b, {w:v}.16b",
            sum = inout(vreg) sum, x = in(vreg) x, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// NEON with products of matrices of bytes, for several rows.
struct I8mm;

neon_quads!(
    I8mm,
    sdot,
    /// Two quads of two outputs in each register, the outputs in order.
    #[inline(always)]
    unsafe fn arrange(quads: [int8x16x2_t; QUADS]) -> [int8x16x2_t; QUADS] {
        let mut out = quads;
        for two in 0..QUADS / 2 {
            let (a, b) = (quads[2 * two], quads[2 * two + 1]);
            // SAFETY: the CPU has NEON, by the trait's contract.
            unsafe {
                let low = vzipq_s32(vreinterpretq_s32_s8(a.0), vreinterpretq_s32_s8(b.0));
                let high = vzipq_s32(vreinterpretq_s32_s8(a.1), vreinterpretq_s32_s8(b.1));
                out[2 * two] = int8x16x2_t(vreinterpretq_s8_s32(low.0), vreinterpretq_s8_s32(low.1));
                out[2 * two + 1] = int8x16x2_t(vreinterpretq_s8_s32(high.0), vreinterpretq_s8_s32(high.1));
            }
        }
        out
    },
    #[inline(always)]
    unsafe fn multiply<const WIDE: usize, const M: usize>(
        ints: &mut [[int32x4x2_t; WIDE]; M],
        weights: &[[int8x16x2_t; QUADS]; WIDE],
        x: &[Codes; M],
    ) {
        // SAFETY: the CPU has these instructions, by the trait's contract; a row has four times eight codes.
        unsafe {
            if M % 2 == 1 {
                return quad_by_quad::<Self, WIDE, M>(ints, weights, x);
            }
            for (m, i) in (0..M).step_by(2).flat_map(|m| (0..WIDE).map(move |i| (m, i))) {
                let mut sums = [vdupq_n_s32(0); 4];
                for two in 0..QUADS / 2 {
                    let eight = |m: usize| vld1_s8(x[m].codes.as_ptr().add(8 * two));
                    let rows = vcombine_s8(eight(m), eight(m + 1));
                    let (low, high) = (weights[i][2 * two], weights[i][2 * two + 1]);
                    sums[0] = smmla(sums[0], rows, low.0);
                    sums[1] = smmla(sums[1], rows, low.1);
                    sums[2] = smmla(sums[2], rows, high.0);
                    sums[3] = smmla(sums[3], rows, high.1);
                }
                let [a, b, c, d] = sums.map(|sums| vreinterpretq_s64_s32(sums));
                let row = |sum: int32x4x2_t, low, high| {
                    let (low, high) = (vreinterpretq_s32_s64(low), vreinterpretq_s32_s64(high));
                    int32x4x2_t(vaddq_s32(sum.0, low), vaddq_s32(sum.1, high))
                };
                ints[m][i] = row(ints[m][i], vzip1q_s64(a, b), vzip1q_s64(c, d));
                ints[m + 1][i] = row(ints[m + 1][i], vzip2q_s64(a, b), vzip2q_s64(c, d));
            }
        }
    }
);

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dotprod(x: &Quantised, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
    // SAFETY: this function's own target features are what it asks for (here and below).
    unsafe { all_rows::<Dotprod, 1>(x, w, out, panels) }
}

#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn i8mm(x: &Quantised, w: &Packed, out: &Output<'_>, panels: Range<usize>) {
    // SAFETY: as above.
    unsafe { all_rows::<I8mm, 1>(x, w, out, panels) }
}
