//! What a backend makes of the built-in sample, and how fast its memory is.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use voxtral::{
    AudioSource, BackendChoice as Choice, Config, Error, Model, ModelRef, Options, SAMPLE_RATE, Source, Voxtral,
};
use voxtral_cuda::CudaBackend;
use voxtral_model::{ModelConfig, TOKEN_MS};
use voxtral_transcript::score::word_errors;

use super::check::{Check, Status};
use super::gpu::Gpu;
use super::model::Opened;
use crate::args::{BackendChoice, Doctor};
use crate::machine;
use crate::recording::{Recording, SAMPLE_WORDS};

/// What a second of audio may take, the model's loading included: the full-size model on two slow cores takes a quarter of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What computes.
#[derive(Clone, Copy)]
pub(crate) enum Device {
    Cpu,
    Cuda(usize),
}

impl Device {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }

    /// Puts a model there.
    pub(crate) fn open(self, model: &Model) -> Result<Voxtral, Error> {
        let config = match self {
            Self::Cpu => Config { backend: Choice::Cpu, ..Config::default() },
            Self::Cuda(device) => Config { backend: Choice::Cuda, device, ..Config::default() },
        };
        let opened = config.open_backend(model, &mut |_| {})?;
        Voxtral::with_backend(&config, model.clone(), opened.backend)
    }
}

/// The built-in model on the built-in sample, whose words are known.
pub(crate) fn sample(device: Device) -> Check {
    let start = Instant::now();
    let heard = || {
        let voxtral = device.open(&ModelRef::Digits.open()?)?;
        Recording::sample()?.hear(&voxtral, None)
    };
    let report = "this should not happen: please report it, with what `voxtral doctor --json` prints";
    let check = match heard() {
        Err(error) => Check::bad("sample", Status::Failure, format!("{error:#}"), report),
        Ok(heard) => {
            let summary = heard.summary;
            let errors = word_errors(SAMPLE_WORDS, &summary.text).total();
            let facts = json!({ "text": summary.text, "word_errors": errors, "audio_s": summary.audio_s });
            let check = if errors == 0 {
                let (audio, took) = (summary.audio_s, start.elapsed().as_secs_f64());
                Check::ok("sample", format!("the built-in sample was understood: {audio:.1} s of audio in {took:.1} s"))
            } else {
                let found = format!("heard {:?} instead of {SAMPLE_WORDS:?}", summary.text);
                Check::bad("sample", Status::Failure, found, report)
            };
            check.with(facts)
        }
    };
    check.on(device.name())
}

/// A second of the sample through the model that was asked about, where it is to run: to the end, and in numbers. What it
/// makes of it is its own affair. Also tells whether it ended: what has not is left behind, and goes on.
pub(crate) fn run(args: &Doctor, opened: &Opened) -> (Check, bool) {
    let Some(device) = opened.device else {
        let device = if args.backend == BackendChoice::Cuda { "cuda" } else { "cpu" };
        return (Check::skipped("run", "there is nothing that it fits").on(device), true);
    };
    let (told, outcome) = mpsc::channel();
    let model = Arc::clone(&opened.model);
    let start = Instant::now();
    // An engine cannot be told to stop in the middle of a pass.
    let thread = thread::Builder::new().spawn(move || told.send(hear_a_second(device, &model)));
    let outcome = match thread {
        Ok(_) => outcome.recv_timeout(PATIENCE),
        Err(why) => {
            return (Check::skipped("run", format!("there is no thread to be had: {why}")).on(device.name()), true);
        }
    };
    let ended = !matches!(outcome, Err(RecvTimeoutError::Timeout));
    (ran(outcome, start.elapsed()).on(device.name()), ended)
}

/// What came of it: the tokens, the error that it ended with, or neither.
fn ran(outcome: Result<anyhow::Result<usize>, RecvTimeoutError>, took: Duration) -> Check {
    match outcome {
        Ok(Ok(tokens)) => {
            let took = took.as_secs_f64();
            Check::ok("run", format!("loading it and transcribing a second of audio took {took:.1} s"))
                .with(json!({ "tokens": tokens, "took_s": took }))
        }
        Ok(Err(error)) => {
            let remedy = "get the model again from where it came from; if it stays, please report it, with what `voxtral doctor \
                          --json` prints";
            Check::bad("run", Status::Failure, format!("{error:#}"), remedy)
        }
        Err(RecvTimeoutError::Timeout) => {
            let found = format!("it did not get through a second of audio in {} s", PATIENCE.as_secs());
            Check::bad("run", Status::Failure, found, "compute on a GPU, end other programs, or take a smaller model")
        }
        Err(RecvTimeoutError::Disconnected) => {
            let remedy = "please report it, with the line above";
            Check::bad("run", Status::Failure, "it broke down over a second of audio", remedy)
        }
    }
}

/// The tokens of the sample's first second.
fn hear_a_second(device: Device, model: &Model) -> anyhow::Result<usize> {
    let mut source = AudioSource::from_reader(Cursor::new(voxtral_digits::SAMPLE), None)?;
    let mut samples = Vec::new();
    while samples.len() < SAMPLE_RATE as usize
        && let Some(block) = source.next_block()?
    {
        samples.extend_from_slice(block);
    }
    samples.truncate(SAMPLE_RATE as usize);
    let summary = device.open(model)?.transcribe(Source::samples(samples), &Options::default(), &mut ())?;
    Ok(summary.stats.tokens)
}

/// How fast weights can be read, and how long a step of the full-size model takes at the least.
pub(crate) fn speed(device: Device, gpu: &Gpu) -> Check {
    let rate = match device {
        Device::Cpu => match machine::read_rate(machine::threads()) {
            Ok(rate) => rate,
            Err(why) => return Check::skipped("speed", format!("{why:#}")).on(device.name()),
        },
        Device::Cuda(ordinal) => match CudaBackend::copy_rate(ordinal) {
            Ok(rate) => rate,
            Err(error) => {
                let remedy = "end other programs that use the GPU, and try again";
                return Check::bad("speed", Status::Warning, error.to_string(), remedy).on(device.name());
            }
        },
    };
    // In bf16, as it is released.
    let bytes = ModelConfig::released().decode_step_bytes(2);
    let step_ms = bytes as f64 / rate * 1e3;
    let rtf = step_ms / f64::from(TOKEN_MS);
    let facts = json!({ "bytes_per_s": rate, "step_bytes": bytes, "step_ms": step_ms, "real_time_factor": rtf });
    let found = format!(
        "memory at {:.0} GB/s: a step of the full-size model, which reads {:.2} GB, takes {step_ms:.1} ms or more, {rtf:.2} of \
         real time",
        rate / 1e9,
        bytes as f64 / 1e9
    );
    let check = if rtf < 1.0 || matches!(device, Device::Cpu) && gpu.usable.is_ok() {
        Check::ok("speed", found)
    } else {
        let remedy =
            "live audio needs a faster device; recordings take longer than they last, less so with parallel decoding";
        Check::bad("speed", Status::Warning, found, remedy)
    };
    check.with(facts).on(device.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_does_not_end_is_a_failure_with_a_line_of_its_own() {
        let slow = ran(Err(RecvTimeoutError::Timeout), PATIENCE);
        assert_eq!(
            (slow.status, slow.found.contains("did not get through a second of audio in 120 s")),
            (Status::Failure, true)
        );
        assert_eq!(ran(Err(RecvTimeoutError::Disconnected), PATIENCE).status, Status::Failure);
        assert_eq!(ran(Ok(Err(anyhow::anyhow!("no"))), PATIENCE).status, Status::Failure);
        assert_eq!(ran(Ok(Ok(30)), PATIENCE).status, Status::Ok);
    }
}
