//! What the machine gives the program: threads, memory, and how fast that is.

use std::hint::black_box;
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, anyhow};
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// What is read to measure memory: more than caches hold.
const BYTES: usize = 512 << 20;
/// Others use memory too, and it may be slower for a while.
const ROUNDS: usize = 21;

/// Threads that the CPU runs at once for this program.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Starts a thread, or says that the system allows no more.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> anyhow::Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().spawn_scoped(scope, work).context("cannot start a thread")
}

/// Forgets the peak, so that it is that of what follows; where the system cannot, it stays.
pub(crate) fn forget_peak_rss() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Bytes, the limit of the process's control group applied.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub total: u64,
    /// What of it can be had.
    pub available: u64,
}

impl Memory {
    /// None where the system does not tell.
    pub(crate) fn of_the_process() -> Option<Self> {
        let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let mut system = System::new_with_specifics(ram).ok()?;
        let pid = Pid::from_u32(std::process::id());
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, ProcessRefreshKind::nothing());
        let (total, available) = (system.total_memory(), system.available_memory());
        let group = system.process(pid).and_then(|process| process.cgroup_limits());
        Self::within(total, available, group.map(|group| (group.total_memory, group.rss)))
    }

    /// Of a machine, and of a control group's limit and what is resident in it.
    fn within(total: u64, available: u64, group: Option<(u64, u64)>) -> Option<Self> {
        match group {
            // Without /proc all is 0.
            _ if total == 0 => None,
            // What a group has cached it can have back, so only what is resident counts as taken.
            Some((limit, resident)) if limit < total => {
                Some(Self { total: limit, available: available.min(limit.saturating_sub(resident)) })
            }
            _ => Some(Self { total, available }),
        }
    }
}

/// Bytes a second that so many threads together read from memory, the median of the rounds: what bounds a step of the decoder.
///
/// # Errors
/// There is less memory than that takes. Less would be measuring caches, so it is not measured at all.
pub(crate) fn read_rate(threads: usize) -> anyhow::Result<f64> {
    let too_little = || format!("measuring memory takes {} MB of it", BYTES / 1_000_000);
    // Where a container's limit leaves less, taking it would succeed, and using it would end the program.
    if let Some(Memory { available, .. }) = Memory::of_the_process()
        && available < BYTES as u64
    {
        return Err(anyhow!("{} MB are available", available / 1_000_000)).with_context(too_little);
    }
    let threads = threads.max(1);
    let words = BYTES / size_of::<u64>() / threads;
    let mut blocks = Vec::new();
    for _ in 0..threads {
        let mut block = Vec::new();
        block.try_reserve_exact(words).with_context(too_little)?;
        blocks.push(block);
    }
    let all_together = Barrier::new(threads);
    let time = thread::scope(|scope| {
        let mut running = Vec::new();
        for block in blocks {
            // They begin when all are there: those that wait for one that never comes would wait forever.
            let (begin, begun) = mpsc::channel();
            let all_together = &all_together;
            let read = move || begun.recv().ok().map(|()| read(block, words, all_together));
            let thread = thread::Builder::new().spawn_scoped(scope, read);
            running.push((begin, thread.with_context(|| format!("measuring memory takes {threads} threads"))?));
        }
        for (begin, _) in &running {
            // Each waits for it.
            let _ = begin.send(());
        }
        let times = running.into_iter().filter_map(|(_, thread)| thread.join().ok().flatten());
        // All waited for each other, so one knows it as well as another.
        anyhow::Ok(times.last().unwrap_or(Duration::MAX))
    })?;
    Ok((words * threads * size_of::<u64>()) as f64 / time.as_secs_f64())
}

/// One thread's part: the median time of all threads' reading their blocks at the same time.
fn read(mut block: Vec<u64>, words: usize, all_together: &Barrier) -> Duration {
    // Not zeros: those would all be the same page until written to. Each thread fills its own, so that it lies near it.
    block.resize(words, 1);
    let round = |_| {
        all_together.wait();
        let start = Instant::now();
        // As many sums as keep several vectors busy: one would wait for itself, and not for memory.
        let mut sums = [0u64; 32];
        for some in black_box(&block).as_chunks().0 {
            sums.iter_mut().zip(some as &[u64; 32]).for_each(|(sum, word)| *sum ^= word);
        }
        black_box(sums);
        all_together.wait();
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..ROUNDS).map(round).collect();
    times.sort();
    times[ROUNDS / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_above_none() {
        match read_rate(2) {
            Ok(rate) => assert!(rate.is_finite() && rate > 0.0, "{rate}"),
            Err(why) => eprintln!("skipped: {why:#}"),
        }
    }

    #[test]
    fn memory_is_what_the_process_may_have() {
        let memory = |total, available, group| Memory::within(total, available, group).map(|m| (m.total, m.available));
        assert_eq!(memory(16, 9, None), Some((16, 9)));
        assert_eq!(memory(16, 9, Some((8, 3))), Some((8, 5)));
        assert_eq!(memory(16, 2, Some((8, 3))), Some((8, 2)));
        assert_eq!(memory(16, 9, Some((u64::MAX, 3))), Some((16, 9)));
        // A system that does not tell is not one without memory.
        assert_eq!(memory(0, 0, None), None);
    }
}
