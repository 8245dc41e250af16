//! The program as its users meet it: what it writes, when, and what it says when something is wrong.

mod alternatives;
mod audio;
mod bench;
mod compare;
mod doctor;
mod download;
mod endpoints;
mod faults;
#[path = "../../../hub/tests/support/mod.rs"]
mod hub;
mod live;
mod manual;
mod many;
#[cfg(target_os = "linux")]
mod microphone;
mod mutations;
mod output;
mod quantize;
mod serve;
mod support;
mod transcripts;
mod troubleshooting;
#[cfg(unix)]
mod unix;
