//! What operators ask a server, and what it answers when something is wrong with it.

mod common;
#[path = "../../engine/tests/common/mod.rs"]
mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use fake::{Call, Fake};
use serde_json::Value;
use voxtral::{BackendError, Config, Session, Voxtral};
use voxtral_server::ServerConfig;

#[test]
fn every_answer_names_its_request() {
    let server = server();
    assert_eq!(server.ask("GET /health", &["x-request-id: mine-7"]).header("x-request-id"), Some("mine-7"));
    let id = |what: &str| server.ask(what, &[]).header("x-request-id").unwrap().to_owned();
    let ids: BTreeSet<String> = ["GET /health", "GET /nowhere", "DELETE /ready", "GET /metrics"].map(id).into();
    assert_eq!(ids.len(), 4, "{ids:?}");
}

#[test]
fn what_is_not_there_is_refused_in_the_shape_of_all_errors() {
    let server = server();
    let answers = [("GET /nowhere", 404), ("DELETE /v1/models", 405), ("POST /", 405)];
    for (what, status) in answers {
        let answer = server.ask(what, &[]);
        assert_eq!((answer.status, answer.code()), (status, Value::Null), "{what}");
    }
}

/// The figures of a server, by their names with their labels.
fn figures(server: &Running) -> BTreeMap<String, f64> {
    let answer = server.ask("GET /metrics", &[]);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"), "{answer:?}");
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let figures = lines.map(|line| line.rsplit_once(' ').unwrap());
    figures.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

#[test]
fn figures_have_the_names_that_autoscalers_look_for() {
    let server = server_with(ServerConfig { max_sessions: 7, ..ServerConfig::default() });
    assert_eq!(server.ask("GET /nowhere", &[]).status, 404);
    let figures = figures(&server);
    let of = |name: &str| figures.get(name).copied();
    assert_eq!(of("voxtral_streams_active"), Some(0.0));
    assert_eq!(of("voxtral_streams_capacity"), Some(7.0));
    assert_eq!(of("voxtral_streams_refused_total{reason=\"full\"}"), Some(0.0));
    assert_eq!(of("voxtral_streams_refused_total{reason=\"draining\"}"), Some(0.0));
    assert_eq!(of("voxtral_audio_seconds_total"), Some(0.0));
    assert_eq!(of("voxtral_word_lateness_seconds_count"), Some(0.0));
    assert_eq!(of("voxtral_first_word_seconds_bucket{le=\"0.5\"}"), Some(0.0));
    assert_eq!(of("voxtral_errors_total{kind=\"invalid_request_error\"}"), Some(1.0));
    for engine in
        ["sessions", "queued_audio_seconds", "rounds_total", "last_round_seconds", "passes_total", "decoded_rows_total"]
    {
        assert_eq!(of(&format!("voxtral_{engine}")), Some(0.0), "{engine}");
    }
}

/// A server whose backend does in each call what `hook` says, and a session of its engine.
fn with_backend(
    config: ServerConfig,
    hook: impl Fn(&Call) -> Result<(), BackendError> + Send + Sync + 'static,
) -> (Running, Session) {
    let model = voxtral_digits::model();
    let backend = Fake::new(&model, u64::MAX, Arc::new(hook));
    let voxtral = Voxtral::with_backend(&Config::default(), model, Box::new(backend)).unwrap();
    let session = voxtral.session(&voxtral::Options::default()).unwrap();
    (serve(voxtral, config), session)
}

/// Asks until it is not ready, for the reason.
fn not_ready(server: &Running) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = server.ask("GET /ready", &[]);
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some());
            return answer.code();
        }
        assert!(Instant::now() < deadline, "it is ready all the time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_whose_engine_has_ended_is_alive_and_not_ready() {
    let (server, _session) = with_backend(ServerConfig::default(), |call| match call {
        Call::Encode(_) => panic!("the device is gone"),
        _ => Ok(()),
    });
    assert_eq!(not_ready(&server), "engine_stopped");
    assert_eq!(server.ask("GET /health", &[]).status, 200);
}

#[test]
fn a_server_whose_engine_is_stuck_is_alive_and_not_ready_until_it_goes_on() {
    let config = ServerConfig { stuck_after: Duration::from_millis(10), ..ServerConfig::default() };
    let device = Arc::new(Mutex::new(()));
    let stuck = device.lock().unwrap();
    let waits = Arc::clone(&device);
    let (server, _session) = with_backend(config, move |call| {
        if matches!(call, Call::Encode(_)) {
            drop(waits.lock().unwrap());
        }
        Ok(())
    });
    assert_eq!(not_ready(&server), "engine_stuck");
    assert_eq!(server.ask("GET /health", &[]).status, 200);
    drop(stuck);
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.ask("GET /ready", &[]).status != 200 {
        assert!(Instant::now() < deadline, "it is never ready again");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The paths that the sources route, for the description to be of them.
fn routes(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            routes(&path, found);
        } else if !path.ends_with("tests.rs") {
            let source = fs::read_to_string(path).unwrap();
            found.extend(source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
}

#[test]
fn the_description_is_of_what_is_served() {
    let server = server();
    let description: Value = serde_json::from_str(&server.ask("GET /openapi.json", &[]).body).unwrap();
    let described = description["paths"].as_object().unwrap();
    let mut routed = BTreeSet::new();
    routes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut routed);
    assert_eq!(described.keys().cloned().collect::<BTreeSet<_>>(), routed);
    for (path, methods) in described {
        for method in ["get", "post", "put", "delete", "patch"] {
            let status = server.ask(&format!("{} {path}", method.to_uppercase()), &[]).status;
            assert_eq!(status != 405, methods.get(method).is_some(), "{method} {path}: {status}");
        }
    }
}
