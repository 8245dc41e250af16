//! How late words are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use voxtral::SAMPLE_RATE;

/// Pieces of audio that are remembered: a minute and more, however small they are.
const MOST: usize = 4096;

/// When the audio of an utterance came.
#[derive(Default)]
pub(super) struct Arrivals {
    samples: u64,
    /// Seconds of audio up to the end of a piece, and when that was there.
    pieces: VecDeque<(f64, Instant)>,
}

impl Arrivals {
    /// So many samples have come, now.
    pub(super) fn audio(&mut self, samples: usize, now: Instant) {
        self.samples += samples as u64;
        self.pieces.push_back((self.samples as f64 / f64::from(SAMPLE_RATE), now));
        if self.pieces.len() > MOST {
            self.pieces.pop_front();
        }
    }

    /// How long ago the audio up to `at_s` had come; not at all, if it lies behind what has come. What is asked next lies behind it.
    pub(super) fn since(&mut self, at_s: f64, now: Instant) -> Duration {
        while self.pieces.front().is_some_and(|piece| piece.0 < at_s) {
            self.pieces.pop_front();
        }
        self.pieces.front().map_or(Duration::ZERO, |piece| now - piece.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_as_late_as_the_piece_is_old_in_which_it_ended() {
        let (mut arrivals, begin) = (Arrivals::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        arrivals.audio(8000, at(1));
        arrivals.audio(8000, at(2));
        assert_eq!(arrivals.since(0.4, at(5)), Duration::from_secs(4));
        assert_eq!(arrivals.since(0.6, at(5)), Duration::from_secs(3));
        assert_eq!(arrivals.since(1.5, at(5)), Duration::ZERO);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut arrivals = Arrivals::default();
        (0..2 * MOST).for_each(|_| arrivals.audio(1, Instant::now()));
        assert_eq!(arrivals.pieces.len(), MOST);
    }
}
