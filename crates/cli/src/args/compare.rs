//! `voxtral compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use voxtral::ModelRef;

use super::{BackendChoice, DecodeChoice, IsaChoice, PrecisionChoice, Setup, ratio};

const COMPARE_EXAMPLES: &str = "\
Examples:
  voxtral compare before.json after.json             two files of voxtral --format json --tokens
  voxtral compare --backends cpu,cuda talk.wav       two backends
  voxtral compare --decodes sequential,parallel      the built-in sample
  voxtral compare --isas portable,auto *.wav         plain kernels and vectors
  voxtral compare --models DIR,DIR *.wav --format html -o report.html
  voxtral compare --refs refs.tsv --max-wer 0.05     a line each: recording, tab, what is said in it

The first side is the reference. Exit code 3: the sides differ by more than a limit allows, or a backend that was named is not there.";

#[derive(Args)]
#[command(after_help = COMPARE_EXAMPLES)]
pub(crate) struct Compare {
    /// Recordings to transcribe on both sides [default: the built-in sample]; or two JSON files, where no flag names the sides
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub sides: Sides,

    /// Largest part of the words that may not match, letter case aside; difflib's measure [default: 0.005, with --refs: none]
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub tolerance: Option<f64>,

    /// Largest word error rate, without case and punctuation: 0.05 is 5 %
    #[arg(long, value_name = "RATE", value_parser = ratio)]
    pub max_wer: Option<f64>,

    /// Largest difference of the log-probabilities of a token that both sides have
    #[arg(long, value_name = "NATS", value_parser = ratio)]
    pub max_drift: Option<f64>,

    /// How the report is written
    #[arg(long, value_enum, default_value_t = CompareFormat::Text)]
    pub format: CompareFormat,

    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    // Its heading would be over what comes after it, too.
    #[command(flatten)]
    pub setup: Setup,
}

/// What the two sides are, where they are not files: one of these.
#[derive(Args, Default)]
#[group(multiple = false)]
pub(crate) struct Sides {
    /// Two backends
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',')]
    pub backends: Vec<BackendChoice>,

    /// Two ways to find tokens
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',')]
    pub decodes: Vec<DecodeChoice>,

    /// Two instruction sets of the CPU
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',')]
    pub isas: Vec<IsaChoice>,

    /// Two precisions on the CPU
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',')]
    pub precisions: Vec<PrecisionChoice>,

    /// Two models
    #[arg(long, value_name = "DIR,DIR", value_delimiter = ',')]
    pub models: Vec<ModelRef>,

    /// References: each line a recording, a tab and what is said in it; names are relative to this file
    #[arg(long, value_name = "FILE.tsv", conflicts_with_all = ["files", "max_drift"])]
    pub refs: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompareFormat {
    Text,
    Json,
    /// One page with both transcripts side by side
    Html,
}
