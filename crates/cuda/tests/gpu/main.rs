//! Everything that needs a GPU: every kernel against a scalar twin, the whole model against a plain one,
//! memory, and with `--bench` the figures.
//!
//! `cargo test -p voxtral-cuda --test gpu` checks; `… -- --bench` checks and measures; `… -- --bench-only` measures. A word after these takes
//! only the checks, or the figures (products, encodings, norms, attention, passes, packed), whose name holds it. With
//! `VOXTRAL_FORCE_PTX=1` each takes the kernels that the driver compiles. Without a GPU it says so and passes.

mod bench;
mod goldens;
mod gpu;
mod memory;
mod model;
mod reference;
mod twins;
mod twins_attention;

use std::process::ExitCode;

use voxtral_cuda::CudaBackend;

/// A named check: a sentence about what did not hold, or nothing.
pub type Check = (&'static str, fn(&gpu::Gpu) -> Result<(), String>);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |flag: &str| arguments.iter().any(|a| a == flag);
    let report = match CudaBackend::probe(0) {
        Ok(report) => report,
        Err(why) => {
            println!("skipped: no GPU to test on: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let (major, minor) = report.capability;
    let gpu = gpu::Gpu::open();
    println!(
        "{}, compute capability {major}.{minor}, driver of CUDA {}, kernels {}",
        report.name, report.cuda_version, gpu.image.name
    );
    let (mut run, mut failed) = (0, 0);
    let filter = arguments.iter().find(|a| !a.starts_with('-')).map_or("", String::as_str);
    if !asked("--bench-only") {
        for (name, check) in twins::CHECKS
            .iter()
            .chain(twins_attention::CHECKS)
            .chain(model::CHECKS)
            .chain(memory::CHECKS)
            .chain(goldens::CHECKS)
        {
            if !name.contains(filter) {
                continue;
            }
            run += 1;
            let begun = std::time::Instant::now();
            match check(&gpu) {
                Ok(()) => println!("ok      {name} ({} ms)", begun.elapsed().as_millis()),
                Err(what) => {
                    failed += 1;
                    println!("FAILED  {name}: {what}");
                }
            }
        }
        println!("{failed} failed");
    }
    if asked("--bench") || asked("--bench-only") {
        run += bench::run(&gpu, filter);
    }
    if run == 0 {
        println!("nothing has {filter:?} in its name");
    }
    ExitCode::from(u8::from(failed > 0 || run == 0))
}
