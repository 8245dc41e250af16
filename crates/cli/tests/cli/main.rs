//! The program as its users meet it: what it writes, when, and what it says when something is wrong.

mod audio;
mod bench;
mod compare;
mod doctor;
mod faults;
#[cfg(unix)]
mod live;
mod many;
#[cfg(target_os = "linux")]
mod microphone;
mod mutations;
mod output;
mod support;
mod transcripts;
mod troubleshooting;
