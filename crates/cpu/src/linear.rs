//! Linear layers over weights as they are stored.

use std::cell::OnceCell;

use voxtral_model::{LANES, Tensor, TensorData, Weight};

use crate::kernels::{Activations, Isa, Output, Quantised, Rounded, Weights, product_columns};
use crate::parallel::{self, SharedColumns};

/// How products are computed.
#[derive(Clone, Copy)]
pub(crate) struct Arithmetic {
    pub isa: Isa,
    /// In f32, whatever the weights are. Otherwise activations are rounded to what the weights are, where the CPU has dot products of
    /// that.
    pub exact: bool,
}

/// The left side of one or several products, rounded when one asks for it.
pub(crate) struct Input<'a> {
    wide: &'a [f32],
    bf16: OnceCell<Rounded>,
    int8: OnceCell<Quantised>,
}

impl<'a> Input<'a> {
    /// Of `x`, `[rows, k]`.
    pub(crate) fn new(x: &'a [f32]) -> Self {
        Self { wide: x, bf16: OnceCell::new(), int8: OnceCell::new() }
    }

    fn bf16(&self, isa: Isa, k: usize) -> Activations<'_> {
        Activations::Bf16(self.bf16.get_or_init(|| Rounded::new(isa, self.wide, k)))
    }

    fn int8(&self, isa: Isa, k: usize) -> Activations<'_> {
        Activations::Int8(self.int8.get_or_init(|| Quantised::new(isa, self.wide, k)))
    }
}

/// `y = W x + b`.
pub(crate) struct Linear {
    weight: Weight,
    /// Inputs.
    k: usize,
    /// Outputs.
    n: usize,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Rows of a weight are outputs; all further dimensions together are inputs.
    pub(crate) fn new(weight: &Weight, bias: Option<&Tensor>) -> Self {
        Self { weight: weight.clone(), k: weight.k(), n: weight.n(), bias: bias.map(Tensor::to_f32) }
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

    fn run(&self, Arithmetic { isa, exact }: Arithmetic, x: &Input<'_>, y: &mut [f32], accumulate: bool) {
        let weights = match &self.weight {
            Weight::Dense(tensor) => Weights::Rows(tensor.data()),
            Weight::Packed(packed) => Weights::Panels(packed),
        };
        let activations = match weights {
            _ if exact => Activations::F32(x.wide),
            Weights::Panels(packed) if packed.encoding().group().is_some() => x.int8(isa, self.k),
            Weights::Panels(_) | Weights::Rows(TensorData::Bf16(_)) if isa.has_bf16_dot() => x.bf16(isa, self.k),
            _ => Activations::F32(x.wide),
        };
        let cost = y.len() * self.k;
        let out = Output { y: SharedColumns::new(y, self.n), bias: self.bias.as_deref(), accumulate };
        // Two panels, which are whole cache lines of results: no two threads write the same one.
        parallel::split(self.n, 2 * LANES, cost, |columns| {
            // SAFETY: the ranges of `split` do not overlap, and `y` is nobody else's.
            unsafe { product_columns(isa, activations, weights, self.k, &out, columns) };
        });
    }
}
