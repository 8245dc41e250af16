//! Live transcription as OpenAI's clients ask for it.

mod common;

use std::collections::BTreeSet;

use common::server;
use common::sound::{at_rate, mu_law, s16};
use common::ws::{Client, DIGITS, digits, pcm};
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
    drop(client);
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

/// Events of a kind, in their order.
fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// The sample, two seconds of silence, and the sample, as most clients send it: at once.
#[tokio::test]
async fn the_server_finds_turns() {
    let server = server();
    let mut client = server.connect(PATH).await;
    let digits = s16(&at_rate(24_000));
    let silence = |seconds: usize| vec![0; seconds * 48_000];
    client.append(&[silence(1), digits.clone(), silence(2), digits, silence(2)].concat(), 4800).await;
    client.until("conversation.item.done").await;
    client.until("conversation.item.done").await;
    let events = &client.heard;
    let started = of_kind(events, "input_audio_buffer.speech_started");
    let stopped = of_kind(events, "input_audio_buffer.speech_stopped");
    let committed = of_kind(events, "input_audio_buffer.committed");
    let completed = of_kind(events, COMPLETED);
    assert_eq!([started.len(), stopped.len(), committed.len(), completed.len()], [2; 4]);
    let mut previous = &Value::Null;
    for (turn, from_ms) in [1000, 11_195].into_iter().enumerate() {
        let id = &completed[turn]["item_id"];
        for event in [started[turn], stopped[turn], committed[turn]] {
            assert_eq!(event["item_id"], *id, "{event}");
        }
        assert_eq!(committed[turn]["previous_item_id"], *previous);
        previous = id;
        // The first digit is heard after 0.1 s, and 0.3 s before it belong to the turn; the pause is 0.5 s.
        let (from, to) = (&started[turn]["audio_start_ms"], &stopped[turn]["audio_end_ms"]);
        assert!((from_ms - 300..from_ms + 500).contains(&from.as_u64().unwrap()), "{from}");
        assert!((from_ms + 8000..from_ms + 9000).contains(&to.as_u64().unwrap()), "{to}");
        assert_eq!(completed[turn]["transcript"], DIGITS);
        assert_eq!(deltas(events, id), DIGITS);
    }
    // While nobody speaks, nothing is transcribed.
    assert_eq!(server.server.voxtral().engine().counters().sessions, 0);
    server.stopped().await;
}

#[tokio::test]
async fn a_commit_ends_a_turn_that_the_server_has_found() {
    let server = server();
    let mut client = client(&server, json!({ "format": { "type": "audio/pcm", "rate": 16000 } })).await;
    client.append(&pcm(&digits()), 3200).await;
    client.send(commit()).await;
    let completed = client.until(COMPLETED).await;
    assert_eq!(completed["transcript"], DIGITS);
    assert_eq!(of_kind(&client.heard, "input_audio_buffer.committed").len(), 1);
    server.stopped().await;
}

#[tokio::test]
async fn what_is_cleared_is_not_transcribed() {
    let server = server();
    let mut client = client(&server, manual()).await;
    client.append(&pcm(&digits()), 20_000).await;
    client.until(DELTA).await;
    client.send(json!({ "type": "input_audio_buffer.clear" })).await;
    client.until("input_audio_buffer.cleared").await;
    // 1.9 s: two digits.
    client.append(&pcm(&digits()[..30_400]), 20_000).await;
    client.send(commit()).await;
    assert_eq!(client.until("input_audio_buffer.committed").await["previous_item_id"], Value::Null);
    assert_eq!(client.until(COMPLETED).await["transcript"], "four seven");
    server.stopped().await;
}

#[tokio::test]
async fn an_error_names_the_event_and_ends_nothing() {
    let server = server();
    let mut client = client(&server, manual()).await;
    let audio = |audio: Value| json!({ "type": "input_audio_buffer.append", "audio": audio });
    let update = |input: Value| json!({ "type": "session.update", "session": { "audio": { "input": input } } });
    for (mut event, code) in [
        (commit(), "input_audio_buffer_commit_empty"),
        (audio(json!("no base64")), "invalid_audio"),
        (audio(json!(3)), "invalid_audio"),
        (json!({ "type": "session.update" }), "invalid_event"),
        (json!({ "type": "response.create" }), "unknown_event"),
        (update(json!({ "format": { "type": "audio/opus" } })), "invalid_event"),
        (update(json!({ "format": { "rate": 7999 } })), "invalid_event"),
        (update(json!({ "turn_detection": { "type": "server_vad", "threshold": 2 } })), "invalid_event"),
        (update(json!({ "transcription": { "delay": "endless" } })), "invalid_event"),
        (update(json!({ "transcription": { "model": "another" } })), "model_not_found"),
    ] {
        event["event_id"] = json!("mine");
        client.send(event).await;
        let error = client.event().await;
        assert_eq!((&error["type"], &error["error"]["code"]), (&json!("error"), &json!(code)), "{error}");
        assert_eq!(
            (&error["error"]["event_id"], &error["error"]["type"]),
            (&json!("mine"), &json!("invalid_request_error"))
        );
    }
    // The session is as it was.
    client.append(&pcm(&digits()), 3200).await;
    client.send(commit()).await;
    assert_eq!(client.until(COMPLETED).await["transcript"], DIGITS);
    server.stopped().await;
}

#[tokio::test]
async fn an_update_changes_what_it_names() {
    let server = server();
    let detection =
        json!({ "type": "server_vad", "threshold": 0.4, "prefix_padding_ms": 200, "silence_duration_ms": 700 });
    let mut client = client(&server, json!({ "turn_detection": detection })).await;
    let mut update = async |input: Value| {
        client.send(json!({ "type": "session.update", "session": { "audio": { "input": input } } })).await;
        client.until("session.updated").await["session"]["audio"]["input"].clone()
    };
    let input = update(json!({ "turn_detection": { "silence_duration_ms": 900 } })).await;
    assert_eq!(input["turn_detection"]["silence_duration_ms"], 900);
    assert_eq!(input["turn_detection"]["threshold"], 0.4);
    assert_eq!(input["format"], json!({ "type": "audio/pcm", "rate": 24000 }));
    let input = update(json!({ "turn_detection": { "type": "semantic_vad", "eagerness": "low" } })).await;
    assert_eq!(input["turn_detection"], json!({ "type": "semantic_vad", "eagerness": "low" }));
    let input =
        update(json!({ "transcription": { "delay": "xhigh", "language": "en" }, "turn_detection": null })).await;
    assert_eq!(input["turn_detection"], Value::Null);
    assert_eq!(input["transcription"], json!({ "model": "digits", "delay": "xhigh", "language": "en" }));
    server.stopped().await;
}

#[tokio::test]
async fn the_betas_shape_is_understood_and_answered() {
    let server = server();
    let mut client = server.connect(PATH).await;
    let session = json!({
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": { "model": "whisper-1", "prompt": "" },
        "turn_detection": null,
    });
    client.send(json!({ "type": "transcription_session.update", "session": session })).await;
    let updated = client.until("transcription_session.updated").await;
    assert_eq!(updated["session"]["input_audio_format"], "g711_ulaw");
    assert_eq!(updated["session"]["input_audio_transcription"]["model"], "whisper-1");
    client.append(&mu_law(&at_rate(8_000)), 160).await;
    client.send(commit()).await;
    let created = client.until("conversation.item.created").await;
    let completed = client.until(COMPLETED).await;
    assert_eq!(created["item"]["id"], completed["item_id"]);
    assert_eq!(completed["transcript"], DIGITS);
    server.stopped().await;
}

/// As Together's clients ask for it; frames without base64 are taken too.
#[tokio::test]
async fn the_query_says_what_the_session_is() {
    let server = server();
    let mut client =
        server.connect("/v1/realtime?model=whisper-1&input_audio_format=pcm_s16le_16000&turn_detection=none").await;
    for piece in pcm(&digits()).chunks(3201) {
        client.socket.send(Message::binary(piece.to_vec())).await.unwrap();
    }
    client.send(commit()).await;
    assert_eq!(client.until(COMPLETED).await["transcript"], DIGITS);
    server.stopped().await;
}

#[tokio::test]
async fn a_session_object_tells_that_it_is_openais_client() {
    let server = server();
    let mut client = server.connect("/v1/realtime").await;
    client.append(&pcm(&digits()), 20_000).await;
    client.send(json!({ "type": "session.update", "session": { "audio": { "input": manual() } } })).await;
    client.until("session.updated").await;
    // What came before is taken for what the client says now.
    client.send(commit()).await;
    assert_eq!(client.until(COMPLETED).await["transcript"], DIGITS);
    server.stopped().await;
}

#[tokio::test]
async fn words_segments_and_probabilities_come_where_they_are_asked_for() {
    let server = server();
    let mut client = client(&server, manual()).await;
    let transcription = json!({ "timestamp_granularities": ["word", "segment"] });
    let session = json!({
        "audio": { "input": { "transcription": transcription } },
        "include": ["item.input_audio_transcription.logprobs"],
    });
    client.send(json!({ "type": "session.update", "session": session })).await;
    client.append(&pcm(&digits()), 20_000).await;
    client.send(commit()).await;
    let completed = client.until(COMPLETED).await;
    let words: Vec<&str> =
        completed["words"].as_array().unwrap().iter().map(|word| word["word"].as_str().unwrap()).collect();
    assert_eq!(words.join(" "), DIGITS);
    assert_eq!((&completed["words"][0]["start"], &completed["words"][0]["end"]), (&json!(0.4), &json!(0.88)));
    let segments = of_kind(&client.heard, "conversation.item.input_audio_transcription.segment");
    let text: String = segments.iter().map(|segment| segment["text"].as_str().unwrap()).collect();
    assert_eq!(text, DIGITS);
    assert_eq!((&segments[0]["start"], &segments[0]["speaker"]), (&json!(0.4), &json!("A")));
    let tokens = |event: &Value| -> String {
        event["logprobs"].as_array().unwrap().iter().map(|token| token["token"].as_str().unwrap()).collect()
    };
    assert_eq!(tokens(&completed).trim(), DIGITS);
    let told: String = of_kind(&client.heard, DELTA).into_iter().map(tokens).collect();
    assert_eq!(told, tokens(&completed));
    assert!(completed["logprobs"].as_array().unwrap().iter().all(|token| token["logprob"].as_f64().unwrap() <= 0.0));
    server.stopped().await;
}

/// The browser's class of the JavaScript library cannot set headers.
#[tokio::test]
async fn a_browsers_subprotocols_say_who_it_is_and_the_key_is_not_repeated() {
    let server = server();
    let mut request = server.request("/v1/realtime");
    let offers = HeaderValue::from_static("realtime, openai-insecure-api-key.secret");
    request.headers_mut().insert("sec-websocket-protocol", offers);
    let (mut client, response) = Client::with_response(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "realtime");
    client.event().await;
    client.send(commit()).await;
    assert_eq!(client.event().await["error"]["code"], "input_audio_buffer_commit_empty");
    server.stopped().await;
}
