//! Damage of every kind to files that were good: it works, or what is damaged is told, or it is one clear line.

use std::fs;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::*;

/// Changes, inserts, removes or repeats a few bytes among the first `reach`, or cuts the end off.
fn damaged(bytes: &[u8], reach: usize, rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..reach.min(bytes.len()));
        match rng.random_range(0..6) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0, 0x7f, 0x80, 0xff, b'"', b'9'][rng.random_range(0..6)],
            3 => drop(bytes.drain(at..bytes.len().min(at + rng.random_range(1..20)))),
            4 => bytes.insert(at, rng.random()),
            _ if rng.random_ratio(1, 4) => bytes.truncate(at.max(1)),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

/// Ends with 0 or 4 and one JSON object that tells of damage or not, or with 1 and one line that begins with `names`.
fn survives(label: &str, args: &[&Path], names: &Path) {
    let run = voxtral().args(["--silent", "--format", "json"]).args(args).output().unwrap();
    let (out, error) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    match run.status.code() {
        Some(code @ (0 | 4)) => {
            let json: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{label}: {e}: {out}"));
            assert_eq!(json["audio"]["damage"] == serde_json::json!([]), code == 0, "{label}: {out}");
            assert_eq!(error, "", "{label}");
        }
        Some(1) => {
            assert_eq!(out, "", "{label}: {error}");
            let line = error.strip_prefix(&format!("voxtral: {}", names.display()));
            assert!(line.is_some_and(|line| line.ends_with('\n') && line.lines().count() == 1), "{label}: {error}");
        }
        code => panic!("{label}: {code:?}: {error}"),
    }
}

#[test]
fn damaged_recordings() {
    let dir = tempfile::tempdir().unwrap();
    let tones = ["tone.flac", "tone.mp3", "tone.m4a", "tone.ogg", "tone.aac", "tone_ima.wav", "tone.aiff", "tone.caf"];
    // The sample is shortened: a second is as good as eight.
    let wav = [&digits_wav()[..40], &32_000u32.to_le_bytes(), &digits_wav()[44..32_044]].concat();
    let cases = (0..60)
        .map(|_| ("digits.wav", wav.clone(), 60))
        .chain(tones.iter().flat_map(|&name| (0..6).map(move |_| (name, tone(name), 400))));
    for (seed, (name, whole, reach)) in cases.enumerate() {
        let path = dir.path().join(name);
        fs::write(&path, damaged(&whole, reach, &mut SmallRng::seed_from_u64(seed as u64))).unwrap();
        survives(&format!("{name}, seed {seed}"), &[&path], &path);
    }
}

#[test]
fn damaged_models() {
    let talk = tempfile::tempdir().unwrap();
    let path = talk.path().join("talk.wav");
    write_wav(&path, 16_000, 1, &samples()[..16_000]);
    let files = [
        ("tiny", "params.json", 1323),
        ("tiny", "consolidated.safetensors", 10_800),
        ("tiny", "tekken.json", 99_669),
        ("tiny_hf", "config.json", 1592),
        ("tiny_hf", "model.safetensors", 10_800),
    ];
    for (model, name, reach) in files {
        let whole = fs::read(root().join("goldens").join(model).join(name)).unwrap();
        let dir = copy_of(model);
        for seed in 0..20 {
            fs::write(dir.path().join(name), damaged(&whole, reach, &mut SmallRng::seed_from_u64(seed))).unwrap();
            survives(&format!("{model}/{name}, seed {seed}"), &[Path::new("-d"), dir.path(), &path], dir.path());
        }
    }
}
