//! What an engine is doing, in numbers that can be read at any time without waiting for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What an engine has done and has to do, as of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions that are open.
    pub sessions: usize,
    /// Log-mel frames, 10 ms each, that wait in all sessions' queues.
    pub queued_frames: u64,
    /// Rounds in which there was work.
    pub rounds: u64,
    /// Tokens of audio that were encoded.
    pub encoded_tokens: u64,
    /// Rows that were decoded, those of wrong guesses too.
    pub decoded_rows: u64,
    /// Time in the backend's encoder.
    pub encode: Duration,
    /// Time in the backend's decoder.
    pub decode: Duration,
    /// How long the last round took: audio that comes now waits about as long.
    pub last_round: Duration,
}

/// The same, as it is kept.
#[derive(Default)]
pub(crate) struct Meters {
    pub(crate) sessions: AtomicUsize,
    pub(crate) queued_frames: AtomicU64,
    rounds: AtomicU64,
    encoded_tokens: AtomicU64,
    decoded_rows: AtomicU64,
    encode_ns: AtomicU64,
    decode_ns: AtomicU64,
    last_round_ns: AtomicU64,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Meters {
    pub(crate) fn encoded(&self, tokens: usize, time: Duration) {
        self.encoded_tokens.fetch_add(tokens as u64, Relaxed);
        self.encode_ns.fetch_add(nanoseconds(time), Relaxed);
    }

    pub(crate) fn decoded(&self, rows: usize, time: Duration) {
        self.decoded_rows.fetch_add(rows as u64, Relaxed);
        self.decode_ns.fetch_add(nanoseconds(time), Relaxed);
    }

    pub(crate) fn round(&self, time: Duration) {
        self.rounds.fetch_add(1, Relaxed);
        self.last_round_ns.store(nanoseconds(time), Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        let time = |ns: &AtomicU64| Duration::from_nanos(ns.load(Relaxed));
        Counters {
            sessions: self.sessions.load(Relaxed),
            queued_frames: self.queued_frames.load(Relaxed),
            rounds: self.rounds.load(Relaxed),
            encoded_tokens: self.encoded_tokens.load(Relaxed),
            decoded_rows: self.decoded_rows.load(Relaxed),
            encode: time(&self.encode_ns),
            decode: time(&self.decode_ns),
            last_round: time(&self.last_round_ns),
        }
    }
}
