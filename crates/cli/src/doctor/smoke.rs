//! What a backend makes of the built-in sample, and how fast its memory is.

use std::time::Instant;

use serde_json::json;
use voxtral_cpu::{CpuBackend, CpuOptions};
use voxtral_cuda::{CudaBackend, CudaOptions};
use voxtral_engine::{Decoding, Engine, EngineOptions};
use voxtral_model::{Model, ModelConfig, TOKEN_MS};
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

    pub(crate) fn engine(self, model: &Model) -> anyhow::Result<Engine> {
        let engine = match self {
            Self::Cpu => {
                Engine::new(model, Box::new(CpuBackend::new(model, CpuOptions::default())?), EngineOptions::default())?
            }
            Self::Cuda(device) => Engine::new(
                model,
                Box::new(CudaBackend::new(model, &CudaOptions { device, ..CudaOptions::default() }, &mut |_, _| {})?),
                EngineOptions::default(),
            )?,
        };
        Ok(engine)
    }
}

/// The built-in model on the built-in sample, whose words are known.
pub(crate) fn sample(device: Device) -> Check {
    let start = Instant::now();
    let heard = || {
        let engine = device.engine(&voxtral_digits::model())?;
        Recording::sample()?.hear(&engine, None, Decoding::Auto)
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
        Device::Cpu => machine::read_rate(machine::threads()),
        Device::Cuda(ordinal) => match CudaBackend::copy_rate(ordinal) {
            Ok(rate) => rate,
            Err(error) => {
                let remedy = "end other programs that use the GPU, and try again";
                return Check::bad("speed", Status::Warning, error.to_string(), remedy).on(device.name());
            }
        },
    };
    let bytes = step_bytes(&ModelConfig::released());
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

/// Bytes that one position of the decoder reads: its products and the output projection, in bf16.
fn step_bytes(config: &ModelConfig) -> u64 {
    let d = &config.decoder;
    let layer = 2 * d.dim * (d.q_dim() + d.kv_dim()) + 3 * d.dim * d.ffn_dim;
    2 * (d.layers * layer + config.vocab * d.dim) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_released_model_reads_most_of_it() {
        assert_eq!(step_bytes(&ModelConfig::released()), 6_857_687_040);
    }
}
