//! Live transcription of an upload that is answered while it goes on.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Answer, Running, connect, server, server_with};
use serde_json::{Value, json};
use voxtral_server::ServerConfig;

const PATH: &str = "/v1/audio/transcriptions/live";
const DIGITS: &str = "four seven one one nine zero two six three five eight";

fn sample() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/digits.wav")).unwrap()
}

/// The sample's 16 bit samples, 16 kHz.
fn pcm() -> Vec<u8> {
    let mut wav = hound::WavReader::new(&*sample().leak()).unwrap();
    wav.samples::<i16>().flat_map(|sample| sample.unwrap().to_le_bytes()).collect()
}

/// An upload that goes on, and its answer.
struct Upload {
    to: TcpStream,
    from: BufReader<TcpStream>,
}

impl Upload {
    /// Begins one, as curl does with `-T -` or, if it is to be a `POST`, with `-X POST`.
    fn begin(server: &Running, method: &str, query: &str, headers: &str) -> Self {
        let mut to = connect(server.address);
        let line = format!("{method} {PATH}{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        write!(to, "{line}transfer-encoding: chunked\r\n{headers}\r\n").unwrap();
        let from = BufReader::new(to.try_clone().unwrap());
        Self { to, from }
    }

    fn send(&mut self, bytes: &[u8]) {
        write!(self.to, "{:x}\r\n", bytes.len()).unwrap();
        self.to.write_all(bytes).unwrap();
        self.to.write_all(b"\r\n").unwrap();
    }

    fn end(&mut self) {
        self.send(&[]);
    }

    /// The next line of the answer that is an event.
    fn event(&mut self) -> Value {
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "the answer ended");
        }
        serde_json::from_str(&line).unwrap()
    }

    /// The next event of this kind.
    fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event();
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// All of the answer.
    fn answer(mut self) -> Answer {
        let mut answer = String::new();
        self.from.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Answer { status, headers, body: body.to_owned() }
    }
}

/// What is answered to a whole upload.
fn answer(server: &Running, query: &str, headers: &str, body: &[u8]) -> Answer {
    let mut upload = Upload::begin(server, "POST", query, headers);
    upload.send(body);
    upload.end();
    upload.answer()
}

/// The events in an answer.
fn events(answer: &Answer) -> Vec<Value> {
    let lines = answer.body.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    lines.filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(events: &[Value]) -> String {
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let partial: String = of("partial").filter_map(|event| event["text"].as_str()).collect();
    let last = of("final").map(|event| event["text"].as_str().unwrap()).collect::<Vec<_>>().join(" ");
    assert_eq!(partial, last);
    last
}

/// Waits until no transcription runs.
fn becomes_free(server: &Running) {
    let begun = Instant::now();
    let capacity = ServerConfig::default().max_sessions;
    while !server.ask("GET /ready", &[]).body.contains(&format!("\"free\":{capacity}")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the slot stays taken");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn words_come_while_the_upload_goes_on() {
    let server = server();
    let (samples, mut upload) = (pcm(), Upload::begin(&server, "PUT", "", ""));
    let (first, second) = samples.split_at(3 * 32_000);
    first.chunks(3200).for_each(|piece| upload.send(piece));
    assert_eq!(upload.until("word")["text"], "four");
    second.chunks(3200).for_each(|piece| upload.send(piece));
    upload.end();
    assert_eq!(upload.until("final")["text"], DIGITS);
    becomes_free(&server);
}

#[test]
fn events_are_lines_of_json_or_server_sent() {
    let server = server();
    let lines = answer(&server, "?model=whisper-1&delay_ms=240", "", &sample());
    assert_eq!((lines.status, lines.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(text(&events(&lines)), DIGITS);
    assert!(!lines.body.contains("data: "));

    let sent = answer(&server, "", "accept: text/event-stream\r\n", &sample());
    assert_eq!((sent.status, sent.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(text(&events(&sent)), DIGITS);
    assert!(sent.body.contains("}\n\n"), "{}", sent.body);
}

#[test]
fn raw_samples_are_as_the_query_says() {
    let server = server();
    let stereo: Vec<u8> = pcm()
        .chunks(2)
        .map(|sample| f32::from(i16::from_le_bytes([sample[0], sample[1]])) / 32768.0)
        .flat_map(|sample| [sample, sample])
        .flat_map(f32::to_le_bytes)
        .collect();
    let answer = answer(&server, "?raw_format=f32le&raw_rate=16000&raw_channels=2", "", &stereo);
    assert_eq!(text(&events(&answer)), DIGITS);
}

#[test]
fn pauses_end_segments_where_that_is_asked_for() {
    let server = server();
    let said = [pcm(), vec![0; 48_000], pcm()].concat();
    let finals = |query| {
        let events = events(&answer(&server, query, "", &said));
        assert_eq!(text(&events), format!("{DIGITS} {DIGITS}"));
        events.iter().filter(|event| event["type"] == "final").count()
    };
    assert_eq!(finals(""), 1);
    assert!(finals("?endpoint_ms=500") > 1);
}

#[test]
fn what_cannot_be_is_refused_with_a_status_of_its_own() {
    let server = server();
    for (query, body, status, param) in [
        ("?model=another", sample(), 404, json!("model")),
        ("?delay_ms=100", sample(), 400, json!("delay_ms")),
        ("?endpoint_ms=100", sample(), 400, json!("endpoint_ms")),
        ("?raw_format=s16be", sample(), 400, Value::Null),
        ("?raw_rate=1", pcm(), 400, Value::Null),
        ("", b"%PDF-1.7 and no sound".to_vec(), 400, Value::Null),
        ("", Vec::new(), 400, Value::Null),
    ] {
        let answer = answer(&server, query, "", &body);
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        let body: Value =
            serde_json::from_str(answer.body.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
        assert_eq!(body["error"]["param"], param, "{query}: {body}");
    }
    becomes_free(&server);
}

#[test]
fn a_client_that_leaves_ends_its_transcription() {
    let server = server();
    let mut upload = Upload::begin(&server, "PUT", "", "");
    upload.send(&pcm()[..96_000]);
    assert_eq!(upload.until("word")["text"], "four");
    assert!(server.ask("GET /ready", &[]).body.contains("\"free\":31"));
    drop(upload);
    becomes_free(&server);
}

#[test]
fn a_client_that_sends_nothing_is_told_and_left() {
    let server = server_with(ServerConfig { idle_timeout: Duration::from_millis(500), ..ServerConfig::default() });
    let mut upload = Upload::begin(&server, "PUT", "", "");
    upload.send(&pcm()[..96_000]);
    assert_eq!(upload.until("final")["cut_short"], true);
    assert_eq!(upload.until("error")["error"]["code"], "idle_timeout");
    becomes_free(&server);
}
