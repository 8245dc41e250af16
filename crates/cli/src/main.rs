//! The program `voxtral`: flags to parts, parts to text.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod beside;
mod compare;
mod destination;
mod doctor;
mod download;
mod folders;
mod input;
mod interrupt;
mod log;
mod machine;
mod manual;
mod microphone;
mod models;
mod open;
mod output;
mod progress;
mod quantize;
mod recording;
mod screen;
mod serve;
mod status;
mod synth;
mod transcribe;
mod turns;
mod wsl;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    voxtral_files::survive_size_limit();
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    log::begin(&cli);
    quieten_contained_panics();
    let result = match &cli.command {
        Some(Command::Bench(args)) => bench::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Compare(args)) => compare::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Doctor(args)) => doctor::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Download(args)) => download::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Quantize(args)) => quantize::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Serve(args)) => serve::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::SynthModel(args)) => synth::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Completions(args)) => manual::completions(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Man(args)) => manual::man(args).map(|()| ExitCode::SUCCESS),
        None if cli.transcribe.inputs.list_devices => microphone::list().map(|()| ExitCode::SUCCESS),
        None => transcribe::run(&cli.transcribe),
    };
    result.unwrap_or_else(|error| failed(&error))
}

/// The command line was answered with help, or is wrong; or a file that it names is.
fn not_understood(error: &anyhow::Error) -> ExitCode {
    let Some(answer) = error.downcast_ref::<clap::Error>() else { return failed(error) };
    match output::answer(answer) {
        Err(error) if !answer.use_stderr() => failed(&error),
        _ => u8::try_from(answer.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if output::is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    output::complain(error);
    if error.is::<output::Unmet>() {
        ExitCode::from(3)
    } else if error.is::<interrupt::Interrupted>() {
        ExitCode::from(interrupt::INTERRUPTED)
    } else {
        ExitCode::FAILURE
    }
}

/// A decoder that panics over a damaged file is an error with a line of its own; any other panic is told as usual.
fn quieten_contained_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !voxtral_audio::is_containing_panics() {
            tell(panic);
        }
    }));
}
