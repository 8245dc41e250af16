//! What clients say from their first word to their last, for tests that cut it off or spoil it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ws::{digits, pcm};

/// The sample as far as its first word, "four".
fn audio() -> Vec<u8> {
    pcm(&digits()[..14_400])
}

/// The paths of WebSockets, and what is said there in each dialect.
pub fn conversations() -> Vec<(&'static str, Vec<Value>)> {
    let audio = audio();
    let (first, second) = audio.split_at(audio.len() / 2);
    let append = |kind: &str, bytes: &[u8]| json!({ "type": kind, "audio": STANDARD.encode(bytes) });
    let buffer = |bytes| append("input_audio_buffer.append", bytes);
    let commit = json!({ "type": "input_audio_buffer.commit" });
    let vllm = json!({ "type": "session.update", "model": "digits", "timestamp_granularities": ["word", "segment"],
        "target_streaming_delay_ms": 240 });
    let last = json!({ "type": "input_audio_buffer.commit", "final": true });
    let openai = |turns: Value| {
        let transcription = json!({ "model": "whisper-1", "delay": "low", "timestamp_granularities": ["word"] });
        let format = json!({ "type": "audio/pcm", "rate": 16_000 });
        let input = json!({ "format": format, "transcription": transcription, "turn_detection": turns });
        let include = json!(["item.input_audio_transcription.logprobs"]);
        json!({ "type": "session.update", "session": { "type": "transcription", "audio": { "input": input },
            "include": include } })
    };
    let vad = json!({ "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200 });
    let mistral = json!({ "type": "session.update", "session": { "target_streaming_delay_ms": 480, "language": "en",
        "audio_format": { "encoding": "pcm_s16le", "sample_rate": 16_000 }, "context_bias": ["nine"] } });
    let sent = |bytes| append("input_audio.append", bytes);
    vec![
        ("/v1/realtime", vec![vllm, commit.clone(), buffer(first), buffer(second), last]),
        (
            "/v1/realtime?intent=transcription",
            vec![
                openai(Value::Null),
                buffer(first),
                json!({ "type": "input_audio_buffer.clear" }),
                buffer(&audio),
                commit,
            ],
        ),
        (
            "/v1/realtime?intent=transcription",
            vec![openai(vad), buffer(first), buffer(second), buffer(&[0; 32_000]), buffer(&audio)],
        ),
        (
            "/v1/audio/transcriptions/realtime",
            vec![
                mistral,
                sent(first),
                json!({ "type": "input_audio.flush" }),
                sent(second),
                json!({ "type": "input_audio.end" }),
            ],
        ),
    ]
}

/// A request over HTTP.
pub struct Request {
    /// Up to the empty line, with `LENGTH` where the body's is named.
    head: &'static str,
    pub body: Vec<u8>,
}

impl Request {
    pub fn with_body(&self, body: Vec<u8>) -> Self {
        Self { head: self.head, body }
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head.replace("LENGTH", &self.body.len().to_string()).as_bytes(), &self.body].concat()
    }
}

/// One request of each kind. What comes after a connection has become a WebSocket is the body of its request.
pub fn requests() -> Vec<Request> {
    let request = |head, body| Request { head, body };
    let form = |fields: &[(&str, &str)]| {
        let field = |(name, value): &(&str, &str)| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
        };
        let file = b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n".to_vec();
        [fields.iter().flat_map(field).collect(), file, wav(), b"\r\n--B--\r\n".to_vec()].concat()
    };
    let words = [("model", "whisper-1"), ("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let stream = [("model", "whisper-1"), ("stream", "true"), ("delay_ms", "240"), ("include[]", "logprobs")];
    let chunk = [format!("{:x}\r\n", audio().len()).as_bytes(), &audio(), b"\r\n0\r\n\r\n"].concat();
    let commit = br#"{"type":"input_audio_buffer.commit"}"#;
    // A text frame with a mask of zeros, twice.
    let frame = [&[0x81, 0x80 | commit.len() as u8, 0, 0, 0, 0][..], commit].concat().repeat(2);
    vec![
        request(FORM, form(&words)),
        request(FORM, form(&stream)),
        request(LIVE, wav()),
        request(CHUNKED, chunk),
        request(REALTIME, frame.clone()),
        request(MISTRAL, frame),
        request("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", Vec::new()),
    ]
}

const FORM: &str = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
    content-type: multipart/form-data; boundary=B\r\ncontent-length: LENGTH\r\n\r\n";
const LIVE: &str = "PUT /v1/audio/transcriptions/live?delay_ms=240&endpoint_ms=500 HTTP/1.1\r\nhost: localhost\r\n\
    connection: close\r\ncontent-length: LENGTH\r\n\r\n";
const CHUNKED: &str = "POST /v1/audio/transcriptions/live?raw_format=s16le&raw_rate=16000&raw_channels=1 HTTP/1.1\r\n\
    host: localhost\r\nconnection: close\r\naccept: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const REALTIME: &str = "GET /v1/realtime?model=digits&input_audio_format=pcm_s16le_16000&delay=low&turn_detection=none \
    HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const MISTRAL: &str = "GET /v1/audio/transcriptions/realtime?model=digits HTTP/1.1\r\nhost: localhost\r\n\
    connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The same audio as a file.
fn wav() -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    digits()[..14_400].iter().for_each(|&sample| writer.write_sample(sample).unwrap());
    writer.finalize().unwrap();
    file.into_inner()
}
