//! What is refused, and what a recording may cost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use voxtral_server::ServerConfig;

use crate::client::{Answer, Form, Sending, get, post, post_to};
use crate::common::{Running, server, server_with};
use crate::{TEXT, digits, form, path, silence};

fn whole() -> Form {
    form(&[], &digits())
}

/// The form of an upload up to the middle of its file.
fn half(file: &[u8]) -> Vec<u8> {
    let mut body = form(&[], file).body();
    body.truncate(body.len() / 2);
    body
}

fn one_at_a_time() -> ServerConfig {
    ServerConfig { max_sessions: 1, ..ServerConfig::default() }
}

/// Waits until a request is as it should be; gives up after `most`.
fn within(most: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < most, "{what}: not within {most:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_ready(server: &Running) -> bool {
    get(server, "/ready").status == 200
}

/// Status, and param and code of the error.
fn refusal(answer: &Answer) -> (u16, Value, Value) {
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
    assert_eq!(error["type"], if answer.status < 500 { "invalid_request_error" } else { "server_error" });
    (answer.status, error["param"].clone(), error["code"].clone())
}

#[test]
fn what_a_form_cannot_ask_for_is_a_400_that_names_the_field() {
    let server = server();
    let refused = [
        ("response_format", "diarized_json", "response_format"),
        ("response_format", "xml", "response_format"),
        ("timestamp_granularities[]", "word", "timestamp_granularities[]"),
        ("timestamp_granularities", "segment", "timestamp_granularities[]"),
        ("timestamp_granularities[]", "sentence", "timestamp_granularities[]"),
        ("include[]", "everything", "include[]"),
        ("stream", "perhaps", "stream"),
        ("delay_ms", "100", "delay_ms"),
        ("delay_ms", "long", "delay_ms"),
        ("diarize", "true", "diarize"),
        ("file", "another", "file"),
    ];
    for (name, value, param) in refused {
        let answer = post(&server, &whole().field(name, value));
        assert_eq!(refusal(&answer), (400, json!(param), Value::Null), "{name}={value}");
    }
    for format in ["verbose_json", "text", "srt", "vtt"] {
        let answer = post(&server, &whole().field("response_format", format).field("include[]", "logprobs"));
        assert_eq!(refusal(&answer), (400, json!("include[]"), Value::Null), "{format}");
    }
    for format in ["verbose_json", "srt", "vtt"] {
        let answer = post(&server, &whole().field("response_format", format).field("stream", "true"));
        assert_eq!(refusal(&answer), (400, json!("stream"), Value::Null), "{format}");
    }
    server.stop();
}

#[test]
fn what_is_missing_is_named() {
    let server = server();
    let no_file = post(&server, &Form::default().field("model", "whisper-1"));
    assert_eq!(refusal(&no_file), (400, json!("file"), Value::Null));
    let no_model = post(&server, &Form::default().file(&digits()));
    assert_eq!(refusal(&no_model), (400, json!("model"), Value::Null));
    let no_form = Form::default().header("content-type", "application/json");
    assert_eq!(refusal(&post(&server, &no_form)), (400, Value::Null, Value::Null));
    let unknown = post(&server, &Form::default().file(&digits()).field("model", "gpt-7"));
    assert_eq!(refusal(&unknown), (404, json!("model"), json!("model_not_found")));
    server.stop();
}

#[test]
fn a_file_that_holds_no_audio_is_a_400_that_says_why() {
    let server = server();
    let header_alone = &silence(1)[..44];
    let cases = [
        (&b""[..], "empty"),
        (b"PK\x03\x04 a zip", "not audio"),
        (b"words", "not audio"),
        (header_alone, "not a single sample"),
    ];
    for (file, why) in cases {
        let answer = post(&server, &form(&[], file));
        assert_eq!(refusal(&answer), (400, json!("file"), Value::Null), "{why}");
        assert!(answer.text().contains(why), "{why}: {}", answer.text());
    }
    server.stop();
}

#[test]
fn a_playlist_is_not_followed_to_files_of_the_server() {
    let server = server();
    let theirs = path("samples/digits.wav").canonicalize().unwrap();
    let list = format!("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:{}\n#EXT-X-ENDLIST\n", theirs.display());
    let answer = post(&server, &form(&[], list.as_bytes()));
    assert_eq!(refusal(&answer), (400, json!("file"), Value::Null));
    server.stop();
}

#[test]
fn translations_are_refused() {
    let server = server();
    let answer = post_to(&server, "/v1/audio/translations", &whole());
    assert_eq!(refusal(&answer), (400, Value::Null, Value::Null));
    server.stop();
}

/// LocalAI#1733: the limit holds for bodies of which nobody knows how long they are, and who sends too much gets to know.
#[test]
fn a_body_above_the_limit_is_a_413_in_json_also_in_chunks() {
    let server = server_with(ServerConfig { max_upload_bytes: 100_000, ..ServerConfig::default() });
    // Such a client reads nothing before it has sent all.
    let announced = post(&server, &form(&[], &vec![0; 20_000_000]));
    assert_eq!(refusal(&announced), (413, Value::Null, Value::Null));

    let mut chunked = Sending::begin(&server);
    for piece in whole().body().chunks(1000) {
        chunked.send(piece).unwrap();
    }
    chunked.end();
    let answer = chunked.answer();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains(r#"{"error":{"#), "{answer}");
    assert!(is_ready(&server));
    server.stop();
}

#[test]
fn headers_of_a_field_that_never_end_are_refused() {
    let server = server();
    let mut sending = Sending::begin(&server);
    sending.send(b"--a-boundary-that-is-in-no-file\r\nX-Long: ").unwrap();
    let sent = (0..1000).take_while(|_| sending.send(&[b'a'; 64 << 10]).is_ok()).count();
    assert!(sent < 1000, "64 MB are held");
    within(Duration::from_secs(10), "the server goes on", || is_ready(&server));
    server.stop();
}

#[test]
fn a_recording_that_is_too_long_is_a_413() {
    let server = server_with(ServerConfig { max_audio: Duration::from_secs(5), ..one_at_a_time() });
    let by_its_header = post(&server, &whole());
    assert_eq!(refusal(&by_its_header), (413, Value::Null, Value::Null));
    // A header of a stream: nobody knows how long it is.
    let mut stream = silence(30);
    for at in [4, 40] {
        stream[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    }
    let unknown = form(&[], &stream);
    assert_eq!(refusal(&post(&server, &unknown)), (413, Value::Null, Value::Null));
    assert!(is_ready(&server));
    server.stop();
}

#[test]
fn a_server_that_is_full_says_when_to_come_again() {
    let server = server_with(one_at_a_time());
    let mut first = Sending::begin(&server);
    first.send(&half(&digits())).unwrap();
    within(Duration::from_secs(10), "the first is there", || !is_ready(&server));
    let second = post(&server, &whole());
    assert_eq!(refusal(&second), (503, Value::Null, json!("server_full")));
    let seconds: u32 = second.header("retry-after").parse().unwrap();
    assert!((1..=120).contains(&seconds));
    let body = whole().body();
    first.send(&body[body.len() / 2..]).unwrap();
    first.end();
    assert!(first.answer().contains(TEXT));
    assert_eq!(post(&server, &whole()).json()["text"], TEXT, "its slot is free");
    server.stop();
}

#[test]
fn what_a_file_is_does_not_depend_on_how_fast_it_comes() {
    let server = server();
    let file = std::fs::read(path("crates/audio/tests/data/cases/zeros_before.mp3")).unwrap();
    let noise: Vec<u8> = (0..6000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x7f).collect();
    let form = form(&[], &[noise, file].concat());
    let mut sending = Sending::begin(&server);
    let body = form.body();
    // Frames are looked for in what comes soon.
    sending.send(&body[..5000]).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    sending.send(&body[5000..]).unwrap();
    sending.end();
    let answer = sending.answer();
    assert!(answer.contains(TEXT), "{answer}");
    server.stop();
}

#[test]
fn an_upload_in_small_pieces_is_heard_as_one() {
    let server = server();
    let mut sending = Sending::begin(&server);
    for piece in whole().field("response_format", "text").body().chunks(1021) {
        sending.send(piece).unwrap();
    }
    sending.end();
    let answer = sending.answer();
    assert!(answer.contains(TEXT), "{answer}");
    server.stop();
}

/// speaches#129: nobody waits for it any more.
#[test]
fn a_cancelled_upload_frees_its_slot() {
    let server = server_with(one_at_a_time());
    let mut cancelled = Sending::begin(&server);
    cancelled.send(&half(&silence(60))).unwrap();
    within(Duration::from_secs(10), "it is there", || !is_ready(&server));
    // By then, all that came is heard, and it waits for more.
    std::thread::sleep(Duration::from_secs(1));
    drop(cancelled);
    within(Duration::from_secs(10), "its slot is free", || is_ready(&server));
    assert_eq!(post(&server, &whole()).json()["text"], TEXT);
    server.stop();
}

#[test]
fn a_client_that_leaves_before_its_answer_frees_its_slot() {
    for stream in ["false", "true"] {
        let server = server_with(one_at_a_time());
        // An hour takes much longer than the wait below.
        let mut file = digits();
        file.truncate(44);
        for at in [4, 40] {
            file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        }
        file.extend(digits()[44..].repeat(450));
        let form = form(&[("stream", stream)], &file);
        let mut leaving = Sending::begin(&server);
        for piece in form.body().chunks(1 << 20) {
            leaving.send(piece).unwrap();
        }
        leaving.end();
        assert!(!is_ready(&server), "it is being transcribed");
        drop(leaving);
        within(Duration::from_secs(10), "its slot is free", || is_ready(&server));
        server.stop();
    }
}

#[test]
fn an_upload_that_stalls_is_ended() {
    let server = server_with(ServerConfig { idle_timeout: Duration::from_millis(300), ..one_at_a_time() });
    let mut stalled = Sending::begin(&server);
    stalled.send(&half(&digits())).unwrap();
    let answer = stalled.answer();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(r#""code":"idle_timeout""#), "{answer}");
    within(Duration::from_secs(10), "its slot is free", || is_ready(&server));
    server.stop();
}
