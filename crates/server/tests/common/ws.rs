//! A WebSocket client, and what it sends.
#![allow(dead_code)] // each test file uses a part

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Running;

/// What is said in the sample.
pub const DIGITS: &str = "four seven one one nine zero two six three five eight";

/// Beyond this, a test hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sample, a WAV file.
pub const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/digits.wav");

/// Its samples, 16 kHz.
pub fn digits() -> Vec<i16> {
    hound::WavReader::open(SAMPLE).unwrap().into_samples().map(Result::unwrap).collect()
}

/// Samples as PCM.
pub fn pcm(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// Waits for something to come true.
pub async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("it does not come true that {what}"));
}

impl Running {
    /// The address of a request for a WebSocket.
    pub fn request(&self, path: &str) -> Request<()> {
        format!("ws://{}{path}", self.address).into_client_request().unwrap()
    }

    pub async fn connect(&self, path: &str) -> Client {
        Client::of(self.request(path)).await.unwrap()
    }

    /// Slots that are free, as /ready tells; none while it refuses.
    pub async fn free(&self) -> Option<u64> {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(b"GET /ready HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap()["free"].as_u64()
    }

    /// Waits until no session and no slot is in use.
    pub async fn all_is_free(&self) {
        let capacity = voxtral_server::ServerConfig::default().max_sessions as u64;
        self.becomes_free(capacity).await;
    }

    pub async fn becomes_free(&self, slots: u64) {
        eventually("sessions and slots are free", async || {
            self.server.voxtral().engine().counters().sessions == 0 && self.free().await == Some(slots)
        })
        .await;
    }
}

pub struct Client {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// All events that came.
    pub heard: Vec<Value>,
}

impl Client {
    pub async fn of(request: Request<()>) -> Result<Self, Error> {
        Ok(Self::with_response(request).await?.0)
    }

    pub async fn with_response(request: Request<()>) -> Result<(Self, Response<Option<Vec<u8>>>), Error> {
        let (socket, response) = connect_async(request).await?;
        Ok((Self { socket, heard: Vec::new() }, response))
    }

    pub async fn send(&mut self, event: Value) {
        self.socket.send(Message::text(event.to_string())).await.unwrap();
    }

    /// Appends PCM, in pieces of so many bytes.
    pub async fn append(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.send(json!({ "type": "input_audio_buffer.append", "audio": STANDARD.encode(piece) })).await;
        }
    }

    /// The next message, other than pings.
    pub async fn message(&mut self) -> Option<Result<Message, Error>> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("nothing comes");
            if !matches!(message, Some(Ok(Message::Ping(_)))) {
                return message;
            }
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> Value {
        match self.message().await {
            Some(Ok(Message::Text(text))) => {
                let event: Value = serde_json::from_str(&text).unwrap();
                self.heard.push(event.clone());
                event
            }
            other => panic!("{other:?} instead of an event"),
        }
    }

    /// The next event of this type; others are passed over, but for errors.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            if event["type"] == kind {
                return event;
            }
            assert_ne!(event["type"], "error", "{event} while waiting for {kind}");
        }
    }

    /// The code with which the server closes; what else comes before is passed over.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.message().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("{other:?} instead of a close"),
            }
        }
    }
}
