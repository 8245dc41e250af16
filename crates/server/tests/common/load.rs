//! What tests under load are told, and tell.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::Write;

/// A number in the environment.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

/// Memory of this process, server and clients; none where the system does not tell.
pub fn resident_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1000.0)
}

/// Prints, also where the output of tests is not shown.
#[expect(clippy::explicit_write, reason = "what `eprintln` writes is kept back when a test passes")]
pub fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}
