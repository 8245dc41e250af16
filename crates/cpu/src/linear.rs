//! Linear layers over weights as they are stored.

use voxtral_model::{LANES, Tensor, TensorData, Weight};

use crate::kernels::{Activations, Isa, Output, Quantised, Rounded, Weights, product_columns};
use crate::parallel::{SharedColumns, Team};

/// How products are computed.
#[derive(Clone, Copy)]
pub(crate) struct Arithmetic<'a> {
    pub isa: Isa,
    /// In f32, whatever the weights are. Otherwise activations are rounded to what the weights are, where the CPU has dot products of
    /// that.
    pub exact: bool,
    pub team: &'a Team,
}

/// The left side of one or several products, rounded when one asks for it. Its memory is used again for the next rows.
#[derive(Default)]
pub(crate) struct Input {
    wide: Vec<f32>,
    bf16: Rounded,
    int8: Quantised,
    has_bf16: bool,
    has_int8: bool,
}

impl Input {
    /// Room for `len` values, which are to be overwritten.
    pub(crate) fn begin(&mut self, len: usize) -> &mut [f32] {
        (self.has_bf16, self.has_int8) = (false, false);
        self.wide.resize(len, 0.0);
        &mut self.wide
    }

    /// The values, as they were written.
    pub(crate) fn values(&self) -> &[f32] {
        &self.wide
    }

    fn bf16(&mut self, arithmetic: Arithmetic<'_>, k: usize) -> Activations<'_> {
        if !self.has_bf16 {
            self.bf16.set(arithmetic.isa, arithmetic.team, &self.wide, k);
            self.has_bf16 = true;
        }
        Activations::Bf16(&self.bf16)
    }

    fn int8(&mut self, arithmetic: Arithmetic<'_>, k: usize) -> Activations<'_> {
        if !self.has_int8 {
            self.int8.set(arithmetic.isa, arithmetic.team, &self.wide, k);
            self.has_int8 = true;
        }
        Activations::Int8(&self.int8)
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

    /// `y = W x + b`, `[rows, n]`. Of `x` as it lies, k values are a row.
    pub(crate) fn apply(&self, arithmetic: Arithmetic<'_>, x: &mut Input, y: &mut Vec<f32>) {
        y.resize(x.wide.len() / self.k * self.n, 0.0);
        self.run(arithmetic, x, y, false);
    }

    /// `y += W x + b`.
    pub(crate) fn add_to(&self, arithmetic: Arithmetic<'_>, x: &mut Input, y: &mut [f32]) {
        self.run(arithmetic, x, y, true);
    }

    fn run(&self, arithmetic: Arithmetic<'_>, x: &mut Input, y: &mut [f32], accumulate: bool) {
        let Arithmetic { isa, exact, team } = arithmetic;
        let weights = match &self.weight {
            Weight::Dense(tensor) => Weights::Rows(tensor.data()),
            Weight::Packed(packed) => Weights::Panels(packed),
        };
        let activations = match weights {
            _ if exact => Activations::F32(&x.wide),
            Weights::Panels(packed) if packed.encoding().group().is_some() => x.int8(arithmetic, self.k),
            Weights::Panels(_) | Weights::Rows(TensorData::Bf16(_)) if isa.has_bf16_dot() => x.bf16(arithmetic, self.k),
            _ => Activations::F32(&x.wide),
        };
        let cost = y.len() * self.k;
        let out = Output { y: SharedColumns::new(y, self.n), bias: self.bias.as_deref(), accumulate };
        // Two panels, which are whole cache lines of results: no two threads write the same one.
        team.split(self.n, 2 * LANES, cost, |columns| {
            // SAFETY: the ranges of `split` do not overlap, and `y` is nobody else's.
            unsafe { product_columns(isa, activations, weights, self.k, &out, columns) };
        });
    }
}
