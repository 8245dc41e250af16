//! The command line, as it is typed.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use voxtral::ModelRef;
use voxtral_audio::{MAX_CHANNELS, MAX_RATE, MIN_RATE, SampleFormat};
use voxtral_model::{Delay, Group, Recipe, TOKEN_MS};

const RATES: RangeInclusive<i64> = MIN_RATE as i64..=MAX_RATE as i64;
const CHANNELS: RangeInclusive<i64> = 1..=MAX_CHANNELS as i64;

const EXAMPLES: &str = "\
Examples:
  voxtral talk.mp3                                   text on standard output, as it is recognised
  voxtral --format json --tokens *.wav -o out.jsonl  one JSON object a file
  voxtral --format srt,json *.mp3 -o out/            subtitles and JSON of each, in a folder
  ffmpeg -v error -i URL -f s16le -ar 16000 -ac 1 - | voxtral --stdin
  voxtral -d ~/models/voxtral-mini-4b-realtime talk.wav

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bench or compare: a limit did not hold, doctor: what was asked for cannot run, \
130 interrupted before a recording's end, or before anything was heard.";

/// Writes down what is said, on your own machine, with Mistral's Voxtral Realtime.
#[derive(Parser)]
#[command(name = "voxtral", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
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
    /// Make a model smaller and faster: its weights packed in 8 or 4 bits, or in 12 or 16 without loss
    Quantize(Quantize),
    /// Write a model of random weights: for benchmarks and tests, it transcribes nonsense
    SynthModel(SynthModel),
}

#[derive(Args)]
pub(crate) struct Transcribe {
    /// Recordings to transcribe, told by their content: WAV, FLAC, MP3, AAC/M4A, Ogg Vorbis and more; - is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The same as FILE
    #[arg(short, long = "input", value_name = "FILE")]
    pub inputs: Vec<PathBuf>,

    /// Transcribe standard input while it arrives: any known format, or else raw samples
    #[arg(long)]
    pub stdin: bool,

    /// Sample format of raw standard input
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = RawSample::S16le)]
    pub raw_format: RawSample,

    /// Sample rate of raw standard input
    #[arg(long, value_name = "HZ", default_value_t = 16_000, value_parser = clap::value_parser!(u32).range(RATES))]
    pub raw_rate: u32,

    /// Channels of raw standard input
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(CHANNELS))]
    pub raw_channels: u16,

    #[command(flatten)]
    pub setup: Setup,

    /// Seconds of live audio that are taken at once: more is less work, and later text [default: as little as keeps up]
    #[arg(short = 'I', long, value_name = "S", value_parser = interval)]
    pub interval: Option<usize>,

    /// Recordings that are transcribed at the same time; a pass over several costs little more than over one
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=128))]
    pub jobs: u8,

    /// What is written; several with commas between them, into a folder
    #[arg(long, value_name = "FORMAT,…", value_enum, value_delimiter = ',', default_values_t = [Format::Text])]
    pub format: Vec<Format>,

    /// Write to a file, which appears when all is written; to a folder, where it ends in /, with a file for each input and format;
    /// - is standard output
    #[arg(short, long, value_name = "FILE|DIR/")]
    pub output: Option<PathBuf>,

    /// A time at each line of text
    #[arg(long)]
    pub timestamps: bool,

    /// Each word with its times: a line of text, a subtitle
    #[arg(long)]
    pub words: bool,

    /// List every token with its log-probability in the JSON
    #[arg(long)]
    pub tokens: bool,

    /// Stop at the model's end-of-sequence token instead of at the end of the audio
    #[arg(long)]
    pub stop_at_eos: bool,

    /// Nothing on standard error but errors
    #[arg(long, conflicts_with = "verbose")]
    pub silent: bool,

    /// More on standard error: devices, times
    #[arg(short, long)]
    pub verbose: bool,
}

/// Which model, on what, and how its tokens are found: what every command that transcribes is told.
#[derive(Args, Clone)]
pub(crate) struct Setup {
    /// The model: a folder with params.json, tekken.json and consolidated.safetensors, or with Hugging Face files; "digits" is
    /// the built-in demo, which knows spoken English digits only and is the default. An empty VOXTRAL_MODEL counts as none
    #[arg(short = 'd', long, value_name = "DIR|digits", env = unless_empty("VOXTRAL_MODEL"), value_parser = model())]
    pub model: Option<ModelRef>,

    /// How long after a word it is written: 80 to 1200 in steps of 80, or 2400. More is more accurate. Default: what the model
    /// recommends, 480 for Voxtral Mini 4B Realtime
    #[arg(long, value_name = "MS", value_parser = delay)]
    pub delay: Option<Delay>,

    /// What computes
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,

    /// Which GPU, counted from 0; CUDA_VISIBLE_DEVICES applies
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,

    /// What the CPU computes in: f32 is the reference; auto rounds activations as the weights are, to bf16 or 8 bits
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

/// The name of a choice, as it is typed.
pub(crate) fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The text, as it is recognised
    Text,
    /// One JSON object a recording, on a line
    Json,
    /// What happens as it happens: a line of JSON for each event, as schemas/jsonl.schema.json describes it
    Jsonl,
    /// Subtitles: SubRip
    Srt,
    /// Subtitles: WebVTT
    Vtt,
    /// Subtitles as a table: start and end in milliseconds, text
    Tsv,
}

impl Format {
    /// How the names of its files end.
    pub(crate) fn extension(self) -> String {
        if self == Self::Text { "txt".to_owned() } else { name(self) }
    }
}

/// Little-endian sample formats.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RawSample {
    U8,
    S16le,
    S24le,
    S32le,
    F32le,
    F64le,
    Alaw,
    Mulaw,
}

impl From<RawSample> for SampleFormat {
    fn from(raw: RawSample) -> Self {
        match raw {
            RawSample::U8 => Self::U8,
            RawSample::S16le => Self::S16,
            RawSample::S24le => Self::S24,
            RawSample::S32le => Self::S32,
            RawSample::F32le => Self::F32,
            RawSample::F64le => Self::F64,
            RawSample::Alaw => Self::ALaw,
            RawSample::Mulaw => Self::MuLaw,
        }
    }
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 it runs, 3 what was asked for cannot run, 1 FILE or the output is at fault, 2 wrong usage."
)]
pub(crate) struct Doctor {
    /// The recording that --acceptance transcribes [default: the built-in sample of spoken digits]
    #[arg(value_name = "FILE", requires = "acceptance")]
    pub file: Option<PathBuf>,

    /// The model to look at: a folder, or "digits", the built-in demo and the default
    #[arg(short = 'd', long, value_name = "DIR|digits", env = unless_empty("VOXTRAL_MODEL"), value_parser = model())]
    pub model: Option<ModelRef>,

    /// What is to compute; with cuda, a GPU that cannot be used is a failure
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,

    /// Which GPU, counted from 0; CUDA_VISIBLE_DEVICES applies
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,

    /// Also transcribe with the model in every way that the program promises, on all backends, and compare; takes minutes on a
    /// CPU with the full-size model
    #[arg(long)]
    pub acceptance: bool,

    /// Print one JSON object instead of lines, as schemas/doctor.schema.json describes it
    #[arg(long)]
    pub json: bool,

    /// Also write the JSON object to a file
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  voxtral bench                                      the built-in sample
  voxtral bench --backends cpu,cuda talk.wav         two backends, one after the other
  voxtral bench --live talk.wav                      how late is each word?
  voxtral bench --live --sessions 50 --minutes 10    does it keep up with 50 streams that have gone on for 10 minutes?
  voxtral bench --format json -o before.json talk.wav
  voxtral bench --against before.json talk.wav       after a change

Exit code 3: something takes longer than --max-slowdown allows, or a backend that was named is not there.";

#[derive(Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub(crate) struct Bench {
    /// Recordings to measure with [default: the built-in sample, 8 seconds]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub setup: Setup,

    /// Backends to measure, one after the other
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',', conflicts_with = "backend")]
    pub backends: Vec<BackendChoice>,

    /// Runs that count; one that does not goes before them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repeat: u16,

    /// Feed the audio as fast as it is spoken, and tell how long after each word was heard it came out
    #[arg(long)]
    pub live: bool,

    /// With --live: so many streams at a time, the recordings repeated without an end; tells how late their tokens are
    #[arg(long, value_name = "N", requires = "live", conflicts_with_all = ["repeat", "against"])]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub sessions: Option<u16>,

    /// With --sessions: minutes that each stream has heard before it is measured, pushed as fast as possible
    #[arg(long, value_name = "M", requires = "sessions", default_value_t = 0.0, value_parser = minutes)]
    pub minutes: f64,

    /// With --sessions: seconds that are measured
    #[arg(long, value_name = "S", requires = "sessions", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub seconds: u16,

    /// With --sessions: recordings that are transcribed at the same time, as fast as they go
    #[arg(long = "files", value_name = "K", requires = "sessions", default_value_t = 0, value_parser = clap::value_parser!(u8))]
    pub beside: u8,

    /// How the figures are written; JSON is what --against reads
    #[arg(long, value_enum, default_value_t = BenchFormat::Table)]
    pub format: BenchFormat,

    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// Compare with what an earlier bench wrote as JSON; past --max-slowdown the exit code is 3
    #[arg(long, value_name = "OLD.json")]
    pub against: Option<PathBuf>,

    /// How many times as long as in --against the whole, the encoder and the median pass may take
    #[arg(long, value_name = "RATIO", default_value_t = 1.1, value_parser = ratio)]
    pub max_slowdown: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    Table,
    Json,
    Csv,
}

const COMPARE_EXAMPLES: &str = "\
Examples:
  voxtral compare before.json after.json             two files of voxtral --format json --tokens
  voxtral compare --backends cpu,cuda talk.wav       two backends
  voxtral compare --decodes sequential,parallel      the built-in sample
  voxtral compare --isas portable,auto *.wav         plain kernels and vectors
  voxtral compare --models DIR,DIR *.wav --format html -o report.html
  voxtral compare --refs refs.tsv --max-wer 0.05     a line each: recording, tab, what is said in it

The first side is the reference. Exit code 3: the sides differ by more than a limit allows, or a backend that was named is not there.";

#[derive(Args)]
#[command(after_help = COMPARE_EXAMPLES)]
pub(crate) struct Compare {
    /// Recordings to transcribe on both sides [default: the built-in sample]; or two JSON files, where no flag names the sides
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub sides: Sides,

    #[command(flatten)]
    pub setup: Setup,

    /// Largest part of the words that may not match, letter case aside; difflib's measure [default: 0.005, with --refs: none]
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub tolerance: Option<f64>,

    /// Largest word error rate, without case and punctuation: 0.05 is 5 %
    #[arg(long, value_name = "RATE", value_parser = ratio)]
    pub max_wer: Option<f64>,

    /// Largest difference of the log-probabilities of a token that both sides have
    #[arg(long, value_name = "NATS", value_parser = ratio)]
    pub max_drift: Option<f64>,

    /// How the report is written
    #[arg(long, value_enum, default_value_t = CompareFormat::Text)]
    pub format: CompareFormat,

    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// What the two sides are, where they are not files: one of these.
#[derive(Args, Default)]
#[group(multiple = false)]
pub(crate) struct Sides {
    /// Two backends
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',')]
    pub backends: Vec<BackendChoice>,

    /// Two ways to find tokens
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',')]
    pub decodes: Vec<DecodeChoice>,

    /// Two instruction sets of the CPU
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',')]
    pub isas: Vec<IsaChoice>,

    /// Two precisions on the CPU
    #[arg(long, value_name = "A,B", value_enum, value_delimiter = ',')]
    pub precisions: Vec<PrecisionChoice>,

    /// Two models
    #[arg(long, value_name = "DIR,DIR", value_delimiter = ',')]
    pub models: Vec<ModelRef>,

    /// References: each line a recording, a tab and what is said in it; names are relative to this file
    #[arg(long, value_name = "FILE.tsv", conflicts_with_all = ["files", "max_drift"])]
    pub refs: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompareFormat {
    Text,
    Json,
    /// One page with both transcripts side by side
    Html,
}

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

/// The name of an environment variable that stands for a flag; none where its value is empty, which is as good as not set.
fn unless_empty(variable: &'static str) -> Option<&'static str> {
    std::env::var_os(variable).is_none_or(|value| !value.is_empty()).then_some(variable)
}

/// "digits", or a folder. A name that is empty, as of a variable that is not set, is none.
fn model() -> impl TypedValueParser<Value = ModelRef> {
    PathBufValueParser::new().map(|path| ModelRef::from(path.into_os_string()))
}

fn delay(text: &str) -> Result<Delay, String> {
    let ms = text.parse().map_err(|_| format!("{text:?} is not a number of milliseconds"))?;
    Delay::from_ms(ms).map_err(|e| e.to_string())
}

fn bits(text: &str) -> Result<u8, String> {
    let bits = text.parse().ok().filter(|bits| [16, 12, 8, 4].contains(bits));
    bits.ok_or_else(|| format!("{text:?} is not 16, 12, 8 or 4"))
}

fn group(text: &str) -> Result<Group, String> {
    text.parse().ok().and_then(Group::of).ok_or_else(|| format!("{text:?} is not 32, 64 or 128"))
}

fn audio_weight(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|weight| (0.0..=1000.0).contains(weight))
        .ok_or_else(|| format!("{text:?} is not from 0 to 1000"))
}

/// At most a day.
fn minutes(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|m| (0.0..=1440.0).contains(m)).ok_or_else(|| format!("{text:?} is not from 0 to 1440"))
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio.is_finite() && ratio >= 0.0 => Ok(ratio),
        _ => Err(format!("{text:?} is not a number from 0 up")),
    }
}

/// Seconds, as tokens.
fn interval(text: &str) -> Result<usize, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 => Ok((seconds * 1000.0 / f64::from(TOKEN_MS)).ceil() as usize),
        _ => Err(format!("{text:?} is not a number of seconds above 0")),
    }
}

/// Ends the program as a wrong flag does.
pub(crate) fn usage(kind: ErrorKind, message: impl std::fmt::Display) -> ! {
    let mut command = Cli::command();
    command.build();
    // A subcommand is the first of the arguments.
    let named = std::env::args_os().nth(1).and_then(|name| command.find_subcommand(name).cloned());
    named.unwrap_or(command).error(kind, message).exit()
}
