//! Where figures come from: without this nobody can compare them.

use serde::{Deserialize, Serialize};
use voxtral_cpu::Isa;
use voxtral_cuda::CudaBackend;

use crate::args::Setup;
use crate::machine;

/// The machine and the program.
#[derive(Serialize, Deserialize)]
pub(super) struct Environment {
    /// Of the program.
    pub version: String,
    /// The commit that it was built from, or "unknown".
    pub commit: String,
    /// Operating system and architecture.
    pub system: String,
    #[serde(alias = "processor")]
    pub cpu: String,
    /// Threads that the CPU runs at once for this program.
    pub threads: usize,
    /// Instruction sets that there are kernels for and that the CPU has.
    pub isas: Vec<String>,
    /// The GPU, if one was measured.
    pub gpu: Option<Gpu>,
    /// The command line.
    pub command: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Gpu {
    pub name: String,
    /// Compute capability.
    pub capability: String,
    /// The CUDA version of its driver.
    pub driver: String,
    /// The kernels that run on it.
    pub kernels: String,
    pub memory_mb: u64,
}

impl Environment {
    pub(super) fn now(setup: &Setup, with_gpu: bool) -> Self {
        let probe = || {
            let found = CudaBackend::probe(setup.device).ok()?;
            let (major, minor) = found.capability;
            Some(Gpu {
                name: found.name,
                capability: format!("{major}.{minor}"),
                driver: found.cuda_version,
                kernels: found.image.to_owned(),
                memory_mb: found.total / 1_000_000,
            })
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("VOXTRAL_COMMIT").to_owned(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: voxtral_cpu::cpu_name(),
            threads: machine::threads(),
            isas: Isa::available().into_iter().map(|isa| isa.name().to_owned()).collect(),
            gpu: with_gpu.then(probe).flatten(),
            command: std::env::args().collect(),
        }
    }
}
