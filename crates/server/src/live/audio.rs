//! From what clients send to 16 kHz samples.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use voxtral::{Resampler, SampleFormat};

use super::dialect::{Body, Fault};
use super::utterance::MAX_SAMPLES;

/// Rates that live audio may have, Hz.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// Bytes that are held: as many as the samples that may wait for the engine have in 16 bits.
const MAX_HELD: usize = 2 * MAX_SAMPLES;

/// Padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes in the field `audio` of an event.
///
/// # Errors
/// When it is missing or is no base64.
pub(super) fn bytes(body: &Body) -> Result<Vec<u8>, Fault> {
    let Some(Value::String(base64)) = body.get("audio") else {
        return Err(Fault::invalid_audio("the field `audio` must be there, and be base64 in a string"));
    };
    BASE64.decode(base64).map_err(|e| Fault::invalid_audio(format!("the field `audio` is no base64: {e}")))
}

/// Keeps bytes of which the client has not said yet what is to be done with them.
///
/// # Errors
/// When there is no room for them. Nothing of them is taken then.
pub(super) fn hold(held: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Fault> {
    if held.len() + bytes.len() > MAX_HELD {
        return Err(Fault::buffer_full());
    }
    held.extend_from_slice(bytes);
    Ok(())
}

/// Samples of one channel, as a client declares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AudioFormat {
    pub(super) sample: SampleFormat,
    /// Samples a second.
    pub(super) rate: u32,
}

impl AudioFormat {
    /// # Errors
    /// When the rate is none of speech.
    pub(super) fn new(sample: SampleFormat, rate: u32) -> Result<Self, Fault> {
        if RATES.contains(&rate) {
            return Ok(Self { sample, rate });
        }
        let (low, high) = (RATES.start(), RATES.end());
        Err(Fault::invalid_event(format!("{rate} Hz is not a rate that is taken: {low} to {high} Hz are")))
    }

    /// Signed 16 bit.
    pub(super) fn s16(rate: u32) -> Self {
        Self { sample: SampleFormat::S16, rate }
    }
}

/// Makes 16 kHz samples of bytes, however they are cut: a piece may end in the middle of a sample.
pub(super) struct Intake {
    format: AudioFormat,
    /// The first bytes of a sample.
    begun: Vec<u8>,
    resampler: Resampler,
}

impl Intake {
    pub(super) fn new(format: AudioFormat) -> Result<Self, Fault> {
        let resampler = Resampler::new(format.rate).map_err(|e| Fault::invalid_event(e.to_string()))?;
        Ok(Self { format, begun: Vec::new(), resampler })
    }

    pub(super) fn format(&self) -> AudioFormat {
        self.format
    }

    /// The samples that `bytes` complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<f32> {
        let (mut decoded, mut out) = (Vec::new(), Vec::new());
        let missing = (self.format.sample.bytes() - self.begun.len()) % self.format.sample.bytes();
        let (first, rest) = bytes.split_at(missing.min(bytes.len()));
        self.begun.extend_from_slice(first);
        if first.len() == missing {
            self.format.sample.decode(&self.begun, &mut decoded);
            let left = self.format.sample.decode(rest, &mut decoded);
            self.begun = left.to_vec();
        }
        self.resampler.push(&decoded, &mut out);
        out
    }

    /// Ends the audio: the samples that the resampler still holds. What follows is other audio.
    ///
    /// # Errors
    /// When the audio ends in the middle of a sample.
    pub(super) fn finish(&mut self) -> (Vec<f32>, Result<(), Fault>) {
        let mut out = Vec::new();
        self.resampler.finish(&mut out);
        let (extra, bytes) = (std::mem::take(&mut self.begun).len(), self.format.sample.bytes());
        let cut = format!("the audio ends in the middle of a sample: {extra} of {bytes} bytes, which are left out");
        (out, if extra == 0 { Ok(()) } else { Err(Fault::invalid_audio(cut)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_bytes_are_cut_samples_are_the_same() {
        let bytes: Vec<u8> = (0..48_000_u32).flat_map(|i| ((i % 251) as i16 * 100).to_le_bytes()).collect();
        for format in [SampleFormat::S16, SampleFormat::S32, SampleFormat::F16, SampleFormat::MuLaw] {
            let format = AudioFormat::new(format, 24_000).unwrap();
            let samples = |cut: usize| {
                let mut intake = Intake::new(format).unwrap();
                let mut samples: Vec<u32> = Vec::new();
                let mut take = |new: Vec<f32>| samples.extend(new.into_iter().map(f32::to_bits));
                bytes.chunks(cut).for_each(|piece| take(intake.push(piece)));
                let (rest, whole) = intake.finish();
                take(rest);
                assert_eq!(whole, Ok(()));
                samples
            };
            let whole = samples(bytes.len());
            for cut in [1, 2, 3, 7, 4801] {
                assert!(samples(cut) == whole, "{format:?} in pieces of {cut} bytes");
            }
        }
    }

    #[test]
    fn audio_that_ends_within_a_sample_is_told_and_harms_nothing_after_it() {
        let mut intake = Intake::new(AudioFormat::s16(16_000)).unwrap();
        assert_eq!(intake.push(&[0, 64, 7]), [0.5]);
        assert_eq!(intake.finish().1.unwrap_err().code, "invalid_audio");
        assert_eq!(intake.push(&[0, 64]), [0.5]);
    }

    #[test]
    fn base64_may_be_padded_or_not() {
        for (text, expected) in [("AAE=", Ok(vec![0, 1])), ("AAE", Ok(vec![0, 1])), ("A*E=", Err("invalid_audio"))] {
            let body = Body::from_iter([("audio".to_owned(), Value::from(text))]);
            assert_eq!(bytes(&body).map_err(|fault| fault.code), expected);
        }
    }
}
