//! What a server is told.

use std::time::Duration;

use axum::http::HeaderValue;

use crate::{ApiKeys, Keep, Tls};

/// How to serve.
#[derive(Clone)]
pub struct ServerConfig {
    /// Most transcriptions at a time, files and live ones together; [`Voxtral::capacity`](voxtral::Voxtral::capacity) says for how many a GPU
    /// has memory.
    pub max_sessions: usize,
    /// Other names that clients may call the model by.
    pub aliases: Vec<String>,
    /// The largest body of an upload, bytes.
    pub max_upload_bytes: u64,
    /// The longest recording that is transcribed.
    pub max_audio: Duration,
    /// How long a client may send nothing while something is expected of it. Silence is audio too.
    pub idle_timeout: Duration,
    /// The keys that clients must name one of; if there are none, anybody may ask.
    pub keys: Option<ApiKeys>,
    /// A parameter of the query in which a key may be named too. Proxies write queries into their logs.
    pub key_query: Option<String>,
    /// Origins of the web pages that may ask, or `*` for all. If there are none, browsers let no page of another origin.
    pub cors_origins: Vec<HeaderValue>,
    /// The certificate, if connections are to be encrypted.
    pub tls: Option<Tls>,
    /// Where the audio and the transcript of every session are kept. If nowhere, nothing of them outlives the session.
    pub keep: Option<Keep>,
    /// Most connections at a time, without those that have become WebSockets. More wait until one ends.
    pub max_connections: usize,
    /// How long a client may take for the header of a request, and for the handshake of TLS. A connection that is kept for another request
    /// is closed after the same time.
    pub header_timeout: Duration,
    /// How long what runs may still take when the server is to end.
    pub drain_timeout: Duration,
    /// How long the engine may be at one round before it counts as stuck.
    pub stuck_after: Duration,
}

impl Default for ServerConfig {
    /// 32 transcriptions at a time, of files of up to 1 GB and 4 hours, for anybody who can reach it.
    fn default() -> Self {
        Self {
            max_sessions: 32,
            aliases: [
                "mistralai/Voxtral-Mini-4B-Realtime-2602",
                "voxtral-mini-transcribe-realtime-2602",
                "whisper-1",
                "gpt-4o-transcribe",
                "gpt-realtime-whisper",
            ]
            .map(str::to_owned)
            .to_vec(),
            max_upload_bytes: 1 << 30,
            max_audio: Duration::from_secs(4 * 3600),
            idle_timeout: Duration::from_secs(30),
            keys: None,
            key_query: None,
            cors_origins: Vec::new(),
            tls: None,
            keep: None,
            // Below 1024, the open files that Linux allows a process unless it is told otherwise.
            max_connections: 800,
            header_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(60),
            // A round is one call of each kind at most; on a slow CPU a whole one takes a minute.
            stuck_after: Duration::from_secs(180),
        }
    }
}
