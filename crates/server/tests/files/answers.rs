//! What is answered, in each format and to each client.

use std::path::Path;

use serde_json::{Value, json};
use voxtral::{Collect, CueFormat, Delay, Options, Source, Subtitles};

use crate::client::{Answer, Form, post};
use crate::common::{server, voxtral};
use crate::{TEXT, digits, form, path, silence};

const MEMBERS: [&str; 10] = [
    "avg_logprob",
    "compression_ratio",
    "end",
    "id",
    "no_speech_prob",
    "seek",
    "start",
    "temperature",
    "text",
    "tokens",
];

fn case(name: &str) -> Vec<u8> {
    std::fs::read(path("crates/audio/tests/data/cases").join(name)).unwrap()
}

/// What the command line hears of a file: it takes it from the same place.
fn heard(path: &Path, delay: Option<Delay>) -> (String, Collect) {
    let mut all = Collect::default();
    let options = Options { delay, ..Options::default() };
    let summary = voxtral().transcribe(Source::file(path).unwrap(), &options, &mut all).unwrap();
    (summary.text, all)
}

fn subtitles(path: &Path, format: CueFormat) -> String {
    let mut out = Vec::new();
    let mut sink = Subtitles::new(&mut out, format, false);
    voxtral().transcribe(Source::file(path).unwrap(), &Options::default(), &mut sink).unwrap();
    String::from_utf8(out).unwrap()
}

fn word(word: &voxtral::Word) -> Value {
    let ms = |seconds: f64| (seconds * 1e3).round() / 1e3;
    let probability = (f64::from(word.logprob).exp() * 1e4).round() / 1e4;
    json!({ "word": word.text, "start": ms(word.start_s), "end": ms(word.end_s), "probability": probability })
}

fn joined(pieces: &[Value], member: &str) -> String {
    pieces.iter().map(|piece| piece[member].as_str().unwrap()).collect()
}

#[test]
fn json_is_the_text_and_how_long_the_audio_is() {
    let server = server();
    let answer = post(&server, &form(&[], &digits()));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json(), json!({ "text": TEXT, "usage": { "type": "duration", "seconds": 9 } }));
    server.stop();
}

#[test]
fn words_and_times_are_those_of_the_command_line() {
    let server = server();
    let (text, expected) = heard(&path("samples/digits.wav"), None);
    let fields = [
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ];
    let answer = post(&server, &form(&fields, &digits())).json();
    assert_eq!((&answer["task"], &answer["language"]), (&json!("transcribe"), &json!("unknown")));
    assert_eq!((&answer["text"], &answer["duration"]), (&json!(text), &json!(8.195)));
    assert_eq!(answer["words"], expected.words.iter().map(word).collect::<Value>());

    let segments = answer["segments"].as_array().unwrap();
    assert_eq!(joined(segments, "text"), TEXT, "segments hold all of it");
    let ids = segments.iter().flat_map(|segment| segment["tokens"].as_array().unwrap());
    let tokenizer = &voxtral().model().tokenizer.clone();
    let of_text = expected.tokens.into_iter().filter(|token| tokenizer.bytes(token.id).is_some());
    assert_eq!(ids.cloned().collect::<Vec<_>>(), of_text.map(|token| json!(token.id)).collect::<Vec<_>>());
    for (id, segment) in segments.iter().enumerate() {
        let members: Vec<&str> = segment.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, MEMBERS);
        assert_eq!(segment["id"], id);
        assert!(segment["avg_logprob"].as_f64().unwrap() < 0.0, "{segment}");
    }
    // The pause before "five" is longer than 0.8 s only in the subtitles' eyes: the cue is full there.
    let times: Vec<_> = segments.iter().map(|segment| (&segment["start"], &segment["end"])).collect();
    assert_eq!(times, [(&json!(0.4), &json!(6.88)), (&json!(7.04), &json!(8.0))]);
    server.stop();
}

#[test]
fn times_are_of_what_was_asked_for() {
    let server = server();
    let has = |fields: &[(&str, &str)]| {
        let fields = [&[("response_format", "verbose_json")], fields].concat();
        let answer = post(&server, &form(&fields, &digits())).json();
        ["segments", "words"].map(|member| answer.get(member).is_some())
    };
    assert_eq!(has(&[]), [true, false]);
    assert_eq!(has(&[("timestamp_granularities[]", "segment")]), [true, false]);
    assert_eq!(has(&[("timestamp_granularities[]", "word")]), [false, true]);
    assert_eq!(has(&[("timestamp_granularities", "word")]), [false, true], "without brackets");
    server.stop();
}

#[test]
fn text_and_subtitles_are_those_of_the_command_line() {
    let server = server();
    let file = path("samples/digits.wav");
    let cases = [
        ("text", "text/plain; charset=utf-8", format!("{TEXT}\n")),
        ("srt", "application/x-subrip; charset=utf-8", subtitles(&file, CueFormat::Srt)),
        ("vtt", "text/vtt; charset=utf-8", subtitles(&file, CueFormat::Vtt)),
    ];
    for (format, kind, expected) in cases {
        let answer = post(&server, &form(&[("response_format", format)], &digits()));
        assert_eq!((answer.status, answer.header("content-type"), answer.text()), (200, kind, expected.as_str()));
    }
    server.stop();
}

#[test]
fn logprobs_are_of_the_tokens_of_the_text() {
    let server = server();
    let answer = post(&server, &form(&[("include[]", "logprobs")], &digits())).json();
    let logprobs = answer["logprobs"].as_array().unwrap();
    assert_eq!(joined(logprobs, "token").trim(), TEXT);
    for logprob in logprobs {
        assert_eq!(json!(logprob["token"].as_str().unwrap().as_bytes()), logprob["bytes"]);
        assert!(logprob["logprob"].as_f64().unwrap() <= 0.0);
    }
    server.stop();
}

#[test]
fn silence_is_an_empty_text() {
    let server = server();
    let silence = silence(2);
    let text = |format| post(&server, &form(&[("response_format", format)], &silence));
    assert_eq!(text("json").json()["text"], "");
    let verbose = text("verbose_json").json();
    assert_eq!((&verbose["text"], &verbose["segments"], &verbose["duration"]), (&json!(""), &json!([]), &json!(2.0)));
    assert_eq!(["text", "srt", "vtt"].map(|format| text(format).text().to_owned()), ["\n", "", "WEBVTT\n\n"]);
    server.stop();
}

#[test]
fn fields_may_follow_the_file() {
    let server = server();
    let late = Form::default().file(&digits()).field("response_format", "text").field("model", "whisper-1");
    assert_eq!(post(&server, &late).text(), format!("{TEXT}\n"));
    server.stop();
}

#[test]
fn a_delay_counts_also_behind_the_file() {
    let server = server();
    // Sums tell delays apart where words do not.
    let sum = |logprobs: Vec<f64>| (logprobs.iter().sum::<f64>() * 1e5).round();
    let expected = |ms| {
        let (_, heard) = heard(&path("samples/digits.wav"), Delay::from_ms(ms).ok());
        let tokenizer = voxtral().model().tokenizer.clone();
        let of_text = heard.tokens.iter().filter(|token| tokenizer.bytes(token.id).is_some());
        sum(of_text.map(|token| f64::from(token.logprob)).collect())
    };
    let answered = |form: Form| {
        let answer = post(&server, &form.field("include[]", "logprobs")).json();
        sum(answer["logprobs"].as_array().unwrap().iter().map(|token| token["logprob"].as_f64().unwrap()).collect())
    };
    assert_ne!(expected(80), expected(480));
    assert_eq!(answered(form(&[], &digits())), expected(480));
    assert_eq!(answered(form(&[("delay_ms", "80")], &digits())), expected(80));
    assert_eq!(answered(form(&[], &digits()).field("delay_ms", "80")), expected(80));
    server.stop();
}

#[test]
fn every_kind_of_file_is_told_by_its_content() {
    let server = server();
    for name in ["opus.opus", "he_explicit.m4a", "no_ftyp.mov", "alac.caf", "id3v1.flac", "zeros_before.mp3"] {
        let file = path("crates/audio/tests/data/cases").join(name);
        let answer = post(&server, &form(&[], &case(name)));
        assert_eq!((answer.status, &answer.json()["text"]), (200, &json!(heard(&file, None).0)), "{name}");
        assert_ne!(answer.json()["text"], "", "{name}");
    }
    server.stop();
}

/// CrispASR#417, LocalAI#9306: what a browser recorded has no length in its header, and no index.
#[test]
fn a_webm_is_transcribed_whole_and_has_words() {
    let server = server();
    let webm = std::fs::read(path("crates/server/tests/files/data/live.webm")).unwrap();
    let fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let answer = post(&server, &form(&fields, &webm)).json();
    assert_eq!((&answer["text"], answer.get("damage")), (&json!(TEXT), None));
    let words: Vec<&Value> = answer["words"].as_array().unwrap().iter().map(|word| &word["word"]).collect();
    assert_eq!(words, TEXT.split(' ').collect::<Vec<_>>());
    assert!((answer["duration"].as_f64().unwrap() - 8.195).abs() < 0.02, "{}", answer["duration"]);
    server.stop();
}

#[test]
fn damage_reaches_the_client() {
    let server = server();
    let file = case("ogg_one_bad_byte.ogg");
    let json = post(&server, &form(&[], &file)).json();
    let damage = json["damage"].as_array().unwrap();
    assert_eq!((damage.len(), damage[0]["what"].as_str()), (1, Some("a damaged page")), "{json}");
    for format in ["text", "srt", "vtt"] {
        let answer = post(&server, &form(&[("response_format", format)], &file));
        assert!(answer.header("x-voxtral-damage").contains("a damaged page"), "{format}");
    }
    let sound = post(&server, &form(&[("response_format", "text")], &digits()));
    assert_eq!(sound.header("x-voxtral-damage"), "");
    server.stop();
}

#[test]
fn what_has_no_effect_is_named() {
    let server = server();
    let fields = [
        ("language", "en"),
        ("prompt", "Digits."),
        ("temperature", "0.2"),
        ("chunking_strategy", "auto"),
        ("keywords[]", "x"),
    ];
    let answer = post(&server, &form(&fields, &digits()));
    assert_eq!((answer.status, &answer.json()["text"]), (200, &json!(TEXT)));
    assert_eq!(answer.header("x-voxtral-ignored"), "language, prompt, temperature, chunking_strategy");
    assert_eq!(post(&server, &form(&[("prompt", "")], &digits())).header("x-voxtral-ignored"), "");
    let fields = [("response_format", "verbose_json"), ("language", "en")];
    assert_eq!(post(&server, &form(&fields, &digits())).json()["language"], "en");
    server.stop();
}

/// The data of all events, and of which kind each is.
fn events(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    let event = |block: &str| {
        let line =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        (line("event:"), line("data:"))
    };
    answer.text().split_terminator("\n\n").map(event).collect()
}

fn parsed(events: &[(String, String)]) -> Vec<Value> {
    events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect()
}

#[test]
fn a_stream_is_deltas_and_what_they_come_to() {
    let server = server();
    let answer = post(&server, &form(&[("stream", "true"), ("include[]", "logprobs"), ("language", "en")], &digits()));
    assert_eq!(answer.header("x-voxtral-ignored"), "language");
    let events = events(&answer);
    assert!(events.iter().all(|(kind, _)| kind.is_empty()));
    let events = parsed(&events);
    let (done, deltas) = events.split_last().unwrap();
    // What has been heard by the time that one is written is one, so that there may be few.
    let is_delta = |event: &Value| event["type"] == "transcript.text.delta" && event["delta"] != "";
    assert!(!deltas.is_empty() && deltas.iter().all(is_delta), "{deltas:?}");
    assert_eq!(joined(deltas, "delta"), TEXT);
    let logprobs: Vec<Value> = deltas.iter().flat_map(|event| event["logprobs"].as_array().unwrap().clone()).collect();
    assert_eq!(json!(logprobs), done["logprobs"]);
    assert_eq!((&done["type"], &done["text"]), (&json!("transcript.text.done"), &json!(TEXT)));
    let usage = &done["usage"];
    assert_eq!(
        (&usage["type"], &usage["input_tokens"], &usage["input_token_details"]["audio_tokens"]),
        (&json!("tokens"), &json!(103), &json!(103))
    );
    assert_eq!(usage["total_tokens"].as_u64(), Some(103 + usage["output_tokens"].as_u64().unwrap()));
    server.stop();
}

#[test]
fn silence_is_a_stream_without_deltas() {
    let server = server();
    let events = parsed(&events(&post(&server, &form(&[("stream", "true")], &silence(1)))));
    assert_eq!((events.len(), &events[0]["type"], &events[0]["text"]), (1, &json!("transcript.text.done"), &json!("")));
    server.stop();
}

#[test]
fn what_cannot_be_heard_is_no_stream() {
    let server = server();
    let answer = post(&server, &form(&[("stream", "true")], b"not audio at all"));
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("file")));
    server.stop();
}

#[test]
fn mistrals_client_gets_its_own_answers() {
    let server = server();
    let fields = [("diarize", "false"), ("timestamp_granularities", "segment")];
    let answer = post(&server, &form(&fields, &digits())).json();
    assert_eq!(
        (&answer["text"], &answer["language"], &answer["model"]),
        (&json!(TEXT), &Value::Null, &json!("digits"))
    );
    assert_eq!(
        (&answer["usage"]["prompt_audio_seconds"], answer["segments"][1]["text"].as_str()),
        (&json!(9), Some("five eight"))
    );

    let agent = Form::default().header("user-agent", "mistral-client-python/3.7.0").field("model", "whisper-1");
    let stream = events(&post(&server, &agent.field("stream", "true").file(&digits())));
    assert!(parsed(&stream).iter().zip(&stream).all(|(event, (kind, _))| event["type"] == kind.as_str()));
    let events = parsed(&stream);
    let (done, deltas) = events.split_last().unwrap();
    assert_eq!(joined(deltas, "text"), TEXT);
    assert_eq!(
        (&done["type"], &done["text"], &done["segments"]),
        (&json!("transcription.done"), &json!(TEXT), &json!([]))
    );
    server.stop();
}

#[test]
fn vllms_client_gets_chunks() {
    let server = server();
    let last = |usage| {
        let mut events =
            events(&post(&server, &form(&[("stream", "true"), ("stream_include_usage", usage)], &digits())));
        assert_eq!(events.pop().unwrap().1, "[DONE]");
        let chunks = parsed(&events);
        assert!(chunks.iter().all(|chunk| chunk["object"] == "transcription.chunk" && chunk["id"] == chunks[0]["id"]));
        let delta = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
        assert_eq!(chunks.iter().map(delta).collect::<String>(), TEXT);
        chunks.last().unwrap().clone()
    };
    assert_eq!(last("false")["choices"][0]["finish_reason"], "stop");
    let usage = last("true");
    assert_eq!((&usage["choices"], &usage["usage"]["prompt_tokens"]), (&json!([]), &json!(103)));
    server.stop();
}
