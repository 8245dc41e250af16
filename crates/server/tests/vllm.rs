//! Live transcription as vLLM's clients ask for it.

mod common;

use common::ws::{Client, DIGITS, digits, pcm};
use common::{Running, server};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// A client that has said which model it wants.
async fn client(server: &Running) -> Client {
    let mut client = server.connect("/v1/realtime").await;
    assert_eq!(client.event().await["type"], "session.created");
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    client
}

fn commit() -> Value {
    json!({ "type": "input_audio_buffer.commit" })
}

fn last_commit() -> Value {
    json!({ "type": "input_audio_buffer.commit", "final": true })
}

fn deltas(events: &[Value]) -> String {
    events
        .iter()
        .filter(|event| event["type"] == "transcription.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect()
}

#[tokio::test]
async fn the_text_is_that_of_a_recording_and_the_deltas_joined() {
    let server = server();
    for piece in [99, 3201, 1 << 20] {
        let mut client = client(&server).await;
        client.send(commit()).await;
        client.append(&pcm(&digits()), piece).await;
        client.send(last_commit()).await;
        let done = client.until("transcription.done").await;
        assert_eq!(done["text"], DIGITS, "in pieces of {piece} bytes");
        assert_eq!(deltas(&client.heard), DIGITS);
        let usage = |field: &str| done["usage"][field].as_u64().unwrap();
        assert!(usage("prompt_tokens") > 32, "{done}");
        assert!((102..140).contains(&usage("completion_tokens")), "{done}");
        assert_eq!(usage("total_tokens"), usage("prompt_tokens") + usage("completion_tokens"));
    }
    server.all_is_free().await;
    server.stopped().await;
}

#[tokio::test]
async fn audio_may_come_before_the_first_commit_and_even_before_the_model() {
    let server = server();
    let mut client = server.connect("/v1/realtime").await;
    let samples = digits();
    let (first, second) = samples.split_at(40_000);
    client.append(&pcm(first), 4096).await;
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    client.append(&pcm(second), 4096).await;
    client.send(commit()).await;
    client.send(last_commit()).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    server.stopped().await;
}

#[tokio::test]
async fn many_utterances_follow_each_other_also_without_waiting() {
    let server = server();
    let mut client = client(&server).await;
    let samples = pcm(&digits());
    for _ in 0..3 {
        client.send(commit()).await;
        // Those that do not end an utterance and come later say nothing new.
        client.append(&samples, 40_000).await;
        client.send(commit()).await;
        client.send(last_commit()).await;
    }
    for _ in 0..3 {
        assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    }
    server.stopped().await;
}

#[tokio::test]
async fn an_utterance_without_audio_is_done_too() {
    let server = server();
    let mut client = client(&server).await;
    client.send(commit()).await;
    client.send(last_commit()).await;
    assert_eq!(client.until("transcription.done").await["text"], "");
    client.send(last_commit()).await;
    assert_eq!(client.until("transcription.done").await["text"], "");
    server.stopped().await;
}

/// Sends something, and returns the code of the error that answers it.
async fn code_for(client: &mut Client, message: Message) -> String {
    client.socket.send(message).await.unwrap();
    let error = client.event().await;
    assert_eq!(error["type"], "error");
    assert!(error["error"].is_string(), "{error}");
    error["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_wrong_has_a_code_and_ends_nothing() {
    let server = server();
    let mut client = server.connect("/v1/realtime").await;
    assert_eq!(client.event().await["type"], "session.created");
    let text = |event: Value| Message::text(event.to_string());
    assert_eq!(code_for(&mut client, text(commit())).await, "model_not_validated");
    let other_model = json!({ "type": "session.update", "model": "another" });
    assert_eq!(code_for(&mut client, text(other_model)).await, "model_not_found");
    assert_eq!(code_for(&mut client, text(commit())).await, "model_not_validated");
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    for (message, code) in [
        (Message::text("{"), "invalid_json"),
        (Message::text("[]"), "invalid_event"),
        (text(json!({ "audio": "" })), "invalid_event"),
        (text(json!({ "type": "session.update" })), "invalid_event"),
        (text(json!({ "type": "input_audio_buffer.commit", "final": "yes" })), "invalid_event"),
        (text(json!({ "type": "response.create" })), "unknown_event"),
        (text(json!({ "type": "input_audio_buffer.append" })), "invalid_audio"),
        (text(json!({ "type": "input_audio_buffer.append", "audio": "no base64" })), "invalid_audio"),
        (Message::binary(vec![0, 0]), "invalid_frame"),
    ] {
        assert_eq!(code_for(&mut client, message.clone()).await, code, "{message}");
    }
    client.send(commit()).await;
    client.append(&pcm(&digits()), 4096).await;
    client.send(last_commit()).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    server.stopped().await;
}

#[tokio::test]
async fn audio_that_ends_within_a_sample_is_told_and_transcribed() {
    let server = server();
    let mut client = client(&server).await;
    client.append(&[&pcm(&digits())[..], &[7]].concat(), 1001).await;
    client.send(last_commit()).await;
    assert_eq!(client.event().await["code"], "invalid_audio");
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    server.stopped().await;
}
