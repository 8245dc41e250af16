//! What is told beside the samples: damage, and what is worth knowing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{MAX_RATE, RawFormat};

/// Audio that is missing or wrong. Silence stands in for what is missing, so all that follows keeps its time.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Damage {
    /// Where it begins, in seconds of the presentation, to the millisecond.
    pub at_s: f64,
    /// Seconds that are missing, to the millisecond; 0 where nothing is, or where nobody can know.
    pub lost_s: f64,
    /// What happened, in a few words.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged at {:.2} s: {}", self.at_s, self.what)?;
        if self.lost_s > 0.0 { write!(f, "; {:.2} s lost", self.lost_s) } else { Ok(()) }
    }
}

/// What is worth a line and is no damage.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// Nothing announced itself in the first bytes, so they are taken for raw samples.
    TakenAsRaw(RawFormat),
    /// What is built in cannot read it, and the `ffmpeg` on the PATH does.
    ThroughFfmpeg {
        /// What it is.
        format: String,
    },
    /// The channels cancel each other in the mix, which is much weaker than each of them.
    ChannelsCancel,
    /// Not one sample is anything but 0.
    AllSilence,
    /// A microphone gives nothing but 0, which even a quiet room does not.
    Muted,
    /// Samples are far beyond full scale, which is ±1.
    OutOfScale {
        /// The largest magnitude.
        peak: f32,
    },
    /// Samples that are no finite numbers; silence stands in for them.
    NotFinite {
        /// How many, of all channels.
        samples: u64,
    },
    /// The last bytes are no whole sample: perhaps the format is another.
    PartialSample {
        /// Bytes left over.
        extra: usize,
        /// Bytes of one sample of every channel.
        frame: usize,
    },
    /// The audio goes on behind the end that the header names, and is read on.
    LongerThanHeader,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakenAsRaw(raw) => {
                let sample = format!("{:?}", raw.sample).to_lowercase();
                let channels = if raw.channels == 1 { "channel" } else { "channels" };
                write!(
                    f,
                    "no known format, taken as raw samples: {sample}, {} Hz, {} {channels}",
                    raw.rate, raw.channels
                )
            }
            Self::ThroughFfmpeg { format } => write!(f, "{format} is not built in, read through ffmpeg"),
            Self::ChannelsCancel => write!(f, "the channels cancel each other in the mix; choose one of them"),
            Self::AllSilence => write!(f, "the whole input is silence"),
            Self::Muted => write!(f, "all that comes is silence; is it muted, or does the system block it?"),
            Self::OutOfScale { peak } => {
                let times = if *peak < 1e6 { format!("{peak:.0}") } else { "a million".to_owned() };
                write!(f, "samples reach {times} times full scale; is the sample format or its scale another?")
            }
            Self::NotFinite { samples } => write!(f, "{samples} samples are not finite numbers: taken as silence"),
            Self::PartialSample { extra, frame } => write!(
                f,
                "the last {extra} bytes are not a whole sample of {frame} bytes (all channels); wrong format or cut off?"
            ),
            Self::LongerThanHeader => write!(f, "the audio goes on behind the end that its header names: read on"),
        }
    }
}

/// Entries that touch are one: a second of bad packets is told once.
const TOUCH_S: f64 = 0.3;
/// Nobody reads more entries; the last one stands for the rest.
const MAX_ENTRIES: usize = 10_000;

/// Collects damage until it is over.
#[derive(Default)]
pub(crate) struct DamageLog {
    open: Option<Damage>,
    done: Vec<Damage>,
    count: usize,
}

impl DamageLog {
    pub(crate) fn add(&mut self, at_s: f64, lost_s: f64, what: &str) {
        if let Some(open) = &mut self.open
            && (at_s <= open.at_s + open.lost_s + TOUCH_S || self.count >= MAX_ENTRIES)
        {
            open.lost_s += lost_s;
            return;
        }
        self.close();
        self.count += 1;
        self.open = Some(Damage { at_s, lost_s, what: what.to_owned() });
    }

    /// Time has come to `now_s`: what ended well before is over.
    pub(crate) fn now(&mut self, now_s: f64) {
        let over = |open: &Damage| now_s > open.at_s + open.lost_s + TOUCH_S;
        if self.count < MAX_ENTRIES && self.open.as_ref().is_some_and(over) {
            self.close();
        }
    }

    /// Tells also what goes on.
    pub(crate) fn close(&mut self) {
        let ms = |seconds: f64| (seconds * 1e3).round() / 1e3;
        let rounded = |open: Damage| Damage { at_s: ms(open.at_s), lost_s: ms(open.lost_s), what: open.what };
        self.done.extend(self.open.take().map(rounded));
    }

    pub(crate) fn take(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.done)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

// A sample rate is finite and small enough that times in f64 are exact to far less than a sample.
const _: () = assert!(MAX_RATE < 1 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_that_touches_is_one() {
        let mut log = DamageLog::default();
        log.add(1.0, 0.1, "a");
        log.add(1.2, 0.2, "b");
        log.now(1.4);
        assert!(log.take().is_empty());
        log.add(3.0, 0.0, "c");
        let first = Damage { at_s: 1.0, lost_s: 0.3, what: "a".to_owned() };
        assert_eq!(log.take(), [first]);
        log.now(3.4);
        assert_eq!(log.take().len(), 1);
        assert_eq!(log.count(), 2);
    }
}
