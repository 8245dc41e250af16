//! `voxtral quantize`.

use std::path::PathBuf;

use clap::Args;
use voxtral::Delay;
use voxtral_model::Group;

use super::setup::delay;

const QUANTIZE_EXAMPLES: &str = "\
Examples:
  voxtral quantize --model DIR --out DIR-int8 --bits 8                  half the memory; what is written hardly changes
  voxtral quantize --model DIR --out DIR-int4 --bits 4 --check *.wav    a third of it; and how far transcripts drift
  voxtral quantize --model DIR --out DIR-12 --bits 12                   three quarters, and not a bit of what comes out changes

On standard output, a line for each matrix: its name, how it is packed, and the root of the mean square of what its weights are off by, \
where that of the weights is 1.";

#[derive(Args)]
#[command(after_help = QUANTIZE_EXAMPLES)]
pub(crate) struct Quantize {
    /// The model, a folder of either layout
    #[arg(short = 'd', long, value_name = "DIR")]
    pub model: PathBuf,

    /// Folder to write to; it is made if need be
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Bits of a weight: 16 is bf16 packed as CPUs read it fastest, 12 the same without loss, 8 and 4 are rounded. With 4, encoder and
    /// head have 8 unless --encoder and --head say otherwise
    #[arg(long, value_name = "16|12|8|4", value_parser = bits)]
    pub bits: u8,

    /// Weights that share a scale, with 8 and 4 bits: fewer are more exact and take more memory
    #[arg(long, value_name = "32|64|128", default_value = "32", value_parser = group)]
    pub group: Group,

    /// Bits of the encoder's and the adapter's weights
    #[arg(long, value_name = "BITS", value_parser = bits)]
    pub encoder: Option<u8>,

    /// Bits of the decoder's weights
    #[arg(long, value_name = "BITS", value_parser = bits)]
    pub decoder: Option<u8>,

    /// Bits of the embedding, which is also the head
    #[arg(long, value_name = "BITS", value_parser = bits)]
    pub head: Option<u8>,

    /// Recordings that both models transcribe on the CPU, to tell how far words and log-probabilities drift
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub check: Vec<PathBuf>,

    /// The delay of --check, as for transcribing
    #[arg(long, value_name = "MS", value_parser = delay, requires = "check")]
    pub delay: Option<Delay>,
}

pub(super) fn bits(text: &str) -> Result<u8, String> {
    let bits = text.parse().ok().filter(|bits| [16, 12, 8, 4].contains(bits));
    bits.ok_or_else(|| format!("{text:?} is not 16, 12, 8 or 4"))
}

fn group(text: &str) -> Result<Group, String> {
    text.parse().ok().and_then(Group::of).ok_or_else(|| format!("{text:?} is not 32, 64 or 128"))
}
