//! A server at work, and what it answers.
#![allow(dead_code)] // each test file uses a part

pub mod ws;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use voxtral::{BackendChoice, Config, ModelRef, Voxtral};
use voxtral_server::{Server, ServerConfig};

/// A server of the demo model on a port of its own, until this is dropped.
pub struct Running {
    pub address: SocketAddr,
    pub server: Server,
    runtime: Option<tokio::runtime::Runtime>,
}

pub fn server() -> Running {
    server_with(ServerConfig::default())
}

pub fn server_with(config: ServerConfig) -> Running {
    let digits = Config { model: ModelRef::Digits, backend: BackendChoice::Cpu, ..Config::default() };
    serve(Voxtral::open(&digits, &mut |_| {}).unwrap(), config)
}

pub fn serve(voxtral: Voxtral, config: ServerConfig) -> Running {
    let server = Server::new(voxtral, config);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = server.clone();
    runtime.spawn(async move { serving.serve(listener, std::future::pending()).await });
    Running { address, server, runtime: Some(runtime) }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
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

impl Running {
    /// Asks for something without a body, such as `GET /health`, with headers of the form `name: value`.
    pub fn ask(&self, what: &str, headers: &[&str]) -> Answer {
        ask(&mut connect(self.address), what, headers)
    }
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
