//! Linear layers over weights as they are stored.

use half::bf16;
use voxtral_model::{Tensor, TensorData};

use crate::kernels::{Activations, Isa, Output, product_columns, round_bf16};
use crate::parallel::{self, SharedColumns};

/// How products are computed.
#[derive(Clone, Copy)]
pub(crate) struct Arithmetic {
    pub isa: Isa,
    /// Round activations to bf16 where the weights are bf16 and the CPU has dot products of them.
    pub bf16: bool,
}

/// The left side of one or several products.
pub(crate) struct Input<'a> {
    wide: &'a [f32],
    rounded: Option<Vec<bf16>>,
}

impl Arithmetic {
    /// Makes `x`, `[rows, k]`, ready for products.
    pub(crate) fn input<'a>(&self, x: &'a [f32]) -> Input<'a> {
        let rounded = self.bf16.then(|| {
            let mut rounded = vec![bf16::ZERO; x.len()];
            round_bf16(self.isa, x, &mut rounded);
            rounded
        });
        Input { wide: x, rounded }
    }
}

/// `y = W x + b`.
pub(crate) struct Linear {
    weight: Tensor,
    /// Inputs.
    k: usize,
    /// Outputs.
    n: usize,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Rows of a weight are outputs; all further dimensions together are inputs.
    pub(crate) fn new(weight: &Tensor, bias: Option<&Tensor>) -> Self {
        let n = weight.shape()[0];
        Self { weight: weight.clone(), k: weight.data().len() / n, n, bias: bias.map(Tensor::to_f32) }
    }

    /// `y = W x + b`, `[rows, n]`.
    pub(crate) fn apply(&self, arithmetic: Arithmetic, x: &Input<'_>) -> Vec<f32> {
        let mut y = vec![0.0; x.wide.len() / self.k * self.n];
        self.run(arithmetic, x, &mut y, false);
        y
    }

    /// `y += W x + b`.
    pub(crate) fn add_to(&self, arithmetic: Arithmetic, x: &Input<'_>, y: &mut [f32]) {
        self.run(arithmetic, x, y, true);
    }

    fn run(&self, arithmetic: Arithmetic, x: &Input<'_>, y: &mut [f32], accumulate: bool) {
        let weight = self.weight.data();
        let activations = match (&x.rounded, weight) {
            (Some(rounded), TensorData::Bf16(_)) => Activations::Bf16(rounded),
            _ => Activations::F32(x.wide),
        };
        let cost = y.len() * self.k;
        let out = Output { y: SharedColumns::new(y, self.n), bias: self.bias.as_deref(), accumulate };
        // A cache line of results, so that no two threads write the same one.
        parallel::split(self.n, 16, cost, |columns| {
            // SAFETY: the ranges of `split` do not overlap, and `y` is nobody else's.
            unsafe { product_columns(arithmetic.isa, activations, weight, self.k, &out, columns) };
        });
    }
}
