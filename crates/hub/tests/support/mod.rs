//! A hub on this machine: what it answers is up to each test, and it remembers what it was asked.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const REPO: &str = "mistralai/Voxtral-Mini-4B-Realtime-2602";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// By names in small letters.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn is_get(&self) -> bool {
        self.method == "GET"
    }

    pub fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(String::as_str)
    }

    /// First and last byte that are asked for.
    pub fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().unwrap()))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What it says how long it is, if not the truth.
    pub claimed: Option<usize>,
    /// Breaks off after so many bytes.
    pub breaks_after: Option<usize>,
    /// How long each 64 KiB take.
    pub pace: Duration,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn write(&self, mut to: TcpStream, is_head: bool, sent: &AtomicU64) -> std::io::Result<()> {
        let length = self.claimed.unwrap_or(self.body.len());
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        if !self.headers.iter().any(|(name, _)| name == "Content-Length") {
            head += &format!("Content-Length: {length}\r\n");
        }
        self.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        to.write_all((head + "\r\n").as_bytes())?;
        if !is_head {
            let body = &self.body[..self.breaks_after.unwrap_or(usize::MAX).min(self.body.len())];
            for piece in body.chunks(64 << 10) {
                to.write_all(piece)?;
                sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                if !self.pace.is_zero() {
                    thread::sleep(self.pace);
                }
            }
        }
        to.shutdown(Shutdown::Write)
    }
}

/// Answers on a port of its own as long as the program runs.
#[derive(Clone)]
pub struct Server {
    pub port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, log: Arc::default(), sent: Arc::default() };
        let (log, sent, answer) = (Arc::clone(&server.log), Arc::clone(&server.sent), Arc::new(answer));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (log, sent, answer) = (Arc::clone(&log), Arc::clone(&sent), Arc::clone(&answer));
                thread::spawn(move || {
                    let connection = connection.unwrap();
                    let Some(request) = read(&connection) else { return };
                    log.lock().unwrap().push(request.clone());
                    // A client that goes away is its own affair.
                    let _ = answer(&request).write(connection, request.method == "HEAD", &sent);
                });
            }
        });
        server
    }

    /// By number: another host than [`Server::by_name`], for whoever compares names.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn by_name(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Bytes of bodies that went out since it was asked last.
    pub fn take_sent(&self) -> u64 {
        self.sent.swap(0, Ordering::Relaxed)
    }
}

fn read(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let header =
        |line: String| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(header).collect();
    Some(Request { method, path, headers })
}

/// A repository with its files, those that lie elsewhere under the SHA-256 that they are called there.
#[derive(Clone, Default)]
pub struct Repository {
    pub files: BTreeMap<String, Vec<u8>>,
    pub large: BTreeMap<String, String>,
    /// The store of large files.
    pub store: Option<String>,
}

impl Repository {
    pub fn with(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), bytes.into());
        self
    }

    pub fn with_large(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        self.large.insert(name.to_owned(), hex(&Sha256::digest(&bytes)));
        self.with(name, bytes)
    }

    /// As the Hub answers.
    pub fn answer(&self, request: &Request) -> Answer {
        if request.path == format!("/api/models/{REPO}/revision/main") {
            let names: Vec<String> = self.files.keys().map(|name| format!(r#"{{"rfilename":"{name}"}}"#)).collect();
            let json = format!(r#"{{"id":"{REPO}","sha":"{COMMIT}","siblings":[{}]}}"#, names.join(","));
            return Answer::status(200).with_body(json);
        }
        let resolved =
            ["main", COMMIT].iter().find_map(|commit| request.path.strip_prefix(&format!("/{REPO}/resolve/{commit}/")));
        let Some((name, bytes)) = resolved.and_then(|name| self.files.get_key_value(name)) else {
            return Answer::status(404).with("X-Error-Code", "EntryNotFound");
        };
        let Some(sha256) = self.large.get(name) else {
            let git = hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize());
            return part(bytes, request).with("ETag", format!("\"{git}\"")).with("X-Repo-Commit", COMMIT);
        };
        // A repository that is kept by Xet answers the same, with the hash that its own protocol wants.
        let moved =
            Answer::status(302).with("X-Linked-Etag", format!("\"{sha256}\"")).with("X-Linked-Size", bytes.len());
        let moved = moved.with("X-Repo-Commit", COMMIT).with("ETag", "\"of the redirect\"").with("X-Xet-Hash", sha256);
        moved.with("Location", format!("{}/{sha256}?signature=1", self.store.as_deref().unwrap_or_default()))
    }

    /// As the store of large files answers.
    pub fn stored(&self, request: &Request) -> Answer {
        let sha256 = request.path.trim_start_matches('/').split('?').next().unwrap();
        match self.large.iter().find(|(_, known)| *known == sha256) {
            Some((name, _)) => part(&self.files[name], request),
            None => Answer::status(403),
        }
    }
}

fn part(bytes: &[u8], request: &Request) -> Answer {
    match request.range() {
        Some((first, _)) if first >= bytes.len() => Answer::status(416),
        Some((first, last)) => {
            let last = last.min(bytes.len() - 1);
            let range = format!("bytes {first}-{last}/{}", bytes.len());
            Answer::status(206).with("Content-Range", range).with_body(&bytes[first..=last])
        }
        None if request.is_get() => Answer::status(200).with_body(bytes),
        None => Answer::status(200).with("Content-Length", bytes.len()),
    }
}

/// Bytes without a pattern that a mistake could hide in.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size.div_ceil(8)).flat_map(word).take(size).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
