//! `voxtral synth-model`.

use std::path::PathBuf;

use clap::Args;
use voxtral_model::Recipe;

use super::quantize::bits;

#[derive(Args)]
pub(crate) struct SynthModel {
    /// Folder to write to; it is made if need be
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// "full" (the released model's dimensions, 8.9 GB), "small", and FIELD=VALUE for dimensions that differ from it, such as
    /// decoder.layers=4
    #[arg(long, value_name = "SIZE|FIELD=VALUE", num_args = 1.., default_value = "full")]
    pub size: Vec<String>,

    /// Pack the weights, all in so many bits, as quantize does [default: bf16 as checkpoints are released]
    #[arg(long, value_name = "16|12|8|4", value_parser = bits)]
    pub bits: Option<u8>,

    /// Another seed is another model
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// How much the audio counts for a token, where the token before counts 1 and all layers count 3: the more, the more of
    /// parallel decoding's guesses hold
    #[arg(long, value_name = "WEIGHT", default_value_t = Recipe::AUDIO, value_parser = audio_weight)]
    pub audio: f32,
}

fn audio_weight(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|weight| (0.0..=1000.0).contains(weight))
        .ok_or_else(|| format!("{text:?} is not from 0 to 1000"))
}
