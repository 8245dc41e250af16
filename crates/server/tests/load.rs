//! How late words are under load, and that nothing is left of clients that are gone.
//!
//! ```sh
//! cargo test -p voxtral-server --test load -- --ignored
//! ```
//! The figures are printed and not asserted, as they depend on the machine. In the environment: `LOAD_STREAMS` (100),
//! `LOAD_SLOW` (500: connections that dawdle; they need `ulimit -n 2048`) and `LOAD_DROPPED` (300: clients that break off).

mod common;

use std::io::{Cursor, Write};
use std::net::Shutdown;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::conversations::{conversations, requests};
use common::load::{number, resident_mb, tell};
use common::ws::{DIGITS, SAMPLE, digits, eventually, pcm};
use common::{Running, server_with};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use voxtral::{Collect, Options, Source};
use voxtral_server::ServerConfig;

/// The audio in a message.
const PIECE: Duration = Duration::from_millis(80);

/// Beyond this, a stream hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// One test runs at a time, or they would measure each other.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// With room for so many streams and an upload.
fn roomy(streams: usize) -> Running {
    server_with(ServerConfig { max_sessions: streams + 1, ..ServerConfig::default() })
}

#[tokio::test]
#[ignore = "it measures, in real time"]
async fn streams_in_real_time_lose_no_word() {
    let _alone = alone().await;
    let streams = number("LOAD_STREAMS", 100);
    let server = roomy(streams);
    speak(&server, streams, "alone").await;
    server.becomes_free(streams as u64 + 1).await;
    server.stopped().await;
}

#[tokio::test]
#[ignore = "it measures, in real time"]
async fn streams_in_real_time_lose_no_word_beside_an_upload_of_an_hour() {
    let _alone = alone().await;
    let streams = number("LOAD_STREAMS", 100);
    let server = roomy(streams);
    let mut socket = common::connect(server.address);
    let mut upload = socket.try_clone().unwrap();
    let sending = std::thread::spawn(move || upload.write_all(&hour()));
    eventually("the upload is transcribed", async || server.server.voxtral().engine().counters().sessions == 1).await;
    speak(&server, streams, "beside an upload of an hour").await;
    let ended = server.server.voxtral().engine().counters().sessions == 0;
    tell(&format!("the upload {}", if ended { "had ended by then" } else { "was still going on" }));
    socket.flush().unwrap();
    socket.shutdown(Shutdown::Both).unwrap();
    // It breaks off where it was.
    let _ = sending.join().unwrap();
    server.becomes_free(streams as u64 + 1).await;
    server.stopped().await;
}

#[tokio::test]
#[ignore = "it measures, in real time"]
async fn streams_in_real_time_lose_no_word_beside_clients_that_dawdle() {
    let _alone = alone().await;
    let (streams, slow) = (number("LOAD_STREAMS", 100) / 5, number("LOAD_SLOW", 500));
    let server = roomy(streams);
    speak(&server, streams, "without slow connections").await;
    let mut dawdling = JoinSet::new();
    (0..slow).for_each(|_| drop(dawdling.spawn(dawdle(server.address))));
    sleep(Duration::from_secs(2)).await;
    speak(&server, streams, &format!("beside {slow} slow connections")).await;
    assert_eq!(dawdling.len(), slow);
    dawdling.shutdown().await;
    server.becomes_free(streams as u64 + 1).await;
    server.stopped().await;
}

/// Sends a header that does not end, one byte a second, and begins again when the server has enough of it.
async fn dawdle(server: std::net::SocketAddr) {
    loop {
        if let Ok(mut socket) = TcpStream::connect(server).await {
            while socket.write_all(b"G").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

#[tokio::test]
#[ignore = "it takes a while"]
async fn clients_that_break_off_leave_nothing() {
    let _alone = alone().await;
    let of_each_round = number("LOAD_DROPPED", 300) / 6;
    let server = roomy(of_each_round);
    let (conversations, requests) = (conversations(), requests());
    let mut resident = Vec::new();
    for round in 0..6 {
        let clients = round * of_each_round..(round + 1) * of_each_round;
        let break_off = async |i: usize| {
            let kind = i % (conversations.len() + requests.len());
            match conversations.get(kind) {
                Some((path, events)) => leave(&server, path, &events[..i / 11 % (events.len() + 1)]).await,
                None => {
                    let bytes = requests[kind - conversations.len()].bytes();
                    let mut socket = TcpStream::connect(server.address).await.unwrap();
                    // Up to a place in the header, the body, or to the end.
                    let most = [i % 300, bytes.len() / 2, bytes.len()][i / 11 % 3];
                    let _ = socket.write_all(&bytes[..most.min(bytes.len())]).await;
                }
            }
        };
        futures_util::stream::iter(clients).map(break_off).buffer_unordered(8).collect::<()>().await;
        server.becomes_free(of_each_round as u64 + 1).await;
        resident.extend(resident_mb());
    }
    tell(&format!("memory after each of 6 rounds of {of_each_round} clients that break off, MB: {resident:.1?}"));
    // The first rounds make the heap as large as it has to be.
    if let [_, _, early, .., last] = resident[..] {
        assert!(last < early + 16.0, "memory grows: {resident:.1?} MB");
    }
    server.stopped().await;
}

/// Says the beginning of a conversation, and is gone without a word; sometimes it listens before.
async fn leave(server: &Running, path: &str, events: &[Value]) {
    let mut client = server.connect(path).await;
    for event in events {
        client.send(event.clone()).await;
    }
    if events.len().is_multiple_of(2) {
        client.event().await;
    }
}

/// A form with an hour of audio.
fn hour() -> Vec<u8> {
    let (digits, mut file) = (digits(), Cursor::new(Vec::new()));
    let spec = hound::WavReader::open(SAMPLE).unwrap().spec();
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    digits.iter().cycle().take(3600 * 16_000).for_each(|&sample| writer.write_sample(sample).unwrap());
    writer.finalize().unwrap();
    let before = "--B\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--B\r\n\
        content-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let body = [before.as_bytes(), file.get_ref(), b"\r\n--B--\r\n"].concat();
    let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\n\
        content-type: multipart/form-data; boundary=B\r\ncontent-length:";
    [format!("{head} {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
}

/// Lets so many clients speak at a time, of vLLM's kind and of OpenAI's by turns, and tells how late the words are.
async fn speak(server: &Running, streams: usize, how: &str) {
    let mut words = Collect::default();
    server.server.voxtral().transcribe(Source::file(SAMPLE).unwrap(), &Options::default(), &mut words).unwrap();
    let ends: Vec<f64> = words.words.iter().map(|word| word.end_s).collect();
    let stream = async |i: usize| {
        // Not all at the same moment.
        sleep(PIECE * i as u32 / streams as u32).await;
        let kind = [&VLLM, &OPENAI][i % 2];
        let late = timeout(PATIENCE, kind.stream(server, &ends)).await;
        (i % 2, late.unwrap_or_else(|_| panic!("stream {i} hangs")))
    };
    let heard = join_all((0..streams).map(stream)).await;
    for (kind, name) in [(0, "vLLM, word events"), (1, "OpenAI, deltas")] {
        let mut late: Vec<f64> = heard.iter().filter(|of| of.0 == kind).flat_map(|of| of.1.iter().copied()).collect();
        late.sort_by(f64::total_cmp);
        let at = |part: f64| 1e3 * late[((late.len() - 1) as f64 * part) as usize];
        let late = format!("p50 {:.0} ms, p99 {:.0} ms, at most {:.0} ms", at(0.5), at(0.99), at(1.0));
        tell(&format!("{streams} streams {how}, {name}: words later than the delay by {late}"));
    }
}

/// A kind of client.
struct Kind {
    path: &'static str,
    /// Asks for transcription, and begins.
    begin: fn() -> Vec<Value>,
    end: fn() -> Value,
    /// The last event, and its field with the text.
    done: (&'static str, &'static str),
    /// Words that an event adds.
    words: fn(&Value) -> usize,
}

const VLLM: Kind = Kind {
    path: "/v1/realtime",
    begin: || {
        let update = json!({ "type": "session.update", "model": "digits", "timestamp_granularities": ["word"] });
        vec![update, json!({ "type": "input_audio_buffer.commit" })]
    },
    end: || json!({ "type": "input_audio_buffer.commit", "final": true }),
    done: ("transcription.done", "text"),
    words: |event| usize::from(event["type"] == "transcription.word"),
};

const OPENAI: Kind = Kind {
    path: "/v1/realtime?intent=transcription",
    begin: || {
        let input = json!({ "format": { "type": "audio/pcm", "rate": 16_000 }, "turn_detection": null });
        vec![json!({ "type": "session.update", "session": { "type": "transcription", "audio": { "input": input } } })]
    },
    end: || json!({ "type": "input_audio_buffer.commit" }),
    done: ("conversation.item.input_audio_transcription.completed", "transcript"),
    words: |event| match &event["type"] {
        kind if kind == "conversation.item.input_audio_transcription.delta" => {
            event["delta"].as_str().unwrap().split_whitespace().count()
        }
        _ => 0,
    },
};

impl Kind {
    /// Speaks the sample in real time. Returns for each word how much later than the delay it came, in seconds.
    async fn stream(&self, server: &Running, ends: &[f64]) -> Vec<f64> {
        let mut client = server.connect(self.path).await;
        for event in (self.begin)() {
            client.send(event).await;
        }
        let (mut sink, mut stream) = client.socket.split();
        let begun = Instant::now();
        let speak = async {
            for (i, piece) in (1..).zip(pcm(&digits()).chunks(PIECE.as_millis() as usize * 32)) {
                // Its last sample was spoken just now.
                sleep_until(begun + PIECE * i).await;
                let event = json!({ "type": "input_audio_buffer.append", "audio": STANDARD.encode(piece) });
                sink.send(Message::text(event.to_string())).await.unwrap();
            }
            sink.send(Message::text((self.end)().to_string())).await.unwrap();
        };
        let listen = async {
            let mut late = Vec::new();
            let delay_s = f64::from(server.server.voxtral().delay().ms()) / 1e3;
            loop {
                let Some(Ok(Message::Text(text))) = stream.next().await else { panic!("no text after {late:?}") };
                let event: Value = serde_json::from_str(&text).unwrap();
                assert_ne!(event["type"], "error", "{event}");
                for _ in 0..(self.words)(&event) {
                    let after = begun.elapsed().as_secs_f64() - delay_s;
                    late.push(after - ends[late.len()]);
                }
                if event["type"] == self.done.0 {
                    assert_eq!(event[self.done.1], DIGITS);
                    assert_eq!(late.len(), ends.len());
                    return late;
                }
            }
        };
        tokio::join!(speak, listen).1
    }
}
