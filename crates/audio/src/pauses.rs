//! Pauses in speech: of each 16 ms, a small neural network says whether somebody speaks.

use std::fmt;
use std::time::Duration;

use crate::SAMPLE_RATE;

/// Samples that the detector takes at once: 16 ms.
const FRAME: usize = 256;
/// The score from which the detector means speech, if nobody says otherwise.
const SPEECH: f32 = 0.5;
/// Frames of speech in a row that end a pause. In noise, one or two now and then look like speech.
const SPOKEN: u32 = 3;

/// Finds where speech has paused, in 16 kHz mono samples. Where that is does not depend on how they are cut.
pub struct Pauses {
    detector: Box<earshot::Detector>,
    /// The score from which the detector means speech.
    threshold: f32,
    least: u64,
    /// Samples of a frame that is not full yet.
    begun: Vec<f32>,
    /// Frames seen.
    frames: u64,
    /// Frames of speech in a row, up to now.
    speech: u32,
    /// Where the frames begin that were no speech, up to now.
    quiet_from: u64,
    /// The frame with which somebody began to speak, if they have since the last pause.
    spoken_from: Option<u64>,
}

impl Pauses {
    /// For pauses of at least so long, rounded up to 16 ms.
    pub fn new(least: Duration) -> Self {
        let samples = least.as_micros() * u128::from(SAMPLE_RATE) / 1_000_000;
        Self {
            detector: Box::default(),
            threshold: SPEECH,
            least: u64::try_from(samples).unwrap_or(u64::MAX).div_ceil(FRAME as u64).max(1),
            begun: Vec::with_capacity(FRAME),
            frames: 0,
            speech: 0,
            quiet_from: 0,
            spoken_from: None,
        }
    }

    /// Takes for speech what has at least this score, 0 to 1, instead of 0.5.
    pub fn with_threshold(self, threshold: f32) -> Self {
        Self { threshold, ..self }
    }

    /// The sample with which the speech began that has not paused yet, if there is some. It is known after 48 ms of it.
    pub fn speech_from(&self) -> Option<u64> {
        self.spoken_from.map(|frame| frame * FRAME as u64)
    }

    /// Takes samples, and appends to `found`, for each pause that has lasted long enough with them, the sample at which it had.
    /// A pause comes after speech: silence before the first word is none, and a longer one is found once.
    pub fn push(&mut self, mut samples: &[f32], found: &mut Vec<u64>) {
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(FRAME - self.begun.len()));
            // The detector takes nothing beyond full scale, and remembers what is no number for ever.
            self.begun.extend(now.iter().map(|&v| if v.is_nan() { 0.0 } else { v.clamp(-1.0, 1.0) }));
            samples = later;
            if self.begun.len() == FRAME {
                self.frame(found);
                self.begun.clear();
            }
        }
    }

    fn frame(&mut self, found: &mut Vec<u64>) {
        self.frames += 1;
        self.speech = if self.detector.predict_f32(&self.begun) >= self.threshold { self.speech + 1 } else { 0 };
        if self.speech >= SPOKEN {
            self.quiet_from = self.frames;
            self.spoken_from.get_or_insert(self.frames - u64::from(SPOKEN));
        } else if self.speech == 0 && self.spoken_from.is_some() && self.frames - self.quiet_from >= self.least {
            self.spoken_from = None;
            found.push(self.frames * FRAME as u64);
        }
    }
}

impl fmt::Debug for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pauses")
            .field("frames", &self.frames)
            .field("spoken_from", &self.spoken_from)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::AudioSource;

    fn digits() -> Vec<f32> {
        let mut source = AudioSource::open("../../samples/digits.wav").unwrap();
        let mut samples = Vec::new();
        while let Some(block) = source.next_block().unwrap() {
            samples.extend_from_slice(block);
        }
        samples
    }

    /// With `silence_s` more after the second digit, which the detector hears until 1.8 s.
    fn paused(silence_s: f64) -> Vec<f32> {
        let digits = digits();
        let (before, after) = digits.split_at((1.9 * 16e3) as usize);
        [before, &vec![0.0; (silence_s * 16e3) as usize], after].concat()
    }

    fn found(least_ms: u64, pieces: impl Iterator<Item = impl AsRef<[f32]>>) -> Vec<f64> {
        let mut pauses = Pauses::new(Duration::from_millis(least_ms));
        let mut found = Vec::new();
        pieces.for_each(|piece| pauses.push(piece.as_ref(), &mut found));
        found.into_iter().map(|sample| sample as f64 / 16e3).collect()
    }

    fn noise(samples: usize, amplitude: f32) -> Vec<f32> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            amplitude * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        (0..samples).map(|_| next()).collect()
    }

    #[test]
    fn a_pause_is_found_once_where_it_has_lasted_long_enough() {
        let samples = paused(2.0);
        for (least_ms, at) in [(600, 2.4), (1000, 2.8), (2000, 3.8)] {
            let found = found(least_ms, std::iter::once(&samples));
            assert!(matches!(found[..], [found] if (found - at).abs() < 0.05), "{least_ms} ms: {found:?}");
        }
        assert_eq!(found(3000, std::iter::once(&samples)), [] as [f64; 0]);
        // The longest between two digits is 370 ms.
        assert_eq!(found(400, std::iter::once(digits())), [] as [f64; 0]);
        assert_eq!(found(350, std::iter::once(digits())).len(), 1);
    }

    #[test]
    fn speech_is_told_from_its_beginning_to_its_pause() {
        let samples = paused(2.0);
        let mut pauses = Pauses::new(Duration::from_millis(600));
        let mut spoken: Vec<Option<u64>> = Vec::new();
        for piece in samples.chunks(FRAME) {
            pauses.push(piece, &mut Vec::new());
            if spoken.last() != Some(&pauses.speech_from()) {
                spoken.push(pauses.speech_from());
            }
        }
        let seconds: Vec<Option<f64>> = spoken.iter().map(|from| from.map(|from| from as f64 / 16e3)).collect();
        // The first digit begins at 0.4 s, and the third at 1.9 s and the silence.
        let [None, Some(first), None, Some(third)] = seconds[..] else { panic!("{seconds:?}") };
        assert!((0.0..0.8).contains(&first) && (3.8..4.2).contains(&third), "{seconds:?}");
    }

    #[test]
    fn quiet_speech_and_noise_beneath_change_little() {
        let samples = paused(2.0);
        let quiet: Vec<f32> = samples.iter().map(|v| v * 0.02).collect();
        let noisy = noise(samples.len(), 0.01).iter().zip(&samples).map(|(a, b)| a + b).collect();
        for samples in [quiet, noisy] {
            let found = found(1000, std::iter::once(&samples));
            assert!(matches!(found[..], [found] if (found - 2.8).abs() < 0.1), "{found:?}");
        }
    }

    #[test]
    fn nothing_pauses_where_nobody_speaks() {
        for samples in [vec![0.0; 160_000], noise(160_000, 0.001), noise(160_000, 0.01)] {
            assert_eq!(found(200, std::iter::once(&samples)), [] as [f64; 0]);
        }
    }

    #[test]
    fn what_is_no_sample_does_no_harm() {
        let mut samples = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e9];
        samples.extend(paused(2.0));
        let found = found(1000, std::iter::once(&samples));
        assert!(matches!(found[..], [found] if (found - 2.8).abs() < 0.05), "{found:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn pieces_do_not_matter(cuts in proptest::collection::vec(1_usize..3000, 1..50)) {
            let samples = paused(1.0);
            let (mut rest, mut pieces) = (&samples[..], Vec::new());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = later;
            }
            prop_assert_eq!(found(200, pieces.into_iter()), found(200, std::iter::once(&samples)));
        }
    }
}
