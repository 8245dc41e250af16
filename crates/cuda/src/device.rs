//! Choosing a GPU, and saying why one will not do.

use std::sync::Arc;

use voxtral_model::{BackendError, ModelConfig};

use crate::driver::{Buffer, Device, DriverError, Event, Stream};
use crate::images::{Image, choose};
use crate::limits::{MAX_DIM, MAX_GROUP, MAX_HEAD_DIM, RESERVE};

/// What a look at a GPU found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device's own name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// The CUDA version of its driver, such as 12.8.
    pub cuda_version: String,
    /// Free device memory, bytes.
    pub free: u64,
    /// Device memory, bytes.
    pub total: u64,
    /// The kernel image that would be used: "sm_90a", or "compute_80" for PTX that the driver compiles.
    pub image: &'static str,
}

impl DeviceReport {
    pub(crate) fn of(ordinal: usize) -> Result<Self, BackendError> {
        let (device, image) = open_device(ordinal, false)?;
        let (free, total) = device.memory().map_err(|e| device_error(&device, &e))?;
        let (name, cuda_version) = (device.name.clone(), device.cuda_version.clone());
        Ok(Self { name, capability: device.capability, cuda_version, free, total, image: image.name })
    }
}

/// Opens a GPU and picks the kernels that it takes.
pub(crate) fn open_device(ordinal: usize, force_ptx: bool) -> Result<(Arc<Device>, Image), BackendError> {
    let device = Device::open(ordinal).map_err(|e| match e {
        DriverError::NoLibrary
        | DriverError::StaticBuild
        | DriverError::MissingSymbol(_)
        | DriverError::NoDevice { .. } => BackendError::Unsupported(e.to_string()),
        // Not even a context fits a GPU whose memory others have taken.
        e => backend_error(&format!("CUDA device {ordinal}"), 0, &e),
    })?;
    let (major, minor) = device.capability;
    let image = choose(device.capability, force_ptx).ok_or_else(|| {
        let name = &device.name;
        BackendError::Unsupported(format!("{name} has compute capability {major}.{minor}; 8.0 (Ampere) is the least"))
    })?;
    Ok((device, image))
}

/// See [`CudaBackend::copy_rate`](crate::CudaBackend::copy_rate).
pub(crate) fn copy_rate(ordinal: usize) -> Result<f64, BackendError> {
    /// More than any second-level cache holds, little beside a model.
    const BYTES: usize = 256 << 20;
    const COPIES: usize = 16;
    const ROUNDS: usize = 7;

    let (device, _) = open_device(ordinal, false)?;
    let seconds = || -> Result<f64, DriverError> {
        let stream = Stream::new(&device)?;
        let (from, to) = (Buffer::new(&device, BYTES)?, Buffer::new(&device, BYTES)?);
        let (begin, end) = (Event::new(&device)?, Event::new(&device)?);
        stream.zero(from.all())?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            begin.record(&stream)?;
            for _ in 0..COPIES {
                stream.copy(to.all(), from.all())?;
            }
            end.record(&stream)?;
            end.wait()?;
            times.push(f64::from(end.since(&begin)?) / 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[ROUNDS / 2])
    };
    let seconds = seconds().map_err(|e| device_error(&device, &e))?;
    Ok((2 * COPIES * BYTES) as f64 / seconds)
}

/// What a call on a device that failed comes to.
pub(crate) fn device_error(device: &Device, error: &DriverError) -> BackendError {
    let free = || device.memory().map_or(0, |(free, _)| free);
    backend_error(&device.name, if matches!(error, DriverError::OutOfMemory { .. }) { free() } else { 0 }, error)
}

/// A device that has no memory left is told from one that does nothing any more; `free` bytes say how much the former has.
fn backend_error(device: &str, free: u64, error: &DriverError) -> BackendError {
    match error {
        // Memory that the driver takes for itself is what RESERVE is for.
        DriverError::OutOfMemory { bytes, .. } => out_of_memory(device, bytes + RESERVE, free),
        error => BackendError::Device { device: device.to_owned(), what: error.to_string() },
    }
}

/// That `needed` bytes must be free.
pub(crate) fn out_of_memory(device: &str, needed: u64, free: u64) -> BackendError {
    BackendError::OutOfMemory { device: device.to_owned(), needed: needed / 1_000_000, free: free / 1_000_000 }
}

/// Whether the kernels can run such a model; the sentence says what is in the way.
pub(crate) fn supported(config: &ModelConfig) -> Result<(), String> {
    for (name, c) in [("encoder", &config.encoder), ("decoder", &config.decoder)] {
        let widths = [("dim", c.dim), ("head_dim", c.head_dim), ("ffn_dim", c.ffn_dim)];
        if let Some((what, width)) = widths.into_iter().find(|(_, w)| *w == 0 || !w.is_multiple_of(16)) {
            return Err(format!("the {name}'s {what} is {width}: CUDA kernels need a multiple of 16"));
        }
        if c.head_dim > MAX_HEAD_DIM || c.dim > MAX_DIM {
            let (head_dim, dim) = (c.head_dim, c.dim);
            return Err(format!(
                "the {name} has dim {dim} and head_dim {head_dim}: CUDA kernels hold up to {MAX_DIM} and {MAX_HEAD_DIM}"
            ));
        }
        if c.kv_heads == 0 || !c.heads.is_multiple_of(c.kv_heads) || c.heads / c.kv_heads > MAX_GROUP {
            let (heads, kv_heads) = (c.heads, c.kv_heads);
            return Err(format!(
                "the {name} has {heads} query and {kv_heads} key heads: CUDA kernels share a key head among up to {MAX_GROUP}"
            ));
        }
        if c.window == 0 {
            return Err(format!("the {name}'s window is empty"));
        }
    }
    let (vocab, bins) = (config.vocab, config.audio.mel_bins);
    if vocab == 0 || !vocab.is_multiple_of(2) || bins == 0 || !bins.is_multiple_of(2) || config.downsample == 0 {
        return Err(format!("{vocab} ids, {bins} mel bins: CUDA kernels need even numbers"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_memory_and_no_device_are_told_apart() {
        let asked = DriverError::OutOfMemory { call: "cuMemCreate", bytes: 900_000_000 };
        let refused = backend_error("a GPU", 500_000_000, &asked);
        assert!(matches!(refused, BackendError::OutOfMemory { needed: 967, free: 500, .. }), "{refused}");
        let lost =
            DriverError::Call { call: "cuGraphLaunch", words: "unspecified launch failure".to_owned(), code: 719 };
        assert!(matches!(backend_error("a GPU", 0, &lost), BackendError::Device { .. }));
    }

    #[test]
    fn without_a_driver_there_is_an_error_that_says_so() {
        match DeviceReport::of(0) {
            Ok(report) => println!("skipped: this machine has {}", report.name),
            Err(BackendError::Unsupported(what)) => assert!(what.contains("driver"), "{what}"),
            Err(other) => println!("skipped: there is a driver, but {other}"),
        }
    }
}
