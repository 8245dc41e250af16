//! Live transcription as OpenAI's clients ask for it.

mod common;

use std::collections::BTreeSet;

use common::server;
use common::ws::{Client, DIGITS, digits, eventually, pcm};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::HeaderValue;

const PATH: &str = "/v1/realtime?intent=transcription";
const DELTA: &str = "conversation.item.input_audio_transcription.delta";
const COMPLETED: &str = "conversation.item.input_audio_transcription.completed";

/// A client whose session is changed so.
async fn client(server: &common::Running, input: Value) -> Client {
    let mut client = server.connect(PATH).await;
    assert_eq!(client.event().await["type"], "session.created");
    client
        .send(json!({ "type": "session.update", "session": { "type": "transcription", "audio": { "input": input } } }))
        .await;
    client.until("session.updated").await;
    client
}

/// 16 kHz, turns ended by the client.
fn manual() -> Value {
    json!({ "format": { "type": "audio/pcm", "rate": 16000 }, "turn_detection": null })
}

/// The sample at 24 kHz, each new sample between two old ones.
fn digits_24k() -> Vec<i16> {
    let samples = digits();
    let at = |position: usize| i32::from(samples[position.min(samples.len() - 1)]);
    let between = |i: usize| {
        let (whole, third) = (i * 2 / 3, (i * 2 % 3) as i32);
        (at(whole) + (at(whole + 1) - at(whole)) * third / 3) as i16
    };
    (0..samples.len() * 3 / 2).map(between).collect()
}

fn deltas(events: &[Value], item: &Value) -> String {
    let of_item = events.iter().filter(|event| event["type"] == DELTA && event["item_id"] == *item);
    of_item.map(|event| event["delta"].as_str().unwrap()).collect()
}

fn commit() -> Value {
    json!({ "type": "input_audio_buffer.commit" })
}

#[tokio::test]
async fn a_turn_that_the_client_ends_is_an_item() {
    let server = server();
    let mut client = client(&server, manual()).await;
    client.append(&pcm(&digits()), 3201).await;
    // It is written while it is spoken.
    let first = client.until(DELTA).await;
    client.send(commit()).await;
    let committed = client.until("input_audio_buffer.committed").await;
    assert_eq!(committed["item_id"], first["item_id"]);
    assert_eq!(committed["previous_item_id"], Value::Null);
    let added = client.until("conversation.item.added").await;
    assert_eq!(added["item"]["id"], first["item_id"]);
    let completed = client.until(COMPLETED).await;
    assert_eq!(completed["transcript"], DIGITS);
    assert_eq!(completed["item_id"], first["item_id"]);
    assert_eq!(completed["usage"], json!({ "type": "duration", "seconds": 8.195 }));
    assert_eq!(client.until("conversation.item.done").await["item"]["content"][0]["transcript"], DIGITS);
    assert_eq!(deltas(&client.heard, &first["item_id"]), DIGITS);
    assert!(client.heard.iter().all(|event| event["delta"] != ""), "an empty delta");
    let ids: BTreeSet<&str> = client.heard.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), client.heard.len(), "event_id is unique");
    server.all_is_free().await;
    server.stopped().await;
}

#[tokio::test]
async fn turns_follow_each_other_without_waiting_and_are_chained() {
    let server = server();
    let mut client = client(&server, manual()).await;
    for _ in 0..3 {
        client.append(&pcm(&digits()), 20_000).await;
        client.send(commit()).await;
    }
    let mut previous = Value::Null;
    let mut completed = 0;
    while completed < 3 {
        let event = client.event().await;
        match event["type"].as_str().unwrap() {
            "input_audio_buffer.committed" => {
                assert_eq!(event["previous_item_id"], previous);
                previous = event["item_id"].clone();
            }
            COMPLETED => {
                assert_eq!(event["transcript"], DIGITS);
                completed += 1;
            }
            "error" => panic!("{event}"),
            _ => {}
        }
    }
    server.stopped().await;
}

/// The sample, two seconds of silence, and the sample, as most clients send it.
#[tokio::test]
async fn the_server_finds_turns() {
    let server = server();
    let mut client = server.connect(PATH).await;
    let digits = digits_24k();
    let audio = [&vec![0; 24_000][..], &digits, &vec![0; 48_000], &digits, &vec![0; 48_000]].concat();
    client.append(&pcm(&audio), 4800).await;
    let mut previous = Value::Null;
    for from_ms in [1000, 11_195] {
        let started = client.until("input_audio_buffer.speech_started").await;
        let at_ms = started["audio_start_ms"].as_u64().unwrap();
        // The first digit is heard after 0.4 s, and 0.3 s before it belong to the turn.
        assert!((from_ms - 300..from_ms + 500).contains(&at_ms), "{started}");
        let stopped = client.until("input_audio_buffer.speech_stopped").await;
        let at_ms = stopped["audio_end_ms"].as_u64().unwrap();
        assert!((from_ms + 8000..from_ms + 9500).contains(&at_ms), "{stopped}");
        let committed = client.until("input_audio_buffer.committed").await;
        assert_eq!(committed["previous_item_id"], previous);
        previous = committed["item_id"].clone();
        assert_eq!((&started["item_id"], &stopped["item_id"]), (&previous, &previous));
        let completed = client.until(COMPLETED).await;
        assert_eq!((&completed["item_id"], completed["transcript"].as_str()), (&previous, Some(DIGITS)));
    }
    // While nobody speaks, nothing is transcribed.
    assert_eq!(server.server.voxtral().engine().counters().sessions, 0);
    server.stopped().await;
}
