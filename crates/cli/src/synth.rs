//! `voxtral synth-model`.

use clap::error::ErrorKind;
use voxtral_model::{Group, ModelConfig, Recipe, write_synthetic};

use crate::args::{SynthModel, usage};
use crate::output::say;
use crate::progress;
use crate::quantize::encoding;

pub(crate) fn run(args: &SynthModel) -> anyhow::Result<()> {
    let (fields, sizes): (Vec<&String>, Vec<&String>) = args.size.iter().partition(|size| size.contains('='));
    let size = match sizes[..] {
        [] => "full",
        [size] => size,
        [..] => usage(ErrorKind::TooManyValues, format!("--size takes one size, got {}", sizes.len())),
    };
    let config = ModelConfig::synthetic(size, &fields).unwrap_or_else(|e| usage(ErrorKind::ValueValidation, e));
    let recipe = Recipe { seed: args.seed, audio: args.audio };
    let plan = args.bits.map(|bits| voxtral_model::Plan::all(encoding(bits, Group::default())));
    progress::writing("writing", |progress| write_synthetic(&args.out, &config, recipe, plan.as_ref(), progress))?;
    say(&format!("{} parameters in {}", config.parameters(), args.out.display()));
    Ok(())
}
