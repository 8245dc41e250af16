//! How fast this machine reads memory: what decoding can at best be as fast as.

use std::hint::black_box;
use std::time::Instant;

/// More than any cache holds.
const BYTES: usize = 512 << 20;
/// A third of a second: others who use memory leave some of it alone.
const ROUNDS: usize = 20;

/// Bytes a second that so many threads read together; the best of the rounds.
pub(crate) fn read_rate(threads: usize) -> f64 {
    // Written, so that each page is memory of its own.
    let buffer: Vec<u64> = (0..BYTES as u64 / 8).collect();
    let share = buffer.len().div_ceil(threads.max(1));
    let round = |_| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(share) {
                scope.spawn(move || black_box(part.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word))));
            }
        });
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(round).fold(0.0, f64::max)
}
