//! What is left of clients that leave in the middle of a file: nothing.
#![cfg(target_os = "linux")] // which tells what a process holds

#[allow(dead_code, reason = "this sends chunks only")]
#[path = "files/client.rs"]
mod client;
mod common;

use std::time::{Duration, Instant};

use client::{Form, Sending};
use common::{Running, server_with};
use voxtral_server::ServerConfig;

/// Clients at a time, as many as there are slots.
const CLIENTS: usize = 4;

/// Nothing is waited for so long that happens at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What the process holds for those that it works for.
#[derive(Debug, PartialEq)]
struct Held {
    sessions: usize,
    slots: usize,
    /// That read and transcribe.
    threads: usize,
    /// Files without a name: what came of uploads.
    spools: usize,
}

fn held(server: &Running) -> Held {
    let all = |folder: &str| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_at_work = |name: &str| name.starts_with("voxtral-file") || name.starts_with("voxtral-audio");
    // What is listed may be gone when it is looked at.
    let threads = all("/proc/self/task").filter_map(|task| std::fs::read_to_string(task.join("comm")).ok());
    let files = all("/proc/self/fd").filter_map(|file| std::fs::read_link(file).ok());
    Held {
        sessions: server.server.voxtral().engine().counters().sessions,
        slots: figure(server, "voxtral_streams_active") as usize,
        threads: threads.filter(|name| is_at_work(name)).count(),
        spools: files.filter(|file| file.to_string_lossy().ends_with("(deleted)")).count(),
    }
}

fn figure(server: &Running, name: &str) -> f64 {
    let figures = server.ask("GET /metrics", &[]).body;
    let value = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

/// Waits until so much is held. Returns how long that took.
fn wait_for(server: &Running, expected: &Held, when: &str) -> Duration {
    let start = Instant::now();
    loop {
        let held = held(server);
        if held == *expected {
            return start.elapsed();
        }
        assert!(start.elapsed() < AT_ONCE, "{when}: {held:?} is held, not {expected:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The sample over and over, ten minutes of it: for all clients together, much more than is transcribed meanwhile.
fn ten_minutes() -> Vec<u8> {
    let sample = std::fs::read(common::ws::SAMPLE).unwrap();
    let mut file = sample[..44].to_vec();
    // As the header of a stream: nobody knows how long it is.
    for at in [4, 40] {
        file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    }
    file.extend(sample[44..].repeat(74));
    file
}

#[test]
fn a_client_that_leaves_a_file_frees_all_that_was_its_own() {
    let server = server_with(ServerConfig { max_sessions: CLIENTS, ..ServerConfig::default() });
    let nothing = held(&server);
    let all = Held {
        sessions: CLIENTS,
        slots: CLIENTS,
        threads: nothing.threads + 2 * CLIENTS,
        spools: nothing.spools + CLIENTS,
    };
    let form = |stream: &str| Form::default().field("model", "whisper-1").field("stream", stream).file(&ten_minutes());
    let send = |stream: &str, part: usize| {
        let body = form(stream).body();
        let mut sending = Sending::begin(&server);
        body[..body.len() / part].chunks(1 << 20).for_each(|piece| sending.send(piece).unwrap());
        if part == 1 {
            sending.end();
        }
        sending
    };
    let in_the_upload = || send("false", 100);
    let in_the_decode = || send("false", 1);
    let in_the_answer = || {
        let mut sending = send("true", 1);
        sending.read_until("transcript.text.delta");
        sending
    };
    let moments: [(&str, &dyn Fn() -> Sending); 3] =
        [("in the upload", &in_the_upload), ("in the decode", &in_the_decode), ("in the answer", &in_the_answer)];
    for (when, client) in moments {
        let clients: Vec<Sending> = (0..CLIENTS).map(|_| client()).collect();
        wait_for(&server, &all, when);
        drop(clients);
        let took = wait_for(&server, &nothing, when);
        println!("{CLIENTS} clients that leave {when}: all is free after {took:.3?}");
    }
    assert_eq!(figure(&server, "voxtral_audio_seconds_total"), 0.0, "what nobody waits for was transcribed to its end");
    server.stop();
}
