//! `cargo xtask kernels`: compiles the CUDA kernels with NVIDIA's run-time compiler from PyPI, no toolkit needed.
//!
//! Two compilers, because PTX carries its compiler's version and a driver takes none newer than itself: cubins from 12.9, which knows
//! every architecture, PTX from 12.0, which every driver since 525 understands. Both give the same bytes for the same source everywhere,
//! so that `--check` can prove that what is checked in comes from the sources. One exception was met: neighbouring floats in shared memory,
//! read one by one, were put together another way each time the compiler ran. Read as one `float4` they are not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Compiler, its wheel's contents at the time of writing, and what it compiles for.
const COMPILERS: [(&str, &[&str]); 2] = [
    ("nvidia-cuda-nvrtc-cu12==12.9.86", &["sm_80", "sm_86", "sm_87", "sm_89", "sm_90a", "sm_100", "sm_120"]),
    ("nvidia-cuda-nvrtc-cu12==12.0.76", &["compute_80"]),
];

const SCRIPT: &str = include_str!("nvrtc.py");

/// What lies beside the compiled kernels and says where they come from.
#[derive(Serialize)]
struct Manifest {
    /// Compiler and what it compiled for.
    compilers: BTreeMap<&'static str, &'static [&'static str]>,
    options: [&'static str; 2],
    /// SHA-256 of every file under kernels/.
    sources: BTreeMap<String, String>,
    /// SHA-256 of every compiled image.
    images: BTreeMap<String, String>,
}

/// Compiles all kernels into crates/cuda/prebuilt, or with `check` compares what lies there with what the sources give.
pub fn run(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let (sources, prebuilt) = (root.join("crates/cuda/kernels"), root.join("crates/cuda/prebuilt"));
    let work = target(&root).join("kernels");
    let out = work.join("out");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    for (wheel, archs) in COMPILERS {
        compile(&nvrtc(&work, wheel)?, &sources, &out, archs)?;
    }
    let images = digests(&out)?;
    let manifest = Manifest {
        compilers: COMPILERS.into_iter().collect(),
        options: ["--gpu-architecture=<arch>", "--std=c++17"],
        sources: digests(&sources)?,
        images,
    };
    fs::write(out.join("MANIFEST.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
    if check {
        return compare(&out, &prebuilt);
    }
    fs::create_dir_all(&prebuilt)?;
    for name in names(&out)? {
        fs::copy(out.join(&name), prebuilt.join(&name))?;
        println!("{name}: {} bytes", fs::metadata(out.join(&name))?.len());
    }
    Ok(())
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn digests(dir: &Path) -> Result<BTreeMap<String, String>> {
    let digest = |name: String| -> Result<(String, String)> {
        let hash = Sha256::digest(fs::read(dir.join(&name))?);
        Ok((name, hash.iter().map(|byte| format!("{byte:02x}")).collect()))
    };
    names(dir)?.into_iter().map(digest).collect()
}

fn run_command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// The compiler of a wheel, installed where only this task looks.
fn nvrtc(work: &Path, wheel: &str) -> Result<PathBuf> {
    let home = work.join(wheel.replace("==", "-"));
    let library = home.join("nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    if !library.exists() {
        let venv = work.join("venv");
        if !venv.exists() {
            run_command(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
        let install = ["install", "--quiet", "--no-deps", "--target"];
        run_command(Command::new(venv.join("bin/pip")).args(install).arg(&home).arg(wheel))?;
    }
    ensure!(library.exists(), "{} has no {}", wheel, library.display());
    Ok(library)
}

fn compile(library: &Path, sources: &Path, out: &Path, archs: &[&str]) -> Result<()> {
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).arg(library).arg(sources.join("voxtral.cu")).arg(sources).arg(out).args(archs);
    run_command(&mut python)
}

fn compare(fresh: &Path, kept: &Path) -> Result<()> {
    let (want, have) = (names(fresh)?, names(kept)?);
    let differs = |name: &&String| fs::read(fresh.join(name)).ok() != fs::read(kept.join(name)).ok();
    let different: Vec<&String> = want.iter().filter(differs).collect();
    if want != have || !different.is_empty() {
        bail!(
            "{} is not what the sources give ({different:?} differ, {want:?} are made): run `cargo xtask kernels`",
            kept.display()
        );
    }
    println!("{} files are what the sources give", want.len());
    Ok(())
}
