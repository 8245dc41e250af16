//! The vectors that the kernels are written over: one trait, an implementation an instruction set.
//!
//! Kernels are `#[inline(always)]` functions over [`Vector`], instantiated inside a function that carries the `#[target_feature]`
//! of the instruction set; that is where a vector's operations become single instructions.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::{bf16, f16};

/// A register of `LANES` single-precision numbers.
///
/// # Safety
/// Every method may only run on a CPU that has the implementation's instruction set, and pointers must be valid for
/// `LANES` elements. No alignment is needed.
pub(crate) trait Vector: Copy {
    const LANES: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn load_bf16(p: *const bf16) -> Self;
    unsafe fn load_f16(p: *const f16) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    /// `self * b + c`, rounded once where the instruction set has a fused multiply-add.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// The sum of the lanes, halves added to halves.
    unsafe fn sum(self) -> f32;
}

/// What weights are stored as.
pub(crate) trait Element: Copy + Sync {
    /// # Safety
    /// As for [`Vector`].
    unsafe fn load<V: Vector>(p: *const Self) -> V;
    const ZERO: Self;
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    const ZERO: Self = 0.0;

    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self) -> V {
        // SAFETY: the caller's promise, passed on.
        unsafe { V::load(p) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        bf16::from_f32(x)
    }

    const ZERO: Self = bf16::ZERO;

    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self) -> V {
        // SAFETY: the caller's promise, passed on.
        unsafe { V::load_bf16(p) }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x)
    }

    const ZERO: Self = f16::ZERO;

    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self) -> V {
        // SAFETY: the caller's promise, passed on.
        unsafe { V::load_f16(p) }
    }
}

/// Any CPU: arrays that the compiler turns into whatever vectors the target is known to have.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    pub(super) fn each(f: impl Fn(usize) -> f32) -> Self {
        Self(std::array::from_fn(f))
    }
}

impl Vector for Portable {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: valid for LANES elements, by the trait's contract; arrays of f32 are read unaligned.
        Self(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: as above.
        let bits = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        Self::each(|i| f32::from_bits(u32::from(bits[i]) << 16))
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        // SAFETY: as above.
        let halves = unsafe { p.cast::<[f16; 8]>().read_unaligned() };
        Self::each(|i| halves[i].to_f32())
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: as above, for writing.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Self::each(|i| self.0[i] + b.0[i])
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        Self::each(|i| self.0[i] * b.0[i])
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // Baseline x86-64 has no fused multiply-add and would call a library function for it.
        if cfg!(target_arch = "x86_64") {
            Self::each(|i| self.0[i] * b.0[i] + c.0[i])
        } else {
            Self::each(|i| self.0[i].mul_add(b.0[i], c.0[i]))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}
