//! Whether all samples arrived that the time has brought.

use std::time::{Duration, Instant};

use voxtral_audio::SAMPLE_RATE;

/// So much less than the time that passed, and some of it is lost. Servers and devices are late by less.
const LOST: f64 = 1.0;

/// Over so much time it is seen how fast audio arrives, and after such a pause it is seen anew.
const WINDOW: Duration = Duration::from_millis(500);

/// Audio that arrives faster than this is what was kept for us meanwhile: what is missing may still come.
const CATCHING_UP: f64 = 1.2;

/// How far the clock of a device may be off.
const DRIFT: f64 = 1e-3;

/// Compares the samples that arrive with the time that passes.
///
/// A server that is not read from for too long throws audio away without a word, and a device that is suspended gives none. Both would
/// shift the time of all that follows.
pub(crate) struct Clock {
    start: Instant,
    latest: Instant,
    /// All that arrived or was lost.
    samples: u64,
    window: Instant,
    in_window: u64,
    /// How far behind the audio is for other reasons, in seconds: the clock of the device is not ours.
    drift: f64,
}

impl Clock {
    /// The first samples are about to arrive.
    pub(crate) fn new(now: Instant) -> Self {
        Self { start: now, latest: now, samples: 0, window: now, in_window: 0, drift: 0.0 }
    }

    /// Some samples arrive. Returns how many were lost before.
    pub(crate) fn arrived(&mut self, samples: usize, now: Instant) -> u64 {
        if now - self.latest > WINDOW {
            (self.window, self.in_window) = (now, 0);
        } else {
            self.in_window += samples as u64;
        }
        self.samples += samples as u64;
        self.latest = now;

        let window = (now - self.window).as_secs_f64();
        if window < WINDOW.as_secs_f64() {
            return 0;
        }
        let catching_up = seconds(self.in_window) > CATCHING_UP * window;
        (self.window, self.in_window) = (now, 0);
        if catching_up {
            return 0;
        }
        let behind = (now - self.start).as_secs_f64() - seconds(self.samples) - self.drift;
        if behind > LOST {
            let lost = (behind * f64::from(SAMPLE_RATE)) as u64;
            self.samples += lost;
            return lost;
        }
        self.drift += behind.clamp(-DRIFT * window, DRIFT * window);
        0
    }
}

fn seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_MS: u64 = 20;
    const BLOCK: usize = SAMPLE_RATE as usize / 1000 * BLOCK_MS as usize;

    struct Device {
        clock: Clock,
        now: Instant,
        lost: u64,
    }

    impl Device {
        fn new() -> Self {
            let now = Instant::now();
            Self { clock: Clock::new(now), now, lost: 0 }
        }

        /// Blocks arrive, each so long after the one before.
        fn gives(&mut self, blocks: u64, apart: Duration) {
            for _ in 0..blocks {
                self.now += apart;
                self.lost += self.clock.arrived(BLOCK, self.now);
            }
        }

        /// It stood still for so long; so much of that was kept, and arrives with what is heard meanwhile.
        fn pauses(&mut self, pause_ms: u64, kept_ms: u64) {
            let apart = Duration::from_micros(500);
            self.now += Duration::from_millis(pause_ms);
            self.gives(kept_ms * 1000 / (BLOCK_MS * 1000 - apart.as_micros() as u64), apart);
        }

        fn lost_ms(&self) -> u64 {
            self.lost / 16
        }
    }

    const ON_TIME: Duration = Duration::from_millis(BLOCK_MS);

    #[test]
    fn what_arrives_late_is_not_lost() {
        let mut device = Device::new();
        device.gives(500, ON_TIME);
        device.pauses(60_000, 60_000);
        device.gives(500, ON_TIME);
        assert_eq!(device.lost_ms(), 0);
    }

    #[test]
    fn what_a_server_threw_away_is_lost() {
        let mut device = Device::new();
        device.gives(500, ON_TIME);
        device.pauses(200_000, 130_000);
        device.gives(500, ON_TIME);
        assert!(device.lost_ms().abs_diff(70_000) < 100, "{} ms", device.lost_ms());
    }

    #[test]
    fn what_a_suspended_device_did_not_hear_is_lost() {
        let mut device = Device::new();
        device.gives(500, ON_TIME);
        device.pauses(5_000, 0);
        device.gives(500, ON_TIME);
        assert!(device.lost_ms().abs_diff(5_000) < 100, "{} ms", device.lost_ms());
    }

    #[test]
    fn many_small_losses_come_to_a_large_one() {
        let mut device = Device::new();
        for _ in 0..100 {
            device.gives(50, ON_TIME);
            device.now += Duration::from_millis(100);
        }
        assert!(device.lost_ms() > 8_000, "{} ms of 10 000", device.lost_ms());
    }

    #[test]
    fn a_clock_that_drifts_loses_nothing_in_hours() {
        for apart in [19_995, 20_005] {
            let mut device = Device::new();
            device.gives(8 * 3600 * 1000 / BLOCK_MS, Duration::from_micros(apart));
            assert_eq!(device.lost_ms(), 0);
        }
    }
}
