//! The model: whether its files are whole, and where it fits.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use voxtral::ModelRef;
use voxtral_cpu::CpuBackend;
use voxtral_cuda::CudaBackend;
use voxtral_model::{Model, Weight};

use super::check::{Check, Status, size};
use super::gpu::Gpu;
use super::smoke::Device;
use super::system::Host;
use crate::args::{BackendChoice, Doctor};
use crate::{beside, models};

/// An opened model.
pub(crate) struct Opened {
    pub model: Arc<Model>,
    /// What opening took, which reads all weights once.
    pub took: Duration,
    /// Where it is to run and has room, if anywhere.
    pub device: Option<Device>,
}

/// The folder that was named, if it is one.
pub(crate) fn folder(args: &Doctor) -> Option<&Path> {
    match &args.model {
        Some(ModelRef::Folder(dir)) => Some(dir),
        _ => None,
    }
}

/// Opens the model; says what is wrong with it, or where it fits.
pub(crate) fn open(args: &Doctor, host: &Host, gpu: &Gpu) -> (Option<Opened>, Check) {
    let start = Instant::now();
    let model = match models::open(args.model.as_ref().unwrap_or(&ModelRef::Digits)) {
        Ok(model) => model,
        Err(error) => {
            let remedy = "`voxtral download` gets the model, or what is missing of it; docs/models.md says which files a model has";
            return (None, Check::bad("model", Status::Failure, error.to_string(), remedy));
        }
    };
    let mut opened = Opened { model: Arc::new(model), took: start.elapsed(), device: None };
    let check = fit(args, host, gpu, &mut opened);
    (Some(opened), check)
}

/// How a model and a stream without an end lie in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// Not even the model.
    No,
    /// With shorter streams.
    Partly,
    Whole,
}

impl Fit {
    /// Of a model that needs at least so much, and so much more for a stream without an end.
    fn of((least, more): (u64, u64), memory: u64) -> Self {
        match memory {
            _ if least + more <= memory => Self::Whole,
            _ if least <= memory => Self::Partly,
            _ => Self::No,
        }
    }
}

fn fit(args: &Doctor, host: &Host, gpu: &Gpu, opened: &mut Opened) -> Check {
    let config = &opened.model.config;
    let (parameters, types) = (config.parameters(), types(&opened.model));
    let cpu_needs = (opened.model.weights.bytes(), CpuBackend::stream_memory(config, usize::MAX));
    let cpu_fit = host.memory.map_or(Fit::Whole, |memory| Fit::of(cpu_needs, memory.total));
    let gpu_needs = CudaBackend::needs(&opened.model, CudaBackend::LEAST_POSITIONS)
        .and_then(|least| Ok((least, CudaBackend::needs(&opened.model, usize::MAX)? - least)));
    let gpu_fit = gpu.usable.as_ref().ok().map(|report| match &gpu_needs {
        Ok(needs) => Fit::of(*needs, report.free),
        Err(_) => Fit::No,
    });
    let on_gpu = gpu_fit.is_some_and(|fit| fit != Fit::No).then_some(Device::Cuda(args.device));
    let on_cpu = (cpu_fit != Fit::No).then_some(Device::Cpu);
    opened.device = match args.backend {
        BackendChoice::Cpu => on_cpu,
        BackendChoice::Cuda => on_gpu,
        BackendChoice::Auto => on_gpu.or(on_cpu),
    };
    let facts = json!({
        "name": opened.model.name, "folder": folder(args), "files": folder(args).map(files),
        "parameters": parameters, "types": types, "open_ms": opened.took.as_millis() as u64,
        "cpu_needs_bytes": cpu_needs.0 + cpu_needs.1, "fits_cpu": cpu_fit == Fit::Whole,
        "gpu_needs_bytes": gpu_needs.as_ref().ok().map(|(least, more)| least + more),
        "fits_gpu": gpu_fit.map(|fit| fit == Fit::Whole),
    });

    let what = match folder(args) {
        Some(dir) => dir.display().to_string(),
        None => "the built-in demo, spoken English digits only (-d names another)".to_owned(),
    };
    let (million, types) = (parameters as f64 / 1e6, types.join(" and "));
    let mut found = format!("{what}: {million:.1} million parameters, {types}; with a stream without an end it takes ");
    found += &format!("{} on the CPU", size(cpu_needs.0 + cpu_needs.1));
    found += &match &gpu_needs {
        Ok((least, more)) => format!(", {} on a GPU", size(least + more)),
        Err(why) => format!("; on a GPU it cannot run: {why}"),
    };
    let bad = |status, what: &str, remedy: &str| Check::bad("model", status, format!("{found}: {what}"), remedy);
    let smaller = || {
        let named = args.model.as_ref().zip(gpu.usable.as_ref().ok());
        let advice = named.and_then(|(named, report)| beside::advice(named, &opened.model, report.free));
        advice.unwrap_or_else(|| "pack the weights in fewer bits: voxtral quantize".to_owned())
    };
    let check = match (args.backend, gpu_fit) {
        (BackendChoice::Cuda | BackendChoice::Auto, Some(Fit::Whole)) => Check::ok("model", found),
        (BackendChoice::Cuda | BackendChoice::Auto, Some(Fit::Partly)) => bad(
            Status::Warning,
            "on the GPU there is room for shorter ones only",
            "recordings of some minutes run; for live audio end other programs that use the GPU",
        ),
        (BackendChoice::Cuda, Some(Fit::No)) => bad(
            Status::Failure,
            "it does not fit the GPU",
            &format!("end other programs that use the GPU, take one with more memory, or {}", smaller()),
        ),
        // That there is no GPU has been said.
        (BackendChoice::Cuda, None) => Check::ok("model", found),
        (_, _) if cpu_fit == Fit::No => bad(
            Status::Failure,
            "it does not fit the memory",
            "give the machine, container or WSL more memory, or compute on a GPU",
        ),
        (BackendChoice::Auto, Some(Fit::No)) => {
            let remedy = format!("it runs on the CPU; end other programs that use the GPU, or {}", smaller());
            bad(Status::Warning, "it does not fit the GPU", &remedy)
        }
        (_, _) if cpu_fit == Fit::Partly => bad(
            Status::Warning,
            "in the memory there is room for shorter ones only",
            "recordings of some minutes run; for live audio give the machine, container or WSL more memory",
        ),
        (_, _) => Check::ok("model", found),
    };
    check.with(facts)
}

/// The element types of the large tensors.
fn types(model: &Model) -> Vec<&'static str> {
    let weights = &model.weights;
    let large = [&weights.embedding, &weights.encoder[0].wq.weight, &weights.decoder[0].wq.weight];
    let mut types = large.map(Weight::type_name);
    types.sort();
    let mut types = types.to_vec();
    types.dedup();
    types
}

/// Names and sizes of what lies in a folder.
fn files(dir: &Path) -> Value {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
        Some((entry.file_name().to_string_lossy().into_owned(), Value::from(metadata.len())))
    });
    Value::Object(sizes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_told_from_what_fits_with_short_streams() {
        assert_eq!(Fit::of((9, 2), 11), Fit::Whole);
        assert_eq!(Fit::of((9, 2), 10), Fit::Partly);
        assert_eq!(Fit::of((9, 2), 8), Fit::No);
    }
}
