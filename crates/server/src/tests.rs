//! A server that loads, is full, is about to end, and one with a fault.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use axum::routing::post;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use voxtral::{BackendChoice, Config, ModelRef};

use super::*;

/// Nothing takes so long that works.
const LONG: Duration = Duration::from_secs(60);

fn opened(config: ServerConfig) -> Server {
    let digits = Config { model: ModelRef::Digits, backend: BackendChoice::Cpu, ..Config::default() };
    Server::new(Voxtral::open(&digits, &mut |_| {}).unwrap(), config)
}

/// A server at work.
struct Running {
    runtime: Runtime,
    server: Server,
    address: SocketAddr,
    end: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

fn listen(runtime: &Runtime) -> (TcpListener, SocketAddr) {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What comes of it, if it does not hang.
fn wait<T>(runtime: &Runtime, of: impl Future<Output = T>) -> T {
    runtime.block_on(async { timeout(LONG, of).await }).unwrap()
}

fn start(config: ServerConfig) -> Running {
    let (runtime, server) = (Runtime::new().unwrap(), opened(config));
    let (listener, address) = listen(&runtime);
    let (end, ended) = oneshot::channel();
    let serving = server.clone();
    let serving = runtime.spawn(async move { serving.serve(listener, async { ended.await.unwrap() }).await });
    Running { runtime, server, address, end, serving }
}

/// Sends what is given and returns the status and the body of what is answered.
fn send(address: SocketAddr, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.to_lowercase().contains("\r\nx-request-id: "), "{answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

fn get_from(address: SocketAddr, path: &str) -> (u16, Value) {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
}

fn ready(address: SocketAddr) -> (u16, Value) {
    let (status, body) = get_from(address, "/ready");
    (status, body["error"]["code"].clone())
}

#[test]
fn a_server_that_is_full_is_not_ready() {
    let running = start(ServerConfig { max_sessions: 1, ..ServerConfig::default() });
    let slot = running.server.app.slots.take().unwrap();
    assert_eq!(ready(running.address), (503, "server_full".into()));
    assert_eq!(get_from(running.address, "/health").0, 200);
    drop(slot);
    assert_eq!(ready(running.address), (200, Value::Null));
}

#[test]
fn a_server_that_is_to_end_says_so_until_what_runs_has_ended() {
    let Running { runtime, server, address, end, serving } = start(ServerConfig::default());
    let slot = server.app.slots.take().unwrap();
    end.send(()).unwrap();
    wait(&runtime, server.app.slots.draining());
    assert_eq!(ready(address), (503, "server_draining".into()));
    assert_eq!(get_from(address, "/health").0, 200);
    assert!(server.app.slots.take().is_err() && !serving.is_finished());
    drop(slot);
    wait(&runtime, serving).unwrap();
    assert!(TcpStream::connect(address).is_err(), "it still listens");
}

#[test]
fn what_does_not_end_is_ended() {
    let config = ServerConfig { drain_timeout: Duration::from_millis(50), ..ServerConfig::default() };
    let Running { runtime, server, end, serving, .. } = start(config);
    let (app, slot) = (Arc::clone(&server.app), server.app.slots.take().unwrap());
    let told = runtime.spawn(async move {
        app.slots.closing().await;
        drop(slot);
    });
    end.send(()).unwrap();
    wait(&runtime, serving).unwrap();
    assert!(told.is_finished(), "nobody was told");
}

#[test]
fn a_server_that_loads_is_alive_and_not_ready() {
    let runtime = Runtime::new().unwrap();
    let (listener, address) = listen(&runtime);
    let (loaded, loading) = oneshot::channel();
    let serving = runtime.spawn(async move {
        serve_while_loading(&listener, &ServerConfig::default(), async { loading.await.unwrap() }).await
    });
    assert_eq!(get_from(address, "/health").0, 200);
    assert_eq!(ready(address), (503, "server_loading".into()));
    loaded.send("a model").unwrap();
    assert_eq!(wait(&runtime, serving).unwrap(), "a model");
}

/// Answers with what every request gets, and `router`.
fn serve_other(config: ServerConfig, router: Router) -> (Runtime, SocketAddr) {
    let (runtime, server) = (Runtime::new().unwrap(), opened(config));
    let (listener, address) = listen(&runtime);
    runtime.spawn(async move {
        connections::serve(&listener, server.wrap(router), &server.app.config, std::future::pending::<()>()).await;
    });
    (runtime, address)
}

#[test]
fn a_request_that_panics_is_an_error_of_its_own() {
    let fails = async || -> &'static str { panic!("for the test") };
    let (_runtime, address) = serve_other(ServerConfig::default(), Router::new().route("/fails", get(fails)));
    for _ in 0..2 {
        let (status, body) = get_from(address, "/fails");
        assert_eq!((status, &body["error"]["type"]), (500, &"server_error".into()));
    }
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let config = ServerConfig { idle_timeout: Duration::from_millis(200), ..ServerConfig::default() };
    let reads = async |_: axum::body::Bytes| "read";
    let (_runtime, address) = serve_other(config, Router::new().route("/reads", post(reads)));
    let begun = Instant::now();
    let (status, _) = send(address, "POST /reads HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf");
    assert!((400..500).contains(&status) && begun.elapsed() < LONG, "{status}");
}
