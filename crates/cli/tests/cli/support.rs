//! Running the program, and making what it reads.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Map, Value};
use tempfile::TempDir;

/// What is said in `samples/digits.wav`.
pub const DIGITS: &str = "four seven one one nine zero two six three five eight";

/// The sources' folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What the system says of a file that is not there.
pub fn no_file() -> String {
    std::io::Error::from_raw_os_error(2).to_string()
}

/// What it says where not even the folder is there: Windows tells these apart.
pub fn no_folder() -> String {
    std::io::Error::from_raw_os_error(if cfg!(windows) { 3 } else { 2 }).to_string()
}

/// Not the cache of whoever runs the tests: a model that is downloaded there would be the default.
pub const NO_CACHE: &str = "/no/such/cache";

/// The program in the sources' folder, with no settings from outside.
pub fn program() -> std::process::Command {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_voxtral"));
    program.current_dir(root()).env_remove("VOXTRAL_MODEL");
    for variable in ["HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_SYMLINKS"] {
        program.env_remove(variable);
    }
    program.env("HF_HUB_CACHE", NO_CACHE);
    program
}

/// The same, and it must end within minutes, however busy the machine is.
pub fn voxtral() -> Command {
    let mut command = Command::from_std(program());
    command.timeout(std::time::Duration::from_secs(300));
    command
}

/// What it writes, having written nothing on standard error and ended well.
pub fn output(args: &[impl AsRef<OsStr>], stdin: impl Into<Vec<u8>>) -> String {
    let run = voxtral().arg("--silent").args(args).write_stdin(stdin).output().unwrap();
    let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    assert!(run.status.success() && run.stderr.is_empty(), "{args:?}: {run:?}");
    String::from_utf8(run.stdout).unwrap()
}

/// The JSON of one input, `args` and `stdin` as they are.
pub fn json_of(args: &[impl AsRef<OsStr>], stdin: impl Into<Vec<u8>>) -> Value {
    let all: Vec<_> =
        ["--format", "json", "--tokens"].iter().map(OsStr::new).chain(args.iter().map(AsRef::as_ref)).collect();
    serde_json::from_str(&output(&all, stdin)).unwrap()
}

pub fn ids(json: &Value) -> Vec<u32> {
    json["tokens"].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap() as u32).collect()
}

pub fn logprobs(json: &Value) -> Vec<f64> {
    json["tokens"].as_array().unwrap().iter().map(|token| token["logprob"].as_f64().unwrap()).collect()
}

/// The samples of `samples/digits.wav`.
pub fn samples() -> Vec<i16> {
    let mut wav = hound::WavReader::open(root().join("samples/digits.wav")).unwrap();
    wav.samples().map(Result::unwrap).collect()
}

/// They as raw bytes, and as the bytes of the file.
pub fn raw() -> Vec<u8> {
    samples().into_iter().flat_map(i16::to_le_bytes).collect()
}

pub fn digits_wav() -> Vec<u8> {
    fs::read(root().join("samples/digits.wav")).unwrap()
}

/// A recording of the tests of another crate: a short tone in the format that its name says.
pub fn tone(name: &str) -> Vec<u8> {
    fs::read(root().join("crates/audio/tests/data").join(name)).unwrap()
}

/// Writes a WAV file of 16 bits.
pub fn write_wav(path: &Path, rate: u32, channels: u16, samples: &[i16]) {
    let spec =
        hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    samples.iter().for_each(|&sample| wav.write_sample(sample).unwrap());
    wav.finalize().unwrap();
}

/// A copy of a model, by its folder in the sources, to break.
pub fn copy_of_folder(folder: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

/// A copy of a model among the goldens, to break.
pub fn copy_of(model: &str) -> TempDir {
    copy_of_folder(&format!("goldens/{model}"))
}

/// A schema of `schemas/`.
pub fn schema_of(name: &str) -> jsonschema::Validator {
    let schema = fs::read_to_string(root().join("schemas").join(name)).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap()
}

/// Holds JSON to a schema of `schemas/`.
#[track_caller]
pub fn follows_schema(json: &Value, schema: &str) {
    let errors: Vec<String> =
        schema_of(schema).iter_errors(json).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?} in {json}");
}

/// A safetensors file taken apart: its header, and the bytes after it.
pub struct Weights {
    pub header: Map<String, Value>,
    pub data: Vec<u8>,
}

impl Weights {
    pub fn read(path: &Path) -> Self {
        let file = fs::read(path).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        Self { header: serde_json::from_slice(&file[8..8 + length]).unwrap(), data: file[8 + length..].to_vec() }
    }

    pub fn write(&self, path: &Path) {
        let header = serde_json::to_vec(&self.header).unwrap();
        fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, &self.data].concat()).unwrap();
    }

    /// The bf16 elements of a tensor.
    pub fn elements(&mut self, tensor: &str) -> &mut [[u8; 2]] {
        let at = |i: usize| self.header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
        let range = at(0)..at(1);
        self.data[range].as_chunks_mut().0
    }
}

/// The bf16 nearest below in magnitude.
pub fn bf16(value: f32) -> [u8; 2] {
    ((value.to_bits() >> 16) as u16).to_le_bytes()
}

/// Runs the program in little memory; it must fail with one line that has all of `says`, and write nothing else.
#[track_caller]
pub fn fails(label: &str, args: &[impl AsRef<OsStr>], stdin: &[u8], says: &[&str]) {
    // A limit on memory is a thing of the shell; where there is none, the program runs without.
    let mut command = if cfg!(unix) {
        let mut shell = assert_cmd::Command::new("sh");
        shell.args(["-c", "ulimit -v 4000000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_voxtral")]);
        shell
    } else {
        assert_cmd::Command::new(env!("CARGO_BIN_EXE_voxtral"))
    };
    command
        .current_dir(root())
        .env_remove("VOXTRAL_MODEL")
        .env("HF_HUB_CACHE", NO_CACHE)
        .timeout(std::time::Duration::from_secs(60));
    let run = command.args(["--silent", "--format", "json"]).args(args).write_stdin(stdin).output().unwrap();
    let line = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1), "{label}: {:?}, {line}", run.status);
    assert_eq!(String::from_utf8_lossy(&run.stdout), "", "{label}: {line}");
    assert!(line.starts_with("voxtral: ") && line.lines().count() == 1 && line.ends_with('\n'), "{label}: {line}");
    for says in says {
        assert!(line.contains(says), "{label}: {line:?} does not say {says:?}");
    }
    let repeats = line.trim_end().rsplit_once(": ").is_some_and(|(before, last)| before.ends_with(last));
    assert!(!repeats, "{label}: {line}");
}

pub fn noise(seed: u32, count: usize) -> Vec<u8> {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    };
    std::iter::successors(Some(seed), |s| Some(*s)).scan(seed, |state, _| next(state)).take(count).collect()
}
