//! Log-mel frames from a stream of samples, frame by frame as soon as their last sample is known.
//!
//! With window W, hop H and everything outside the stream taken as zeros, frame m is
//! ```text
//! u[i] = x[H·m − W/2 + i] · hann[i]            i = 0 … W−1, hann periodic
//! P[k] = |DFT_W(u)[k]|²                        k = 0 … W/2, exactly W points
//! M[b] = Σ_k bank[k][b] · P[k]                 Slaney's mel scale and area normalisation
//! out  = (max(log10 max(M, 1e-10), log_mel_max − 8) + 4) / 4
//! ```
//! A frame is a function of its samples only, computed in f64 in one fixed order and rounded once, so however the samples
//! arrive, the frames have the same bits.

use std::f64::consts::TAU;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::error::{Error, Result};

/// The shape of the front-end.
#[derive(Clone, Debug, PartialEq)]
pub struct MelConfig {
    /// Samples a second; the mel scale ends at half of it.
    pub sample_rate: usize,
    /// Mel bins of a frame.
    pub mel_bins: usize,
    /// Samples between two frames.
    pub hop: usize,
    /// Samples under the window of a frame, also the length of the Fourier transform.
    pub window: usize,
    /// log10 of the loudest mel power; features are clamped to 8 below it.
    pub log_mel_max: f32,
}

/// Samples in, log-mel frames out. A clone goes on from the same place.
#[derive(Clone)]
pub struct MelStream {
    config: MelConfig,
    hann: Vec<f64>,
    bank: Vec<Filter>,
    fft: Arc<dyn RealToComplex<f64>>,
    /// The samples from the start of the next frame's window on.
    pending: Vec<f32>,
    /// Samples pushed, frames made.
    samples: usize,
    frames: usize,
    windowed: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    power: Vec<f64>,
}

/// One mel bin: its weights on the bins `first..` of the spectrum. Zero everywhere else.
#[derive(Clone)]
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

impl MelStream {
    /// A front-end at the start of a stream.
    ///
    /// # Errors
    /// [`Error::MelConfig`] for a size that is 0 or larger than any front-end has.
    pub fn new(config: MelConfig) -> Result<Self> {
        for (field, value, most) in [
            ("sample_rate", config.sample_rate, crate::MAX_RATE as usize),
            ("mel_bins", config.mel_bins, 4096),
            ("hop", config.hop, 1 << 16),
            ("window", config.window, 1 << 16),
        ] {
            if value == 0 || value > most {
                return Err(Error::MelConfig { field, value });
            }
        }
        let fft = RealFftPlanner::new().plan_fft_forward(config.window);
        let window = config.window as f64;
        Ok(Self {
            hann: (0..config.window).map(|i| 0.5 - 0.5 * (TAU * i as f64 / window).cos()).collect(),
            bank: filter_bank(&config),
            pending: vec![0.0; config.window / 2],
            samples: 0,
            frames: 0,
            windowed: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: vec![0.0; config.window / 2 + 1],
            fft,
            config,
        })
    }

    /// The shape of the front-end.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// Takes samples and appends the frames that they complete to `out`, `[frames, mel_bins]` row by row.
    ///
    /// Frame m is complete with sample `hop * m + window - window / 2 - 1`: at 16 kHz, window 400 and hop 160 that is 39
    /// samples past its own hop.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.pending.extend_from_slice(samples);
        self.samples += samples.len();
        let reach = (self.config.window - self.config.window / 2).max(self.config.hop);
        let complete = (self.samples + self.config.hop).saturating_sub(reach) / self.config.hop;
        self.emit(complete, out);
    }

    /// Ends the stream: appends the frames whose windows reach past the end, where all is zero, so that `samples / hop`
    /// frames (rounded down) have come in all. The next push begins a new stream.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let total = self.samples / self.config.hop;
        let missing = total.saturating_sub(self.frames);
        let end = self.config.hop * missing + self.config.window;
        self.pending.resize(self.pending.len().max(end), 0.0);
        self.emit(total, out);
        self.reset();
    }

    /// Forgets the stream; the next push begins a new one.
    fn reset(&mut self) {
        self.pending.clear();
        self.pending.resize(self.config.window / 2, 0.0);
        self.samples = 0;
        self.frames = 0;
    }

    /// Appends the frames from the next one up to `until`, all of whose samples are pending.
    fn emit(&mut self, until: usize, out: &mut Vec<f32>) {
        let mut start = 0;
        while self.frames < until {
            self.frame(start, out);
            self.frames += 1;
            start += self.config.hop;
        }
        self.pending.drain(..start.min(self.pending.len()));
    }

    /// Appends the frame whose window begins at `pending[start]`.
    fn frame(&mut self, start: usize, out: &mut Vec<f32>) {
        let samples = &self.pending[start..start + self.config.window];
        for ((u, &x), w) in self.windowed.iter_mut().zip(samples).zip(&self.hann) {
            *u = f64::from(x) * w;
        }
        self.fft
            .process_with_scratch(&mut self.windowed, &mut self.spectrum, &mut self.scratch)
            .expect("the transform made its own buffers");
        for (p, x) in self.power.iter_mut().zip(&self.spectrum) {
            *p = x.norm_sqr();
        }
        let floor = f64::from(self.config.log_mel_max) - 8.0;
        out.extend(self.bank.iter().map(|filter| {
            let power = &self.power[filter.first..];
            let sum: f64 = filter.weights.iter().zip(power).map(|(&w, p)| f64::from(w) * p).sum();
            ((sum.max(1e-10).log10().max(floor) + 4.0) / 4.0) as f32
        }));
    }
}

/// Triangles between the neighbours of each mel point, in f64, rounded to f32 as the model's authors did.
fn filter_bank(config: &MelConfig) -> Vec<Filter> {
    let nyquist = config.sample_rate as f64 / 2.0;
    let step = hz_to_mel(nyquist) / (config.mel_bins + 1) as f64;
    let corner = |i: usize| mel_to_hz(step * i as f64);
    let hz_per_bin = config.sample_rate as f64 / config.window as f64;
    (0..config.mel_bins)
        .map(|b| {
            let (low, peak, high) = (corner(b), corner(b + 1), corner(b + 2));
            let weight = |k: usize| {
                let f = hz_per_bin * k as f64;
                let triangle = ((f - low) / (peak - low)).min((high - f) / (high - peak)).max(0.0);
                (triangle * 2.0 / (high - low)) as f32
            };
            let inside = |k: &usize| weight(*k) > 0.0;
            let first = (0..=config.window / 2).find(inside).unwrap_or(0);
            let weights = (first..=config.window / 2).take_while(inside).map(weight).collect();
            Filter { first, weights }
        })
        .collect()
}

/// Slaney's mel scale: linear up to 1000 Hz, logarithmic above.
fn hz_to_mel(hz: f64) -> f64 {
    if hz < 1000.0 { hz * 3.0 / 200.0 } else { 15.0 + 27.0 * (hz / 1000.0).ln() / 6.4f64.ln() }
}

/// Its inverse.
fn mel_to_hz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() }
}

#[cfg(test)]
#[path = "mel_tests.rs"]
mod tests;
