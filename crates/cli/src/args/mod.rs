//! The command line, as it is typed.

mod bench;
mod compare;
mod doctor;
mod layers;
mod quantize;
mod serve;
mod setup;
mod synth;
mod transcribe;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};

use crate::download::Download;
use crate::manual::{Completions, Man, VERSION};

pub(crate) use bench::{Bench, BenchFormat};
pub(crate) use compare::Sides;
pub(crate) use compare::{Compare, CompareFormat};
pub(crate) use doctor::Doctor;
pub(crate) use layers::{command, parse};
pub(crate) use quantize::Quantize;
pub(crate) use serve::{LogForm, Serve};
pub(crate) use setup::{BackendChoice, DecodeChoice, IsaChoice, PrecisionChoice, Setup};
pub(crate) use synth::SynthModel;
pub(crate) use transcribe::{Format, Inputs, Outputs, Transcribe};

const EXAMPLES: &str = "\
Examples:
  voxtral talk.mp3                                   text on standard output, as it is recognised
  voxtral --format json --tokens *.wav -o out.jsonl  one JSON object a file
  voxtral --format srt,json *.mp3 -o out/            subtitles and JSON of each, in a folder
  curl -s URL | voxtral -                            a stream, as it arrives
  voxtral --mic                                      what you say, until Ctrl-C
  voxtral download                                   the real model, which is the default then

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bench or compare: a limit did not hold, doctor: what was asked for cannot run, \
4 done, but some of the audio is damaged, 130 interrupted before a recording's end, or before anything was heard.";

/// Writes down what is said, on your own machine, with Mistral's Voxtral Realtime.
#[derive(Parser)]
#[command(name = "voxtral", version, long_version = VERSION.as_str(), args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub transcribe: Transcribe,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Measure speed, latency and memory, and compare them with an earlier measurement
    Bench(Bench),
    /// Compare two ways to transcribe the same recordings, or transcripts with references
    Compare(Compare),
    /// Look at this machine: what works, how fast it can be, and what to do about the rest
    Doctor(Doctor),
    /// Download a model, without a name the one that this program is for: 8.9 GB
    Download(Download),
    /// Make a model smaller and faster: its weights packed in 8 or 4 bits, or in 12 or 16 without loss
    Quantize(Quantize),
    /// Serve the model over HTTP and WebSockets, to the clients of OpenAI, Mistral and vLLM
    Serve(Serve),
    /// Write a model of random weights: for benchmarks and tests, it transcribes nonsense
    SynthModel(SynthModel),
    /// Write what makes a shell complete commands and flags
    Completions(Completions),
    /// Write a manual page
    Man(Man),
}

/// The name of a choice, as it is typed.
pub(crate) fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Ends the program as a wrong flag does.
pub(crate) fn usage(kind: ErrorKind, message: impl std::fmt::Display) -> ! {
    let mut command = command();
    command.build();
    // A subcommand is the first of the arguments.
    let named = std::env::args_os().nth(1).and_then(|name| command.find_subcommand(name).cloned());
    named.unwrap_or(command).error(kind, message).exit()
}

/// A limit, or how much of something there may be.
fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio.is_finite() && ratio >= 0.0 => Ok(ratio),
        _ => Err(format!("{text:?} is not a number from 0 up")),
    }
}
