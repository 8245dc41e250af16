//! The NVIDIA driver and the GPU.

use std::env;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use voxtral_cuda::{CudaBackend, DeviceReport, DriverError};

use super::check::{Check, Status, size};
use crate::args::{BackendChoice, Doctor};
use crate::wsl::Wsl;

/// What the driver's library may be called.
const NAMES: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// Where the driver's library lies where the loader's list of folders is not asked: distributions, WSL, the toolkit.
const FOLDERS: [&str; 8] = [
    "/usr/lib/wsl/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/run/opengl-driver/lib",
    "/usr/local/cuda/compat",
    "/usr/local/cuda/lib64/stubs",
];

/// Whose driver library a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    /// The driver of Windows, as WSL shows it.
    Windows,
    /// A stand-in of the toolkit to link against; no driver.
    Stub,
    /// A driver of this system.
    System,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Library {
    path: PathBuf,
    origin: Origin,
}

impl Library {
    fn at(path: PathBuf) -> Self {
        let origin = match path.parent() {
            Some(folder) if folder.ends_with("stubs") => Origin::Stub,
            Some(folder) if folder.starts_with("/usr/lib/wsl") => Origin::Windows,
            _ => Origin::System,
        };
        Self { path, origin }
    }
}

/// What was found of driver and GPU.
pub(crate) struct Gpu {
    /// The GPU, or why there is none to use.
    pub usable: Result<DeviceReport, String>,
    /// Whether the driver's library could be loaded.
    driver: Result<(), DriverError>,
    /// The library that was loaded, where the system tells.
    loaded: Option<Library>,
    /// All that lie where they are looked for.
    present: Vec<Library>,
}

impl Gpu {
    pub(crate) fn look(args: &Doctor) -> Self {
        if args.backend == BackendChoice::Cpu {
            let usable = Err("not asked for: --backend cpu".to_owned());
            return Self { usable, driver: Ok(()), loaded: None, present: Vec::new() };
        }
        let driver = CudaBackend::load_driver();
        let usable = CudaBackend::probe(args.device).map_err(|error| error.to_string());
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let files = folders().into_iter().flat_map(|folder| NAMES.iter().map(move |name| folder.join(name)));
        let mut present: Vec<Library> = Vec::new();
        for library in files.filter(|file| file.is_file()).map(Library::at) {
            if !present.contains(&library) {
                present.push(library);
            }
        }
        Self { usable, driver, loaded: library_in(&maps).map(Library::at), present }
    }
}

/// Where the driver's library is looked for.
fn folders() -> Vec<PathBuf> {
    let listed = |variable| env::var_os(variable).unwrap_or_default();
    if cfg!(windows) {
        return iter::once(system_folder()).chain(env::split_paths(&listed("PATH"))).collect();
    }
    env::split_paths(&listed("LD_LIBRARY_PATH")).chain(FOLDERS.map(PathBuf::from)).collect()
}

/// Where Windows has its libraries.
fn system_folder() -> PathBuf {
    Path::new(&env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into())).join("System32")
}

/// The driver's library among the files that a process has mapped.
fn library_in(maps: &str) -> Option<PathBuf> {
    let paths = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let is_driver = |path: &&Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("libcuda.so"));
    paths.filter(is_driver).map(Path::to_owned).next()
}

/// How bad it is when there is no GPU to use.
fn severity(args: &Doctor) -> Status {
    if args.backend == BackendChoice::Cuda { Status::Failure } else { Status::Warning }
}

pub(crate) fn driver(gpu: &Gpu, wsl: Option<Wsl>, args: &Doctor) -> Check {
    if args.backend == BackendChoice::Cpu {
        return Check::skipped("driver", "not asked for: --backend cpu");
    }
    let cuda = gpu.usable.as_ref().ok().map(|report| &report.cuda_version);
    let kernel = fs::read_to_string("/sys/module/nvidia/version").ok().map(|version| version.trim().to_owned());
    let facts = json!({
        "loaded": gpu.loaded, "present": gpu.present, "cuda_version": cuda, "kernel_module_version": kernel,
        "gpu_of_windows": wsl.map(|_| Path::new("/dev/dxg").exists()),
    });
    let check = match fault_of_driver(gpu, wsl) {
        Some((found, remedy)) => Check::bad("driver", severity(args), found, remedy),
        None => {
            let place = gpu.loaded.as_ref().map_or("the system's".to_owned(), |lib| lib.path.display().to_string());
            let module = kernel.map_or(String::new(), |version| format!(", version {version}"));
            let cuda = cuda.map_or(String::new(), |version| format!(", for CUDA {version}"));
            Check::ok("driver", format!("{place}{module}{cuda}"))
        }
    };
    check.with(facts)
}

/// What is wrong with the driver's library, and the remedy. Nothing is where a GPU can be used, however odd the place.
fn fault_of_driver(gpu: &Gpu, wsl: Option<Wsl>) -> Option<(String, String)> {
    if gpu.usable.is_ok() {
        return None;
    }
    if let Err(error @ DriverError::StaticBuild) = &gpu.driver {
        return Some((error.to_string(), "use a build for glibc; or leave it to the CPU (--backend cpu)".to_owned()));
    }
    // Without /proc, and on Windows, nothing tells which library was loaded. That one was is enough.
    if gpu.driver.is_ok() && gpu.loaded.is_none() {
        return None;
    }
    if cfg!(windows) {
        return Some(fault_on_windows(gpu));
    }
    let of = |origin| gpu.present.iter().find(|library| library.origin == origin);
    match (&gpu.loaded, wsl) {
        (Some(Library { path, origin: Origin::Stub }), _) => Some(stub(path)),
        (Some(Library { path, origin: Origin::System }), Some(_)) => Some((
            format!("{} was loaded: a Linux driver inside WSL, which cannot reach the GPU", path.display()),
            "remove the NVIDIA driver packages from the distribution: the driver comes from Windows, in /usr/lib/wsl/lib; of the \
             toolkit only cuda-toolkit may be installed, not cuda or cuda-drivers"
                .to_owned(),
        )),
        // It is there, so it is the GPU that is missing.
        (Some(_), _) => None,
        (None, _) => Some(match (of(Origin::Windows), of(Origin::System), of(Origin::Stub), wsl) {
            (Some(library), _, _, _) => (
                format!("{} is there, but was not found by the loader", library.path.display()),
                "export LD_LIBRARY_PATH=/usr/lib/wsl/lib".to_owned(),
            ),
            (_, Some(library), _, None) => (
                format!("{} is there, but could not be loaded", library.path.display()),
                "install the NVIDIA driver again, and put its folder into LD_LIBRARY_PATH if it is an unusual one".to_owned(),
            ),
            (_, _, Some(library), None) => stub(&library.path),
            (_, _, _, Some(_)) => (
                "no NVIDIA driver: /usr/lib/wsl/lib/libcuda.so.1 is not there".to_owned(),
                "install the NVIDIA driver of Windows (none inside WSL), run `wsl --update`, then `wsl --shutdown`"
                    .to_owned(),
            ),
            (None, None, None, None) => (
                "no NVIDIA driver: libcuda.so.1 is not there".to_owned(),
                "install the NVIDIA driver (525 or newer), and nothing else; start a container with its GPUs (--gpus all); or leave it \
                 to the CPU (--backend cpu)"
                    .to_owned(),
            ),
        }),
    }
}

/// The same where Windows loaded none.
fn fault_on_windows(gpu: &Gpu) -> (String, String) {
    match gpu.present.first() {
        Some(library) => (
            format!("{} is there, but could not be loaded", library.path.display()),
            "install the NVIDIA driver again".to_owned(),
        ),
        None => (
            format!("no NVIDIA driver: nvcuda.dll is not in {}", system_folder().display()),
            "install the NVIDIA driver for Windows (528 or newer), and nothing else; or leave it to the CPU (--backend cpu)"
                .to_owned(),
        ),
    }
}

fn stub(path: &Path) -> (String, String) {
    (
        format!("no NVIDIA driver, but a stub of the toolkit: {}", path.display()),
        "a stub is for linking only: take its folder out of LD_LIBRARY_PATH, and install the NVIDIA driver if there is none"
            .to_owned(),
    )
}

pub(crate) fn device(gpu: &Gpu, wsl: Option<Wsl>, args: &Doctor) -> Check {
    let report = match &gpu.usable {
        Ok(report) => report,
        Err(why) if args.backend == BackendChoice::Cpu => return Check::skipped("gpu", why),
        Err(_) if fault_of_driver(gpu, wsl).is_some() => return Check::skipped("gpu", "there is no driver that works"),
        Err(why) => {
            let mut remedy =
                "`nvidia-smi` should list it; a GPU of compute capability 8.0 (Ampere) or newer and a driver of 525 \
                              or newer are needed"
                    .to_owned();
            if let Ok(visible) = env::var("CUDA_VISIBLE_DEVICES") {
                let unset = if cfg!(windows) {
                    "in PowerShell, `Remove-Item Env:CUDA_VISIBLE_DEVICES` unsets it"
                } else {
                    "`unset CUDA_VISIBLE_DEVICES`"
                };
                remedy += &format!("; CUDA_VISIBLE_DEVICES is {visible:?}, which may hide it: {unset}");
            }
            return Check::bad("gpu", severity(args), why, remedy);
        }
    };
    let DeviceReport { name, capability: (major, minor), free, total, image, .. } = report;
    let found = format!(
        "{name}, compute capability {major}.{minor}, {} free of {}, kernels {image}",
        size(*free),
        size(*total)
    );
    Check::ok("gpu", found).with(json!({
        "device": args.device, "name": name, "compute_capability": format!("{major}.{minor}"),
        "free_bytes": free, "total_bytes": total, "kernels": image,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(loaded: Option<&str>, present: &[&str]) -> Gpu {
        let library = |path: &&str| Library::at(PathBuf::from(path));
        let driver = if loaded.is_some() { Ok(()) } else { Err(DriverError::NoLibrary) };
        let usable = Err("no GPU".to_owned());
        Gpu { usable, driver, loaded: loaded.as_ref().map(library), present: present.iter().map(library).collect() }
    }

    #[test]
    fn a_library_is_told_by_its_folder() {
        let origin = |path: &str| Library::at(path.into()).origin;
        assert_eq!(origin("/usr/local/cuda-12.8/lib64/stubs/libcuda.so"), Origin::Stub);
        assert_eq!(origin("/usr/lib/wsl/lib/libcuda.so.1"), Origin::Windows);
        assert_eq!(origin("/usr/lib/wsl/drivers/nv_dispi.inf_amd64_1/libcuda.so.1.1"), Origin::Windows);
        assert_eq!(origin("/usr/lib/x86_64-linux-gnu/libcuda.so.1"), Origin::System);
        assert_eq!(origin("/home/stubs/lib/libcuda.so.1"), Origin::System);
    }

    #[test]
    fn the_library_that_was_loaded_is_seen() {
        let maps = "7f00-7f01 r--p 00000000 fe:00 12  /usr/lib/libc.so.6\n\
                    7f02-7f03 r-xp 00000000 fe:00 13  /usr/lib/wsl/lib/libcuda.so.1\n\
                    7f04-7f05 rw-p 00000000 00:00 0\n";
        assert_eq!(library_in(maps), Some("/usr/lib/wsl/lib/libcuda.so.1".into()));
        assert_eq!(library_in("7f00-7f01 r--p 0 fe:00 12 /usr/lib/libcudart.so.12\n"), None);
    }

    #[test]
    fn on_windows_a_driver_that_is_missing_is_told_from_one_that_is_broken() {
        let dll = r"C:\Windows\System32\nvcuda.dll";
        let (found, remedy) = fault_on_windows(&gpu(None, &[]));
        assert!(found.contains("nvcuda.dll is not in") && remedy.contains("528"), "{found}: {remedy}");
        let (found, remedy) = fault_on_windows(&gpu(None, &[dll]));
        assert!(found.contains("could not be loaded") && remedy.contains("again"), "{found}: {remedy}");
    }

    #[test]
    fn a_driver_that_was_loaded_from_nobody_knows_where_is_none_that_is_missing() {
        let linux = "/usr/lib/x86_64-linux-gnu/libcuda.so.1";
        let gpu = Gpu { driver: Ok(()), ..gpu(None, &[linux]) };
        assert_eq!(fault_of_driver(&gpu, None), None);
    }

    #[test]
    fn a_static_build_says_that_it_cannot_know() {
        let linux = "/usr/lib/x86_64-linux-gnu/libcuda.so.1";
        let gpu = Gpu { driver: Err(DriverError::StaticBuild), ..gpu(None, &[linux]) };
        let (found, remedy) = fault_of_driver(&gpu, None).unwrap();
        assert!(found.contains("static build") && remedy.contains("glibc"), "{found}: {remedy}");
    }

    #[test]
    #[cfg(unix)] // Windows has one kind of driver, and no folders to tell it by
    fn every_fault_of_the_driver_has_its_remedy() {
        let fault = |gpu: Gpu, wsl| fault_of_driver(&gpu, wsl).unwrap();
        let [linux, windows, stub] =
            ["/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1", "/opt/cuda/stubs/libcuda.so"];
        let (found, remedy) = fault(gpu(Some(stub), &[stub]), None);
        assert!(found.contains("stub") && remedy.contains("LD_LIBRARY_PATH"), "{found}: {remedy}");
        let (found, remedy) = fault(gpu(None, &[stub]), None);
        assert!(found.contains(stub) && remedy.contains("install"), "{found}: {remedy}");
        let (found, remedy) = fault(gpu(Some(linux), &[linux, windows]), Some(Wsl::V2));
        assert!(found.contains("inside WSL") && remedy.contains("remove"), "{found}: {remedy}");
        let (_, remedy) = fault(gpu(None, &[windows]), Some(Wsl::V2));
        assert!(remedy.contains("export LD_LIBRARY_PATH=/usr/lib/wsl/lib"), "{remedy}");
        let (_, remedy) = fault(gpu(None, &[]), Some(Wsl::V2));
        assert!(remedy.contains("driver of Windows"), "{remedy}");
        let (found, remedy) = fault(gpu(None, &[]), None);
        assert!(found.contains("libcuda.so.1") && remedy.contains("525"), "{found}: {remedy}");
        assert_eq!(fault_of_driver(&gpu(Some(linux), &[linux, stub]), None), None);
        assert_eq!(fault_of_driver(&gpu(Some(windows), &[windows]), Some(Wsl::V2)), None);
    }
}
