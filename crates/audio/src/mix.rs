//! Several channels to one, as their mean.

/// No sound is louder. Sums of so much, in a mean or in a filter, are still numbers.
const LOUDEST: f32 = 1e30;

/// Mixes, and counts what of the samples is no number.
#[derive(Default)]
pub(crate) struct Mixer {
    samples: u64,
    not_finite: u64,
}

impl Mixer {
    /// The mean of the channels of one instant, at least one. A NaN or infinity, which would spread over the whole rest of
    /// the transcript, is silence.
    pub(crate) fn mean(&mut self, instant: impl ExactSizeIterator<Item = f32>) -> f32 {
        let channels = instant.len();
        self.samples += channels as u64;
        let sample = |value: f32| {
            if value.is_finite() {
                return value.clamp(-LOUDEST, LOUDEST);
            }
            self.not_finite += 1;
            0.0
        };
        instant.map(sample).sum::<f32>() / channels as f32
    }

    /// Samples so far, of all channels.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// How many of them were not finite.
    pub(crate) fn not_finite(&self) -> u64 {
        self.not_finite
    }
}
