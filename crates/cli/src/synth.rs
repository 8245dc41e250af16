//! `voxtral synth-model`.

use voxtral_model::{ModelConfig, write_synthetic};

use crate::args::SynthModel;
use crate::progress::Progress;

pub(crate) fn run(args: &SynthModel) -> anyhow::Result<()> {
    let (fields, sizes): (Vec<&String>, Vec<&String>) = args.size.iter().partition(|size| size.contains('='));
    let size = match sizes[..] {
        [] => "full",
        [size] => size,
        [..] => anyhow::bail!("--size takes one size, got {}", sizes.len()),
    };
    let config = ModelConfig::synthetic(size, &fields)?;
    let mut progress = Progress::new("writing", true);
    write_synthetic(&args.out, &config, args.seed, |written, total| progress.show(written, total))?;
    drop(progress);
    eprintln!("voxtral: {} parameters in {}", config.parameters(), args.out.display());
    Ok(())
}
