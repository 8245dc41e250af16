//! What is written down of what the program does, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::args::{Cli, Command, LogForm};
use crate::progress;

/// Begins to write down what the command line wants to know.
pub(crate) fn begin(cli: &Cli) {
    let serving = match &cli.command {
        Some(Command::Serve(args)) => Some(args.log),
        _ => None,
    };
    let level = match serving {
        Some(_) => LevelFilter::INFO,
        None if cli.transcribe.work.verbose => LevelFilter::DEBUG,
        None => LevelFilter::WARN,
    };
    if cli.transcribe.work.silent {
        return;
    }
    let ours = ["voxtral", "voxtral_cpu", "voxtral_cuda", "voxtral_engine", "voxtral_server"].map(|name| (name, level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| progress::Stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let lines = match serving {
        None => lines.without_time().boxed(),
        Some(LogForm::Text) => lines.boxed(),
        Some(LogForm::Json) => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(Targets::new().with_targets(ours))).init();
}
