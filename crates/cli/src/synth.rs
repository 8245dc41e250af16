//! `voxtral synth-model`.

use std::io::{IsTerminal, Write};

use voxtral_model::{ModelConfig, write_synthetic};

use crate::args::SynthModel;

pub(crate) fn run(args: &SynthModel) -> anyhow::Result<()> {
    let (fields, sizes): (Vec<&String>, Vec<&String>) = args.size.iter().partition(|size| size.contains('='));
    let size = match sizes[..] {
        [] => "full",
        [size] => size,
        [..] => anyhow::bail!("--size takes one size, got {}", sizes.len()),
    };
    let config = ModelConfig::synthetic(size, &fields)?;
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
    eprintln!("voxtral: {} parameters in {}", config.parameters(), args.out.display());
    Ok(())
}
