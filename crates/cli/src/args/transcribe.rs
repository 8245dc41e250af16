//! `voxtral FILE…`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use voxtral::{Channel, SampleFormat};
use voxtral_audio::{MAX_CHANNELS, MAX_RATE, MIN_RATE};
use voxtral_model::TOKEN_MS;

use super::{Setup, name};

const RATES: RangeInclusive<i64> = MIN_RATE as i64..=MAX_RATE as i64;
const CHANNELS: RangeInclusive<i64> = 1..=MAX_CHANNELS as i64;

/// What is transcribed, with what, and what is written.
#[derive(Args)]
pub(crate) struct Transcribe {
    #[command(flatten)]
    pub inputs: Inputs,

    #[command(flatten)]
    pub outputs: Outputs,

    #[command(flatten)]
    pub setup: Setup,

    #[command(flatten)]
    pub work: Work,
}

/// What is transcribed.
#[derive(Args)]
#[command(next_help_heading = "Input")]
pub(crate) struct Inputs {
    /// Recordings, or folders of them; - is standard input
    ///
    /// Formats are told by their content: WAV, FLAC, MP3, M4A, Opus, MKV and more; what is not built in goes through ffmpeg.
    #[arg(value_name = "FILE", help_heading = None::<&str>)]
    pub files: Vec<PathBuf>,

    /// The same as FILE
    #[arg(short, long = "input", value_name = "FILE")]
    pub inputs: Vec<PathBuf>,

    /// Look for recordings in the folders of a folder, too
    #[arg(short, long)]
    pub recursive: bool,

    /// Standard input while it arrives: any known format, or else raw samples
    #[arg(long)]
    pub stdin: bool,

    /// What a microphone hears, until Ctrl-C
    ///
    /// The default one, or a device by its name, a part of its description, or its number in --list-devices.
    #[arg(long, alias = "from-mic", value_name = "DEVICE")]
    pub mic: Option<Option<String>>,

    /// List the devices that --mic can record from
    #[arg(long, conflicts_with_all = ["files", "inputs", "stdin", "mic"])]
    pub list_devices: bool,

    /// Sample format of raw standard input
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = RawSample::S16le)]
    pub raw_format: RawSample,

    /// Sample rate of raw standard input
    #[arg(long, value_name = "HZ", default_value_t = 16_000, value_parser = clap::value_parser!(u32).range(RATES))]
    pub raw_rate: u32,

    /// Channels of raw standard input
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(CHANNELS))]
    pub raw_channels: u16,

    /// The audio track, counted from 1
    ///
    /// The default is the one that the file marks as that, else the first that can be decoded.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub track: Option<u16>,

    /// The mix of all channels, or one of them, counted from 1
    #[arg(long, value_name = "N|mix", default_value = "mix", value_parser = channel)]
    pub channel: Channel,
}

/// What is written, and where.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Outputs {
    /// What is written; several with commas between them, into a folder
    #[arg(long, value_name = "FORMAT,…", value_enum, value_delimiter = ',', default_values_t = [Format::Text])]
    pub format: Vec<Format>,

    /// To a file, or to a folder, with a file for each input and format
    ///
    /// A path that ends in / is a folder, which is made if need be; - is standard output. Files appear when all is written.
    #[arg(short, long, value_name = "FILE|DIR/")]
    pub output: Option<PathBuf>,

    /// Leave out inputs that have their files in -o DIR/ already
    ///
    /// One that is interrupted writes no file then, since the next run would take it for the whole.
    #[arg(long)]
    pub skip_existing: bool,

    /// A time at each line of text
    #[arg(long)]
    pub timestamps: bool,

    /// Each word with its times: a line of text, a subtitle
    #[arg(long)]
    pub words: bool,

    /// Also what the model nearly wrote: [a word| another]
    ///
    /// CUTOFF says how near it must be in probability: 0 is as probable, 0.5 half as probable, 1 any. Up to two are shown.
    #[arg(long, value_name = "CUTOFF", value_parser = cutoff)]
    pub alt: Option<f32>,

    /// A new line where speech pauses for so long
    ///
    /// 200 to 60000 milliseconds. In jsonl it is a final event. The model hears the pauses all the same: nothing is left out.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(200..=60_000))]
    pub endpoint: Option<u32>,

    /// List every token with its log-probability in the JSON
    #[arg(long)]
    pub tokens: bool,
}

/// How it goes about it.
#[derive(Args)]
#[command(next_help_heading = "Work")]
pub(crate) struct Work {
    /// Seconds of live audio that are taken at once: more is less work, and later text
    #[arg(short = 'I', long, value_name = "S", value_parser = interval)]
    pub interval: Option<usize>,

    /// Recordings that are transcribed at the same time
    ///
    /// A pass over several costs little more than over one.
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=128))]
    pub jobs: u8,

    /// Stop at the model's end-of-sequence token instead of at the end of the audio
    #[arg(long)]
    pub stop_at_eos: bool,

    /// The status of live audio also where there is no terminal
    ///
    /// Time, level, lag and speed, a line each second.
    #[arg(long)]
    pub monitor: bool,

    /// Nothing on standard error but errors
    #[arg(long, conflicts_with_all = ["verbose", "monitor"])]
    pub silent: bool,

    /// More on standard error: devices, times
    #[arg(short, long)]
    pub verbose: bool,
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

fn channel(text: &str) -> Result<Channel, String> {
    match text.parse() {
        _ if text == "mix" => Ok(Channel::Mix),
        Ok(number @ 1..=MAX_CHANNELS) => Ok(Channel::One(number)),
        _ => Err(format!("a number from 1 to {MAX_CHANNELS}, or mix")),
    }
}

fn cutoff(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|cutoff| (0.0..=1.0).contains(cutoff))
        .ok_or_else(|| format!("{text:?} is not from 0 to 1"))
}

/// Seconds, as tokens.
fn interval(text: &str) -> Result<usize, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 => Ok((seconds * 1000.0 / f64::from(TOKEN_MS)).ceil() as usize),
        _ => Err(format!("{text:?} is not a number of seconds above 0")),
    }
}
