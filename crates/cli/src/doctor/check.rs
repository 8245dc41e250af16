//! One thing that was looked at, and what came of it.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

/// How it stands, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    /// Not looked at; what was found says why.
    Skipped,
    /// It runs, but not as well as it could.
    Warning,
    /// What was asked for cannot run, or gives wrong results.
    Failure,
}

#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<&'static str>,
    pub status: Status,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What was found, for programs; `schemas/doctor.schema.json` says what of it there is.
    pub facts: Value,
}

impl Check {
    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, backend: None, status: Status::Ok, found: found.into(), remedy: None, facts: json!({}) }
    }

    pub(crate) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { status: Status::Skipped, ..Self::ok(name, why) }
    }

    /// A warning or a failure, and what to do about it.
    pub(crate) fn bad(name: &'static str, status: Status, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }

    pub(crate) fn on(self, backend: &'static str) -> Self {
        Self { backend: Some(backend), ..self }
    }

    pub(crate) fn with(self, facts: Value) -> Self {
        Self { facts, ..self }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Skipped => "skipped",
            Status::Warning => "warning",
            Status::Failure => "failure",
        };
        write!(f, "{status:8} {}", self.name)?;
        if let Some(backend) = self.backend {
            write!(f, ", {backend}")?;
        }
        writeln!(f, ": {}", self.found)?;
        if let Some(remedy) = &self.remedy {
            writeln!(f, "         → {remedy}")?;
        }
        Ok(())
    }
}

/// Bytes, for people.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1_000_000_000 { format!("{} MB", bytes / 1_000_000) } else { format!("{:.1} GB", bytes as f64 / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_found_and_what_to_do() {
        let check = Check::bad("speed", Status::Warning, "9 GB/s", "take fewer").on("cpu");
        assert_eq!(check.to_string(), "warning  speed, cpu: 9 GB/s\n         → take fewer\n");
        assert_eq!(Check::ok("system", "Linux").to_string(), "ok       system: Linux\n");
        assert!(Status::Ok < Status::Skipped && Status::Skipped < Status::Warning && Status::Warning < Status::Failure);
    }
}
