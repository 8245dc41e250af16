//! Choosing what computes.

use anyhow::{Context, anyhow};
use voxtral_cpu::{CpuBackend, CpuOptions, Isa, Precision};
use voxtral_cuda::{CudaBackend, CudaOptions};
use voxtral_model::{Backend, BackendError, Model};

use crate::args::{BackendChoice, IsaChoice, PrecisionChoice, Setup, name};
use crate::output::{Unmet, say};
use crate::progress::Progress;

pub(crate) fn choose(model: &Model, setup: &Setup, silent: bool) -> anyhow::Result<Box<dyn Backend>> {
    let for_the_processor = match (setup.precision, setup.isa) {
        (PrecisionChoice::Auto, IsaChoice::Auto) => None,
        (PrecisionChoice::F32, _) => Some(anyhow!("--precision f32 is for the processor: the GPU computes in bf16")),
        (PrecisionChoice::Auto, _) => Some(anyhow!("--isa is for the processor: the GPU has its own instructions")),
    };
    match (setup.backend, for_the_processor) {
        (BackendChoice::Cuda, Some(why)) => Err(why),
        (BackendChoice::Cuda, None) => Ok(Box::new(cuda(model, setup, silent).context("--backend cuda")?)),
        (BackendChoice::Auto, None) => match cuda(model, setup, silent) {
            Ok(backend) => Ok(Box::new(backend)),
            Err(why) => {
                if !silent {
                    say(&format!("running on the processor: {why}"));
                }
                cpu(model, setup)
            }
        },
        (BackendChoice::Auto, Some(_)) | (BackendChoice::Cpu, _) => cpu(model, setup),
    }
}

/// Whether the backend that a measurement names is there, to say so before others are measured for minutes.
pub(crate) fn expect(setup: &Setup) -> anyhow::Result<()> {
    if setup.backend == BackendChoice::Cuda {
        CudaBackend::probe(setup.device).context("--backend cuda").context(nothing_to_measure())?;
    }
    Ok(())
}

/// The same as [`choose`], for a measurement: it does not hold where the backend that it names is not there.
pub(crate) fn to_measure(model: &Model, setup: &Setup) -> anyhow::Result<Box<dyn Backend>> {
    choose(model, setup, false).map_err(|error| {
        let unavailable = error.chain().any(|cause| cause.is::<BackendError>());
        if unavailable { error.context(nothing_to_measure()) } else { error }
    })
}

fn nothing_to_measure() -> Unmet {
    Unmet("nothing to measure".to_owned())
}

fn cuda(model: &Model, setup: &Setup, silent: bool) -> Result<CudaBackend, BackendError> {
    let mut progress = Progress::new("loading", !silent);
    let options = CudaOptions { device: setup.device, ..CudaOptions::default() };
    CudaBackend::new(model, &options, &mut |done, total| progress.show(done, total))
}

fn cpu(model: &Model, setup: &Setup) -> anyhow::Result<Box<dyn Backend>> {
    let precision = match setup.precision {
        PrecisionChoice::Auto => Precision::Auto,
        PrecisionChoice::F32 => Precision::F32,
    };
    let threads = setup.threads.map_or(0, usize::from);
    Ok(Box::new(CpuBackend::new(model, CpuOptions { threads, precision, isa: isa(setup.isa)? })?))
}

fn isa(choice: IsaChoice) -> anyhow::Result<Isa> {
    let available = Isa::available();
    let found = match choice {
        IsaChoice::Auto => Some(Isa::detect()),
        choice => available.iter().copied().find(|isa| isa.name() == name(choice)),
    };
    found.with_context(|| {
        let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
        format!("--isa {}: this processor has {}", name(choice), names.join(", "))
    })
}
