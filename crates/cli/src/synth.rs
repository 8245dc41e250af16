//! `voxtral synth-model`.

use std::io;
use std::sync::atomic::Ordering;

use clap::error::ErrorKind;
use voxtral_model::{ModelConfig, Recipe, write_synthetic};

use crate::args::{SynthModel, usage};
use crate::interrupt;
use crate::output::say;
use crate::progress::Progress;

pub(crate) fn run(args: &SynthModel) -> anyhow::Result<()> {
    let (fields, sizes): (Vec<&String>, Vec<&String>) = args.size.iter().partition(|size| size.contains('='));
    let size = match sizes[..] {
        [] => "full",
        [size] => size,
        [..] => usage(ErrorKind::TooManyValues, format!("--size takes one size, got {}", sizes.len())),
    };
    let config = ModelConfig::synthetic(size, &fields).unwrap_or_else(|e| usage(ErrorKind::ValueValidation, e));
    let mut progress = Progress::new("writing", true);
    let recipe = Recipe { seed: args.seed, audio: args.audio };
    // Ctrl-C takes the unfinished files away; a second one does not wait for that.
    let interrupted = interrupt::noted()?;
    let written = write_synthetic(&args.out, &config, recipe, None, |written, total| {
        progress.show(written, total);
        if interrupted.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    drop(progress);
    if written.is_err() && interrupted.load(Ordering::Relaxed) {
        interrupt::end();
    }
    written?;
    say(&format!("{} parameters in {}", config.parameters(), args.out.display()));
    Ok(())
}
