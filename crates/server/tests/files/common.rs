//! A real server with the demo model on the CPU, for the tests of what it answers.
#![allow(dead_code, reason = "each test program uses its part")]

use std::net::SocketAddr;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use voxtral::{BackendChoice, Config, Voxtral};
use voxtral_server::{Server, ServerConfig};

/// A server that runs until it is stopped or dropped.
pub struct Running {
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// With the defaults.
pub fn server() -> Running {
    server_with(ServerConfig::default())
}

pub fn server_with(config: ServerConfig) -> Running {
    let server = Server::new(voxtral(), config);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let ended = async move { drop(ended.await) };
    let thread = std::thread::spawn(move || runtime.block_on(server.serve(listener, ended)));
    Running { address, end: Some(end), thread: Some(thread) }
}

/// What the server serves.
pub fn voxtral() -> Voxtral {
    let config = Config { backend: BackendChoice::Cpu, ..Config::default() };
    Voxtral::open(&config, &mut |_| {}).unwrap()
}

impl Running {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Lets what runs end, and waits for that.
    pub fn stop(mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}
