//! `voxtral quantize`, and that everything takes the folder that it writes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{DIGITS, follows_schema, json_of, logprobs, output, root, samples, voxtral, write_wav};

/// The demo model's files.
fn digits() -> PathBuf {
    root().join("models/digits")
}

/// The demo model, packed; also what was said on standard output.
fn packed(flags: &[&str]) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let run = voxtral()
        .args(["quantize", "--model"])
        .arg(digits())
        .arg("--out")
        .arg(dir.path())
        .args(flags)
        .output()
        .unwrap();
    assert!(run.status.success(), "{flags:?}: {run:?}");
    (dir, String::from_utf8(run.stdout).unwrap())
}

fn text(model: &Path, audio: &Path) -> String {
    output(&["-d".as_ref(), model.as_os_str(), audio.as_os_str()], "")
}

#[test]
fn every_number_of_bits_transcribes_and_takes_less_room() {
    let size = |dir: &Path| fs::metadata(dir.join("consolidated.safetensors")).unwrap().len();
    let mut last = size(&digits()) + 100_000;
    for bits in ["16", "12", "8", "4"] {
        let (dir, table) = packed(&["--bits", bits]);
        assert_eq!(text(dir.path(), &root().join("samples/digits.wav")).trim(), DIGITS, "{bits} bits");
        let now = size(dir.path());
        assert!(now < last, "{bits} bits: {now} bytes, more bits {last}");
        last = now;
        let mut lines = table.lines();
        assert_eq!(lines.next(), Some("matrix\tencoding\terror"));
        let errors: Vec<f64> = lines.map(|line| line.rsplit('\t').next().unwrap().parse().unwrap()).collect();
        let exact = ["16", "12"].contains(&bits);
        assert!(errors.len() > 20 && errors.iter().all(|error| (*error == 0.0) == exact && *error < 0.12), "{table}");
    }
}

#[test]
fn without_loss_not_a_bit_changes() {
    let run = |model: &Path| json_of(&["-d", model.to_str().unwrap(), "--backend", "cpu", "samples/digits.wav"], "");
    let before = run(&digits());
    for bits in ["16", "12"] {
        let after = run(packed(&["--bits", bits]).0.path());
        assert_eq!(logprobs(&before), logprobs(&after), "{bits} bits");
        assert_eq!((&before["words"], &before["tokens"]), (&after["words"], &after["tokens"]), "{bits} bits");
    }
}

#[test]
fn speech_from_the_first_sample_and_quiet_speech_are_heard_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let all = samples();
    let loud = all.iter().map(|s| s.unsigned_abs()).max().unwrap() / 8;
    let speech = &all[all.iter().position(|s| s.unsigned_abs() > loud).unwrap()..];
    let quiet: Vec<i16> = all.iter().map(|&s| (f64::from(s) * 10f64.powf(-30.0 / 20.0)) as i16).collect();
    let write = |name: &str, samples: &[i16]| {
        let path = dir.path().join(name);
        write_wav(&path, 16_000, 1, samples);
        path
    };
    let models = [packed(&["--bits", "8"]).0, packed(&["--bits", "4"]).0];
    for audio in [write("at once.wav", speech), write("quiet.wav", &quiet)] {
        let before = text(&digits(), &audio);
        assert!(before.split_whitespace().count() > 8, "{}: {before}", audio.display());
        for model in &models {
            assert_eq!(text(model.path(), &audio), before, "{}", audio.display());
        }
    }
}

#[test]
fn parts_may_differ_and_doctor_tells() {
    let (dir, table) = packed(&["--bits", "4", "--group", "64", "--head", "12", "--encoder", "16"]);
    let encoding = |part: &str| {
        let line = table.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {table}"));
        line.split('\t').nth(1).unwrap().to_owned()
    };
    assert_eq!(
        ["whisper_encoder", "audio_language", "tok_embeddings", "layers.0.feed_forward"].map(encoding),
        ["bf16", "bf16", "bf12", "bf16"]
    );
    assert!(table.lines().any(|line| line.starts_with("layers.0.feed_forward.w1.weight\tint4")), "{table}");
    let run = voxtral().args(["doctor", "--json", "--backend", "cpu", "-d"]).arg(dir.path()).output().unwrap();
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    follows_schema(&report, "doctor.schema.json");
    let checks = report["checks"].as_array().unwrap();
    let model = checks.iter().find(|check| check["name"] == "model").unwrap();
    assert!(model.to_string().contains(r#"["bf12","bf16","int4"]"#), "{model}");
}

#[test]
fn a_check_tells_how_far_transcripts_drift() {
    let (_, said) = packed(&["--bits", "8", "--check", "samples/digits.wav"]);
    assert!(said.contains("WER 0.00 %") && said.contains("digits.wav"), "{said}");
}

#[test]
fn wrong_usage_and_wrong_folders_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let model = digits();
    let model = model.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--model", model, "--out", out], 2, "--bits"),
        (&["--model", model, "--out", out, "--bits", "5"], 2, "\"5\" is not 16, 12, 8 or 4"),
        (&["--model", model, "--out", out, "--bits", "8", "--group", "48"], 2, "\"48\" is not 32, 64 or 128"),
        (&["--model", "no/such/folder", "--out", out, "--bits", "8"], 1, "no/such/folder"),
        (&["--model", model, "--out", model, "--bits", "8"], 1, "there already is such a file"),
    ];
    for (flags, code, says) in cases {
        let run = voxtral().arg("quantize").args(flags).output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(says), "{flags:?}: {said}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn random_weights_may_be_packed_too() {
    let dir = tempfile::tempdir().unwrap();
    let size = ["--size", "small", "encoder.layers=1", "decoder.layers=1", "vocab=1500"];
    voxtral().args(["synth-model", "--bits", "4", "--out"]).arg(dir.path()).args(size).assert().success();
    let model = voxtral_model::Model::open(dir.path()).unwrap();
    assert_eq!(model.weights.embedding.type_name(), "int4");
    let again = tempfile::tempdir().unwrap();
    let run = voxtral()
        .args(["quantize", "--bits", "8", "--model"])
        .arg(dir.path())
        .arg("--out")
        .arg(again.path())
        .output()
        .unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.code() == Some(1) && said.contains("is packed already"), "{said}");
}
