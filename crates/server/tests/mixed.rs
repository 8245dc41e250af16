//! All kinds of clients at once for a long time, some of which leave in the middle.
//!
//! ```sh
//! LOAD_MINUTES=2 cargo test -p voxtral-server --test mixed -- --ignored
//! ```
//! Every text must be that of the command line, and memory must not grow. In the environment: `LOAD_MINUTES` (30), `LOAD_CLIENTS` at a time
//! (12), and `LOAD_SEED`, of all that is left to chance but the time that things take.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::load::{number, resident_mb, tell};
use common::ws::{Client, digits, pcm};
use common::{Running, server_with};
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use voxtral::{Options, Source};
use voxtral_server::ServerConfig;

/// Beyond this, a session hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// What somebody says, and the text that the command line has for it.
struct Said {
    samples: Vec<i16>,
    text: String,
}

fn sayings(server: &Running) -> Vec<Said> {
    let (digits, second) = (digits(), vec![0; 16_000]);
    let all = [
        digits.clone(),
        digits[..30_400].to_vec(),
        [&second[..], &digits].concat(),
        [&digits[..], &second, &second, &digits].concat(),
        [&second[..]; 20].concat(),
    ];
    let said = |samples: Vec<i16>| {
        let heard: Vec<f32> = samples.iter().map(|&sample| f32::from(sample) / 32_768.0).collect();
        let summary = server.server.voxtral().transcribe(Source::samples(heard), &Options::default(), &mut ());
        Said { samples, text: summary.unwrap().text }
    };
    all.into_iter().map(said).collect()
}

/// A way to be transcribed.
enum Way {
    /// A form with these fields; the text is in the member of the last object.
    File(&'static [(&'static str, &'static str)]),
    /// A live upload, answered in this form.
    Live(&'static str),
    Socket(&'static Protocol),
}

struct Protocol {
    path: &'static str,
    begin: fn() -> Vec<Value>,
    append: &'static str,
    end: fn() -> Vec<Value>,
    /// The last event, and its member with the text.
    done: (&'static str, &'static str),
}

const WAYS: [Way; 8] = [
    Way::File(&[]),
    Way::File(&[("stream", "true")]),
    Way::File(&[("response_format", "verbose_json"), ("timestamp_granularities[]", "word"), ("delay_ms", "480")]),
    Way::Live("application/x-ndjson"),
    Way::Live("text/event-stream"),
    Way::Socket(&VLLM),
    Way::Socket(&OPENAI),
    Way::Socket(&MISTRAL),
];

const VLLM: Protocol = Protocol {
    path: "/v1/realtime",
    begin: || {
        vec![json!({ "type": "session.update", "model": "digits" }), json!({ "type": "input_audio_buffer.commit" })]
    },
    append: "input_audio_buffer.append",
    end: || vec![json!({ "type": "input_audio_buffer.commit", "final": true })],
    done: ("transcription.done", "text"),
};

const OPENAI: Protocol = Protocol {
    path: "/v1/realtime?intent=transcription",
    begin: || {
        let input = json!({ "format": { "type": "audio/pcm", "rate": 16_000 }, "turn_detection": null });
        vec![json!({ "type": "session.update", "session": { "audio": { "input": input } } })]
    },
    append: "input_audio_buffer.append",
    end: || vec![json!({ "type": "input_audio_buffer.commit" })],
    done: ("conversation.item.input_audio_transcription.completed", "transcript"),
};

const MISTRAL: Protocol = Protocol {
    path: "/v1/audio/transcriptions/realtime",
    begin: || vec![json!({ "type": "session.update", "session": { "target_streaming_delay_ms": 480 } })],
    append: "input_audio.append",
    end: || vec![json!({ "type": "input_audio.end" })],
    done: ("transcription.done", "text"),
};

/// The text in an event, if it is one with text.
type TextOf = fn(&Value) -> Option<&str>;

/// How a client behaves.
struct Manner {
    /// Audio in a piece, ms, and the pause after it.
    piece_ms: usize,
    pause: Duration,
    /// The piece after which it leaves without a word, if it does.
    leaves_after: Option<usize>,
}

impl Manner {
    fn of(rng: &mut SmallRng) -> Self {
        let leaves = rng.random_ratio(1, 4);
        Self {
            piece_ms: [20, 80, 250, 1000][rng.random_range(0..4)],
            pause: Duration::from_millis([0, 0, 5, 20][rng.random_range(0..4)]),
            leaves_after: leaves.then(|| rng.random_range(0..40)),
        }
    }
}

/// One session. Returns its text, unless its client left.
async fn session(server: &Running, way: &Way, samples: &[i16], manner: &Manner) -> Option<String> {
    let pcm = pcm(samples);
    let pieces = pcm.chunks(manner.piece_ms * 32);
    let (head, before, after, is_text): (String, Vec<u8>, &[u8], TextOf) = match way {
        Way::Socket(protocol) => return speak(server, protocol, pieces, manner).await,
        Way::File(fields) => {
            let part = |name: &str| format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"");
            let fields = [&[("model", "whisper-1")], *fields].concat();
            let fields: String =
                fields.iter().map(|(name, value)| format!("{}\r\n\r\n{value}\r\n", part(name))).collect();
            let before = format!("{fields}{}; filename=\"a\"\r\n\r\n", part("file"));
            let head = "POST /v1/audio/transcriptions HTTP/1.1\r\ncontent-type: multipart/form-data; boundary=B\r\n";
            let before = [before.as_bytes(), &wav_header(pcm.len() as u32)].concat();
            (head.to_owned(), before, b"\r\n--B--\r\n", |event| event["text"].as_str())
        }
        Way::Live(accept) => {
            let head = format!("PUT /v1/audio/transcriptions/live HTTP/1.1\r\naccept: {accept}\r\n");
            (head, Vec::new(), b"", |event| event["text"].as_str().filter(|_| event["type"] == "final"))
        }
    };
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let length = before.len() + pcm.len() + after.len();
    let head = format!("{head}host: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(&[head.as_bytes(), &before].concat()).await.unwrap();
    let (mut from, mut to) = socket.split();
    let send = async {
        for (i, piece) in pieces.enumerate() {
            if manner.leaves_after == Some(i) {
                return false;
            }
            to.write_all(piece).await.unwrap();
            sleep(manner.pause).await;
        }
        to.write_all(after).await.unwrap();
        true
    };
    let mut answer = String::new();
    {
        // It comes while this sends.
        let read = from.read_to_string(&mut answer);
        tokio::pin!(send, read);
        let read = tokio::select! {
            whole = &mut send => if whole { read.await } else { return None },
            read = &mut read => read,
        };
        read.unwrap();
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let lines =
        answer.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line)).filter(|line| line.starts_with('{'));
    let events: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    Some(events.iter().rev().find_map(is_text).unwrap_or_else(|| panic!("no text: {answer}")).to_owned())
}

/// One session in a WebSocket.
async fn speak<'a>(
    server: &Running,
    protocol: &Protocol,
    pieces: impl Iterator<Item = &'a [u8]>,
    manner: &Manner,
) -> Option<String> {
    let mut client: Client = server.connect(protocol.path).await;
    for event in (protocol.begin)() {
        client.send(event).await;
    }
    for (i, piece) in pieces.enumerate() {
        if manner.leaves_after == Some(i) {
            return None;
        }
        client.send(json!({ "type": protocol.append, "audio": STANDARD.encode(piece) })).await;
        sleep(manner.pause).await;
    }
    for event in (protocol.end)() {
        client.send(event).await;
    }
    Some(client.until(protocol.done.0).await[protocol.done.1].as_str().unwrap().to_owned())
}

/// Of 16 kHz mono PCM.
fn wav_header(bytes: u32) -> Vec<u8> {
    let mut header = std::fs::read(common::ws::SAMPLE).unwrap()[..44].to_vec();
    header[4..8].copy_from_slice(&(bytes + 36).to_le_bytes());
    header[40..44].copy_from_slice(&bytes.to_le_bytes());
    header
}

#[derive(Default)]
struct Count {
    heard: AtomicUsize,
    left: AtomicUsize,
}

#[tokio::test]
#[ignore = "it takes half an hour"]
async fn all_kinds_of_clients_for_long_are_heard_and_leave_nothing() {
    let (minutes, clients, seed) = (number("LOAD_MINUTES", 30), number("LOAD_CLIENTS", 12), number("LOAD_SEED", 1));
    let server = server_with(ServerConfig { max_sessions: 2 * clients, ..ServerConfig::default() });
    let (sayings, count) = (sayings(&server), Count::default());
    let until = Instant::now() + Duration::from_secs(60 * minutes as u64);
    let client = async |i: usize| {
        let mut rng = SmallRng::seed_from_u64((seed + i) as u64);
        while Instant::now() < until {
            let (kind, said) = (rng.random_range(0..WAYS.len()), &sayings[rng.random_range(0..sayings.len())]);
            let manner = Manner::of(&mut rng);
            let heard = timeout(PATIENCE, session(&server, &WAYS[kind], &said.samples, &manner)).await;
            match heard.unwrap_or_else(|_| panic!("a session of kind {kind} hangs")) {
                Some(text) => {
                    assert_eq!(text, said.text, "kind {kind}");
                    count.heard.fetch_add(1, Relaxed);
                }
                None => _ = count.left.fetch_add(1, Relaxed),
            }
        }
    };
    let watch = async {
        let mut resident = Vec::new();
        for minute in 1..=minutes {
            sleep(Duration::from_secs(60)).await;
            resident.extend(resident_mb());
            let (heard, left) = (count.heard.load(Relaxed), count.left.load(Relaxed));
            let memory = resident.last().copied().unwrap_or_default();
            tell(&format!("minute {minute}: {heard} sessions heard, {left} left in the middle, memory {memory:.1} MB"));
        }
        resident
    };
    let (_, resident) = tokio::join!(join_all((0..clients).map(client)), watch);
    server.becomes_free(2 * clients as u64).await;
    // The first minutes make the heap as large as it has to be.
    if let [early, .., last] = resident[resident.len().min(resident.len() / 4)..] {
        assert!(last < early * 1.25 + 32.0, "memory grows: {resident:.1?} MB");
    }
    server.stopped().await;
}
