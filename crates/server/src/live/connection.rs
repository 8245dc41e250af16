//! One WebSocket, from its first event to its end.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message as Frame, WebSocket, close_code};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tungstenite::error::{Error as SocketError, ProtocolError};

use super::dialect::{Dialect, Fault, Message, Took};
use super::outbox::Outbox;
use super::utterance::Utterances;
use crate::app::App;
use crate::slots::Slot;

/// Messages between a connection and its writer.
const WRITER_QUEUE: usize = 16;

/// How long a client may take nothing of what it is sent.
pub(super) const STALLED: Duration = Duration::from_secs(20);

/// How long a client that is told the end may take to hear it.
const LINGER: Duration = Duration::from_secs(3);

/// Why a connection is closed that has done nothing wrong.
const ENDING: &str = "the server is about to end";

/// Serves one client to its end. The slot is free, and so is all memory, when this returns.
pub(super) async fn serve(socket: WebSocket, utterances: Utterances, slot: Slot, hello: Value, dialect: impl Dialect) {
    let (sink, stream) = socket.split();
    let (to_writer, messages) = mpsc::channel(WRITER_QUEUE);
    let writer = tokio::spawn(write(sink, messages));
    let app = Arc::clone(utterances.app());
    let mut connection = Connection { app, utterances, dialect, out: Outbox::default(), stream };
    connection.out.send(hello);
    let ending = connection.run(&to_writer).await;

    let Connection { mut out, mut stream, utterances, dialect, .. } = connection;
    drop((utterances, dialect));
    if let Ending::Told { hears } = ending {
        let told = async {
            while let Some(message) = out.pop() {
                if to_writer.send(message).await.is_err() {
                    return;
                }
            }
            // What was sent may be lost if the socket goes while there is something to read in it.
            if hears { while let Some(Ok(_)) = stream.next().await {} } else { sleep(LINGER).await }
        };
        // A client that does not hear it is left.
        let _ = timeout(LINGER, told).await;
    }
    writer.abort();
    drop(slot);
}

/// How a conversation ended.
enum Ending {
    /// The client is gone.
    Gone,
    /// The client is to be told, with the messages that wait; whether what it sends can still be read.
    Told { hears: bool },
}

struct Connection<D> {
    app: Arc<App>,
    utterances: Utterances,
    dialect: D,
    out: Outbox,
    stream: SplitStream<WebSocket>,
}

impl<D: Dialect> Connection<D> {
    async fn run(&mut self, to_writer: &mpsc::Sender<Frame>) -> Ending {
        let app = Arc::clone(&self.app);
        let (mut drain, mut close) = (pin!(app.slots.draining()), pin!(app.slots.closing()));
        let mut draining = false;
        // When audio came last, or something of what came was transcribed.
        let mut active = Instant::now();
        loop {
            if draining && self.utterances.is_empty() && self.out.is_empty() {
                self.out.close(close_code::AWAY, ENDING);
            }
            if self.out.is_closed() {
                return Ending::Told { hears: true };
            }
            tokio::select! {
                frame = self.stream.next(), if self.out.has_room() => match frame {
                    Some(Ok(frame)) => match self.frame(frame) {
                        Some(Took::Audio) => active = Instant::now(),
                        Some(Took::Command) => {}
                        None => return Ending::Told { hears: true },
                    },
                    Some(Err(error)) => return self.unreadable(error),
                    None => return Ending::Gone,
                },
                event = self.utterances.next(), if self.out.is_empty() => {
                    active = Instant::now();
                    match event {
                        Ok(event) => self.dialect.event(event, &mut self.out),
                        Err(error) => {
                            app.metrics.error(error.code_or_kind());
                            self.dialect.failed(&error, &mut self.out);
                        }
                    }
                }
                room = to_writer.reserve(), if !self.out.is_empty() => match (room, self.out.pop()) {
                    (Ok(room), Some(message)) => room.send(message),
                    _ => return Ending::Gone,
                },
                () = sleep_until(active + app.config.idle_timeout) => {
                    if self.utterances.wait_for_client() { self.idle() } else { active = Instant::now() }
                }
                () = &mut drain, if !draining => draining = true,
                () = &mut close => self.out.close(close_code::AWAY, ENDING),
            }
        }
    }

    /// Takes a frame. None if it ends the connection.
    fn frame(&mut self, frame: Frame) -> Option<Took> {
        let message = match frame {
            Frame::Text(text) => Message::parse(&text),
            Frame::Binary(bytes) => Ok(Message::Binary(bytes)),
            Frame::Ping(_) | Frame::Pong(_) => return Some(Took::Command),
            Frame::Close(_) => return None,
        };
        let took = message.and_then(|message| self.dialect.message(message, &mut self.utterances, &mut self.out));
        Some(took.unwrap_or_else(|fault| {
            self.tell(&fault);
            Took::Command
        }))
    }

    fn tell(&mut self, fault: &Fault) {
        self.app.metrics.error(fault.code);
        self.out.send(self.dialect.fault(fault));
    }

    fn idle(&mut self) {
        let seconds = self.app.config.idle_timeout.as_secs_f64();
        let fault = Fault::new("idle_timeout", format!("no audio came for {seconds} s, so this session ends"));
        self.tell(&fault);
        self.out.close(close_code::POLICY, "idle");
    }

    /// Ends a connection of which nothing more can be read.
    fn unreadable(&mut self, error: axum::Error) -> Ending {
        let (code, reason) = match error.source().and_then(|source| source.downcast_ref::<SocketError>()) {
            Some(SocketError::Capacity(_)) => (close_code::SIZE, "a message is larger than is taken"),
            Some(SocketError::Utf8(_)) => (close_code::INVALID, "a text is no UTF-8"),
            Some(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return Ending::Gone,
            Some(SocketError::Protocol(_)) => (close_code::PROTOCOL, "this is not how WebSockets are spoken"),
            _ => return Ending::Gone,
        };
        self.out.close(code, reason);
        Ending::Told { hears: false }
    }
}

/// Writes what it is given, until there is no more or the client does not take it.
async fn write(mut sink: SplitSink<WebSocket, Frame>, mut messages: mpsc::Receiver<Frame>) {
    while let Some(message) = messages.recv().await {
        if !matches!(timeout(STALLED, sink.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
}
