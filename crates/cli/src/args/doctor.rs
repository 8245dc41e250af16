//! `voxtral doctor`.

use std::path::PathBuf;

use clap::Args;
use voxtral::ModelRef;

use super::BackendChoice;
use super::setup::{model, unless_empty};

#[derive(Args, Clone)]
#[command(
    after_help = "Exit codes: 0 it runs, 3 what was asked for cannot run, 1 FILE or the output is at fault, 2 wrong usage."
)]
pub(crate) struct Doctor {
    /// The recording that --acceptance transcribes [default: the built-in sample of spoken digits]
    #[arg(value_name = "FILE", requires = "acceptance")]
    pub file: Option<PathBuf>,

    /// The model to look at, as for transcribing: a folder, the name of one that was downloaded, or "digits", the built-in demo
    #[arg(short = 'd', long, value_name = "DIR|NAME|digits", env = unless_empty("VOXTRAL_MODEL"), value_parser = model())]
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
