//! The convolutional stem: log-mel frames to the encoder's first positions, one position for two frames.
//!
//! Both convolutions are products over rows that lay the taps' inputs side by side, in the order of the stored weights.

use voxtral_model::{ModelConfig, Weights, gelu};

use crate::linear::{Arithmetic, Input, Linear};

const TAPS: usize = ModelConfig::CONV_KERNEL;

/// Both convolutions.
pub(crate) struct Stem {
    conv: [Linear; 2],
    mel_bins: usize,
    dim: usize,
}

/// What a stream carries from one span to the next: zeros at first.
#[derive(Clone)]
pub(crate) struct Carry {
    /// The last two mel frames, `[2, mel_bins]`.
    mel: Vec<f32>,
    /// The last output of the first convolution, `[1, dim]`.
    hidden: Vec<f32>,
}

impl Stem {
    pub(crate) fn new(config: &ModelConfig, weights: &Weights) -> Self {
        let conv = [&weights.conv[0], &weights.conv[1]].map(|c| Linear::new(&c.weight, c.bias.as_ref()));
        Self { conv, mel_bins: config.audio.mel_bins, dim: config.encoder.dim }
    }

    /// What a stream begins with.
    pub(crate) fn silence(&self) -> Carry {
        Carry {
            mel: vec![0.0; (TAPS - 1) * self.mel_bins],
            hidden: vec![0.0; (TAPS - ModelConfig::CONV_STRIDE) * self.dim],
        }
    }

    /// The positions of all spans, `[positions, dim]`, into `out`. Each span is an even number of mel frames, `[frames, mel_bins]`.
    pub(crate) fn forward(
        &self,
        arithmetic: Arithmetic<'_>,
        spans: &mut [(&[f32], &mut Carry)],
        scratch: &mut Input,
        out: &mut Vec<f32>,
    ) {
        let mut rows = Vec::new();
        for (mel, carry) in spans.iter_mut() {
            lay_out(&mut carry.mel, mel, self.mel_bins, 1, &mut rows);
        }
        self.convolve(arithmetic, 0, &rows, scratch, out);
        rows.clear();
        let mut at = 0;
        for (mel, carry) in spans.iter_mut() {
            let len = mel.len() / self.mel_bins * self.dim;
            lay_out(&mut carry.hidden, &out[at..at + len], self.dim, ModelConfig::CONV_STRIDE, &mut rows);
            at += len;
        }
        self.convolve(arithmetic, 1, &rows, scratch, out);
    }

    fn convolve(&self, arithmetic: Arithmetic<'_>, index: usize, rows: &[f32], input: &mut Input, out: &mut Vec<f32>) {
        input.begin(rows.len()).copy_from_slice(rows);
        self.conv[index].apply(arithmetic, input, out);
        let cost = 16 * out.len();
        arithmetic.team.each_row(out, self.dim, cost, |_, row| row.iter_mut().for_each(|v| *v = gelu(*v)));
    }
}

/// Appends a row of `[channels, TAPS]` for every `stride` frames of `carry` and `input`, and leaves the last frames in `carry`.
fn lay_out(carry: &mut Vec<f32>, input: &[f32], channels: usize, stride: usize, rows: &mut Vec<f32>) {
    let carried = carry.len();
    carry.extend_from_slice(input);
    let frames = carry.len() / channels;
    for first in (0..=frames - TAPS).step_by(stride) {
        let taps = &carry[first * channels..][..TAPS * channels];
        rows.extend((0..channels).flat_map(|c| (0..TAPS).map(move |tap| taps[tap * channels + c])));
    }
    carry.drain(..carry.len() - carried);
}
