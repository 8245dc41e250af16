//! `voxtral bench`: what it writes, and that it notices what has become slower. No test asks how fast anything is: times are
//! only compared with times of the same machine, and by far.

use std::fs;
use std::path::Path;

use predicates::prelude::*;
use serde_json::Value;
use voxtral_cpu::Isa;

use crate::support::*;

/// What it writes, ended as `code`, and what it says on standard error.
#[track_caller]
fn bench(args: &[&str], code: i32) -> (String, String) {
    let run = voxtral().arg("bench").args(args).assert().code(code).get_output().clone();
    (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap())
}

fn json(args: &[&str]) -> Value {
    let json = serde_json::from_str(&bench(&[&["--format", "json", "--backend", "cpu"], args].concat(), 0).0).unwrap();
    follows_schema(&json, "bench.schema.json");
    json
}

#[test]
fn figures_are_as_their_schema_says() {
    let report = json(&["--repeat", "2", "--decode", "sequential", "samples/digits.wav"]);
    assert_eq!(report["settings"]["runs"], 2);
    assert_eq!(report["environment"]["version"], env!("CARGO_PKG_VERSION"));
    let figures = &report["backends"][0]["recordings"][0];
    assert_eq!(
        figures["audio"],
        serde_json::json!({ "path": "samples/digits.wav", "duration_s": 8.195, "damage": [] })
    );
    // The first token comes with the prompt.
    assert_eq!((&figures["tokens"], &figures["passes"]), (&113.into(), &112.into()));
    for time in ["total_ms", "encode_ms", "prefill_ms", "first_text_ms", "tokens_per_s", "reached_gb_s"] {
        assert!(figures[time].as_f64().unwrap() > 0.0, "{time} of {figures}");
    }
    let percentile = |name: &str| figures["pass_ms"][name].as_f64().unwrap();
    assert!(percentile("p50") <= percentile("p90") && percentile("p99") <= percentile("max"), "{figures}");
    // Three layers of matrices, and the embedding, of 2 bytes an element.
    let pass = 2 * (3 * (512 * 256 * 2 + 2 * 128 * 256 + 3 * 768 * 256) + 1280 * 256);
    let pass_mb = report["backends"][0]["memory"]["pass_mb"].as_f64().unwrap();
    assert!((pass_mb - f64::from(pass) / 1e6).abs() < 1e-3, "{pass_mb} for {pass}");
}

#[test]
fn tables_are_for_people_and_for_spreadsheets() {
    let (table, said) = bench(&["--backend", "cpu", "--repeat", "1"], 0);
    assert!(said.is_empty(), "{said}");
    for line in ["CPU ", "model         digits, 4.5 million", "  pass        p50 ", "  tokens/s "] {
        assert!(table.contains(&format!("\n{line}")), "no {line:?} in {table}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bench.csv");
    let files = ["samples/digits.wav"; 2];
    let args =
        [&["--backends", "cpu,cpu", "--repeat", "1", "--format", "csv", "-o", path.to_str().unwrap()], &files[..]];
    assert_eq!(bench(&args.concat(), 0).0, "");
    let csv = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines.len() == 5 && lines[0].starts_with("version,commit,backend,device,"), "{csv}");
    // The device's name has commas.
    let cells = |line: &str| line.replace(", ", " ").split(',').count();
    assert!(lines.iter().all(|line| cells(line) == cells(lines[0])), "{csv}");
}

#[test]
fn live_words_come_after_they_were_heard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short.wav");
    write_wav(&path, 16_000, 1, &samples()[..32_000]);
    let report = json(&["--live", "--repeat", "1", path.to_str().unwrap()]);
    let figures = &report["backends"][0]["recordings"][0];
    let words = figures["live"]["words"].as_array().unwrap();
    assert!(!words.is_empty(), "{figures}");
    // A word cannot come before the delay is over, unless the audio ends: then the silence after it comes at once.
    let first = words[0]["latency_ms"].as_f64().unwrap();
    assert!(words[0]["text"] == "four" && first >= 480.0, "{words:?}");
    assert!(figures["total_ms"].as_f64().unwrap() >= 2000.0, "{figures}");
}

#[test]
fn live_sessions_lose_no_token() {
    let args = ["--live", "--sessions", "3", "--minutes", "0.1", "--seconds", "1", "--files", "1"];
    let report = json(&args);
    let measured = &report["backends"][0];
    assert_eq!(measured["recordings"], serde_json::json!([]));
    let capacity = &measured["capacity"][0];
    // A second is 12.5 tokens.
    assert_eq!((&capacity["tokens"], &capacity["tokens_lost"]), (&(3 * 13).into(), &0.into()), "{capacity}");
    assert_eq!((&capacity["sessions"], &capacity["files"]["count"]), (&3.into(), &1.into()));
    assert!(capacity["files"]["audio_s_per_s"].as_f64().unwrap() > 0.0, "{capacity}");
    let all = [&["--backend", "cpu"], &args[..7]].concat();
    let (table, _) = bench(&all, 0);
    assert!(table.contains("\n  tokens      ") && table.contains("; 0 lost\n"), "{table}");
    let (csv, _) = bench(&[&all[..], &["--format", "csv"]].concat(), 0);
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains(",late_p99_ms,"), "{csv}");
}

#[test]
fn where_nothing_is_said_there_is_no_latency() {
    let dir = tempfile::tempdir().unwrap();
    let silence = dir.path().join("silence.wav");
    write_wav(&silence, 16_000, 1, &[0; 8_000]);
    let args = ["--live", "--repeat", "1", silence.to_str().unwrap()];
    let report = json(&args);
    let figures = &report["backends"][0]["recordings"][0];
    assert_eq!(figures["live"], serde_json::json!({ "latency_ms": null, "words": [] }));
    let table = bench(&[&["--backend", "cpu"], &args[..]].concat(), 0).0;
    assert!(table.contains("\n  first text  none\n") && table.contains("\n  words       none\n"), "{table}");
}

#[test]
fn a_slowed_kernel_is_noticed() {
    if Isa::detect() == Isa::PORTABLE {
        eprintln!("skipped: this CPU has no faster instructions than the portable ones");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (model, before) = (path("model"), path("before.json"));
    voxtral().args(["synth-model", "--size", "small", "--out", &model]).assert().success();
    let run = |more: &[&str], code| {
        let args = ["--backend", "cpu", "-d", &model, "--decode", "sequential", "--repeat", "2"];
        bench(&[&args, more].concat(), code)
    };
    run(&["--format", "json", "-o", &before], 0);
    // Plain kernels on one thread are ten times as slow. In between there is room for a machine that others use.
    let against = ["--against", &before, "--max-slowdown", "4", "--format", "json"];
    let same: Value = serde_json::from_str(&run(&against, 0).0).unwrap();
    let (slow, said) = run(&[&against[..], &["--isa", "scalar", "--threads", "1"]].concat(), 3);
    let told = said.lines().filter(|line| line.contains(" was measured on ")).count();
    assert_eq!(told, 1, "{said}");
    let slow: Value = serde_json::from_str(&slow).unwrap();
    for report in [&same, &slow] {
        follows_schema(report, "bench.schema.json");
        assert_eq!(report["against"]["path"], before.as_str());
    }
    let worst = |report: &Value| {
        let ratios = report["backends"][0]["recordings"][0]["against"].as_object().unwrap().values();
        ratios.map(|ratio| ratio.as_f64().unwrap()).fold(0.0, f64::max)
    };
    assert!(worst(&same) <= 4.0 && worst(&slow) > 4.0, "{same} {slow}");
    assert!(said.contains("times as long as in") && said.contains("at most 4 is allowed"), "{said}");
}

#[test]
fn figures_of_something_else_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("before.json");
    let write = |json: &str| fs::write(&path, json).unwrap();
    let says = |sentence: &str| {
        let args = ["--backend", "cpu", "--repeat", "1", "--against", path.to_str().unwrap()];
        let (written, said) = bench(&args, 1);
        assert!(written.is_empty() && said.starts_with("voxtral: ") && said.lines().count() == 1, "{written}{said}");
        assert!(said.contains(path.to_str().unwrap()) && said.contains(sentence), "{said}");
    };
    says(&no_file());
    write("{\"words\":[]}");
    says("is not what voxtral bench --format json writes: missing field");
    write("");
    says("is not what voxtral bench --format json writes: EOF");
    let mut report = json(&["--repeat", "1"]);
    report["backends"][0]["recordings"][0]["audio"]["path"] = "another.wav".into();
    write(&report.to_string());
    says("has no figures of built-in sample on cpu");
    report["settings"]["parameters"] = 1.into();
    write(&report.to_string());
    says("measured digits of 1 parameters at 480 ms, this run digits of");
}

#[test]
fn a_backend_that_is_not_there_is_not_measured() {
    if voxtral_cuda::CudaBackend::probe(0).is_ok() {
        eprintln!("skipped: this machine has a GPU");
        return;
    }
    for args in [&["bench", "--backends", "cpu,cuda"][..], &["compare", "--backends", "cpu,cuda"]] {
        let run = voxtral().args(args).assert().code(3).stdout("");
        run.stderr(predicate::str::starts_with("voxtral: nothing to measure: --backend cuda: "));
    }
    for script in ["benchmark_backends.sh", "accuracy_regression.sh"] {
        if cfg!(windows) {
            eprintln!("skipped: {script}, for want of bash");
            continue;
        }
        let mut script = std::process::Command::new(root().join("scripts").join(script));
        let run = script
            .env("VOXTRAL", Path::new(env!("CARGO_BIN_EXE_voxtral")))
            .env_remove("VOXTRAL_MODEL")
            .env("HF_HUB_CACHE", NO_CACHE)
            .output();
        assert_eq!(run.unwrap().status.code(), Some(3), "{script:?}");
    }
}
