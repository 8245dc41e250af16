//! The operating system, the processor, its memory, disks, and where sound can come from.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use sysinfo::{
    DiskRefreshKind, Disks, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System,
};
use voxtral_cpu::{CpuBackend, Isa};
use voxtral_model::ModelConfig;

use super::check::{Check, Status, size};

/// What a disk should have left after a download.
const DISK_RESERVE: u64 = 1_000_000_000;

/// Linux on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wsl {
    /// Translates system calls; has no GPU.
    V1,
    /// A virtual machine with a kernel of its own.
    V2,
}

impl Wsl {
    /// From `/proc/version` and `/proc/sys/kernel/osrelease`.
    fn told_by(version: &str, osrelease: &str) -> Option<Self> {
        let both = format!("{version} {osrelease}").to_lowercase();
        match both.contains("microsoft") {
            false => None,
            true if both.contains("wsl2") || both.contains("microsoft-standard") => Some(Self::V2),
            true => Some(Self::V1),
        }
    }
}

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

    /// Whether it is a drive of Windows, each of whose reads goes through the border between the two systems.
    fn is_of_windows(&self, wsl: Option<Wsl>) -> bool {
        let kind = self.kind.as_str();
        wsl.is_some() && (matches!(kind, "9p" | "drvfs") || kind == "virtiofs" && self.mount.starts_with("/mnt"))
    }
}

/// Bytes, the limit of the process's control group applied.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub total: u64,
    /// What of it can be had.
    pub available: u64,
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
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage());
        let disks = disks.iter().flatten().map(|disk| Disk {
            mount: disk.mount_point().to_owned(),
            kind: disk.file_system().to_string_lossy().into_owned(),
            free: disk.available_space(),
        });
        Self {
            wsl: Wsl::told_by(&read("/proc/version"), &read("/proc/sys/kernel/osrelease")),
            memory: Memory::of_the_process(),
            disks: disks.collect(),
        }
    }
}

impl Memory {
    fn of_the_process() -> Option<Self> {
        let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let mut system = System::new_with_specifics(ram).ok()?;
        let pid = Pid::from_u32(std::process::id());
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, ProcessRefreshKind::nothing());
        let (total, available) = (system.total_memory(), system.available_memory());
        Some(match system.process(pid).and_then(|process| process.cgroup_limits()) {
            // What a group has cached it can have back, so only what is resident counts as taken.
            Some(group) if group.total_memory < total => {
                let left = group.total_memory.saturating_sub(group.rss);
                Self { total: group.total_memory, available: available.min(left) }
            }
            _ => Self { total, available },
        })
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

pub(crate) fn processor() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (name, isa) = (voxtral_cpu::processor_name(), Isa::detect());
    let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let found = format!("{name}, {cores} threads, kernels {} (of {})", isa.name(), available.join(", "));
    let check = if isa == Isa::PORTABLE && cfg!(target_arch = "x86_64") {
        let remedy =
            "it has no AVX2, FMA and F16C, so it is slow here; in a virtual machine, pass the host's processor through";
        Check::bad("processor", Status::Warning, found, remedy)
    } else {
        Check::ok("processor", found)
    };
    check.with(json!({ "model": name, "threads": cores, "kernels": isa.name(), "available_kernels": available }))
}

/// Weights of the released model, in bf16.
fn full_size_bytes() -> u64 {
    2 * ModelConfig::released().parameters()
}

/// Whether the full-size model runs in the processor's memory.
pub(crate) fn memory(host: &Host) -> Check {
    let needed = full_size_bytes() + CpuBackend::stream_bytes(&ModelConfig::released(), usize::MAX);
    let Some(Memory { total, available }) = host.memory else {
        return Check::skipped("memory", "the system does not tell how much there is");
    };
    let facts = json!({ "total_bytes": total, "available_bytes": available, "full_size_needs_bytes": needed });
    let found = format!(
        "{} available of {}; on the processor the full-size model takes up to {}",
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
    let place = folder.canonicalize().unwrap_or(folder);
    let Some(disk) = Disk::of(&host.disks, &place).filter(|_| place.exists()) else {
        return Check::skipped("disk", format!("the system does not tell where {} is", place.display()));
    };
    let facts = json!({
        "path": place, "mount": disk.mount, "file_system": disk.kind, "free_bytes": disk.free,
        "windows_drive": disk.is_of_windows(host.wsl),
    });
    let (mount, kind) = (disk.mount.display(), &disk.kind);
    let found = format!("{} free on {mount} ({kind}), where {} is", size(disk.free), place.display());
    let download = full_size_bytes() + DISK_RESERVE;
    let check = if disk.is_of_windows(host.wsl) {
        let found = format!("{found}: a drive of Windows, slow to read from WSL");
        let remedy = "keep the model in WSL's own file system: `cp -r` its folder to ~/models";
        Check::bad("disk", Status::Warning, found, remedy)
    } else if model.is_none() && disk.free < download {
        let remedy = format!("the full-size model is a download of {}: make room, or go elsewhere", size(download));
        Check::bad("disk", Status::Warning, found, remedy)
    } else {
        Check::ok("disk", found)
    };
    check.with(facts)
}

/// What a microphone could be piped in with.
pub(crate) fn audio() -> Check {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&str| env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let tools: Vec<&str> = ["parec", "arecord", "ffmpeg"].into_iter().filter(is_there).collect();
    let socket = pulse_sockets(env::var("PULSE_SERVER").ok(), env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let socket = socket.into_iter().find(|path| path.exists());
    let facts = json!({ "tools": tools, "pulse_socket": socket });
    let server = match &socket {
        Some(socket) => format!("PulseAudio at {}", socket.display()),
        None => "no PulseAudio socket".to_owned(),
    };
    let check = match tools.first() {
        Some(_) => {
            let found = format!("to pipe a microphone into `voxtral --stdin` there is {}; {server}", tools.join(", "));
            Check::ok("audio", found)
        }
        None => Check::bad(
            "audio",
            Status::Warning,
            format!("nothing to pipe a microphone in with (parec, arecord, ffmpeg); {server}"),
            "for live audio install pulseaudio-utils, alsa-utils or ffmpeg; recordings need nothing",
        ),
    };
    check.with(facts)
}

/// Where PulseAudio listens, if it does: where it is said to, in the session, under WSLg.
fn pulse_sockets(server: Option<String>, runtime: Option<PathBuf>) -> Vec<PathBuf> {
    let named = server.as_deref().and_then(|server| server.strip_prefix("unix:")).map(PathBuf::from);
    let session = runtime.map(|dir| dir.join("pulse/native"));
    named.into_iter().chain(session).chain([PathBuf::from("/mnt/wslg/PulseServer")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_on_windows_is_told_from_linux() {
        let wsl2 = "Linux version 5.15.167.4-microsoft-standard-WSL2 (root@f9c826d3017f) (gcc (GCC) 11.2.0) #1 SMP";
        assert_eq!(Wsl::told_by(wsl2, "5.15.167.4-microsoft-standard-WSL2\n"), Some(Wsl::V2));
        assert_eq!(Wsl::told_by("Linux version 4.19.104-microsoft-standard (oe@oe)", ""), Some(Wsl::V2));
        assert_eq!(Wsl::told_by("Linux version 6.6.36 (me@pc)", "6.6.36-Microsoft-custom-WSL2"), Some(Wsl::V2));
        let wsl1 = "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) (gcc version 5.4.0 (GCC) )";
        assert_eq!(Wsl::told_by(wsl1, "4.4.0-19041-Microsoft\n"), Some(Wsl::V1));
        assert_eq!(
            Wsl::told_by("Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org)", "6.1.0-28-amd64"),
            None
        );
        assert_eq!(Wsl::told_by("", ""), None);
    }

    #[test]
    fn a_path_is_on_the_nearest_disk_above_it() {
        let disk = |mount: &str, kind: &str| Disk { mount: mount.into(), kind: kind.into(), free: 1 };
        let disks = [disk("/", "ext4"), disk("/mnt/c", "9p"), disk("/mnt/wsl", "tmpfs"), disk("/mnt/v", "virtiofs")];
        let kind = |path: &str| Disk::of(&disks, Path::new(path)).map(|disk| disk.kind.as_str());
        assert_eq!(kind("/mnt/c/models"), Some("9p"));
        assert_eq!(kind("/mnt/company"), Some("ext4"));
        assert_eq!(kind("/home/me/models"), Some("ext4"));
        assert_eq!(kind("relative"), None);
        let slow = |path: &str, wsl| Disk::of(&disks, Path::new(path)).is_some_and(|disk| disk.is_of_windows(wsl));
        assert!(slow("/mnt/c/models", Some(Wsl::V2)) && slow("/mnt/v/x", Some(Wsl::V2)));
        assert!(!slow("/home/me", Some(Wsl::V2)) && !slow("/mnt/c/models", None));
    }

    #[test]
    fn short_memory_has_a_remedy_that_fits() {
        let remedy = |wsl, total| memory_remedy(wsl, total, 11_170_000_000);
        assert!(remedy(Some(Wsl::V2), 8_000_000_000).contains("set memory=13GB"));
        assert!(remedy(None, 8_000_000_000).contains("more memory"));
        assert_eq!(remedy(Some(Wsl::V2), 16_000_000_000), "close other programs");
    }

    #[test]
    fn pulse_audio_is_looked_for_where_it_is_said_to_be() {
        let sockets = pulse_sockets(Some("unix:/tmp/p".into()), Some("/run/user/1".into()));
        assert_eq!(sockets, ["/tmp/p", "/run/user/1/pulse/native", "/mnt/wslg/PulseServer"].map(PathBuf::from));
        assert_eq!(pulse_sockets(Some("tcp:host".into()), None), [PathBuf::from("/mnt/wslg/PulseServer")]);
    }
}
