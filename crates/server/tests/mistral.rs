//! Live transcription as Mistral's clients ask for it.

mod common;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::sound::{at_rate, mu_law, s16};
use common::ws::{Client, DIGITS, digits, pcm};
use common::{Running, server, server_with};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};
use voxtral_server::ServerConfig;

const PATH: &str = "/v1/audio/transcriptions/realtime?model=voxtral-mini-transcribe-realtime-2602";

/// A client that was told of its session.
async fn client(server: &Running) -> Client {
    let mut client = server.connect(PATH).await;
    let session = client.until("session.created").await["session"].clone();
    assert!(session["request_id"].is_string() && session["model"].is_string(), "{session}");
    assert_eq!(session["audio_format"], json!({ "encoding": "pcm_s16le", "sample_rate": 16_000 }));
    client
}

async fn append(client: &mut Client, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        client.send(json!({ "type": "input_audio.append", "audio": STANDARD.encode(piece) })).await;
    }
}

async fn update(client: &mut Client, session: Value) {
    client.send(json!({ "type": "session.update", "session": session })).await;
}

async fn flush(client: &mut Client) {
    client.send(json!({ "type": "input_audio.flush" })).await;
}

/// Ends the audio. Returns the last event, after which the server closes.
async fn end(client: &mut Client) -> Value {
    client.send(json!({ "type": "input_audio.end" })).await;
    loop {
        match client.message().await {
            Some(Ok(Message::Text(text))) => client.heard.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(Some(frame)))) => {
                assert_eq!(u16::from(frame.code), 1000);
                let last = client.heard.last().unwrap();
                assert_eq!(last["type"], "transcription.done");
                return last.clone();
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The number of the error that comes next.
async fn error(client: &mut Client) -> u64 {
    let event = client.event().await;
    assert_eq!(event["type"], "error", "{event}");
    assert!(event["error"]["message"].is_string(), "{event}");
    event["error"]["code"].as_u64().unwrap()
}

/// The texts of all events of a kind.
fn texts<'a>(events: &'a [Value], kind: &str) -> Vec<&'a str> {
    events.iter().filter(|event| event["type"] == kind).filter_map(|event| event["text"].as_str()).collect()
}

#[tokio::test]
async fn the_text_is_that_of_a_recording_however_it_is_cut() {
    let server = server();
    for piece in [2, 3201, 262_144] {
        let mut client = client(&server).await;
        append(&mut client, &pcm(&digits()), piece).await;
        flush(&mut client).await;
        let done = end(&mut client).await;
        assert_eq!(done["text"], DIGITS, "in pieces of {piece} bytes");
        // The SDK flushes before it ends, and takes the first for the last.
        let first = client.heard.iter().find(|event| event["type"] == "transcription.done").unwrap();
        for field in ["text", "segments", "language", "model"] {
            assert_eq!(first[field], done[field]);
        }
        assert_eq!(first["usage"]["prompt_tokens"], done["usage"]["prompt_tokens"]);
        assert_eq!(done["language"], Value::Null);
        assert!(done["model"].is_string(), "{done}");
        assert_eq!(done["usage"]["prompt_audio_seconds"], 9);
        assert!(done["usage"]["completion_tokens"].as_u64().unwrap() >= 102, "{done}");
        assert_eq!(texts(&client.heard, "transcription.text.delta").concat(), DIGITS);
        assert!(!texts(&client.heard, "transcription.text.delta").contains(&""));
    }
    server.all_is_free().await;
    server.stopped().await;
}

#[tokio::test]
async fn segments_end_at_pauses_and_hold_all_words_with_their_times() {
    let server = server();
    let mut client = client(&server).await;
    append(&mut client, &pcm(&digits()), 8192).await;
    append(&mut client, &[0; 48_000], 8192).await;
    append(&mut client, &pcm(&digits()), 8192).await;
    let done = end(&mut client).await;
    let segments: Vec<&Value> = client.heard.iter().filter(|event| event["type"] == "transcription.segment").collect();
    assert!(segments.len() > 1, "{segments:?}");
    assert_eq!(texts(&client.heard, "transcription.segment").join(" "), format!("{DIGITS} {DIGITS}"));
    let mut before = 0.0;
    for (segment, at_the_end) in segments.iter().zip(done["segments"].as_array().unwrap()) {
        let words = segment["words"].as_array().unwrap();
        let texts: Vec<&str> = words.iter().map(|word| word["word"].as_str().unwrap()).collect();
        assert_eq!(segment["text"], texts.join(" "));
        for time in words.iter().flat_map(|word| [&word["start"], &word["end"]]) {
            let time = time.as_f64().unwrap();
            assert!(before <= time, "{segments:?}");
            before = time;
        }
        assert_eq!((&segment["start"], &segment["end"]), (&words[0]["start"], &words[words.len() - 1]["end"]));
        assert_eq!(segment["text"], at_the_end["text"]);
    }
    assert!((17.0..18.0).contains(&before), "{before}");
    server.stopped().await;
}

#[tokio::test]
async fn every_update_is_answered_and_one_after_audio_is_an_error() {
    let server = server();
    let mut client = client(&server).await;
    update(&mut client, json!({})).await;
    let untouched = client.until("session.updated").await["session"].clone();
    assert_eq!(untouched, client.heard[0]["session"]);

    update(&mut client, json!({ "target_streaming_delay_ms": 1000, "language": "en", "context_bias": ["nine"] })).await;
    let session = client.until("session.updated").await["session"].clone();
    // The shortest that there is and that is not below it.
    assert_eq!(session["target_streaming_delay_ms"], 1040);
    update(&mut client, json!({ "audio_format": { "encoding": "pcm_f32le", "sample_rate": 48_000 } })).await;
    let session = client.until("session.updated").await["session"].clone();
    assert_eq!((&session["target_streaming_delay_ms"], &session["language"]), (&json!(1040), &json!("en")));
    update(&mut client, json!({ "audio_format": null, "target_streaming_delay_ms": null })).await;
    let session = client.until("session.updated").await["session"].clone();
    assert_eq!(session["audio_format"], untouched["audio_format"]);
    assert_eq!(session["target_streaming_delay_ms"], untouched["target_streaming_delay_ms"]);

    for refused in [
        json!({ "audio_format": { "encoding": "opus", "sample_rate": 16_000 } }),
        json!({ "audio_format": { "encoding": "pcm_s16le", "sample_rate": 7_999 } }),
        json!({ "target_streaming_delay_ms": 2401 }),
        json!({ "diarize": true }),
        json!({ "turn_detection": { "end_threshold": 0.3 } }),
    ] {
        update(&mut client, refused.clone()).await;
        assert_eq!(error(&mut client).await, 400, "{refused}");
    }
    append(&mut client, &pcm(&digits()), 1 << 16).await;
    update(&mut client, json!({})).await;
    loop {
        match client.event().await {
            event if event["type"] == "error" => break assert_eq!(event["error"]["code"], 400),
            event => assert_eq!(event["type"], "transcription.text.delta"),
        }
    }
    let done = end(&mut client).await;
    assert_eq!((&done["text"], &done["language"]), (&json!(DIGITS), &json!("en")));
    server.stopped().await;
}

#[tokio::test]
async fn all_rates_and_formats_are_heard() {
    let server = server();
    let s32 = |sample: &f32| ((f64::from(*sample) * 2_147_483_647.0) as i32).to_le_bytes();
    for (encoding, rate, bytes) in [
        ("pcm_mulaw", 8_000, mu_law(&at_rate(8_000))),
        ("pcm_s16le", 22_050, s16(&at_rate(22_050))),
        ("pcm_s32le", 44_100, at_rate(44_100).iter().flat_map(s32).collect()),
        ("pcm_f32le", 48_000, at_rate(48_000).iter().flat_map(|sample| sample.to_le_bytes()).collect()),
    ] {
        let mut client = client(&server).await;
        let format = json!({ "encoding": encoding, "sample_rate": rate });
        update(&mut client, json!({ "audio_format": format })).await;
        assert_eq!(client.until("session.updated").await["session"]["audio_format"], format);
        append(&mut client, &bytes, 10_001).await;
        assert_eq!(end(&mut client).await["text"], DIGITS, "{format}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_flush_brings_out_all_that_was_said_and_the_session_goes_on() {
    let server = server();
    let mut client = client(&server).await;
    let samples = pcm(&digits());
    // In the middle of the silence after the second word.
    let (first, second) = samples.split_at(2 * 30_400);
    append(&mut client, first, 8192).await;
    flush(&mut client).await;
    // Nothing is sent until all is there.
    assert_eq!(client.until("transcription.segment").await["text"], "four seven");
    append(&mut client, second, 8192).await;
    assert_eq!(end(&mut client).await["text"], DIGITS);
    assert_eq!(texts(&client.heard, "transcription.segment").join(" "), DIGITS);
    server.stopped().await;
}

/// pipecat#4485, #4487: agents flush where a turn ends, and take what `done` says then for what was said in it.
#[tokio::test]
async fn each_flush_is_answered_with_what_was_said_since_the_last_one() {
    let server = server();
    let mut client = client(&server).await;
    let samples = pcm(&digits());
    let (first, second) = samples.split_at(2 * 30_400);
    for (audio, said, seconds) in
        [(&[][..], "", 0), (first, "four seven", 2), (&[], "", 0), (second, &DIGITS["four seven ".len()..], 7)]
    {
        append(&mut client, audio, 8192).await;
        flush(&mut client).await;
        let done = client.until("transcription.done").await;
        assert_eq!(done["text"], said);
        let segments = done["segments"].as_array().unwrap();
        let joined: Vec<&str> = segments.iter().map(|segment| segment["text"].as_str().unwrap()).collect();
        assert_eq!(joined.join(" "), said);
        assert_eq!(done["usage"]["prompt_audio_seconds"], seconds);
        assert_eq!(done["usage"]["completion_tokens"].as_u64() > Some(0), !said.is_empty());
    }
    let done = end(&mut client).await;
    assert_eq!((&done["text"], &done["usage"]["prompt_audio_seconds"]), (&json!(DIGITS), &json!(9)));
    server.stopped().await;
}

#[tokio::test]
async fn what_is_wrong_has_a_number_and_ends_nothing() {
    let server = server();
    let mut client = client(&server).await;
    for wrong in [
        json!({ "type": "input_audio.append", "audio": STANDARD.encode(vec![0; 262_145]) }),
        json!({ "type": "input_audio.append", "audio": "no base64" }),
        json!({ "type": "input_audio.append" }),
        json!({ "type": "session.update" }),
        json!({ "type": "response.create" }),
        json!([]),
    ] {
        client.send(wrong.clone()).await;
        assert_eq!(error(&mut client).await, 400, "{wrong}");
    }
    append(&mut client, &pcm(&digits()), 262_144).await;
    assert_eq!(end(&mut client).await["text"], DIGITS);
    server.stopped().await;
}

#[tokio::test]
async fn a_session_without_audio_is_done_too() {
    let server = server();
    let mut client = client(&server).await;
    flush(&mut client).await;
    let done = end(&mut client).await;
    assert_eq!((&done["text"], &done["segments"]), (&json!(""), &json!([])));
    server.stopped().await;
}

#[tokio::test]
async fn who_sends_nothing_is_told_with_mistrals_number() {
    let server = server_with(ServerConfig { idle_timeout: Duration::from_millis(300), ..ServerConfig::default() });
    let mut client = client(&server).await;
    append(&mut client, &pcm(&digits()[..16_000]), 8192).await;
    loop {
        let event = client.event().await;
        if event["type"] == "error" {
            break assert_eq!(event["error"]["code"], 3804);
        }
    }
    assert_eq!(client.closed().await, 1008);
    server.all_is_free().await;
    server.stopped().await;
}

#[tokio::test]
async fn a_model_that_is_not_served_is_refused_before_the_upgrade() {
    let server = server();
    let refused = Client::of(server.request("/v1/audio/transcriptions/realtime?model=another")).await;
    let Err(Error::Http(answer)) = refused else { panic!("it was opened") };
    assert_eq!(answer.status(), 404);
    server.all_is_free().await;
    server.stopped().await;
}
