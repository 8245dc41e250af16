//! `voxtral doctor`: what it says, in words and in JSON, and how it ends. No GPU is shown to it, so that every machine is the same.

use std::ffi::OsStr;
use std::fs;

use assert_cmd::Command;
use serde_json::{Value, json};

use crate::support::*;

const SCHEMA: &str = "doctor.schema.json";

fn doctor() -> Command {
    let mut doctor = voxtral();
    doctor.arg("doctor").env("CUDA_VISIBLE_DEVICES", "-1");
    doctor
}

/// The report of a run, which must follow the schema and end with this code.
#[track_caller]
fn report(mut doctor: Command, args: &[impl AsRef<OsStr>], code: i32) -> Value {
    let run = doctor.arg("--json").args(args).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    let failed = |line: &str| line.ends_with(" checks failed");
    // A recording may be silence, which is told and is no failure.
    let others = said.lines().filter(|line| !failed(line) && !line.ends_with(": the whole input is silence"));
    let found = (run.status.code(), said.lines().filter(|line| failed(line)).count(), others.count());
    assert_eq!(found, (Some(code), usize::from(code != 0), 0), "{said}");
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    follows_schema(&report, SCHEMA);
    report
}

/// A check of a report, by its name and the backend, if it has one.
#[track_caller]
fn check<'a>(report: &'a Value, name: &str, backend: Option<&str>) -> &'a Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|check| check["name"] == name && check["backend"].as_str() == backend).unwrap()
}

#[test]
fn a_machine_without_a_gpu_runs() {
    let report = report(doctor(), &[] as &[&str], 0);
    assert_ne!(report["status"], "failure");
    let sample = check(&report, "sample", Some("cpu"));
    assert_eq!((&sample["status"], &sample["facts"]["text"]), (&json!("ok"), &json!(DIGITS)));
    for name in ["system", "cpu", "memory", "audio", "disk", "driver", "gpu", "model"] {
        check(&report, name, None);
    }
    assert!(check(&report, "speed", Some("cpu"))["facts"]["bytes_per_s"].as_f64() > Some(0.0));
}

#[test]
fn lines_are_for_people() {
    let run = doctor().args(["--backend", "cpu"]).output().unwrap();
    assert!(run.status.success() && run.stderr.is_empty(), "{run:?}");
    let lines = String::from_utf8(run.stdout).unwrap();
    assert!(lines.contains("\nskipped  gpu: not asked for: --backend cpu\n"), "{lines}");
    assert!(lines.contains("\nok       sample, cpu: the built-in sample was understood"), "{lines}");
    assert!(lines.ends_with(" 0 failed\n"), "{lines}");
}

#[test]
fn a_gpu_that_was_asked_for_and_is_not_there_is_a_failure() {
    let report = report(doctor(), &["--backend", "cuda"], 3);
    let failed = |name| check(&report, name, None)["status"] == "failure";
    assert!(failed("driver") || failed("gpu"), "{report:#}");
    // What does work is still looked at.
    assert_eq!(check(&report, "sample", Some("cpu"))["status"], "ok");
}

#[test]
fn a_model_that_cannot_run_is_a_failure() {
    let says = |model: &OsStr, words: &str| {
        let report = report(doctor(), &["--backend".as_ref(), "cpu".as_ref(), "-d".as_ref(), model], 3);
        let model = check(&report, "model", None);
        assert!(model["found"].as_str().unwrap().contains(words), "{model:#}");
    };
    says("nowhere".as_ref(), &format!("nowhere: {}", no_file()));
    let broken = copy_of("tiny");
    let weights = broken.path().join("consolidated.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    says(broken.path().as_os_str(), "consolidated.safetensors: cut short");
    // And one that is whole is none.
    fs::write(&weights, &whole).unwrap();
    let args = ["--backend".as_ref(), "cpu".as_ref(), "-d".as_ref(), broken.path().as_os_str()];
    let report = report(doctor(), &args, 0);
    assert!(check(&report, "run", Some("cpu"))["facts"]["tokens"].as_u64() > Some(12));
    let model = &check(&report, "model", None)["facts"];
    assert_eq!(model["files"]["consolidated.safetensors"], json!(whole.len()));
    assert_eq!((&model["types"], &model["fits_cpu"]), (&json!(["bf16"]), &json!(true)));
}

#[test]
fn a_model_that_is_whole_and_does_not_run_is_a_failure() {
    let model = copy_of("tiny");
    let path = model.path().join("consolidated.safetensors");
    let mut weights = Weights::read(&path);
    // Finite, and too large to compute with.
    weights.elements("layers.1.ffn_norm.weight").fill(bf16(3e38));
    weights.write(&path);
    let args = ["--backend".as_ref(), "cpu".as_ref(), "-d".as_ref(), model.path().as_os_str()];
    let report = report(doctor(), &args, 3);
    assert_eq!(check(&report, "model", None)["status"], "ok");
    let run = check(&report, "run", Some("cpu"));
    assert!(run["status"] == "failure" && run["found"].as_str().unwrap().contains("is not a number"), "{run:#}");
}

#[test]
#[cfg(target_os = "linux")]
fn little_memory_is_no_fault_and_ends_nothing() {
    for kilobytes in ["150000", "300000", "600000", "1000000", "2000000", "4000000"] {
        let limited = |args: &[&str]| {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", "ulimit -v $0; exec \"$@\"", kilobytes, env!("CARGO_BIN_EXE_voxtral")]).args(args);
            let run =
                shell.current_dir(root()).env_remove("VOXTRAL_MODEL").env("HF_HUB_CACHE", NO_CACHE).output().unwrap();
            (run.status.code(), String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap())
        };
        let (code, out, said) = limited(&["doctor", "--backend", "cpu", "--json"]);
        // Where a thread was refused, the sample has failed.
        assert!(matches!(code, Some(0 | 3)) && !said.contains("panicked"), "{kilobytes}: {code:?} {out}{said}");
        follows_schema(&serde_json::from_str(&out).unwrap(), SCHEMA);
        let (code, out, said) = limited(&["bench", "--backend", "cpu", "--repeat", "1"]);
        assert!(matches!(code, Some(0 | 1)) && !said.contains("panicked"), "{kilobytes}: {code:?} {out}{said}");
        if out.contains("bandwidth     not measured") {
            assert!(
                said.contains("voxtral: the bandwidth is not measured: measuring memory takes 536 MB of it"),
                "{said}"
            );
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_stub_of_the_toolkit_is_told_from_a_driver() {
    let dir = tempfile::tempdir().unwrap();
    let stub = dir.path().join("stubs/libcuda.so");
    fs::create_dir(stub.parent().unwrap()).unwrap();
    fs::write(&stub, "no library").unwrap();
    let mut doctor = doctor();
    doctor.env("LD_LIBRARY_PATH", stub.parent().unwrap());
    let report = report(doctor, &[] as &[&str], 0);
    let driver = check(&report, "driver", None);
    let expected = json!({ "path": stub, "origin": "stub" });
    assert!(driver["facts"]["present"].as_array().unwrap().contains(&expected), "{driver:#}");
    if driver["facts"]["loaded"].is_null() {
        assert!(driver["found"].as_str().unwrap().contains("a stub of the toolkit"), "{driver:#}");
        assert!(driver["remedy"].as_str().unwrap().contains("LD_LIBRARY_PATH"), "{driver:#}");
    } else {
        eprintln!("skipped: that the stub is named as what is wrong, since this machine has a driver");
    }
}

#[test]
fn acceptance_shows_every_promise_and_skips_what_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let args = ["--acceptance".as_ref(), "-o".as_ref(), file.as_os_str(), "samples/digits.wav".as_ref()];
    let printed = report(doctor(), &args, 0);
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(written, printed);
    for name in ["load", "transcript", "timings", "parallel", "stdin"] {
        assert_eq!(check(&printed, name, Some("cpu"))["status"], "ok", "{name}");
        assert_eq!(check(&printed, name, Some("cuda"))["status"], "skipped", "{name}");
    }
    assert_eq!(check(&printed, "transcript", Some("cpu"))["facts"]["text"], DIGITS);
    assert_eq!(check(&printed, "sessions", Some("cuda"))["status"], "skipped");
    assert_eq!(check(&printed, "agreement", None)["status"], "skipped");
    assert_eq!(check(&printed, "fallback", None)["facts"]["backend"], "cpu");

    // Where there is nothing to hear, that is said.
    let silence = dir.path().join("silence.wav");
    write_wav(&silence, 16_000, 1, &[0; 16_000]);
    let args = ["--acceptance".as_ref(), "--backend".as_ref(), "cpu".as_ref(), silence.as_os_str()];
    let printed = report(doctor(), &args, 3);
    assert_eq!(check(&printed, "transcript", Some("cpu"))["found"], "nothing was heard");
    assert_eq!(check(&printed, "parallel", Some("cpu"))["status"], "ok");
}

#[test]
fn what_is_typed_wrong_is_no_finding() {
    doctor().arg("samples/digits.wav").assert().code(2);
    let missing = doctor().args(["--acceptance", "nowhere.wav"]).assert().code(1).stdout("");
    missing.stderr(predicates::str::starts_with(format!("voxtral: nowhere.wav: {}", no_file())));
    let nowhere = doctor().args(["-o", "nowhere/report.json"]).assert().code(1).stdout("");
    nowhere.stderr(predicates::str::starts_with("voxtral: cannot write to nowhere/report.json: "));
}

#[test]
fn the_schema_refuses_what_is_no_report() {
    let whole = report(doctor(), &["--backend", "cuda"], 3);
    let schema = schema_of(SCHEMA);
    type Break = fn(&mut Value);
    let breaks: [(&str, Break); 6] = [
        ("no status", |report| _ = report.as_object_mut().unwrap().remove("status")),
        ("another status", |report| report["checks"][0]["status"] = json!("passed")),
        ("a check that there is not", |report| report["checks"][0]["name"] = json!("weather")),
        ("a remedy for what is well", |report| report["checks"][0]["remedy"] = json!("rest")),
        ("a fact that is missing", |report| {
            _ = report["checks"][0]["facts"].as_object_mut().unwrap().remove("kernel");
        }),
        ("a fact of another kind", |report| report["checks"][0]["facts"]["kernel"] = json!(6)),
    ];
    for (label, break_it) in breaks {
        let mut report = whole.clone();
        break_it(&mut report);
        assert!(!schema.is_valid(&report), "{label}");
    }
}
