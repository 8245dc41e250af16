//! Any sample rate to 16 kHz, band-limited, streaming, aligned.
//!
//! A windowed sinc of 192 output samples: flat to 0.9 of the narrower Nyquist frequency, more than 100 dB down where
//! aliases begin. Common rates have a small number of phases between input and output, and each gets its own exact filter;
//! the others interpolate between 256 filters.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Resampler as _, SincInterpolationParameters, SincInterpolationType, WindowFunction,
    calculate_cutoff,
};

use crate::SAMPLE_RATE;
use crate::error::{Result, check_rate};

/// Length of the filter, in samples of the lower of the two rates.
const TAPS: usize = 192;
/// Its window: side lobes below −100 dB.
const WINDOW: WindowFunction = WindowFunction::Blackman2;
/// Up to so many phases each has its own filter (11 025 Hz needs 640, 44 100 Hz 160, 48 000 Hz 1).
const MAX_EXACT_PHASES: usize = 640;

/// Samples at one rate in, samples at 16 kHz out.
///
/// Output sample i lies at the instant of input sample i · rate / 16000, and n input samples make ⌈n · 16000 / rate⌉
/// output samples. The output does not depend on how the input is cut, to the bit. At 16 kHz samples pass untouched.
pub struct Resampler {
    rate: u32,
    /// Nothing to do at 16 kHz.
    filter: Option<Filter>,
    /// Input and output samples of this stream.
    taken: u64,
    given: u64,
}

struct Filter {
    sinc: Async<f32>,
    /// Zeros before the input that make the delay of the filter a whole number of output samples…
    lead: usize,
    /// …this many, which are dropped.
    delay: usize,
    to_drop: usize,
    /// The filter works on chunks of one size; these wait for theirs to fill.
    pending: Vec<f32>,
    chunk: usize,
    output: Vec<f32>,
}

impl Resampler {
    /// A resampler from `rate` Hz to 16 kHz, at the start of a stream.
    ///
    /// # Errors
    /// [`Error::Rate`](crate::Error::Rate) outside [`MIN_RATE`](crate::MIN_RATE) to [`MAX_RATE`](crate::MAX_RATE).
    pub fn new(rate: u32) -> Result<Self> {
        let filter = (check_rate(rate)? != SAMPLE_RATE).then(|| Filter::new(rate));
        Ok(Self { rate, filter, taken: 0, given: 0 })
    }

    /// Takes samples at the input rate and appends those that are ready to `out`, at 16 kHz.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        let before = out.len();
        match &mut self.filter {
            None => out.extend_from_slice(samples),
            Some(filter) => filter.push(samples, out),
        }
        self.given += (out.len() - before) as u64;
    }

    /// Ends the stream: appends what the filter still holds, with zeros taken to follow the input. The next push begins a
    /// new stream.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        if let Some(filter) = &mut self.filter {
            let total = (self.taken * u64::from(SAMPLE_RATE)).div_ceil(u64::from(self.rate));
            let begin = out.len();
            // The filter reaches half its length ahead, so some are always missing, never any too many.
            let missing = total.saturating_sub(self.given) as usize;
            let zeros = vec![0.0; filter.chunk];
            while out.len() - begin < missing {
                filter.push(&zeros, out);
            }
            out.truncate(begin + missing);
        }
        self.reset();
    }

    /// Forgets the stream; the next push begins a new one.
    fn reset(&mut self) {
        self.taken = 0;
        self.given = 0;
        if let Some(filter) = &mut self.filter {
            filter.reset();
        }
    }
}

impl Filter {
    fn new(rate: u32) -> Self {
        let (rate, target) = (rate as usize, SAMPLE_RATE as usize);
        let common = gcd(rate, target);
        let phases = target / common;
        let (oversampling_factor, interpolation) = if phases <= MAX_EXACT_PHASES {
            (phases, SincInterpolationType::Nearest)
        } else {
            (256, SincInterpolationType::Cubic)
        };
        // Going down, the filter must be as long in time as it is at 16 kHz, hence longer in input samples.
        let sinc_len = (TAPS * rate.max(target) / target).next_multiple_of(8);
        let parameters = SincInterpolationParameters {
            sinc_len,
            f_cutoff: Some(calculate_cutoff(TAPS, WINDOW)),
            oversampling_factor,
            interpolation,
            window: WINDOW,
        };
        // 10 ms: little latency, and little work per chunk beside the filtering.
        let chunk = rate.div_ceil(100);
        let ratio = target as f64 / rate as f64;
        let sinc = Async::new_sinc(ratio, 1.0, &parameters, chunk, 1, FixedAsync::Input)
            .expect("ratio and chunk are positive and finite");

        // Output j of the filter lies at input (j + 1)/ratio − sinc_len/2 + 1/oversampling_factor (read in its source;
        // the tests measure it). Find the lead that makes the offset a whole number of outputs: it exists, as phases and
        // input step have no common divisor.
        let offset = |lead: usize| ((sinc_len / 2 + lead) as f64 - 1.0 / oversampling_factor as f64) * ratio;
        let from_whole = |lead: &usize| (offset(*lead) - offset(*lead).round()).abs();
        let lead = (0..rate / common).min_by(|a, b| from_whole(a).total_cmp(&from_whole(b))).unwrap_or(0);
        let delay = offset(lead).round() as usize - 1;

        let output = vec![0.0; sinc.output_frames_max()];
        let mut filter = Self { sinc, lead, delay, to_drop: 0, pending: Vec::new(), chunk, output };
        filter.reset();
        filter
    }

    fn reset(&mut self) {
        self.sinc.reset();
        self.to_drop = self.delay;
        self.pending.clear();
        self.pending.resize(self.lead, 0.0);
    }

    fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.pending.extend_from_slice(samples);
        let whole = self.pending.len() / self.chunk * self.chunk;
        for chunk in self.pending[..whole].chunks_exact(self.chunk) {
            let capacity = self.output.len();
            let input = InterleavedSlice::new(chunk, 1, chunk.len()).expect("one channel fits its own length");
            let mut output =
                InterleavedSlice::new_mut(&mut self.output, 1, capacity).expect("one channel fits its own length");
            let (_, made) = self
                .sinc
                .process_into_buffer(&input, &mut output, None)
                .expect("buffers have the sizes that the filter named");
            let dropped = self.to_drop.min(made);
            self.to_drop -= dropped;
            out.extend_from_slice(&self.output[dropped..made]);
        }
        self.pending.drain(..whole);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[path = "resample_tests.rs"]
mod tests;
