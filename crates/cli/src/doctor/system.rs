//! The operating system, the CPU, its memory, disks, and where sound can come from.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::json;
use sysinfo::{DiskRefreshKind, Disks, System};
use voxtral::microphone;
use voxtral_cpu::{CpuBackend, Isa};
use voxtral_model::ModelConfig;

use super::check::{Check, Status, size};
use crate::machine::{self, Memory};
use crate::wsl::{self, Wsl};

/// What a disk should have left after a download.
const DISK_RESERVE: u64 = 1_000_000_000;

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub mount: PathBuf,
    /// As the system names it: ext4, 9p.
    pub kind: String,
    pub free: u64,
}

impl Disk {
    /// The one that a path is on: of those mounted above it the nearest.
    fn of<'a>(disks: &'a [Self], path: &Path) -> Option<&'a Self> {
        let above = disks.iter().filter(|disk| path.starts_with(&disk.mount));
        above.max_by_key(|disk| disk.mount.components().count())
    }
}

/// What was found out about the host once, for several checks.
pub(crate) struct Host {
    pub wsl: Option<Wsl>,
    /// None where the system does not tell.
    pub memory: Option<Memory>,
    disks: Vec<Disk>,
}

impl Host {
    pub(crate) fn look() -> Self {
        let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage());
        let disks = disks.iter().flatten().map(|disk| Disk {
            mount: disk.mount_point().to_owned(),
            kind: disk.file_system().to_string_lossy().into_owned(),
            free: disk.available_space(),
        });
        Self { wsl: Wsl::detect(), memory: Memory::of_the_process(), disks: disks.collect() }
    }
}

pub(crate) fn operating_system(host: &Host) -> Check {
    let name = System::long_os_version().unwrap_or_else(|_| env::consts::OS.to_owned());
    let kernel = System::kernel_version().unwrap_or_else(|_| "unknown".to_owned());
    let arch = env::consts::ARCH;
    let wsl = host.wsl.map(|wsl| if wsl == Wsl::V1 { 1 } else { 2 });
    let facts = json!({ "os": name, "kernel": kernel, "arch": arch, "wsl": wsl });
    let under = wsl.map_or(String::new(), |version| format!(", under WSL {version}"));
    let found = format!("{name}, kernel {kernel}, {arch}{under}");
    let check = match host.wsl {
        Some(Wsl::V1) => {
            let remedy = "WSL 1 has no GPU: in PowerShell, `wsl --list` shows the distribution's name, `wsl --set-version \
                          NAME 2` makes it WSL 2";
            Check::bad("system", Status::Warning, found, remedy)
        }
        _ => Check::ok("system", found),
    };
    check.with(facts)
}

pub(crate) fn cpu() -> Check {
    let cores = machine::threads();
    let (name, isa) = (voxtral_cpu::cpu_name(), Isa::detect());
    let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let found = format!("{name}, {cores} threads, kernels {} (of {})", isa.name(), available.join(", "));
    let check = if isa == Isa::PORTABLE && cfg!(target_arch = "x86_64") {
        let remedy =
            "it has no AVX2, FMA and F16C, so it is slow here; in a virtual machine, pass the host's CPU through";
        Check::bad("cpu", Status::Warning, found, remedy)
    } else {
        Check::ok("cpu", found)
    };
    check.with(json!({ "model": name, "threads": cores, "kernels": isa.name(), "available_kernels": available }))
}

/// Weights of the released model, in bf16.
fn full_size_bytes() -> u64 {
    2 * ModelConfig::released().parameters()
}

/// Whether the full-size model runs in the CPU's memory.
pub(crate) fn memory(host: &Host) -> Check {
    let needed = full_size_bytes() + CpuBackend::stream_memory(&ModelConfig::released(), usize::MAX);
    let Some(Memory { total, available }) = host.memory else {
        return Check::skipped("memory", "the system does not tell how much there is");
    };
    let facts = json!({ "total_bytes": total, "available_bytes": available, "full_size_needs_bytes": needed });
    let found = format!(
        "{} available of {}; on the CPU the full-size model takes up to {}",
        size(available),
        size(total),
        size(needed)
    );
    let check = if available >= needed {
        Check::ok("memory", found)
    } else {
        Check::bad("memory", Status::Warning, found, memory_remedy(host.wsl, total, needed))
    };
    check.with(facts)
}

fn memory_remedy(wsl: Option<Wsl>, total: u64, needed: u64) -> String {
    if total >= needed {
        return "close other programs".to_owned();
    }
    match wsl {
        // Windows gives a virtual machine half of its memory unless it is told otherwise.
        Some(_) => format!(
            "in %UserProfile%\\.wslconfig on Windows, under [wsl2], set memory={}GB, then run `wsl --shutdown`; or compute on a GPU",
            (needed + 2_000_000_000).div_ceil(1 << 30)
        ),
        None => "compute on a GPU, or give the machine or container more memory".to_owned(),
    }
}

/// The disk that the model is on, or would be downloaded to.
pub(crate) fn disk(host: &Host, model: Option<&Path>) -> Check {
    let folder = model.map(Path::to_owned).or_else(|| env::current_dir().ok()).unwrap_or_default();
    let place = whole(&folder);
    let Some(disk) = Disk::of(&host.disks, &place).filter(|_| place.exists()) else {
        return Check::skipped("disk", format!("the system does not tell where {} is", place.display()));
    };
    let on_windows = wsl::windows_drive(&place).is_some();
    let facts = json!({
        "path": place, "mount": disk.mount, "file_system": disk.kind, "free_bytes": disk.free,
        "windows_drive": on_windows,
    });
    let (mount, kind) = (disk.mount.display(), &disk.kind);
    let found = format!("{} free on {mount} ({kind}), where {} is", size(disk.free), place.display());
    let download = full_size_bytes() + DISK_RESERVE;
    let check = if on_windows {
        let found = format!("{found}: a drive of Windows, slow to read from WSL");
        let remedy = "keep the model in WSL's own file system: `cp -r` its folder to ~/models";
        Check::bad("disk", Status::Warning, found, remedy)
    } else if model.is_none() && disk.free < download {
        let (model, room) = (size(full_size_bytes()), size(download));
        let remedy =
            format!("the full-size model is a download of {model} and wants {room} free: make room, or go elsewhere");
        Check::bad("disk", Status::Warning, found, remedy)
    } else {
        Check::ok("disk", found)
    };
    check.with(facts)
}

/// A path from its root on, without links; on Windows as people write it, `C:\` and not `\\?\C:\`, which is on no disk by its name.
fn whole(path: &Path) -> PathBuf {
    let whole = if cfg!(windows) { std::path::absolute(path) } else { path.canonicalize() };
    whole.unwrap_or_else(|_| path.to_owned())
}

/// What can be recorded from.
pub(crate) fn audio() -> Check {
    let devices = match microphone::devices() {
        Ok(devices) => devices,
        Err(error) => {
            let remedy = if cfg!(windows) {
                "recordings need none; for a microphone, start the services Windows Audio and Windows Audio Endpoint Builder: in \
                 PowerShell as administrator, `Start-Service Audiosrv`"
            } else {
                "recordings need none; for a microphone, start the session's PulseAudio or PipeWire"
            };
            return Check::bad("audio", Status::Warning, format!("no microphone: {error}"), remedy);
        }
    };
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let default = devices.iter().find(|device| device.is_default);
    let facts = json!({ "devices": names, "default": default.map(|device| device.name.as_str()) });
    let check = match default {
        Some(device) if !device.is_monitor => {
            Check::ok("audio", format!("`--mic` records from {}", device.description))
        }
        _ => Check::bad(
            "audio",
            Status::Warning,
            format!("{} devices to record from, and the default is no microphone", devices.len()),
            if cfg!(windows) {
                "recordings need none; plug one in, so that WASAPI lists it, and in Settings, Privacy & security, Microphone, let \
                 desktop apps use it"
            } else {
                "recordings need none; plug one in, or choose one of `voxtral --list-devices` with --mic DEVICE"
            },
        ),
    };
    check.with(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_the_nearest_disk_above_it() {
        let disk = |mount: &str, kind: &str| Disk { mount: mount.into(), kind: kind.into(), free: 1 };
        let disks = [disk("/", "ext4"), disk("/mnt/c", "9p"), disk("/mnt/wsl", "tmpfs")];
        let kind = |path: &str| Disk::of(&disks, Path::new(path)).map(|disk| disk.kind.as_str());
        assert_eq!(kind("/mnt/c/models"), Some("9p"));
        assert_eq!(kind("/mnt/company"), Some("ext4"));
        assert_eq!(kind("/home/me/models"), Some("ext4"));
        assert_eq!(kind("relative"), None);
    }

    #[test]
    fn a_path_is_whole_as_people_write_it() {
        let here = whole(Path::new("."));
        assert!(here.is_absolute() && !here.to_string_lossy().starts_with(r"\\?\"), "{here:?}");
    }

    #[test]
    fn short_memory_has_a_remedy_that_fits() {
        let remedy = |wsl, total| memory_remedy(wsl, total, 11_170_000_000);
        assert!(remedy(Some(Wsl::V2), 8_000_000_000).contains("set memory=13GB"));
        assert!(remedy(None, 8_000_000_000).contains("more memory"));
        assert_eq!(remedy(Some(Wsl::V2), 16_000_000_000), "close other programs");
    }
}
