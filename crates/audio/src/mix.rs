//! Several channels to one: their mean, or one of them.

use crate::damage::Notice;
use crate::error::{Error, Result, check_channels};
use crate::options::Channel;

/// No sound is louder. Sums of so much, in a mean or in a filter, are still numbers.
const LOUDEST: f32 = 1e30;
/// Full scale is ±1; decoders of lossy codecs go a little beyond.
const FAR_OUT: f32 = 8.0;
/// Nothing of silence is louder: a few of the last bits of 16, which codecs and dither leave.
const SILENT: f32 = 1e-4;
/// Channels cancel each other where the mix has less than this part of their energy…
const CANCELLED: f64 = 1e-2;
/// …and they are no mere noise of the last bits.
const AUDIBLE: f64 = 1e-8;

/// Mixes, and keeps in mind what is worth a line.
#[derive(Default)]
pub struct Mixer {
    channel: Channel,
    samples: u64,
    not_finite: u64,
    peak: f32,
    /// Energy of the mix, and mean energy of the channels.
    of_mix: f64,
    apart: f64,
    mono: Vec<f32>,
}

impl Mixer {
    /// Nothing mixed yet.
    pub fn new(channel: Channel) -> Self {
        Self { channel, ..Self::default() }
    }

    /// Mixes to [`mixed`](Self::mixed) interleaved samples of `channels` channels. A NaN or infinity, which would
    /// spread over the whole rest of the transcript, is silence.
    ///
    /// # Errors
    /// [`Error::Channels`], [`Error::NoSuchChannel`].
    pub fn mix(&mut self, interleaved: &[f32], channels: usize) -> Result<()> {
        check_channels(channels)?;
        if let Channel::One(asked) = self.channel
            && !(1..=channels).contains(&asked)
        {
            return Err(Error::NoSuchChannel { asked, there: channels });
        }
        self.mono.clear();
        self.samples += interleaved.len() as u64;
        let (mut mixed, mut apart) = (0.0f64, 0.0f64);
        for instant in interleaved.chunks_exact(channels) {
            let mut sum = 0.0f32;
            for (index, &value) in instant.iter().enumerate() {
                let value = if value.is_finite() {
                    value.clamp(-LOUDEST, LOUDEST)
                } else {
                    self.not_finite += 1;
                    0.0
                };
                self.peak = self.peak.max(value.abs());
                match self.channel {
                    Channel::Mix => sum += value,
                    Channel::One(asked) if asked == index + 1 => sum = value * channels as f32,
                    Channel::One(_) => {}
                }
                apart += f64::from(value).powi(2);
            }
            let mean = sum / channels as f32;
            mixed += f64::from(mean).powi(2) * channels as f64;
            self.mono.push(mean);
        }
        if channels > 1 && self.channel == Channel::Mix {
            self.of_mix += mixed;
            self.apart += apart;
        }
        Ok(())
    }

    /// What was mixed last.
    pub fn mixed(&self) -> &[f32] {
        &self.mono
    }

    /// Samples so far, of all channels.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// How many of them were not finite.
    pub(crate) fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// What is worth a line, of all that was mixed.
    pub fn notices(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        if self.apart / (self.samples.max(1) as f64) > AUDIBLE && self.of_mix < CANCELLED * self.apart {
            notices.push(Notice::ChannelsCancel);
        }
        if self.peak < SILENT && self.samples > self.not_finite {
            notices.push(Notice::AllSilence);
        }
        if self.peak > FAR_OUT {
            notices.push(Notice::OutOfScale { peak: self.peak });
        }
        if self.not_finite > 0 {
            notices.push(Notice::NotFinite { samples: self.not_finite });
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_and_silence_are_noticed() {
        let opposite: Vec<f32> = (0..1000).flat_map(|i| [0.1 * (i as f32).sin(), -0.1 * (i as f32).sin()]).collect();
        let mut mixer = Mixer::new(Channel::Mix);
        mixer.mix(&opposite, 2).unwrap();
        assert_eq!(mixer.notices(), [Notice::ChannelsCancel]);
        let mut mixer = Mixer::new(Channel::One(2));
        mixer.mix(&opposite, 2).unwrap();
        assert_eq!(mixer.mixed()[1], opposite[3]);
        assert_eq!(mixer.notices(), []);
        assert!(matches!(
            Mixer::new(Channel::One(3)).mix(&opposite, 2),
            Err(Error::NoSuchChannel { asked: 3, there: 2 })
        ));
        assert!(matches!(Mixer::new(Channel::Mix).mix(&[], 0), Err(Error::Channels(0))));
        let mut mixer = Mixer::new(Channel::Mix);
        mixer.mix(&[0.0; 10], 1).unwrap();
        assert_eq!(mixer.notices(), [Notice::AllSilence]);
        // Two voices, each in its own channel, are a mix of half the energy.
        let apart: Vec<f32> = (0..1000).flat_map(|i| [0.1 * (i as f32).sin(), 0.1 * (i as f32 * 1.7).cos()]).collect();
        let mut mixer = Mixer::new(Channel::Mix);
        mixer.mix(&apart, 2).unwrap();
        assert_eq!(mixer.notices(), []);
    }
}
