//! Recording from a microphone, for [`Source::microphone`](crate::Source::microphone).

use voxtral_audio::{Damage, Notice, SAMPLE_RATE};
use voxtral_engine::AudioIn;
pub use voxtral_microphone::{Control, Device, Error as MicrophoneError, Heard, Level, Microphone, State, devices};

use crate::Error;
use crate::transcribe::Told;

/// After so much silence without the slightest noise, something is wrong.
const SUSPICIOUS: u64 = 5 * SAMPLE_RATE as u64;

/// Silence that stands in for what was lost is pushed a second at a time.
const SILENCE: [f32; SAMPLE_RATE as usize] = [0.0; SAMPLE_RATE as usize];

/// Pushes all that is heard. Silence stands in for what was lost.
pub(crate) fn feed(microphone: Microphone, session: &AudioIn, tell: &mut dyn FnMut(Told)) -> Result<(), Error> {
    // What the computer plays may well be silence.
    let mut silent = !microphone.device().is_monitor;
    let mut pushed = 0;
    for heard in microphone {
        let more = match heard? {
            Heard::Samples(samples) => {
                pushed += samples.len() as u64;
                silent &= samples.iter().all(|&sample| sample == 0.0);
                session.push_samples(&samples).is_ok()
            }
            Heard::Gap(lost) => {
                let what = "nothing was recorded".to_owned();
                tell(Told::Damage(Damage { at_s: seconds(pushed), lost_s: seconds(lost), what }));
                pushed += lost;
                push_silence(session, lost)
            }
        };
        if silent && pushed >= SUSPICIOUS {
            tell(Told::Notice(Notice::Muted));
            silent = false;
        }
        if !more {
            break;
        }
    }
    Ok(())
}

fn push_silence(session: &AudioIn, mut samples: u64) -> bool {
    while samples > 0 {
        let piece = samples.min(SILENCE.len() as u64);
        if session.push_samples(&SILENCE[..piece as usize]).is_err() {
            return false;
        }
        samples -= piece;
    }
    true
}

/// To the millisecond.
fn seconds(samples: u64) -> f64 {
    (samples * 1000 / u64::from(SAMPLE_RATE)) as f64 / 1e3
}
