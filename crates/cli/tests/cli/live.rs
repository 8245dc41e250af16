//! Pipes that stay open, and readers that leave: what is written when.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::support::*;

/// Nothing here takes so long; it only keeps a hanging program from hanging its test.
pub const HANGS: Duration = Duration::from_secs(60);

/// The program at work, and what it has written so far.
pub struct Running {
    child: Child,
    pub stdin: Option<ChildStdin>,
    stdout: Receiver<Vec<u8>>,
    text: String,
}

impl Running {
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, Stdio::piped())
    }

    pub fn start_with(args: &[&str], stdin: Stdio) -> Self {
        let mut command = program();
        command.arg("--silent").args(args).stdin(stdin);
        Self::of(command)
    }

    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (sender, stdout) = mpsc::channel();
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut block) {
                if sender.send(block[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { stdin: child.stdin.take(), child, stdout, text: String::new() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for this to be written.
    pub fn wait_for(&mut self, text: &str) {
        while !self.text.contains(text) {
            let more = self.stdout.recv_timeout(HANGS).unwrap_or_else(|e| panic!("{:?} and then {e}", self.text));
            self.text.push_str(str::from_utf8(&more).unwrap());
        }
    }

    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Waits for its end with standard input as it is: exit code, all of standard output, standard error.
    pub fn end(mut self) -> (Option<i32>, String, String) {
        loop {
            match self.stdout.recv_timeout(HANGS) {
                Ok(more) => self.text.push_str(str::from_utf8(&more).unwrap()),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs after {:?}", self.text),
            }
        }
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.text), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or the test has failed.
        let _ = self.child.kill();
    }
}

pub fn first_half() -> Vec<u8> {
    let raw = raw();
    raw[..raw.len() / 4 * 2].to_vec()
}

#[test]
fn text_appears_while_the_pipe_is_open() {
    for as_wav in [false, true] {
        let mut running = Running::start(&["--stdin"]);
        if as_wav {
            running.write(&digits_wav()[..44]);
        }
        let raw = raw();
        let half = first_half().len();
        running.write(&raw[..half]);
        running.wait_for("four seven");
        running.write(&raw[half..]);
        running.wait_for("three");
        running.stdin = None;
        assert_eq!(running.end(), (Some(0), format!("{DIGITS}\n"), String::new()));
    }
}

#[test]
fn subtitles_and_events_appear_while_the_pipe_is_open() {
    for (flags, first) in [
        (&["--format", "srt", "--words"][..], "\nfour\n\n"),
        (&["--format", "vtt", "--words"], "\nfour\n\n"),
        (&["--format", "tsv", "--words"], "\tfour\n"),
        (&["--words"], "] four\n"),
        (&["--format", "jsonl"], "\"type\":\"word\",\"text\":\"four\""),
    ] {
        let mut running = Running::start(&[&["--stdin"], flags].concat());
        running.write(&first_half());
        running.wait_for(first);
        running.stdin = None;
        assert_eq!(running.end().0, Some(0), "{flags:?}");
    }
}

#[test]
fn a_pause_ends_a_line_while_the_pipe_is_open() {
    for (flags, first) in
        [(&[][..], "four seven\n"), (&["--format", "jsonl"], "\"text\":\"four seven\",\"cut_short\":false")]
    {
        let mut running = Running::start(&[&["--stdin", "--endpoint", "400"], flags].concat());
        // Two words and 1.5 s of silence, and nothing after them.
        running.write(&raw()[..62_400]);
        running.write(&[0; 48_000]);
        running.wait_for(first);
        running.stdin = None;
        assert_eq!(running.end().0, Some(0), "{flags:?}");
    }
}

/// More than pipes hold, so that when it is written it is being transcribed.
pub fn long_raw() -> Vec<u8> {
    raw().repeat(3)
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let mut command = program();
    command.args(["--silent", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&first_half()).unwrap();
    let mut four = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut four).unwrap();
    assert_eq!(four, *b"four");
    // It may have ended before it has read all.
    let _ = stdin.write_all(&raw().repeat(10));
    let run = child.wait_with_output().unwrap();
    assert_eq!((run.status.code(), run.stderr), (Some(0), vec![]));
}

#[test]
fn a_file_is_whole_when_a_live_stream_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.txt");
    std::fs::write(&out, "before").unwrap();
    let mut running = Running::start(&["--stdin", "-o", out.to_str().unwrap()]);
    running.write(&long_raw());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "before");
    running.stdin = None;
    assert_eq!(running.end(), (Some(0), String::new(), String::new()));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), format!("{DIGITS} {DIGITS} {DIGITS}\n"));
}
