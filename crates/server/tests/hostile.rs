//! Whatever clients send, the server does not break, hang or lose a slot.
//!
//! What is sent is what clients say, spoilt at random: input N is the same every time. `HOSTILE_INPUTS` is how many there
//! are (300); `HOSTILE_FIRST` names the first, to repeat one that fails.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::conversations::{Request, conversations, requests};
use common::ws::{DIGITS, digits, pcm};
use common::{Running, server_with};
use futures_util::{SinkExt, StreamExt};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use voxtral_server::ServerConfig;

/// Inputs that are sent at a time.
const AT_A_TIME: usize = 32;

/// More than are needed for those: who breaks the rules of WebSockets has a few seconds to hear so.
const SLOTS: u64 = 1000;

/// Beyond this, the server hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Panics of all threads.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

#[tokio::test]
async fn whatever_is_sent_breaks_nothing() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        tell(panic);
    }));
    let wait = Duration::from_secs(2);
    let max_sessions = SLOTS as usize;
    let server =
        server_with(ServerConfig { max_sessions, idle_timeout: wait, header_timeout: wait, ..ServerConfig::default() });
    let (first, inputs) = (number("HOSTILE_FIRST", 0), number("HOSTILE_INPUTS", 300));
    let (conversations, requests) = (conversations(), requests());
    let send = async |input| {
        let mut random = SmallRng::seed_from_u64(input);
        let sent = async {
            match random.random() {
                true => request(&server, requests.choose(&mut random).unwrap(), &mut random).await,
                false => {
                    let (path, events) = conversations.choose(&mut random).unwrap();
                    converse(&server, path, events.clone(), &mut random).await
                }
            }
        };
        let answer = timeout(PATIENCE, sent).await.unwrap_or_else(|_| panic!("the server hangs after input {input}"));
        let broken =
            ["HTTP/1.1 500", "a fault of the server", "the server failed"].iter().any(|it| answer.contains(it));
        assert!(!broken, "input {input}: {answer}");
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "at the latest with input {input}");
    };
    futures_util::stream::iter(first..first + inputs).map(send).buffer_unordered(AT_A_TIME).collect::<()>().await;
    server.becomes_free(SLOTS).await;
    transcribes(&server).await;
    server.becomes_free(SLOTS).await;
    server.stopped().await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

async fn transcribes(server: &Running) {
    let mut client = server.connect("/v1/realtime").await;
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    client.append(&pcm(&digits()), 3200).await;
    client.send(json!({ "type": "input_audio_buffer.commit", "final": true })).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
}

/// Sends a request of which the body is spoilt, or all. Returns the answer, or what came of it.
async fn request(server: &Running, request: &Request, random: &mut SmallRng) -> String {
    let bytes = if random.random() {
        let mut body = request.body.clone();
        spoil(&mut body, random);
        request.with_body(body).bytes()
    } else {
        let mut bytes = request.bytes();
        spoil(&mut bytes, random);
        bytes
    };
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    // The server may be gone before all is sent.
    let _ = socket.write_all(&bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Holds a conversation that is spoilt, and leaves when a ping is answered. Returns all that the server said.
async fn converse(server: &Running, path: &str, mut events: Vec<Value>, random: &mut SmallRng) -> String {
    spoil_events(&mut events, random);
    let (mut sink, mut stream) = server.connect(path).await.socket.split();
    let messages: Vec<Message> = events.iter().map(|event| message(event, random)).collect();
    let speak = async {
        for message in messages {
            // The server may have closed.
            let _ = sink.send(message).await;
        }
        let _ = sink.send(Message::Ping("are you there".into())).await;
    };
    let listen = async {
        let mut said = String::new();
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Text(text) => said += &text,
                Message::Pong(_) | Message::Close(_) => break,
                _ => {}
            }
        }
        said
    };
    let ((), said) = tokio::join!(speak, listen);
    if random.random() {
        let _ = sink.close().await;
    }
    said
}

/// Cuts, doubles, flips, removes and inserts.
fn spoil(bytes: &mut Vec<u8>, random: &mut SmallRng) {
    for _ in 0..random.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        // Most is audio. What is around it stands at both ends.
        let near = random.random_range(0..bytes.len().min(500));
        let at = match random.random_range(0..3) {
            0 => near,
            1 => bytes.len() - 1 - near,
            _ => random.random_range(0..bytes.len()),
        };
        let end = bytes.len().min(at + random.random_range(1..200));
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.extend(bytes.clone().split_off(at)),
            2 => bytes[at] ^= 1 << random.random_range(0..8),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            _ => {
                let odd: [&[u8]; 6] = [b"99999999999999999999", b"\r\n", b"\0", b"--B\r\n", b"%ff", b"\xff\xfe"];
                drop(bytes.splice(at..at, odd.choose(random).unwrap().to_vec()));
            }
        }
    }
}

/// Removes, repeats and moves events, and changes what is in them.
fn spoil_events(events: &mut Vec<Value>, random: &mut SmallRng) {
    for _ in 0..random.random_range(1..5) {
        if events.is_empty() {
            return;
        }
        let (at, other) = (random.random_range(0..events.len()), random.random_range(0..events.len()));
        match random.random_range(0..8) {
            0 => drop(events.remove(at)),
            1 => events.insert(other, events[at].clone()),
            2 => events.swap(at, other),
            3 => events[at].get_mut("audio").into_iter().for_each(|audio| *audio = noise(random).into()),
            4 => {
                if let Value::Object(members) = somewhere(&mut events[at], random) {
                    let name = members.keys().nth(random.random_range(0..members.len().max(1))).cloned();
                    name.and_then(|name| members.remove(&name));
                }
            }
            _ => *somewhere(&mut events[at], random) = odd(random),
        }
    }
}

/// A value within this one, or this one.
fn somewhere<'a>(value: &'a mut Value, random: &mut SmallRng) -> &'a mut Value {
    let inner = match value {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if inner == 0 || random.random_ratio(1, 6) {
        return value;
    }
    let at = random.random_range(0..inner);
    match value {
        Value::Object(members) => somewhere(members.values_mut().nth(at).unwrap(), random),
        Value::Array(items) => somewhere(&mut items[at], random),
        _ => value,
    }
}

/// A value that nobody expects.
fn odd(random: &mut SmallRng) -> Value {
    let numbers = [-1.0, 0.5, 1e308, -1e308, 4_294_967_296.0, 1e19];
    match random.random_range(0..8) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        2 => (*numbers.choose(random).unwrap()).into(),
        3 => random.random::<u64>().into(),
        4 => {
            (*["", "\0", "none", "null", "pcm_s32le", "audio/pcmu", "semantic_vad", "x"].choose(random).unwrap()).into()
        }
        5 => "long ".repeat(random.random_range(0..20_000)).into(),
        6 => (0..100).fold(json!({}), |inner, _| json!([inner])),
        _ => noise(random).into(),
    }
}

/// Base64 of random bytes, as often as not cut off.
fn noise(random: &mut SmallRng) -> String {
    let mut bytes = vec![0; random.random_range(0..9000)];
    random.fill(&mut bytes[..]);
    let mut base64 = STANDARD.encode(bytes);
    base64.truncate(base64.len().saturating_sub(random.random_range(0..4)));
    base64
}

/// An event in a frame: mostly as it should be.
fn message(event: &Value, random: &mut SmallRng) -> Message {
    let mut bytes = event.to_string().into_bytes();
    match random.random_range(0..16) {
        0 => Message::binary(bytes),
        1 => Message::text("[".repeat(100_000)),
        2 => {
            spoil(&mut bytes, random);
            Message::text(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => Message::text(event.to_string()),
    }
}
