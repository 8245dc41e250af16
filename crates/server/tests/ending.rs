//! What live sessions count, and how they end when the server does.

mod common;

use std::time::Duration;

use common::ws::{Client, DIGITS, digits, eventually, pcm};
use common::{Running, server, server_with};
use serde_json::json;
use voxtral_server::ServerConfig;

/// The codes with which a server closes that ends.
const AWAY: u16 = 1001;

/// A client in the middle of an utterance.
async fn talking(server: &Running) -> Client {
    let mut client = server.connect("/v1/realtime").await;
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    client.send(json!({ "type": "input_audio_buffer.commit" })).await;
    client.append(&pcm(&digits()), 32_000).await;
    client.until("transcription.delta").await;
    client
}

fn figure(server: &Running, name: &str) -> f64 {
    let figures = server.ask("GET /metrics", &[]).body;
    let line = figures.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {figures}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn sessions_audio_words_and_errors_are_counted() {
    let server = server();
    let mut client = talking(&server).await;
    assert_eq!(figure(&server, "voxtral_streams_active "), 1.0);
    assert_eq!(figure(&server, "voxtral_streams_total "), 1.0);
    client.send(json!({ "type": "input_audio_buffer.commit", "final": true })).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    let seconds = digits().len() as f64 / 16_000.0;
    assert!((figure(&server, "voxtral_audio_seconds_total ") - seconds).abs() < 1e-3);
    assert_eq!(figure(&server, "voxtral_word_lateness_seconds_count "), DIGITS.split(' ').count() as f64);
    assert!(figure(&server, "voxtral_passes_total ") > 0.0);
    client.send(json!({ "type": "no.such.event" })).await;
    assert_eq!(client.event().await["type"], "error");
    assert_eq!(figure(&server, "voxtral_errors_total{kind=\"unknown_event\"} "), 1.0);
    drop(client);
    eventually("no stream is active", async || figure(&server, "voxtral_streams_active ") == 0.0).await;
    server.stopped().await;
}

#[tokio::test]
async fn who_says_nothing_is_told_that_the_server_ends() {
    let mut server = server();
    let mut client = server.connect("/v1/realtime").await;
    client.event().await;
    server.end();
    assert_eq!(client.closed().await, AWAY);
    server.stopped().await;
}

#[tokio::test]
async fn what_is_being_said_is_transcribed_before_the_server_ends() {
    let mut server = server();
    let mut client = talking(&server).await;
    server.end();
    eventually("it is not ready", async || server.ask("GET /ready", &[]).code() == "server_draining").await;
    assert!(Client::of(server.request("/v1/realtime")).await.is_err(), "it takes another");
    client.send(json!({ "type": "input_audio_buffer.commit", "final": true })).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    assert_eq!(client.closed().await, AWAY);
    server.stopped().await;
}

#[tokio::test]
async fn who_goes_on_talking_is_cut_short() {
    let mut server = server_with(ServerConfig { drain_timeout: Duration::from_millis(100), ..ServerConfig::default() });
    let mut client = talking(&server).await;
    server.end();
    assert_eq!(client.closed().await, AWAY);
    server.stopped().await;
}
