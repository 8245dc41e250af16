//! `voxtral bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{BackendChoice, Setup, ratio};

const BENCH_EXAMPLES: &str = "\
Examples:
  voxtral bench                                      the built-in sample
  voxtral bench --backends cpu,cuda talk.wav         two backends, one after the other
  voxtral bench --live talk.wav                      how late is each word?
  voxtral bench --live --sessions 50 --minutes 10    does it keep up with 50 streams that have gone on for 10 minutes?
  voxtral bench --format json -o before.json talk.wav
  voxtral bench --against before.json talk.wav       after a change

Exit code 3: something takes longer than --max-slowdown allows, or a backend that was named is not there.";

#[derive(Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub(crate) struct Bench {
    /// Recordings to measure with [default: the built-in sample, 8 seconds]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Backends to measure, one after the other
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',', conflicts_with = "backend")]
    pub backends: Vec<BackendChoice>,

    /// Runs that count; one that does not goes before them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repeat: u16,

    /// Feed the audio as fast as it is spoken, and tell how long after each word was heard it came out
    #[arg(long)]
    pub live: bool,

    /// With --live: so many streams at a time, the recordings repeated without an end; tells how late their tokens are
    #[arg(long, value_name = "N", requires = "live", conflicts_with_all = ["repeat", "against"])]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub sessions: Option<u16>,

    /// With --sessions: minutes that each stream has heard before it is measured, pushed as fast as possible
    #[arg(long, value_name = "M", requires = "sessions", default_value_t = 0.0, value_parser = minutes)]
    pub minutes: f64,

    /// With --sessions: seconds that are measured
    #[arg(long, value_name = "S", requires = "sessions", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub seconds: u16,

    /// With --sessions: recordings that are transcribed at the same time, as fast as they go
    #[arg(long = "files", value_name = "K", requires = "sessions", default_value_t = 0, value_parser = clap::value_parser!(u8))]
    pub beside: u8,

    /// How the figures are written; JSON is what --against reads
    #[arg(long, value_enum, default_value_t = BenchFormat::Table)]
    pub format: BenchFormat,

    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// Compare with what an earlier bench wrote as JSON; past --max-slowdown the exit code is 3
    #[arg(long, value_name = "OLD.json")]
    pub against: Option<PathBuf>,

    /// How many times as long as in --against the whole, the encoder and the median pass may take
    #[arg(long, value_name = "RATIO", default_value_t = 1.1, value_parser = ratio)]
    pub max_slowdown: f64,

    // Its heading would be over what comes after it, too.
    #[command(flatten)]
    pub setup: Setup,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    Table,
    Json,
    Csv,
}

/// At most a day.
fn minutes(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|m| (0.0..=1440.0).contains(m)).ok_or_else(|| format!("{text:?} is not from 0 to 1440"))
}
