//! Products of 8 and 4 bit weights: activations are rounded to 8 bits with a scale for each row and block, and multiplied as integers.
//!
//! ```text
//! y[m, n] = Σ_blocks  scale_w[n, group] · scale_x[m, block] · ( Σ_k (w + zero) · x  −  zero · Σ_k x )
//! ```
//! The inner sums are exact. The outer one goes along k, block by block, whatever rows and panels are computed together. Each weight is
//! read, and unpacked, once: a block of it stays in registers while all rows pass, whose sums are in the first-level cache.

// The loops run over registers, by index in several arrays at once. A closure would not have the instructions of its function.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

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
/// Bytes of each panel that are on their way from memory.
const AHEAD: usize = 4096;

/// Multiplies bytes of weights with signed bytes, four of a lane at a time.
///
/// # Safety
/// As for [`Vector`]; pointers must be valid for as many bytes as a register has.
trait Quads: Sized {
    type V: Vector;
    /// Four bytes a lane.
    type Bytes: Copy;
    /// An integer a lane.
    type Ints: Copy;
    /// The codes of a row, as `dot` takes them.
    type Row: Copy;
    /// What `load_centred` takes away from weights of 8 bits, which are stored without a sign: all of their zero where the instructions
    /// multiply signed with signed bytes.
    const CENTRE: i32 = 0;
    unsafe fn splat(x: i32) -> Self::Ints;
    unsafe fn splat_bytes(x: u8) -> Self::Bytes;
    unsafe fn load(p: *const u8) -> Self::Bytes;
    unsafe fn low_nibbles(bytes: Self::Bytes) -> Self::Bytes;
    unsafe fn high_nibbles(bytes: Self::Bytes) -> Self::Bytes;
    #[inline(always)]
    unsafe fn load_centred(p: *const u8) -> Self::Bytes {
        // SAFETY: the caller's promise.
        unsafe { Self::load(p) }
    }
    unsafe fn row(codes: &[i8; BLOCK]) -> Self::Row;
    /// `sum + Σ w · x` of each lane, exactly, for the `quad`-th four of a row.
    unsafe fn dot(sum: Self::Ints, w: Self::Bytes, x: Self::Row, quad: usize) -> Self::Ints;
    /// A block of weights as `multiply` takes it for several rows.
    #[inline(always)]
    unsafe fn arrange(weights: [Self::Bytes; QUADS]) -> [Self::Bytes; QUADS] {
        weights
    }
    /// Adds to the sums of `M` rows what a block of weights comes to, exactly; it is arranged unless there is one row.
    #[inline(always)]
    unsafe fn multiply<const WIDE: usize, const M: usize>(
        ints: &mut [[Self::Ints; WIDE]; M],
        weights: &[[Self::Bytes; QUADS]; WIDE],
        x: &[Codes; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe { quad_by_quad::<Self, WIDE, M>(ints, weights, x) }
    }
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
        Level::Avx512 if isa.byte_dot => unsafe { x86::vnni512(x, w, out, panels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 if isa.byte_dot => unsafe { x86::vnni256(x, w, out, panels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 | Level::Avx512 => unsafe { x86::avx2(x, w, out, panels) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon if isa.byte_matrix => unsafe { neon::i8mm(x, w, out, panels) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon if isa.byte_dot => unsafe { neon::dotprod(x, w, out, panels) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every aarch64 CPU has NEON.
        Level::Neon => unsafe { all_rows::<neon::Neon, 1>(x, w, out, panels) },
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
    let zero = if four_bits { INT4_ZERO } else { INT8_ZERO - Q::CENTRE };
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
        let blocks = x.k.div_ceil(BLOCK);
        let ahead = AHEAD / encoding.block_bytes();
        for block in 0..blocks {
            let mut scales = [Q::V::splat(0.0); WIDE];
            let mut weights = [[Q::splat_bytes(0); QUADS]; WIDE];
            for i in 0..WIDE {
                let at = panels[i].scales.as_ptr().cast::<half::f16>().add(block / blocks_a_scale * LANES + lane(i));
                scales[i] = Q::V::load_f16(at);
                // The panels that are next lie behind all of these.
                let next = WIDE * (panels[i].scales.len() + panels[i].blocks.len());
                Q::prefetch(at.cast::<u8>().wrapping_add(next));
                let at = panels[i].blocks.as_ptr().add(block * encoding.block_bytes() + lane(i) * QUAD);
                let jump = if block + ahead < blocks { 0 } else { next - panels[i].blocks.len() };
                for line in (0..encoding.block_bytes()).step_by(64) {
                    Q::prefetch(at.wrapping_add(ahead * encoding.block_bytes() + jump + line));
                }
                if four_bits {
                    for quad in 0..QUADS / 2 {
                        let both = Q::load(at.add(quad * LANES * QUAD));
                        weights[i][quad] = Q::low_nibbles(both);
                        weights[i][quad + QUADS / 2] = Q::high_nibbles(both);
                    }
                } else {
                    unroll!(quad {
                        weights[i][quad] = Q::load_centred(at.add(quad * LANES * QUAD));
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
        let mut arranged = *weights;
        for i in 0..WIDE {
            arranged[i] = Q::arrange(weights[i]);
        }
        for (i, four) in fours.iter().enumerate() {
            add::<Q, WIDE, 4>(four, zero, &arranged, scales, sums.add(4 * i));
        }
        for (i, x) in rest.iter().enumerate() {
            add::<Q, WIDE, 1>(std::array::from_ref(x), zero, weights, scales, sums.add(4 * fours.len() + i));
        }
    }
}

/// `M` rows past a block of weights, arranged unless M is 1.
#[inline(always)]
unsafe fn add<Q: Quads, const WIDE: usize, const M: usize>(
    x: &[Codes; M],
    zero: i32,
    weights: &[[Q::Bytes; QUADS]; WIDE],
    scales: &[Q::V; WIDE],
    sums: *mut [Q::V; WIDE],
) {
    // SAFETY: there are M sums, by the caller's promise.
    unsafe {
        let mut ints = [[Q::splat(0); WIDE]; M];
        for m in 0..M {
            ints[m] = [Q::splat(zero * x[m].offset); WIDE];
        }
        Q::multiply::<WIDE, M>(&mut ints, weights, x);
        for m in 0..M {
            let scale = Q::V::splat(x[m].scale);
            let sums = &mut *sums.add(m);
            for i in 0..WIDE {
                sums[i] = Q::widen(ints[m][i]).mul_add(scales[i].mul(scale), sums[i]);
            }
        }
    }
}

/// Four inputs after four: one product of a register of weights for each row.
#[inline(always)]
unsafe fn quad_by_quad<Q: Quads, const WIDE: usize, const M: usize>(
    ints: &mut [[Q::Ints; WIDE]; M],
    weights: &[[Q::Bytes; QUADS]; WIDE],
    x: &[Codes; M],
) {
    // SAFETY: the caller's promise about Q; a block has QUADS times four codes.
    unsafe {
        let mut rows = [Q::row(&x[0].codes); M];
        for m in 1..M {
            rows[m] = Q::row(&x[m].codes);
        }
        unroll!(quad {
            for m in 0..M {
                for i in 0..WIDE {
                    ints[m][i] = Q::dot(ints[m][i], weights[i][quad], rows[m], quad);
                }
            }
        });
    }
}

/// The scalar twin.
struct PortableQuads;

impl Quads for PortableQuads {
    type V = Portable;
    type Bytes = [[u8; QUAD]; Portable::LANES];
    type Ints = [i32; Portable::LANES];
    type Row = *const i8;

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
    unsafe fn row(codes: &[i8; BLOCK]) -> *const i8 {
        codes.as_ptr()
    }

    #[inline(always)]
    unsafe fn dot(sum: Self::Ints, w: Self::Bytes, x: *const i8, quad: usize) -> Self::Ints {
        // SAFETY: a row has QUADS times four codes.
        let x = unsafe { x.add(quad * QUAD).cast::<[i8; QUAD]>().read() }.map(i16::from);
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
