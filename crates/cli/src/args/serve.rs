//! `voxtral serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use voxtral_server::{HeaderValue, ServerConfig};

use super::Setup;

const EXAMPLES: &str = "\
Each flag can also be given as a variable of the environment, --max-sessions as VOXTRAL_SERVE_MAX_SESSIONS, and in the file that --config \
names, as max-sessions = 8. The flag goes before the variable, and that before the file.

SIGTERM or Ctrl-C: no more transcriptions are taken, those that run end, and the exit code is 0. A second one ends it at once.

Examples:
  voxtral serve                                     on this machine only, at http://127.0.0.1:8000
  curl http://127.0.0.1:8000/v1/audio/transcriptions -F model=whisper-1 -F file=@talk.mp3
  voxtral serve --listen 0.0.0.0:8000 --api-key-file keys.txt --tls-cert cert.pem --tls-key key.pem";

/// Serve the model over HTTP and WebSockets, to the clients of OpenAI, Mistral and vLLM
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// Where to listen
    ///
    /// Where other machines can reach it, it asks for keys: --api-key-file, or else --no-auth.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,

    /// A file of flags, in TOML: max-sessions = 8
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Other names that clients may call the model by, with commas between them
    #[arg(long, visible_alias = "served-model-name", value_name = "NAME,…", value_delimiter = ',',
          default_values_t = ServerConfig::default().aliases)]
    pub alias: Vec<String>,

    /// What is logged on standard error: lines for people, or objects of JSON. What is said in the audio never is
    #[arg(long, value_enum, value_name = "FORM", default_value_t = LogForm::Text)]
    pub log: LogForm,

    /// Keep the audio and the transcript of every session in this folder; without it, nothing outlives its session
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,

    #[command(flatten)]
    pub access: Access,

    #[command(flatten)]
    pub limits: Limits,

    #[command(flatten)]
    pub setup: Setup,
}

/// Who may ask, and how.
#[derive(Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct Access {
    /// A file of keys, one on each line, of which a client must name one; a change counts at once
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// Take a key from this parameter of the query, too; mind that proxies log queries
    #[arg(long, value_name = "NAME", requires = "api_key_file")]
    pub api_key_query: Option<String>,

    /// Let anybody ask who can reach it
    #[arg(long, conflicts_with = "api_key_file")]
    pub no_auth: bool,

    /// Web pages that may ask from a browser, by their origins, with commas between them; * is all
    #[arg(long, value_name = "ORIGIN,…", value_delimiter = ',', value_parser = origin)]
    pub cors_origin: Vec<HeaderValue>,

    /// Encrypt with the certificate in this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// How much of everything there may be.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Most transcriptions at a time, files and live ones together
    ///
    /// Without it, a GPU takes as many as it has memory for when each lasts five minutes, but no more than 300; a CPU takes 32.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub max_sessions: Option<u16>,

    /// Most connections at a time, without WebSockets; more wait
    #[arg(long, value_name = "N", default_value_t = 800, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_connections: u16,

    /// The largest upload, in MB
    #[arg(long, value_name = "MB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_upload: u32,

    /// The longest recording, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 240, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_audio: u32,

    /// Leave a client that has sent nothing for so many seconds; silence is audio too
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    pub idle_timeout: Duration,

    /// How many seconds what runs may still take when the server is to end
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub drain_timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    Text,
    Json,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is not a number of seconds from 1 to 86400")),
    }
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin =
        text == "*" || text.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
    match text.parse() {
        Ok(origin) if is_origin => Ok(origin),
        _ => Err(format!("{text:?} is not the origin of a web page, such as https://example.org")),
    }
}
