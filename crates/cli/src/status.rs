//! What somebody who speaks wants to know: is it heard, and does it keep up?

use std::io::{self, Write};
use std::time::{Duration, Instant};

use voxtral::Sink;

use crate::screen;

/// How often the status changes on a terminal, and elsewhere.
const ON_A_TERMINAL: Duration = Duration::from_millis(100);
const ELSEWHERE: Duration = Duration::from_secs(1);

/// The quietest sound that the meter shows, in dB below full scale.
const QUIETEST: f32 = -60.0;
const METER: usize = 10;

/// Shows how long audio has been coming in, how loud it is, how far the transcript is behind it, and how much faster than it comes it is
/// transcribed.
pub(crate) struct Status {
    /// On a terminal it is the line under the words; elsewhere it is a line each second.
    terminal: Option<screen::InUse>,
    /// When the first audio came.
    begun: Option<Instant>,
    shown: Option<Instant>,
    /// Seconds that came in, and that are transcribed.
    audio_s: f64,
    done_s: f64,
    level_db: f32,
}

impl Status {
    /// What there is to watch. `words` says that these appear on the same terminal; `kept`, that it is also shown where there is none.
    pub(crate) fn new(words: bool, kept: bool) -> Option<Self> {
        let terminal = screen::InUse::begin(words);
        let status =
            Self { begun: None, shown: None, audio_s: 0.0, done_s: 0.0, level_db: f32::NEG_INFINITY, terminal };
        (status.terminal.is_some() || kept).then_some(status)
    }

    fn show(&mut self) {
        let pause = if self.terminal.is_some() { ON_A_TERMINAL } else { ELSEWHERE };
        let now = Instant::now();
        if self.shown.is_some_and(|shown| now - shown < pause) {
            return;
        }
        self.shown = Some(now);
        let status = self.line(self.begun.map_or(Duration::ZERO, |begun| now - begun));
        if self.terminal.is_some() {
            screen::status(status);
        } else {
            let _ = writeln!(io::stderr(), "{status}");
        }
    }

    fn line(&self, since: Duration) -> String {
        let filled = ((self.level_db - QUIETEST) / -QUIETEST * METER as f32).round().clamp(0.0, METER as f32) as usize;
        let meter = format!("{}{}", "█".repeat(filled), "·".repeat(METER - filled));
        let (minutes, seconds) = (self.audio_s as u64 / 60, self.audio_s as u64 % 60);
        let level = self.level_db.max(-99.0);
        let lag = self.audio_s - self.done_s;
        let speed = self.done_s / since.as_secs_f64().max(1e-3);
        format!("{minutes}:{seconds:02} {meter} {level:3.0} dB  lag {lag:.1} s  {speed:.1}×")
    }
}

impl Sink for Status {
    fn audio(&mut self, audio_s: f64, level_db: f32) -> io::Result<()> {
        self.begun.get_or_insert_with(Instant::now);
        (self.audio_s, self.level_db) = (audio_s, level_db);
        self.show();
        Ok(())
    }

    fn progress(&mut self, done_s: f64, _: Option<f64>) -> io::Result<()> {
        self.done_s = done_s;
        self.show();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_time_level_lag_and_speed() {
        let mut status = Status::new(false, true).unwrap();
        (status.audio_s, status.done_s, status.level_db) = (75.04, 74.4, -30.0);
        assert_eq!(status.line(Duration::from_secs(75)), "1:15 █████····· -30 dB  lag 0.6 s  1.0×");
        (status.audio_s, status.done_s, status.level_db) = (0.0, 0.0, f32::NEG_INFINITY);
        assert_eq!(status.line(Duration::ZERO), "0:00 ·········· -99 dB  lag 0.0 s  0.0×");
        status.level_db = 0.0;
        assert!(status.line(Duration::ZERO).contains(" ██████████   0 dB"));
    }
}
