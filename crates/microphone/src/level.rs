//! How loud it is.

use voxtral_audio::SAMPLE_RATE;

/// What a meter shows: a tenth of a second.
const WINDOW: usize = SAMPLE_RATE as usize / 10;

/// How loud a piece of audio is, in dB below full scale; negative infinity where all samples are zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The largest sample.
    pub peak_dbfs: f32,
    /// The root of the mean square: -3 for a sine of full scale.
    pub rms_dbfs: f32,
}

impl Default for Level {
    fn default() -> Self {
        Self { peak_dbfs: f32::NEG_INFINITY, rms_dbfs: f32::NEG_INFINITY }
    }
}

impl Level {
    fn of(peak: f32, mean_square: f32) -> Self {
        Self { peak_dbfs: 20.0 * peak.log10(), rms_dbfs: 10.0 * mean_square.log10() }
    }
}

/// Measures audio that arrives in pieces.
#[derive(Default)]
pub(crate) struct Meter {
    level: Level,
    peak: f32,
    squares: f32,
    samples: usize,
}

impl Meter {
    pub(crate) fn hear(&mut self, samples: &[f32]) {
        for &sample in samples {
            self.peak = self.peak.max(sample.abs());
            self.squares += sample * sample;
            self.samples += 1;
            if self.samples == WINDOW {
                *self = Self { level: Level::of(self.peak, self.squares / WINDOW as f32), ..Self::default() };
            }
        }
    }

    /// That of the latest whole window.
    pub(crate) fn level(&self) -> Level {
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sine_of_half_the_full_scale_is_at_minus_6_and_minus_9() {
        let sine: Vec<f32> = (0..WINDOW).map(|i| 0.5 * (i as f32 * std::f32::consts::TAU / 16.0).sin()).collect();
        let mut meter = Meter::default();
        sine.chunks(77).for_each(|piece| meter.hear(piece));
        let level = meter.level();
        assert!((level.peak_dbfs + 6.02).abs() < 0.01 && (level.rms_dbfs + 9.03).abs() < 0.01, "{level:?}");
    }

    #[test]
    fn it_is_of_the_latest_tenth_of_a_second() {
        let mut meter = Meter::default();
        meter.hear(&[1.0; WINDOW]);
        meter.hear(&[0.0; WINDOW]);
        assert_eq!(meter.level(), Level::default());
        meter.hear(&[1.0; WINDOW - 1]);
        assert_eq!(meter.level(), Level::default(), "not before it is whole");
    }
}
