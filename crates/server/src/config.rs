//! What a server is told.

use std::time::Duration;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Most transcriptions at a time, files and live ones together.
    pub max_sessions: usize,
    /// Other names that clients may call the model by.
    pub aliases: Vec<String>,
    /// The largest body of an upload, bytes.
    pub max_upload_bytes: u64,
    /// The longest recording that is transcribed.
    pub max_audio: Duration,
    /// How long a live client may send nothing. Silence is audio too.
    pub idle_timeout: Duration,
}

impl Default for ServerConfig {
    /// 32 transcriptions at a time, of files of up to 1 GB and 4 hours.
    fn default() -> Self {
        Self {
            max_sessions: 32,
            aliases: [
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
        }
    }
}
