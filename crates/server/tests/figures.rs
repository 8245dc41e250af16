//! What live sessions add to the figures.

mod common;

use common::ws::{DIGITS, digits, eventually, pcm};
use common::{Running, server};
use serde_json::json;

fn figure(server: &Running, name: &str) -> f64 {
    let figures = server.ask("GET /metrics", &[]).body;
    let line = figures.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {figures}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn sessions_audio_words_and_errors_are_counted() {
    let server = server();
    let mut client = server.connect("/v1/realtime").await;
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    client.send(json!({ "type": "input_audio_buffer.commit" })).await;
    client.append(&pcm(&digits()), 32_000).await;
    client.until("transcription.delta").await;
    assert_eq!(figure(&server, "voxtral_streams_active "), 1.0);
    assert_eq!(figure(&server, "voxtral_streams_total "), 1.0);
    client.send(json!({ "type": "input_audio_buffer.commit", "final": true })).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    let seconds = digits().len() as f64 / 16_000.0;
    assert!((figure(&server, "voxtral_audio_seconds_total ") - seconds).abs() < 1e-3);
    assert!(figure(&server, "voxtral_word_lateness_seconds_count ") > 0.0);
    assert_eq!(figure(&server, "voxtral_first_word_seconds_count "), 1.0);
    assert!(figure(&server, "voxtral_passes_total ") > 0.0);
    client.send(json!({ "type": "no.such.event" })).await;
    assert_eq!(client.event().await["type"], "error");
    assert_eq!(figure(&server, "voxtral_errors_total{kind=\"unknown_event\"} "), 1.0);
    drop(client);
    eventually("no stream is active", async || figure(&server, "voxtral_streams_active ") == 0.0).await;
    server.stopped().await;
}
