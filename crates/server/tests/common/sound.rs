//! The sample as other clients have it: at other rates, in other encodings.
#![allow(dead_code, reason = "each test program uses its part")]

use super::ws::digits;

/// The sample at another rate, each new sample between two old ones.
pub fn at_rate(rate: u32) -> Vec<f32> {
    let samples = digits();
    let sample = |at: usize| f32::from(*samples.get(at).unwrap_or(&0)) / 32768.0;
    let step = 16_000.0 / f64::from(rate);
    (0..(samples.len() as f64 / step) as usize)
        .map(|i| (i as f64 * step).floor() as usize)
        .zip((0..).map(|i| (f64::from(i) * step).fract() as f32))
        .map(|(at, between)| sample(at) * (1.0 - between) + sample(at + 1) * between)
        .collect()
}

/// Signed 16 bit.
pub fn s16(samples: &[f32]) -> Vec<u8> {
    samples.iter().flat_map(|sample| ((sample * 32767.0) as i16).to_le_bytes()).collect()
}

/// G.711, µ-law.
pub fn mu_law(samples: &[f32]) -> Vec<u8> {
    let encode = |sample: &f32| {
        let magnitude = ((sample.abs() * 32768.0) as i32 + 132).min(32_767);
        let exponent = (magnitude >> 7).ilog2() as i32;
        let code = (exponent << 4) | ((magnitude >> (exponent + 3)) & 15);
        !(code as u8 | if *sample < 0.0 { 0x80 } else { 0 })
    };
    samples.iter().map(encode).collect()
}

/// G.711, A-law.
pub fn a_law(samples: &[f32]) -> Vec<u8> {
    let encode = |sample: &f32| {
        let magnitude = ((sample.abs() * 32768.0) as i32).min(32_767);
        let exponent = if magnitude < 256 { 0 } else { magnitude.ilog2() as i32 - 7 };
        let code = (exponent << 4) | ((magnitude >> (exponent.max(1) + 3)) & 15);
        (code as u8 | if *sample < 0.0 { 0 } else { 0x80 }) ^ 0x55
    };
    samples.iter().map(encode).collect()
}
