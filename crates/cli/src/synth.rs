//! `voxtral synth-model`.

use std::io::{IsTerminal, Write};

use clap::error::ErrorKind;
use voxtral_model::{ModelConfig, write_synthetic};

use crate::args::{SynthModel, usage};
use crate::output::say;

pub(crate) fn run(args: &SynthModel) -> anyhow::Result<()> {
    let (fields, sizes): (Vec<&String>, Vec<&String>) = args.size.iter().partition(|size| size.contains('='));
    let size = match sizes[..] {
        [] => "full",
        [size] => size,
        [..] => usage(ErrorKind::TooManyValues, format!("--size takes one size, got {}", sizes.len())),
    };
    let config = ModelConfig::synthetic(size, &fields).unwrap_or_else(|e| usage(ErrorKind::ValueValidation, e));
    let mut progress = std::io::stderr().is_terminal().then_some(0);
    write_synthetic(&args.out, &config, args.seed, |written, total| {
        let percent = written * 100 / total.max(1);
        if progress.is_some_and(|shown| shown < percent) {
            progress = Some(percent);
            // Nothing is lost with a line of progress.
            let _ = write!(std::io::stderr(), "\r{percent} % of {} MB", total / 1_000_000);
        }
    })?;
    if progress.is_some() {
        eprintln!();
    }
    say(&format!("{} parameters in {}", config.parameters(), args.out.display()));
    Ok(())
}
