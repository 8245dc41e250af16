//! Who may ask a server, from where.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use common::*;
use tempfile::TempDir;
use voxtral_server::{ApiKeys, ApiKeysError, HeaderValue, ServerConfig};

/// A server that takes these keys, one on each line, and their file.
fn guarded(keys: &str, config: ServerConfig) -> (Running, PathBuf, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs::write(&path, keys).unwrap();
    let keys = Some(ApiKeys::open(&path).unwrap());
    (server_with(ServerConfig { keys, ..config }), path, dir)
}

#[test]
fn a_key_may_be_named_wherever_clients_put_it() {
    let (server, _, _dir) = guarded("# for tests\n first-key \n\nsecond-key\n", ServerConfig::default());
    let status = |headers: &[&str]| server.ask("GET /v1/models", headers).status;
    for right in [
        "authorization: Bearer first-key",
        "Authorization: bearer second-key",
        "api-key: second-key",
        "x-api-key: first-key",
        "sec-websocket-protocol: realtime, openai-insecure-api-key.second-key, openai-beta.realtime-v1",
    ] {
        assert_eq!(status(&[right]), 200, "{right}");
    }
    for wrong in [
        "authorization: Bearer first",
        "authorization: Bearer first-key-and-more",
        "authorization: Bearer",
        "authorization: Basic first-key",
        "authorization: Bearer # for tests",
        "api-key: ",
        "sec-websocket-protocol: openai-insecure-api-key.",
        "sec-websocket-protocol: first-key",
        "x-request-id: first-key",
    ] {
        let answer = server.ask("GET /v1/models?api_key=first-key", &[wrong]);
        assert_eq!((answer.status, answer.code()), (401, "invalid_api_key".into()), "{wrong}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(answer.header("x-request-id").is_some());
    }
    assert_eq!(status(&["authorization: Bearer of another", "api-key: first-key"]), 200);
}

#[test]
fn a_key_in_the_query_counts_only_where_that_is_wanted() {
    let query = ServerConfig { key_query: Some("token".into()), ..ServerConfig::default() };
    let (server, _, _dir) = guarded("a+b/c\n", query);
    let status = |what: &str| server.ask(what, &[]).status;
    assert_eq!(status("GET /v1/models?model=whisper-1&token=a%2Bb/c"), 200);
    assert_eq!(status("GET /v1/models?api_key=a%2Bb/c"), 401);
}

#[test]
fn what_proxies_and_browsers_ask_needs_no_key() {
    let (server, _, _dir) = guarded("key\n", ServerConfig::default());
    let status = |what: &str| server.ask(what, &[]).status;
    for open in ["GET /", "GET /health", "GET /ready", "GET /metrics"] {
        assert_eq!(status(open), 200, "{open}");
    }
    assert_eq!(status("OPTIONS /v1/models"), 405);
    for guarded in ["GET /openapi.json", "GET /v1/models", "GET /nowhere", "GET //health", "POST /v1/models"] {
        assert_eq!(status(guarded), 401, "{guarded}");
    }
}

#[test]
fn a_websocket_is_refused_before_it_is_opened() {
    let (server, _, _dir) = guarded("key\n", ServerConfig::default());
    let upgrade = ["upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="];
    let answer = server.ask("GET /v1/realtime?intent=transcription", &upgrade);
    assert_eq!((answer.status, answer.code()), (401, "invalid_api_key".into()));
}

#[test]
fn keys_count_from_the_moment_they_are_in_the_file() {
    let (server, path, _dir) = guarded("old\n", ServerConfig::default());
    let status = |key: &str| server.ask("GET /v1/models", &[&format!("authorization: Bearer {key}")]).status;
    assert_eq!((status("old"), status("new-key")), (200, 401));
    fs::write(&path, "new-key\n").unwrap();
    assert_eq!((status("old"), status("new-key")), (401, 200));
    // A file that is being written, or is gone, lets nobody in or out.
    fs::write(&path, "").unwrap();
    assert_eq!((status("old"), status("new-key")), (401, 200));
    fs::remove_file(&path).unwrap();
    assert_eq!((status("old"), status("new-key"), status("")), (401, 200, 401));
    // As editors of Windows write it.
    fs::write(&path, "\u{feff}old\r\nnew-key\r\n").unwrap();
    assert_eq!((status("old"), status("new-key"), status("")), (200, 200, 401));
}

#[test]
fn a_file_without_keys_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    assert!(matches!(ApiKeys::open(&path), Err(ApiKeysError::Unreadable { .. })));
    fs::write(&path, "# none yet\n\n").unwrap();
    assert!(matches!(ApiKeys::open(&path), Err(ApiKeysError::Empty { .. })));
}

#[test]
fn pages_of_other_origins_may_ask_only_where_they_are_named() {
    let origin = HeaderValue::from_static("https://page.example");
    let (server, _, _dir) = guarded("key\n", ServerConfig { cors_origins: vec![origin], ..ServerConfig::default() });
    let preflight = |origin: &str| {
        let origin = format!("origin: {origin}");
        let asks =
            ["access-control-request-method: POST", "access-control-request-headers: authorization,x-stainless-os"];
        server.ask("OPTIONS /v1/audio/transcriptions", &[&origin, asks[0], asks[1]])
    };
    let answer = preflight("https://page.example");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://page.example")));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,x-stainless-os"));
    assert_eq!(preflight("https://other.example").header("access-control-allow-origin"), None);
    // The page can read why it is refused.
    let refused = server.ask("GET /v1/models", &["origin: https://page.example"]);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some("https://page.example")));
}

#[test]
fn no_page_may_ask_otherwise() {
    let answer = server().ask("GET /v1/models", &["origin: https://page.example"]);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
}

#[test]
fn clients_that_say_nothing_are_in_nobodys_way() {
    let limits = ServerConfig { header_timeout: Duration::from_secs(2), ..ServerConfig::default() };
    let server = server_with(limits);
    let idle: Vec<_> = (0..500).map(|_| connect(server.address)).collect();
    let begun: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect(server.address);
            stream.write_all(b"GET /health HTTP/1.1\r\nhost: ").unwrap();
            stream
        })
        .collect();
    assert_eq!(server.ask("GET /health", &[]).status, 200);
    for mut stream in idle.into_iter().chain(begun) {
        let mut said = Vec::new();
        // It is closed, with or without an answer.
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn connections_beyond_the_limit_wait_for_others_to_end() {
    let server = server_with(ServerConfig { max_connections: 2, ..ServerConfig::default() });
    let idle = [connect(server.address), connect(server.address)];
    let mut third = connect(server.address);
    third.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(third.read(&mut [0]).is_err(), "it did not wait");
    drop(idle);
    third.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = String::new();
    third.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
