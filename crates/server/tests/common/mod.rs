//! A real server with the demo model on the CPU, and what it answers.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod conversations;
pub mod load;
pub mod sound;
pub mod ws;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use voxtral::{BackendChoice, Config, ModelRef, Voxtral};
use voxtral_server::{Server, ServerConfig};

/// A server on a port of its own, until it is stopped or dropped.
pub struct Running {
    pub address: SocketAddr,
    pub server: Server,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// With the defaults.
pub fn server() -> Running {
    server_with(ServerConfig::default())
}

pub fn server_with(config: ServerConfig) -> Running {
    serve(voxtral(), config)
}

pub fn serve(voxtral: Voxtral, config: ServerConfig) -> Running {
    let server = Server::new(voxtral, config);
    let runtime = Runtime::new().unwrap();
    let listener = listener(&runtime);
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let serving = server.clone().serve(listener, async move { drop(ended.await) });
    let thread = std::thread::spawn(move || runtime.block_on(serving));
    Running { address, server, end: Some(end), thread: Some(thread) }
}

/// On a port of its own. It may be called within another runtime, where nothing may block.
fn listener(runtime: &Runtime) -> TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let _within = runtime.enter();
    TcpListener::from_std(listener).unwrap()
}

/// What the servers serve.
pub fn voxtral() -> Voxtral {
    let config = Config { model: ModelRef::Digits, backend: BackendChoice::Cpu, ..Config::default() };
    Voxtral::open(&config, &mut |_| {}).unwrap()
}

impl Running {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asks for something without a body, such as `GET /health`, with headers of the form `name: value`.
    pub fn ask(&self, what: &str, headers: &[&str]) -> Answer {
        ask(&mut connect(self.address), what, headers)
    }

    /// Tells it to end. It takes no more transcriptions.
    pub fn end(&mut self) {
        drop(self.end.take());
    }

    /// Lets what runs end, and waits for that.
    pub fn stop(mut self) {
        self.end();
        self.thread.take().unwrap().join().unwrap();
    }

    /// The same, for tests whose clients must go on meanwhile.
    pub async fn stopped(self) {
        tokio::task::spawn_blocking(|| self.stop()).await.unwrap();
    }
}

/// What a server answers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    /// The body of a refusal: its code, having checked its shape.
    #[track_caller]
    pub fn code(&self) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        let members: Vec<&String> = body["error"].as_object().unwrap().keys().collect();
        assert_eq!(members, ["code", "message", "param", "type"], "{self:?}");
        body["error"]["code"].clone()
    }
}

/// Waits at most so long, that a test may fail instead of hang.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

pub fn ask(stream: &mut (impl Read + Write), what: &str, headers: &[&str]) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "{what} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}
