//! What the tests of several modules need: signals, and measures of them.

use std::f64::consts::TAU;

/// `seconds` of a sine of amplitude 0.5 and phase 0.
pub fn sine(hz: f64, rate: u32, seconds: f64) -> Vec<f32> {
    let samples = (seconds * f64::from(rate)) as usize;
    (0..samples).map(|i| (0.5 * (TAU * hz * i as f64 / f64::from(rate)).sin()) as f32).collect()
}

/// `samples` of reproducible white noise within ±0.5.
pub fn noise(samples: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..samples).map(|_| next()).collect()
}

/// The bits of every value, for comparisons in which -0 is not 0.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Root mean square in decibels of full scale.
pub fn decibels(values: &[f32]) -> f64 {
    let power: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
    10.0 * power.max(1e-30).log10()
}
