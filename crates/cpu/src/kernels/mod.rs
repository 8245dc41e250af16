//! The arithmetic that is worth vectors, each kernel in a file of its own, instantiated for each instruction set.
//!
//! [`Isa::detect`] looks at the CPU once; having an [`Isa`] value is the proof that its instructions exist here, and the
//! kernels' safe entry points take one.

mod attention;
mod elementwise;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod pairs;
mod panels;
mod product;
mod quads;
mod rounded;
mod vector;

pub(crate) use attention::{BLOCK, Head, Heads, Query, attend};
pub(crate) use elementwise::{argmax_logprob, largest_but, rms_norm, rotate_pairs, silu_mul};
pub(crate) use product::{Activations, Output, Weights, product_columns};
pub(crate) use rounded::{Quantised, Rounded};
pub(crate) use vector::Element;

/// Instruction sets that kernels exist for, from the plainest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa {
    level: Level,
    /// Dot products of bytes.
    byte_dot: bool,
    /// Products of matrices of bytes, two rows with two outputs.
    #[cfg(target_arch = "aarch64")]
    byte_matrix: bool,
    bf16_dot: bool,
}

impl Isa {
    /// What runs everywhere.
    pub const PORTABLE: Self = Self {
        level: Level::Portable,
        byte_dot: false,
        #[cfg(target_arch = "aarch64")]
        byte_matrix: false,
        bf16_dot: false,
    };

    /// The best that this CPU has.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::PORTABLE)
    }

    /// All that this CPU has, from the plainest to the best.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                let plain = Self { level: Level::Avx2, ..Self::PORTABLE };
                all.push(plain);
                if has!("avxvnni") {
                    all.push(Self { byte_dot: true, ..plain });
                }
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") {
                    let wide = Self { level: Level::Avx512, ..plain };
                    all.push(wide);
                    if has!("avx512vnni") {
                        all.push(Self { byte_dot: true, ..wide });
                        if has!("avx512bf16") {
                            all.push(Self { byte_dot: true, bf16_dot: true, ..wide });
                        }
                    }
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            let plain = Self { level: Level::Neon, ..Self::PORTABLE };
            all.push(plain);
            if has!("dotprod") {
                let dot = Self { byte_dot: true, ..plain };
                all.push(dot);
                if has!("i8mm") {
                    let matrix = Self { byte_matrix: true, ..dot };
                    all.push(matrix);
                    if has!("bf16") {
                        all.push(Self { bf16_dot: true, ..matrix });
                    }
                }
            }
        }
        all
    }

    /// Whether products of bf16 numbers can be taken without widening them.
    pub fn has_bf16_dot(self) -> bool {
        self.bf16_dot
    }

    /// Its name, as reports show it.
    pub fn name(self) -> &'static str {
        match self.level {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 if self.byte_dot => "avx2-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if self.bf16_dot => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if self.byte_dot => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon if self.bf16_dot => "neon-bf16",
            #[cfg(target_arch = "aarch64")]
            Level::Neon if self.byte_matrix => "neon-i8mm",
            #[cfg(target_arch = "aarch64")]
            Level::Neon if self.byte_dot => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }
}

/// Stamps a kernel for every level: `dispatch!(isa, [E: Element] kernel(x: &[E]))` calls `kernel::<V, E>` with the level's vector as
/// `V`, inside a function that has the level's instructions switched on.
macro_rules! dispatch {
    ($isa:expr, [$($g:ident : $bound:ident),*] $kernel:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<$($g: $bound),*>($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function's own target features are what the vector asks for.
            unsafe { $kernel::<std::arch::x86_64::__m256, $($g),*>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
        fn avx512<$($g: $bound),*>($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function's own target features are what the vector asks for.
            unsafe { $kernel::<std::arch::x86_64::__m512, $($g),*>($($arg),*) }
        }
        match $isa.level {
            // SAFETY: the portable vector asks for nothing.
            $crate::kernels::Level::Portable => unsafe { $kernel::<$crate::kernels::vector::Portable, $($g),*>($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an Isa of this level exists only after the CPU was seen to have these features.
            $crate::kernels::Level::Avx2 => unsafe { avx2::<$($g),*>($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::kernels::Level::Avx512 => unsafe { avx512::<$($g),*>($($arg),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: every aarch64 CPU that this is compiled for has NEON.
            $crate::kernels::Level::Neon => unsafe { $kernel::<std::arch::aarch64::float32x4x2_t, $($g),*>($($arg),*) },
        }
    }};
}
pub(crate) use dispatch;

/// `unroll!(i { … })`: the block for `i` from 0 to 7, written out, so that arrays that it indexes stay in registers.
macro_rules! unroll {
    ($i:ident $body:block) => {
        unroll!(@ $i $body 0 1 2 3 4 5 6 7)
    };
    (@ $i:ident $body:block $($n:literal)*) => {
        $({
            let $i = $n;
            $body
        })*
    };
}
pub(crate) use unroll;
