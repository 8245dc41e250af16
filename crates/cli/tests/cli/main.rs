//! The program as its users meet it: what it writes, when, and what it says when something is wrong.

mod bench;
mod compare;
mod doctor;
mod faults;
#[cfg(unix)]
mod live;
mod mutations;
mod output;
mod quantize;
mod support;
mod transcripts;
mod troubleshooting;
