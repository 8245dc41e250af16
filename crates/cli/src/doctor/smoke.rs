//! What a backend makes of the built-in sample, and how fast its memory is.

use std::time::Instant;

use serde_json::json;
use voxtral::{BackendChoice, Config, Error, Model, ModelRef, Voxtral};
use voxtral_cuda::CudaBackend;
use voxtral_model::{ModelConfig, TOKEN_MS};
use voxtral_transcript::score::word_errors;

use super::check::{Check, Status};
use super::gpu::Gpu;
use crate::machine;
use crate::recording::{Recording, SAMPLE_WORDS};

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
            Self::Cpu => Config { backend: BackendChoice::Cpu, ..Config::default() },
            Self::Cuda(device) => Config { backend: BackendChoice::Cuda, device, ..Config::default() },
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
