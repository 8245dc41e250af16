//! Choosing what computes.

use voxtral_cpu::{CpuBackend, CpuOptions, Precision};
use voxtral_model::{Backend, Model};

use crate::args::{BackendChoice, PrecisionChoice, Transcribe};

pub(crate) fn choose(model: &Model, args: &Transcribe) -> anyhow::Result<Box<dyn Backend>> {
    match args.backend {
        BackendChoice::Cuda => {
            anyhow::bail!("this build has no CUDA backend: leave --backend out, or take --backend cpu")
        }
        BackendChoice::Auto | BackendChoice::Cpu => {
            let precision = match args.precision {
                PrecisionChoice::Auto => Precision::Auto,
                PrecisionChoice::F32 => Precision::F32,
            };
            let threads = args.threads.map_or(0, usize::from);
            Ok(Box::new(CpuBackend::new(model, CpuOptions { threads, precision, ..CpuOptions::default() })?))
        }
    }
}
