//! `voxtral serve` as its operator meets it: how it begins, ends, and is told what to do.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::*;

/// Nothing here takes so long; it only keeps a hanging program from hanging its test.
const HANGS: Duration = Duration::from_secs(60);

/// A server of the demo model on a port of its own.
struct Serving {
    child: Child,
    /// What it writes on standard error, line by line.
    lines: Receiver<String>,
    address: SocketAddr,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with these arguments, told by `change` what else to know.
fn serve_with(args: &[&str], change: impl FnOnce(&mut Command)) -> Serving {
    let mut command = program();
    command.args(["serve", "--backend", "cpu", "--model", "digits"]).args(args);
    change(&mut command);
    started(&mut command)
}

/// What this command serves.
fn started(command: &mut Command) -> Serving {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut serving = Serving { child, lines, address: ([127, 0, 0, 1], 0).into() };
    let mut before = Vec::new();
    loop {
        let line = serving.lines.recv_timeout(HANGS).unwrap_or_else(|e| panic!("{command:?}: {before:?} and then {e}"));
        if let Some((_, at)) = line.split_once("serving at http://") {
            let at: SocketAddr = at.split(['"', ' ']).next().unwrap().parse().unwrap();
            serving.address.set_port(at.port());
            return serving;
        }
        before.push(line);
    }
}

fn serve(args: &[&str]) -> Serving {
    serve_with(&[&["--listen", "127.0.0.1:0"], args].concat(), |_| {})
}

impl Serving {
    /// The status and the body of what is answered to `GET path` with these headers.
    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HANGS)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The names that it serves the model under.
    fn names(&self) -> Vec<String> {
        let models: Value = serde_json::from_str(&self.get("/v1/models", "").1).unwrap();
        models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    }

    fn capacity(&self) -> String {
        let (_, figures) = self.get("/metrics", "");
        let line = figures.lines().find_map(|line| line.strip_prefix("voxtral_streams_capacity "));
        line.unwrap_or_else(|| panic!("{figures}")).to_owned()
    }

    /// Begins to send the sample, and returns what is still to be sent. What was sent is being transcribed.
    fn upload(&self, headers: &str) -> (TcpStream, Vec<u8>) {
        let field = |name: &str| format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"");
        let begin = format!("{}\r\n\r\nwhisper-1\r\n{}; filename=\"a.wav\"\r\n\r\n", field("model"), field("file"));
        let body = [begin.as_bytes(), &digits_wav(), b"\r\n--edge--\r\n"].concat();
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HANGS)).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
             content-type: multipart/form-data; boundary=edge\r\ncontent-length: {length}\r\n\r\n"
        )
        .unwrap();
        let (now, later) = body.split_at(length / 2);
        stream.write_all(now).unwrap();
        let deadline = Instant::now() + HANGS;
        while !self.get("/metrics", "").1.contains("voxtral_streams_active 1\n") {
            assert!(Instant::now() < deadline, "no transcription begins");
        }
        (stream, later.to_vec())
    }

    #[cfg(unix)]
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// How it ends, of itself.
    #[cfg(unix)]
    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + HANGS;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// It must not begin, for a reason that one line gives.
#[track_caller]
fn refuses(args: &[&str], says: &str) {
    let run = voxtral().arg("serve").args(["--model", "digits"]).args(args).output().unwrap();
    let line = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1), "{args:?}: {line}");
    assert!(line.starts_with("voxtral: ") && line.lines().count() == 1 && line.contains(says), "{args:?}: {line}");
}

#[test]
fn other_machines_are_not_let_in_by_accident() {
    refuses(
        &["--listen", "0.0.0.0:0"],
        "other machines can reach 0.0.0.0:0: name a file of keys with --api-key-file, or let anybody ask with --no-auth",
    );
    refuses(&["--listen", "[::]:0"], "other machines can reach");
    let server = serve_with(&["--listen", "0.0.0.0:0", "--no-auth"], |_| {});
    assert_eq!(server.get("/v1/models", "").0, 200);
}

#[test]
fn keys_are_asked_for_where_there_are_some() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let file = path.to_str().unwrap();
    refuses(&["--api-key-file", file], &format!("keys: {}", no_file()));
    fs::write(&path, "\n").unwrap();
    refuses(&["--api-key-file", file], "there is no key in it");
    fs::write(&path, "one\n").unwrap();
    let server = serve(&["--api-key-file", file]);
    let status = |key: &str| server.get("/v1/models", &format!("authorization: Bearer {key}\r\n")).0;
    assert_eq!((status("one"), status("two")), (200, 401));
    fs::write(&path, "three\ntwo\n").unwrap();
    assert_eq!((status("one"), status("two")), (401, 200));
}

#[test]
fn a_certificate_that_is_none_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cert.pem");
    fs::write(&path, "nothing").unwrap();
    let path = path.to_str().unwrap();
    refuses(&["--tls-cert", path, "--tls-key", path], "a certificate cannot be read from it");
}

#[test]
#[cfg(unix)]
fn a_signal_ends_it_well() {
    for signal in ["-TERM", "-INT"] {
        let mut server = serve(&[]);
        assert_eq!(server.get("/ready", "").0, 200);
        server.signal(signal);
        assert_eq!(server.exit_code(), Some(0), "{signal}");
    }
}

fn answer(mut stream: TcpStream, rest: &[u8]) -> String {
    stream.write_all(rest).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
#[cfg(unix)]
fn what_is_being_transcribed_is_so_to_its_end() {
    let mut server = serve(&[]);
    let (stream, rest) = server.upload("");
    server.signal("-TERM");
    while !server.lines.recv_timeout(HANGS).unwrap().contains("taking no more requests") {}
    // It is told in the thread of the signal, and holds for requests a moment later.
    let told = Instant::now();
    let (status, body) = loop {
        match server.get("/ready", "") {
            (200, _) if told.elapsed() < HANGS => thread::sleep(Duration::from_millis(10)),
            answer => break answer,
        }
    };
    assert!(status == 503 && body.contains("server_draining"), "{status} {body}");
    let answer = answer(stream, &rest);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(DIGITS), "{answer}");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
#[cfg(unix)]
fn what_takes_too_long_is_cut_short() {
    let mut server = serve(&["--drain-timeout", "1"]);
    let _unfinished = server.upload("");
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
    let lines: Vec<String> = server.lines.iter().collect();
    assert!(lines.iter().any(|line| line.contains("1 transcriptions are cut short")), "{lines:?}");
}

#[test]
#[cfg(unix)]
fn a_second_signal_ends_it_at_once() {
    let mut server = serve(&[]);
    // What has not asked yet is waited for.
    let mut busy = TcpStream::connect(server.address).unwrap();
    busy.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    assert_eq!(server.get("/health", "").0, 200);
    server.signal("-TERM");
    while !server.lines.recv_timeout(HANGS).unwrap().contains("taking no more requests") {}
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(130));
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("voxtral.toml");
    fs::write(&path, "listen = \"127.0.0.1:0\"\nmax-sessions = 5\nalias = [\"one\", \"two\"]\nno-auth = true\n")
        .unwrap();
    let file = path.to_str().unwrap();
    let with = |args: &[&str], variable: &str| {
        serve_with(args, |command| {
            command.env("VOXTRAL_SERVE_MAX_SESSIONS", variable);
        })
    };
    let server = with(&["--config", file], "");
    assert_eq!((server.capacity(), server.names()[1..].join(" ")), ("5".to_owned(), "one two".to_owned()));
    let server = with(&["--config", file], "6");
    assert_eq!(server.capacity(), "6");
    let server = with(&["--config", file, "--max-sessions", "7", "--served-model-name", "three"], "6");
    assert_eq!((server.capacity(), server.names()[1..].join(" ")), ("7".to_owned(), "three".to_owned()));
    let server = serve_with(&["--listen", "127.0.0.1:0"], |command| {
        command.env("VOXTRAL_SERVE_CONFIG", &path).env("VOXTRAL_SERVE_ALIAS", "four,five");
    });
    assert_eq!((server.capacity(), server.names()[1..].join(" ")), ("5".to_owned(), "four five".to_owned()));
}

#[test]
fn a_file_with_mistakes_is_an_error_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("voxtral.toml");
    let refuses = |text: &str, says: &str| {
        fs::write(&path, text).unwrap();
        refuses(&["--config", path.to_str().unwrap()], &format!("{}: {says}", path.display()));
    };
    refuses("max-session = 5", "there is no setting \"max-session\"");
    refuses("config = \"other.toml\"", "there is no setting \"config\"");
    refuses("help = true", "there is no setting \"help\"");
    refuses("max-sessions = 0", "invalid value '0' for '--max-sessions <N>'");
    refuses("listen = 8000", "invalid value '8000' for '--listen <ADDRESS:PORT>'");
    refuses("[limits]\nmax-sessions = 5", "there is no setting \"limits\"");
    refuses("max-sessions = { most = 5 }", "max-sessions is not a value, or a list of values");
    refuses("max-sessions 5", "it is not TOML");
    fs::remove_file(&path).unwrap();
    refuses_missing(&path);
}

fn refuses_missing(path: &Path) {
    refuses(&["--config", path.to_str().unwrap()], &format!("voxtral.toml: {}", no_file()));
}

#[test]
fn each_request_is_a_line_in_the_log_without_keys_and_what_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs::write(&path, "secret-key\n").unwrap();
    let args = ["--log", "json", "--api-key-query", "key", "--api-key-file", path.to_str().unwrap()];
    let server = serve(&args);
    let key = "authorization: Bearer secret-key\r\n";
    let (stream, rest) = server.upload(key);
    let heard = answer(stream, &rest);
    assert!(heard.contains(DIGITS), "{heard}");
    assert_eq!(server.get("/v1/models?key=secret-key", &format!("x-request-id: mine-7\r\n{key}")).0, 200);
    loop {
        let line = server.lines.recv_timeout(HANGS).unwrap();
        assert!(!line.contains("secret") && !line.contains("seven"), "{line}");
        let object: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if object["message"] == "answered" && object["span"]["id"] == "mine-7" {
            assert_eq!((&object["span"]["path"], &object["status"]), (&"/v1/models".into(), &200.into()));
            break;
        }
    }
}

#[test]
fn what_is_heard_is_kept_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    refuses(&["--keep", file.to_str().unwrap()], &format!("nothing can be kept in {}: ", file.display()));
    let kept = folder.path().join("kept");
    let server = serve_with(&["--listen", "127.0.0.1:0"], |command| {
        command.env("VOXTRAL_SERVE_KEEP", &kept);
    });
    let (stream, rest) = server.upload("");
    assert!(answer(stream, &rest).contains(DIGITS));
    let is_there = |kind: &str| {
        let mut files = fs::read_dir(&kept).unwrap().map(|file| file.unwrap().path());
        files.any(|file| file.extension().is_some_and(|extension| extension == kind))
    };
    let deadline = Instant::now() + HANGS;
    while !is_there("json") {
        assert!(Instant::now() < deadline, "nothing is kept");
    }
    assert!(is_there("wav"));
}

/// Files may have so many blocks here, and no more. A live upload needs no other file.
#[test]
#[cfg(unix)]
fn a_full_disk_is_logged_and_costs_the_session_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\""]).arg(program().get_program());
    shell.args(["serve", "--listen", "127.0.0.1:0", "--backend", "cpu", "--model", "digits"]);
    let server = started(shell.arg("--keep").arg(folder.path()));
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(HANGS)).unwrap();
    let wav = digits_wav();
    let head = "PUT /v1/audio/transcriptions/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length:";
    write!(stream, "{head} {}\r\n\r\n", wav.len()).unwrap();
    let answer = answer(stream, &wav);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(DIGITS), "{answer}");
    while !server.lines.recv_timeout(HANGS).unwrap().contains("is not kept: ") {}
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
