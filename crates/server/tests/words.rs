//! However audio comes in, it is the same words: with the times of the command line, if it is the same samples as one utterance.

#[allow(dead_code, reason = "this sends whole forms only")]
#[path = "files/client.rs"]
mod client;
mod common;

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Form, post};
use common::sound::{a_law, at_rate, mu_law, s16};
use common::ws::{DIGITS, SAMPLE, digits, pcm};
use common::{Running, server};
use serde_json::{Value, json};
use voxtral::{Json, Options, Source};

const OPENAI: &str = "/v1/realtime?intent=transcription";
const MISTRAL: &str = "/v1/audio/transcriptions/realtime";

/// A word, and when it starts and ends, ms.
type Said = (String, i64, i64);

/// The words of a list, in which they and their times have these names.
fn said<'a>(list: impl IntoIterator<Item = &'a Value>, names: [&str; 3]) -> Vec<Said> {
    let ms = |time: &Value| (time.as_f64().unwrap() * 1e3).round() as i64;
    let word = |word: &Value| {
        let [text, start, end] = names.map(|name| &word[name]);
        (text.as_str().unwrap().to_owned(), ms(start), ms(end))
    };
    list.into_iter().map(word).collect()
}

const REPORT: [&str; 3] = ["text", "start_s", "end_s"];
const OF_SERVER: [&str; 3] = ["word", "start", "end"];

fn of_list(list: &Value, names: [&str; 3]) -> Vec<Said> {
    said(list.as_array().unwrap_or_else(|| panic!("no list: {list}")), names)
}

fn of_kind<'a>(events: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["type"] == kind)
}

/// The text of words.
fn text(words: &[Said]) -> String {
    words.iter().map(|word| word.0.as_str()).collect::<Vec<_>>().join(" ")
}

/// `voxtral --format json`, which takes its words from here.
fn command_line(server: &Running) -> Vec<Said> {
    let (voxtral, options, mut out) = (server.server.voxtral(), Options::default(), Vec::new());
    let about = voxtral.about("-".to_owned(), &options, std::time::Duration::ZERO);
    voxtral.transcribe(Source::file(SAMPLE).unwrap(), &options, &mut Json::new(&mut out, about)).unwrap();
    of_list(&serde_json::from_slice::<Value>(&out).unwrap()["words"], REPORT)
}

/// An uploaded file, and what else its form says.
fn file(server: &Running, file: &[u8], fields: &[(&str, &str)]) -> client::Answer {
    let form = Form::default().field("model", "whisper-1");
    post(server, &fields.iter().fold(form, |form, (name, value)| form.field(name, value)).file(file))
}

fn whole_file(server: &Running, wav: &[u8]) -> Vec<Said> {
    let fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    of_list(&file(server, wav, &fields).json()["words"], OF_SERVER)
}

/// The objects in lines of JSON, or in server-sent events.
fn events(answer: &str) -> Vec<Value> {
    let lines = answer.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    lines.filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A live upload.
fn live(server: &Running, query: &str, accept: &str, audio: &[u8]) -> Vec<Said> {
    let request = ureq::post(server.url(&format!("/v1/audio/transcriptions/live?{query}"))).header("accept", accept);
    let answer = request.send(audio).unwrap().body_mut().read_to_string().unwrap();
    said(of_kind(&events(&answer), "word"), REPORT)
}

async fn vllm(server: &Running, pcm: &[u8]) -> Vec<Said> {
    let mut client = server.connect("/v1/realtime").await;
    let update = json!({ "type": "session.update", "model": "digits", "timestamp_granularities": ["word"] });
    client.send(update).await;
    client.send(json!({ "type": "input_audio_buffer.commit" })).await;
    client.append(pcm, 3201).await;
    client.send(json!({ "type": "input_audio_buffer.commit", "final": true })).await;
    client.until("transcription.done").await;
    said(of_kind(&client.heard, "transcription.word"), OF_SERVER)
}

/// The words of the first `turns` turns. The client commits, unless the server finds the turns.
async fn openai(server: &Running, update: Value, audio: &[u8], turns: usize) -> Vec<Said> {
    let mut client = server.connect(OPENAI).await;
    let manual = update["session"]["turn_detection"].is_null()
        && update["session"]["audio"]["input"]["turn_detection"].is_null();
    client.send(update).await;
    client.append(audio, 3201).await;
    if manual {
        client.send(json!({ "type": "input_audio_buffer.commit" })).await;
    }
    let mut words = Vec::new();
    for _ in 0..turns {
        let completed = client.until("conversation.item.input_audio_transcription.completed").await;
        words.extend(of_list(&completed["words"], OF_SERVER));
    }
    words
}

/// The session in the shape that is generally available.
fn ga(format: Value, turns: Value) -> Value {
    let transcription = json!({ "model": "whisper-1", "timestamp_granularities": ["word"] });
    let input = json!({ "format": format, "transcription": transcription, "turn_detection": turns });
    json!({ "type": "session.update", "session": { "type": "transcription", "audio": { "input": input } } })
}

/// The session in the beta's shape.
fn beta(format: &str) -> Value {
    json!({ "type": "transcription_session.update", "session": {
        "input_audio_format": format,
        "input_audio_transcription": { "model": "whisper-1", "timestamp_granularities": ["word"] },
        "turn_detection": null,
    } })
}

async fn mistral(server: &Running, encoding: &str, rate: u32, audio: &[u8]) -> Vec<Said> {
    let mut client = server.connect(MISTRAL).await;
    let format = json!({ "encoding": encoding, "sample_rate": rate });
    client.send(json!({ "type": "session.update", "session": { "audio_format": format } })).await;
    for piece in audio.chunks(3201) {
        client.send(json!({ "type": "input_audio.append", "audio": STANDARD.encode(piece) })).await;
    }
    client.send(json!({ "type": "input_audio.end" })).await;
    client.until("transcription.done").await;
    let segments = of_kind(&client.heard, "transcription.segment");
    segments.flat_map(|segment| of_list(&segment["words"], OF_SERVER)).collect()
}

/// OpenAI's own servers take 24 kHz, and that is what a client means that says nothing; the GA's `rate` and Together's name for a format
/// say 16 kHz here.
#[tokio::test]
async fn the_same_samples_are_the_same_words_at_the_same_times() {
    let server = server();
    let (wav, pcm) = (std::fs::read(SAMPLE).unwrap(), pcm(&digits()));
    let expected = command_line(&server);
    assert_eq!(text(&expected), DIGITS);
    let (lines, sent) = ("application/x-ndjson", "text/event-stream");
    let as_mistral = [("diarize", "false"), ("stream", "true"), ("timestamp_granularities", "word")];
    let as_mistral = events(file(&server, &wav, &as_mistral).text());
    let as_mistral: Vec<Said> = said(of_kind(&as_mistral, "transcription.segment"), ["text", "start", "end"]);
    let s16 = json!({ "type": "audio/pcm", "rate": 16_000 });
    for (way, words) in [
        ("a file", whole_file(&server, &wav)),
        ("a file, as server-sent events, to Mistral's client", as_mistral),
        ("a live upload of a file", live(&server, "", lines, &wav)),
        ("a live upload of samples, as server-sent events", live(&server, "", sent, &pcm)),
        ("vLLM's protocol", vllm(&server, &pcm).await),
        ("OpenAI's protocol", openai(&server, ga(s16, Value::Null), &pcm, 1).await),
        ("OpenAI's protocol, as in the beta", openai(&server, beta("pcm_s16le_16000"), &pcm, 1).await),
        ("Mistral's protocol", mistral(&server, "pcm_s16le", 16_000, &pcm).await),
    ] {
        assert_eq!(words, expected, "{way}");
    }
    // Here OpenAI has no times.
    let streamed = events(file(&server, &wav, &[("stream", "true")]).text());
    let deltas = of_kind(&streamed, "transcript.text.delta").map(|event| event["delta"].as_str().unwrap());
    assert_eq!(deltas.collect::<String>(), DIGITS);
    assert_eq!(of_kind(&streamed, "transcript.text.done").next().unwrap()["text"], DIGITS);
    server.stopped().await;
}

/// A WAV file of the sample at this rate.
fn wav(rate: u32) -> Vec<u8> {
    let spec = hound::WavSpec { sample_rate: rate, ..hound::WavReader::open(SAMPLE).unwrap().spec() };
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    at_rate(rate).iter().for_each(|sample| writer.write_sample((sample * 32767.0) as i16).unwrap());
    writer.finalize().unwrap();
    file.into_inner()
}

#[tokio::test]
async fn other_rates_encodings_and_turns_are_the_same_words() {
    let server = server();
    let (telephone, f32) = (at_rate(8_000), at_rate(48_000).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>());
    let pcm = |rate: u32| json!({ "type": "audio/pcm", "rate": rate });
    let g711 = |law: &str| json!({ "type": format!("audio/pcm{law}") });
    let vad = json!({ "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500 });
    let said_24k = s16(&at_rate(24_000));
    let turns = [said_24k.clone(), vec![0; 96_000], said_24k.clone(), vec![0; 96_000]].concat();
    let twice = format!("{DIGITS} {DIGITS}");
    for (way, words, expected) in [
        ("a file of 8 kHz", whole_file(&server, &wav(8_000)), DIGITS),
        ("a file of 44.1 kHz", whole_file(&server, &wav(44_100)), DIGITS),
        ("a live upload of 48 kHz", live(&server, "raw_format=f32le&raw_rate=48000", "", &f32), DIGITS),
        ("OpenAI, 24 kHz", openai(&server, ga(pcm(24_000), Value::Null), &said_24k, 1).await, DIGITS),
        ("OpenAI, 48 kHz", openai(&server, ga(pcm(48_000), Value::Null), &s16(&at_rate(48_000)), 1).await, DIGITS),
        ("OpenAI, µ-law", openai(&server, ga(g711("u"), Value::Null), &mu_law(&telephone), 1).await, DIGITS),
        ("OpenAI, A-law", openai(&server, ga(g711("a"), Value::Null), &a_law(&telephone), 1).await, DIGITS),
        ("OpenAI's beta, 24 kHz", openai(&server, beta("pcm16"), &said_24k, 1).await, DIGITS),
        ("OpenAI's beta, A-law", openai(&server, beta("g711_alaw"), &a_law(&telephone), 1).await, DIGITS),
        ("OpenAI, turns that the server finds", openai(&server, ga(pcm(24_000), vad), &turns, 2).await, &twice),
        ("Mistral, A-law", mistral(&server, "pcm_alaw", 8_000, &a_law(&telephone)).await, DIGITS),
        ("Mistral, 44.1 kHz", mistral(&server, "pcm_s16le", 44_100, &s16(&at_rate(44_100))).await, DIGITS),
    ] {
        assert_eq!(text(&words), expected, "{way}");
    }
    server.stopped().await;
}
