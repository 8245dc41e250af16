//! What a client is to be told.

use std::collections::VecDeque;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use serde_json::Value;

/// Messages that may wait, beyond which nothing more is read from the client.
const ROOM: usize = 256;

/// Messages that wait for the writer, in their order. Events of the engine are only taken when there is none, and messages of the client
/// only while there is room for their answers.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    closed: bool,
}

impl Outbox {
    /// Tells the client something.
    pub(super) fn send(&mut self, event: Value) {
        self.waiting.push_back(Message::text(event.to_string()));
    }

    /// Ends the connection, after all that waits. Codes are those of WebSockets (RFC 6455, 7.4).
    pub(super) fn close(&mut self, code: u16, reason: &'static str) {
        let reason = Utf8Bytes::from_static(reason);
        self.waiting.push_back(Message::Close(Some(CloseFrame { code, reason })));
        self.closed = true;
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < ROOM
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}
