//! A server of the demo model, on a port of its own.
#![allow(dead_code)] // each test file uses a part

pub mod ws;

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use voxtral::{BackendChoice, Config, Voxtral};
use voxtral_server::{Server, ServerConfig};

/// A server that runs.
pub struct Running {
    pub address: SocketAddr,
    pub server: Server,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

/// Starts one, as it is by default.
pub async fn server() -> Running {
    server_with(ServerConfig::default()).await
}

pub async fn server_with(config: ServerConfig) -> Running {
    let voxtral = Voxtral::open(&Config { backend: BackendChoice::Cpu, ..Config::default() }, &mut |_| {}).unwrap();
    let server = Server::new(voxtral, config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let serving = server.clone().serve(listener, async move { _ = ended.await });
    Running { address, server, end: Some(end), task: tokio::spawn(serving) }
}

impl Running {
    /// Tells it to end. It takes no more transcriptions.
    pub fn end(&mut self) {
        let _ = self.end.take().map(|end| end.send(()));
    }

    /// Ends it, when all that runs has ended.
    pub async fn stop(mut self) {
        self.end();
        self.task.await.unwrap().unwrap();
    }
}
