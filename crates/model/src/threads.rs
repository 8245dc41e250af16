//! All cores for what reads or writes every weight, where the system allows threads.

use rayon::ThreadPoolBuilder;

/// Does `work`, whose parallel iterators share all cores. Where no threads can be started (`ulimit -u`), this thread does all of it:
/// rayon's own pool, started on first use, would panic.
pub(crate) fn on_all_cores<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match ThreadPoolBuilder::new().build() {
        Ok(pool) => pool.install(work),
        Err(_) => {
            // It fails only where this thread is part of a pool already, and then that is the one that is used.
            let _ = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
            work()
        }
    }
}
