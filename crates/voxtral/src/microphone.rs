//! Recording from a microphone, for [`Source::microphone`](crate::Source::microphone).

use voxtral_audio::{Damage, Notice, SAMPLE_RATE};
pub use voxtral_microphone::{Control, Device, Error as MicrophoneError, Heard, Microphone, devices};

use crate::source::Feed;
use crate::transcribe::Told;

/// After so much silence without the slightest noise, something is wrong.
const SUSPICIOUS: u64 = 5 * SAMPLE_RATE as u64;

/// Silence that stands in for what was lost is pushed a second at a time.
static SILENCE: [f32; SAMPLE_RATE as usize] = [0.0; SAMPLE_RATE as usize];

impl Feed<'_> {
    /// Pushes all that is heard. Silence stands in for what was lost.
    pub(crate) fn microphone(&mut self, microphone: Microphone) -> Result<(), MicrophoneError> {
        // What the computer plays may well be silence.
        let mut silent = !microphone.device().is_monitor;
        let control = microphone.control();
        for heard in microphone {
            self.waiting_s = control.backlog().as_secs_f64();
            let more = match heard? {
                Heard::Samples(samples) => {
                    silent &= samples.iter().all(|&sample| sample == 0.0);
                    self.push(&samples)
                }
                Heard::Gap(lost) => {
                    let what = "nothing was recorded".to_owned();
                    (self.tell)(Told::Damage(Damage { at_s: seconds(self.samples), lost_s: seconds(lost), what }));
                    self.push_silence(lost)
                }
            };
            if silent && self.samples >= SUSPICIOUS {
                (self.tell)(Told::Notice(Notice::Muted));
                silent = false;
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn push_silence(&mut self, mut samples: u64) -> bool {
        while samples > 0 {
            let piece = samples.min(SILENCE.len() as u64);
            if !self.push(&SILENCE[..piece as usize]) {
                return false;
            }
            samples -= piece;
        }
        true
    }
}

/// To the millisecond.
fn seconds(samples: u64) -> f64 {
    (samples * 1000 / u64::from(SAMPLE_RATE)) as f64 / 1e3
}
