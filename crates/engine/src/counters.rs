//! What an engine is doing, in numbers that can be read at any time without waiting for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    /// Passes of the decoder.
    pub passes: u64,
    /// Rows that were decoded, those of wrong guesses too.
    pub decoded_rows: u64,
    /// Tokens that they made certain, those of prompts included.
    pub decoded_tokens: u64,
    /// Time in the backend's encoder.
    pub encode: Duration,
    /// Time in the backend's decoder.
    pub decode: Duration,
    /// How long the last round took: audio that comes now waits about as long.
    pub last_round: Duration,
    /// How long the round that is under way has taken so far; zero where the engine waits for work. If it grows and grows, the device does
    /// not answer.
    pub round_under_way: Duration,
}

/// The same, as it is kept.
#[derive(Default)]
pub(crate) struct Meters {
    pub(crate) sessions: AtomicUsize,
    pub(crate) queued_frames: AtomicU64,
    rounds: AtomicU64,
    encoded_tokens: AtomicU64,
    passes: AtomicU64,
    decoded_rows: AtomicU64,
    decoded_tokens: AtomicU64,
    encode_ns: AtomicU64,
    decode_ns: AtomicU64,
    last_round_ns: AtomicU64,
    round_begun: Mutex<Option<Instant>>,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Meters {
    pub(crate) fn encoded(&self, tokens: usize, time: Duration) {
        self.encoded_tokens.fetch_add(tokens as u64, Relaxed);
        self.encode_ns.fetch_add(nanoseconds(time), Relaxed);
    }

    /// A pass of so many rows, which made so many tokens certain.
    pub(crate) fn decoded(&self, rows: usize, tokens: usize, time: Duration) {
        self.passes.fetch_add(1, Relaxed);
        self.decoded_rows.fetch_add(rows as u64, Relaxed);
        self.decoded_tokens.fetch_add(tokens as u64, Relaxed);
        self.decode_ns.fetch_add(nanoseconds(time), Relaxed);
    }

    /// A round began at this time, or the engine waits for work.
    pub(crate) fn begin_round(&self, at: Option<Instant>) {
        *self.round_begun.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// A round in which there was work has ended.
    pub(crate) fn round(&self, time: Duration) {
        self.rounds.fetch_add(1, Relaxed);
        self.last_round_ns.store(nanoseconds(time), Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        let round_begun = *self.round_begun.lock().unwrap_or_else(PoisonError::into_inner);
        let time = |ns: &AtomicU64| Duration::from_nanos(ns.load(Relaxed));
        Counters {
            sessions: self.sessions.load(Relaxed),
            queued_frames: self.queued_frames.load(Relaxed),
            rounds: self.rounds.load(Relaxed),
            encoded_tokens: self.encoded_tokens.load(Relaxed),
            passes: self.passes.load(Relaxed),
            decoded_rows: self.decoded_rows.load(Relaxed),
            decoded_tokens: self.decoded_tokens.load(Relaxed),
            encode: time(&self.encode_ns),
            decode: time(&self.decode_ns),
            last_round: time(&self.last_round_ns),
            round_under_way: round_begun.map_or(Duration::ZERO, |begun| begun.elapsed()),
        }
    }
}
