//! Threads that wait for the next piece of work side by side.
//!
//! A pass of the decoder is some hundred products, one after the other, of a fraction of a millisecond each. Threads that sleep between
//! them wake too late, so they stay awake for a moment: a product begins on all threads within a microsecond. Whoever calls works too,
//! and waits only for threads that have begun: one that the system has taken the processor from holds up nobody.

use std::any::Any;
use std::cell::UnsafeCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Turns of waiting before a thread sleeps: about a tenth of a millisecond.
const AWAKE: u32 = 4000;

/// A job is open while threads may begin with it; below this bit is the number of those that have.
const OPEN: u64 = 1 << 31;
/// Above it is the number of the job.
const NEXT: u64 = 1 << 32;

/// The calling thread, and others that help it.
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// One call at a time.
    turn: Mutex<()>,
}

struct Shared {
    /// Number of the job, [`OPEN`], threads at it.
    state: AtomicU64,
    job: UnsafeCell<Job>,
    /// The next piece of the job.
    next: AtomicUsize,
    /// What a thread panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    ended: AtomicBool,
}

/// What is to be done, `pieces` times.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    pieces: usize,
}

// SAFETY: `job` is written while no job is open and no thread is at one, and read by threads that are at an open one; what it points to
// is Sync, and `run` does not return before all threads have left it. Everything else is made for several threads.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Team {
    /// So many threads, the calling one included; 0 means one for each core that the process may use.
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let nothing: &'static (dyn Fn(usize) + Sync) = &|_| ();
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job { work: nothing, pieces: 0 }),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let mut team = Self { shared, helpers: Vec::new(), turn: Mutex::new(()) };
        for i in 1..threads {
            let shared = team.shared.clone();
            let builder = thread::Builder::new().name(format!("voxtral-cpu-{i}"));
            team.helpers.push(builder.spawn(move || shared.help())?);
        }
        Ok(team)
    }

    /// Threads, the calling one included.
    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work` with `0..pieces`, each once, on all threads, and returns when all is done. A panic of any of them is the caller's.
    pub(crate) fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; nobody uses it after this call, which waits for all that do.
        let work: *const (dyn Fn(usize) + Sync) =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) };
        let job = Job { work, pieces };
        // SAFETY: no job is open, and no thread is at one: the last call waited for that.
        unsafe { *shared.job.get() = job };
        shared.next.store(0, Ordering::Relaxed);
        let number = (shared.state.load(Ordering::Relaxed) / NEXT + 1) % (1 << 31);
        shared.state.store((number * NEXT) | OPEN, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            let _awake = shared.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.work_at(job);
        let mut left = shared.state.fetch_and(!OPEN, Ordering::AcqRel) & !OPEN;
        let mut turns = 0;
        while !left.is_multiple_of(NEXT) {
            pause(&mut turns);
            left = shared.state.load(Ordering::Acquire);
        }
        if let Some(panic) = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(self.shared.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            // Its panics were caught.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// A helper's life.
    fn help(&self) {
        let mut done = 0;
        let mut turns = 0;
        while !self.ended.load(Ordering::Relaxed) {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN == 0 || state / NEXT == done {
                turns += 1;
                if turns < AWAKE {
                    std::hint::spin_loop();
                } else {
                    self.sleep_after(state);
                    turns = 0;
                }
            } else if self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                // SAFETY: the job is open and this thread is counted, so it stays as it is until this thread leaves.
                self.work_at(unsafe { *self.job.get() });
                self.state.fetch_sub(1, Ordering::Release);
                (done, turns) = (state / NEXT, 0);
            }
        }
    }

    /// Sleeps until there is another job than in `state`.
    fn sleep_after(&self, state: u64) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while self.state.load(Ordering::SeqCst) / NEXT == state / NEXT && !self.ended.load(Ordering::SeqCst) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    fn work_at(&self, job: Job) {
        // SAFETY: `run` keeps it alive until every thread that has begun has left.
        let work = unsafe { &*job.work };
        let all = || {
            loop {
                let piece = self.next.fetch_add(1, Ordering::Relaxed);
                if piece >= job.pieces {
                    return;
                }
                work(piece);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(all)) {
            // Nobody needs the rest.
            self.next.store(job.pieces, Ordering::Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }
}

/// Waits a moment; where it takes long, somebody else may have the processor.
fn pause(turns: &mut u32) {
    *turns += 1;
    if *turns < AWAKE { std::hint::spin_loop() } else { thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_piece_is_done_once_by_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads).unwrap();
            for pieces in [0, 1, 2, 3, 17, 1000] {
                let done: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                team.run(pieces, &|i| {
                    done[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} threads, {pieces} pieces");
            }
        }
    }

    #[test]
    fn jobs_follow_one_another_with_and_without_sleep_between() {
        let team = Team::new(3).unwrap();
        for round in 0..2000 {
            let sum = AtomicUsize::new(0);
            team.run(10, &|i| {
                sum.fetch_add(i + round, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45 + 10 * round);
            if round % 500 == 0 {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    #[test]
    fn a_panic_is_the_callers_and_the_team_goes_on() {
        let team = Team::new(3).unwrap();
        for bad in 0..20 {
            let run = || team.run(20, &|i| assert!(i != bad, "piece {i}"));
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), &format!("piece {bad}"));
        }
        let done = AtomicUsize::new(0);
        team.run(7, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 7);
    }
}
