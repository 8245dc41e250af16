//! Live transcription as vLLM's clients ask for it.

mod common;

use common::ws::{Client, DIGITS, SAMPLE, digits, pcm};
use common::{Running, server};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use voxtral::{Collect, Options, Source};

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
    let recording = Source::file(SAMPLE).unwrap();
    let recorded = server.server.voxtral().transcribe(recording, &Options::default(), &mut Collect::default()).unwrap();
    assert_eq!(recorded.text, DIGITS);
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

/// No silence follows it.
#[tokio::test]
async fn the_last_word_comes_with_the_commit_and_the_session_goes_on() {
    let server = server();
    let mut client = client(&server).await;
    for (seconds, text) in [(0.9, "four"), (1.9, "four seven"), (0.9, "four")] {
        client.send(commit()).await;
        client.append(&pcm(&digits()[..(seconds * 16e3) as usize]), 3200).await;
        client.send(last_commit()).await;
        assert_eq!(client.until("transcription.done").await["text"], text);
    }
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

#[tokio::test]
async fn words_and_segments_come_where_they_are_asked_for() {
    let server = server();
    let mut client = client(&server).await;
    let mut update =
        json!({ "type": "session.update", "model": "digits", "timestamp_granularities": ["word", "segment"] });
    client.send(update.clone()).await;
    client.send(commit()).await;
    client.append(&pcm(&digits()), 3200).await;
    client.send(last_commit()).await;
    let done = client.until("transcription.done").await;
    let words: Vec<&Value> = client.heard.iter().filter(|event| event["type"] == "transcription.word").collect();
    let texts: Vec<&str> = words.iter().map(|word| word["word"].as_str().unwrap()).collect();
    assert_eq!(texts.join(" "), DIGITS);
    assert_eq!((&words[0]["start"], &words[0]["end"]), (&json!(0.4), &json!(0.88)));
    let segments = done["segments"].as_array().unwrap();
    let text: String = segments.iter().map(|segment| segment["text"].as_str().unwrap()).collect();
    assert_eq!(text, DIGITS);
    assert_eq!(segments.last().unwrap()["end"], words.last().unwrap()["end"]);

    update["timestamp_granularities"] = json!([]);
    client.send(update).await;
    client.send(commit()).await;
    client.append(&pcm(&digits()), 3200).await;
    client.send(last_commit()).await;
    let before = client.heard.len();
    assert!(client.until("transcription.done").await.get("segments").is_none());
    assert!(client.heard[before..].iter().all(|event| event["type"] != "transcription.word"));
    server.stopped().await;
}

/// A longer delay has a longer prompt.
#[tokio::test]
async fn the_delay_is_the_clients_to_choose() {
    let server = server();
    let mut client = client(&server).await;
    let update = |ms: u32| json!({ "type": "session.update", "model": "digits", "target_streaming_delay_ms": ms });
    let mut prompts = Vec::new();
    for ms in [240, 960] {
        client.send(update(ms)).await;
        client.send(commit()).await;
        client.send(last_commit()).await;
        prompts.push(client.until("transcription.done").await["usage"]["prompt_tokens"].as_u64().unwrap());
    }
    assert_eq!(prompts[1] - prompts[0], 9);
    assert_eq!(code_for(&mut client, Message::text(update(100).to_string())).await, "invalid_event");
    server.stopped().await;
}

/// As the page does: a browser can name a key only among subprotocols, and wants one of those in the answer.
#[tokio::test]
async fn a_browser_with_a_key_may_speak_it_too() {
    let server = server();
    let mut request = server.request("/v1/realtime");
    let offers = HeaderValue::from_static("realtime, openai-insecure-api-key.secret");
    request.headers_mut().insert("sec-websocket-protocol", offers);
    let mut client = Client::of(request).await.unwrap();
    client.event().await;
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    client.send(last_commit()).await;
    client.until("transcription.done").await;
    server.stopped().await;
}
