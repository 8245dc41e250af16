//! What the machine gives the program: threads, memory, and how fast that is.

use std::fs;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// What is read to measure memory: more than caches hold.
const BYTES: usize = 512 << 20;
/// Others who use memory leave some of them alone.
const ROUNDS: usize = 20;

/// Threads that the processor runs at once for this program.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory that was ever resident, in bytes; 0 where the system does not tell.
pub(crate) fn peak_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Forgets the peak, so that it is that of what follows; where the system cannot, it stays.
pub(crate) fn forget_peak_rss() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Bytes a second that so many threads together read from memory, the best of the rounds: what bounds a step of the decoder.
pub(crate) fn read_rate(threads: usize) -> f64 {
    let threads = threads.max(1);
    let words = BYTES / size_of::<u64>() / threads;
    let all_together = Barrier::new(threads);
    let read = || {
        // Not zeros: those would all be the same page until written to. Each thread fills its own, so that it lies near it.
        let block = vec![1u64; words];
        let round = |_| {
            all_together.wait();
            let start = Instant::now();
            black_box(black_box(&block).iter().fold(0, |sum: u64, word| sum.wrapping_add(*word)));
            all_together.wait();
            start.elapsed()
        };
        (0..ROUNDS).map(round).min().unwrap_or(Duration::MAX)
    };
    let time = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or(Duration::MAX)
    });
    (words * threads * size_of::<u64>()) as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_rate_is_a_number_above_none() {
        let rate = super::read_rate(2);
        assert!(rate.is_finite() && rate > 0.0, "{rate}");
    }
}
