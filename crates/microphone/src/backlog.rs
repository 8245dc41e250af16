//! What was heard and not taken yet.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use voxtral_audio::SAMPLE_RATE;

use crate::Error;

/// Ten minutes: longer than any computer that is fast enough on the whole falls behind, and 38 MB.
const MOST: usize = 600 * SAMPLE_RATE as usize;

/// Samples are given out in blocks of up to a second.
const BLOCK: usize = SAMPLE_RATE as usize;

/// What was heard, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Samples, 16 kHz mono, full scale being 1.
    Samples(Vec<f32>),
    /// So many samples were lost here.
    Gap(u64),
}

/// A queue of limited length between the thread that records and the one that reads.
#[derive(Default)]
pub(crate) struct Backlog {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    heard: VecDeque<Heard>,
    /// Those in `heard`.
    samples: usize,
    /// It was full, and takes nothing until it is half empty: a long gap is better than many short ones.
    full: bool,
    /// Nothing more comes. The error is for whoever takes what is left.
    ended: bool,
    error: Option<Error>,
}

impl Backlog {
    /// Adds what was recorded, after so many samples that never came. Never waits for the reader.
    pub(crate) fn push_after(&self, lost: u64, samples: &[f32]) {
        let mut queue = self.lock();
        if queue.ended {
            return;
        }
        queue.full = if queue.full { queue.samples > MOST / 2 } else { queue.samples >= MOST };
        if lost > 0 {
            queue.lose(lost);
        }
        if queue.full {
            queue.lose(samples.len() as u64);
        } else {
            queue.keep(samples);
        }
        self.more.notify_one();
    }

    /// Nothing more comes. The first to say why is believed.
    pub(crate) fn end(&self, error: Option<Error>) {
        let mut queue = self.lock();
        if !queue.ended {
            (queue.ended, queue.error) = (true, error);
            self.more.notify_one();
        }
    }

    /// Takes the oldest, and waits for it.
    pub(crate) fn take(&self) -> Option<Result<Heard, Error>> {
        let mut queue = self.lock();
        loop {
            if let Some(heard) = queue.heard.pop_front() {
                if let Heard::Samples(samples) = &heard {
                    queue.samples -= samples.len();
                }
                return Some(Ok(heard));
            }
            if queue.ended {
                return queue.error.take().map(Err);
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.lock().samples as f64 / f64::from(SAMPLE_RATE))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn keep(&mut self, samples: &[f32]) {
        if samples.is_empty() {
            return;
        }
        self.samples += samples.len();
        match self.heard.back_mut() {
            Some(Heard::Samples(block)) if block.len() + samples.len() <= BLOCK => block.extend_from_slice(samples),
            _ => self.heard.push_back(Heard::Samples(samples.to_vec())),
        }
    }

    fn lose(&mut self, samples: u64) {
        match self.heard.back_mut() {
            Some(Heard::Gap(lost)) => *lost += samples,
            _ => self.heard.push_back(Heard::Gap(samples)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all that is there.
    fn all(backlog: &Backlog) -> (u64, Vec<u64>) {
        backlog.end(None);
        let (mut samples, mut gaps) = (0, Vec::new());
        while let Some(heard) = backlog.take() {
            match heard.unwrap() {
                Heard::Samples(block) => samples += block.len() as u64,
                Heard::Gap(lost) => gaps.push(lost),
            }
        }
        (samples, gaps)
    }

    #[test]
    fn samples_keep_their_order_and_gaps_their_place() {
        let backlog = Backlog::default();
        backlog.push_after(0, &[1.0, 2.0]);
        backlog.push_after(0, &[3.0]);
        backlog.push_after(5, &[]);
        backlog.push_after(6, &[4.0]);
        assert_eq!(backlog.take().unwrap().unwrap(), Heard::Samples(vec![1.0, 2.0, 3.0]));
        assert_eq!(backlog.take().unwrap().unwrap(), Heard::Gap(11));
        assert_eq!(backlog.take().unwrap().unwrap(), Heard::Samples(vec![4.0]));
    }

    #[test]
    fn ten_minutes_are_kept_and_the_rest_is_a_gap() {
        let backlog = Backlog::default();
        for _ in 0..700 {
            backlog.push_after(0, &[0.5; BLOCK]);
        }
        assert_eq!(backlog.length(), Duration::from_secs(600));
        assert_eq!(all(&backlog), (600 * BLOCK as u64, vec![100 * BLOCK as u64]));
    }

    #[test]
    fn after_a_gap_recording_goes_on_when_half_is_taken() {
        let backlog = Backlog::default();
        for _ in 0..600 {
            backlog.push_after(0, &[0.5; BLOCK]);
        }
        for _ in 0..400 {
            backlog.push_after(0, &[0.5; BLOCK]);
            backlog.take();
        }
        let (samples, gaps) = all(&backlog);
        assert_eq!((samples, gaps), (300 * BLOCK as u64, vec![300 * BLOCK as u64]));
    }

    #[test]
    fn what_was_heard_comes_before_the_error_and_nothing_after_it() {
        let backlog = Backlog::default();
        backlog.push_after(0, &[1.0]);
        backlog.end(Some(Error::ServerGone));
        backlog.end(None);
        backlog.push_after(0, &[2.0]);
        assert_eq!(backlog.take().unwrap().unwrap(), Heard::Samples(vec![1.0]));
        assert!(matches!(backlog.take(), Some(Err(Error::ServerGone))));
        assert!(backlog.take().is_none());
    }
}
