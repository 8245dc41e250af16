//! Choosing what computes.

use anyhow::Context;
use voxtral_cpu::{CpuBackend, CpuOptions, Precision};
use voxtral_cuda::{CudaBackend, CudaOptions};
use voxtral_model::{Backend, BackendError, Model};

use crate::args::{BackendChoice, PrecisionChoice, Transcribe};
use crate::output::say;
use crate::progress::Progress;

pub(crate) fn choose(model: &Model, args: &Transcribe) -> anyhow::Result<Box<dyn Backend>> {
    match (args.backend, args.precision) {
        (BackendChoice::Cuda, PrecisionChoice::F32) => {
            anyhow::bail!("--precision f32 is for the processor: the GPU computes in bf16")
        }
        (BackendChoice::Cuda, _) => Ok(Box::new(cuda(model, args).context("--backend cuda")?)),
        (BackendChoice::Auto, PrecisionChoice::Auto) => match cuda(model, args) {
            Ok(backend) => Ok(Box::new(backend)),
            Err(why) => {
                if !args.silent {
                    say(&format!("running on the processor: {why}"));
                }
                cpu(model, args)
            }
        },
        (BackendChoice::Auto | BackendChoice::Cpu, _) => cpu(model, args),
    }
}

fn cuda(model: &Model, args: &Transcribe) -> Result<CudaBackend, BackendError> {
    let mut progress = Progress::new("loading", !args.silent);
    CudaBackend::new(model, &CudaOptions { device: args.device }, &mut |done, total| progress.show(done, total))
}

fn cpu(model: &Model, args: &Transcribe) -> anyhow::Result<Box<dyn Backend>> {
    let precision = match args.precision {
        PrecisionChoice::Auto => Precision::Auto,
        PrecisionChoice::F32 => Precision::F32,
    };
    let threads = args.threads.map_or(0, usize::from);
    Ok(Box::new(CpuBackend::new(model, CpuOptions { threads, precision, ..CpuOptions::default() })?))
}
