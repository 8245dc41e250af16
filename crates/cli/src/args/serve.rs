//! `voxtral serve`.

use std::net::SocketAddr;

use clap::Args;

use super::Setup;

const EXAMPLES: &str = "\
Examples:
  voxtral serve                                     on this machine only, at http://127.0.0.1:8000
  curl http://127.0.0.1:8000/v1/audio/transcriptions -F model=whisper-1 -F file=@talk.mp3";

/// Serve the model over HTTP and WebSockets, to the clients of OpenAI, Mistral and vLLM
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,

    /// Most transcriptions at a time, files and live ones together
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_sessions: u16,

    #[command(flatten)]
    pub setup: Setup,
}
