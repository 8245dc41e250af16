//! Which model, on what, and how its tokens are found.

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use voxtral::{Delay, ModelRef};

/// Which model, on what, and how its tokens are found: what every command that transcribes is told.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model and computing")]
pub(crate) struct Setup {
    /// The model: a folder, the name of one that was downloaded, or digits
    ///
    /// A folder has params.json, tekken.json and consolidated.safetensors, or Hugging Face's files. A name is voxtral-mini or OWNER/NAME,
    /// after `voxtral download`. "digits" is the built-in demo, which knows spoken English digits only. The default is voxtral-mini if that
    /// was downloaded, else digits. An empty VOXTRAL_MODEL counts as none.
    #[arg(short = 'd', long, value_name = "DIR|NAME|digits", env = unless_empty("VOXTRAL_MODEL"), value_parser = model())]
    pub model: Option<ModelRef>,

    /// How long after a word it is written: 80 to 1200 in steps of 80, or 2400
    ///
    /// More is more accurate. The default is what the model recommends, 480 for Voxtral Mini 4B Realtime.
    #[arg(long, value_name = "MS", value_parser = delay)]
    pub delay: Option<Delay>,

    /// What computes
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,

    /// Which GPU, counted from 0; CUDA_VISIBLE_DEVICES applies
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,

    /// What the CPU computes in
    ///
    /// f32 is the reference; auto rounds activations as the weights are, to bf16 or 8 bits.
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Auto)]
    pub precision: PrecisionChoice,

    /// Instructions that the CPU's kernels use: the best that it has, or these
    #[arg(long, value_enum, default_value_t = IsaChoice::Auto)]
    pub isa: IsaChoice,

    /// Threads on the CPU [default: one for each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// How tokens are found; the text is the same
    #[arg(long, value_enum, default_value_t = DecodeChoice::Auto)]
    pub decode: DecodeChoice,

    /// Positions a pass with --decode parallel
    #[arg(long, value_name = "K", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub lookahead: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendChoice {
    /// The GPU if one can be used, else the CPU
    Auto,
    /// The CPU
    Cpu,
    /// An NVIDIA GPU
    Cuda,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionChoice {
    Auto,
    F32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsaChoice {
    Auto,
    /// What runs everywhere, without vectors
    #[value(alias = "scalar")]
    Portable,
    Avx2,
    Avx2Vnni,
    Avx512,
    Avx512Vnni,
    Avx512Bf16,
    Neon,
    NeonDotprod,
    NeonI8mm,
    NeonBf16,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DecodeChoice {
    /// Guess as many tokens ahead as pays, and check them in one pass
    Auto,
    /// One token a pass
    Sequential,
    /// Always guess ahead, as far as --lookahead says
    Parallel,
}

/// The name of an environment variable that stands for a flag; none where its value is empty, which is as good as not set.
pub(super) fn unless_empty(variable: &'static str) -> Option<&'static str> {
    std::env::var_os(variable).is_none_or(|value| !value.is_empty()).then_some(variable)
}

/// "digits", or a folder or what is downloaded under that name. A name that is empty, as of a variable that is not set, is none.
pub(super) fn model() -> impl TypedValueParser<Value = ModelRef> {
    PathBufValueParser::new().map(|path| ModelRef::from(path.into_os_string()))
}

pub(super) fn delay(text: &str) -> Result<Delay, String> {
    let ms = text.parse().map_err(|_| format!("{text:?} is not a number of milliseconds"))?;
    Delay::from_ms(ms).map_err(|e| e.to_string())
}
