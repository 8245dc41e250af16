//! Weights that are cut while they are mapped end the process with a line that names them.

#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use voxtral_model::Model;

use common::native;

const FOLDER: &str = "VOXTRAL_TEST_CUT_FOLDER";

/// This test again, in a process of its own that may end as it likes.
fn again(test: &str, folder: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(FOLDER, folder).output().unwrap()
}

fn sum(model: &Model) -> u64 {
    model.weights.embedding.as_bytes().iter().map(|&byte| u64::from(byte)).sum()
}

#[test]
fn a_file_that_is_cut_ends_the_process_with_a_line() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = Path::new(&folder);
        let (gone, model) = (Model::open(folder).unwrap(), Model::open(folder).unwrap());
        drop(gone);
        let file = fs::File::options().write(true).open(folder.join("consolidated.safetensors")).unwrap();
        file.set_len(100).unwrap();
        // On a thread with a small stack of its own, as backends read.
        let sum = std::thread::spawn(move || sum(&model)).join();
        panic!("what is gone was read: {sum:?}");
    }
    let dir = native();
    let run = again("a_file_that_is_cut_ends_the_process_with_a_line", dir.path());
    let path = dir.path().join("consolidated.safetensors");
    let line = format!("voxtral: {}: the file was cut or became unreadable while it was in use\n", path.display());
    assert_eq!((run.status.code(), String::from_utf8(run.stderr).unwrap()), (Some(1), line));
}

/// Another part of the program may map files, too, and a fault there is not ours to explain.
#[test]
#[allow(unsafe_code)]
fn faults_elsewhere_end_as_they_did() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let _model = Model::open(Path::new(&folder)).unwrap();
        let other = fs::File::options().read(true).write(true).open(Path::new(&folder).join("tekken.json")).unwrap();
        // SAFETY: what is mapped is cut on purpose, and this process is there to end by it.
        let map = unsafe { memmap2::Mmap::map(&other) }.unwrap();
        other.set_len(0).unwrap();
        panic!("what is gone was read: {}", map[0]);
    }
    let dir = native();
    let run = again("faults_elsewhere_end_as_they_did", dir.path());
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&run.status), Some(libc::SIGBUS), "{said}");
    assert!(!said.contains("consolidated"), "{said}");
}
