//! Names that no two things have, also of different runs.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(super) fn unix_s() -> u64 {
    since_1970().as_secs()
}

/// A new one, which begins with `kind`.
pub(super) fn new(kind: &str) -> String {
    static RUN: LazyLock<u64> = LazyLock::new(|| since_1970().as_micros() as u64);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{kind}_{:x}{:08x}", *RUN, NEXT.fetch_add(1, Relaxed))
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
