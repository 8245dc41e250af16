//! Writing files whole or not at all, and what stops a program from writing.
//!
//! ```
//! use std::io::Write;
//! # fn main() -> std::io::Result<()> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("report.json");
//! let mut report = voxtral_files::Writer::create(&path)?;
//! report.write_all(b"{}")?;
//! report.commit()?; // dropped without it, nothing has happened
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod process;
mod writer;

pub use process::{heed_nohup, stdout_is_writable, survive_size_limit};
pub use writer::Writer;
