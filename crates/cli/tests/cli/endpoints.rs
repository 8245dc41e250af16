//! `--endpoint`: lines and `final` events at pauses.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::*;

/// The sample with pauses of 1.5 s more after its second and fifth digit and at its end: in a WAV file, and as raw samples.
fn paused() -> (TempDir, String, Vec<u8>) {
    let all = samples();
    let at = |seconds: f64| (seconds * 16e3) as usize;
    let silence = vec![0; at(1.5)];
    let parts = [&all[..at(1.95)], &silence, &all[at(1.95)..at(4.25)], &silence, &all[at(4.25)..], &silence].concat();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("paused.wav");
    write_wav(&path, 16_000, 1, &parts);
    let path = path.to_str().unwrap().to_owned();
    (dir, path, parts.into_iter().flat_map(i16::to_le_bytes).collect())
}

const LINES: &str = "four seven\none one nine\nzero two six three five eight\n";

fn run(flags: &[&str], path: &str) -> String {
    output(&[&["--backend", "cpu", "--endpoint", "800"], flags, &[path]].concat(), "")
}

#[test]
fn text_is_a_line_for_what_was_said_between_pauses() {
    let (_dir, path, raw) = paused();
    assert_eq!(run(&[], &path), LINES);
    assert_eq!(run(&["--decode", "sequential"], &path), LINES);
    assert_eq!(output(&["--backend", "cpu", "--endpoint", "800", "--stdin", "-I", "0.7"], raw), LINES);
    let timed = run(&["--timestamps"], &path);
    let lines: String = timed.lines().map(|line| line.split_once("] ").unwrap().1.to_owned() + "\n").collect();
    assert_eq!(lines, LINES);
    // No pause is so long, and the sample itself has none that counts.
    let line = format!("{DIGITS}\n");
    assert_eq!(output(&["--endpoint", "3000", &path], ""), line);
    assert_eq!(output(&["--endpoint", "800", "samples/digits.wav"], ""), line);
}

#[test]
fn every_pause_is_a_final_event_and_all_of_them_are_the_text() {
    let (_dir, path, _) = paused();
    let lines = run(&["--format", "jsonl"], &path);
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let schema = schema_of("jsonl.schema.json");
    assert!(events.iter().all(|event| schema.is_valid(event)), "{lines}");
    let finals: Vec<_> = events.iter().filter(|event| event["type"] == "final").collect();
    let texts: Vec<_> = finals.iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert_eq!(texts, LINES.lines().chain([""]).collect::<Vec<_>>(), "the last is of the silence at the end");
    assert_eq!(events.last(), finals.last().copied());
    // They follow each other, and each comes before the words of the next.
    let mut before = 0.0;
    for event in &events {
        let (start, end) = (event["start_s"].as_f64(), event["end_s"].as_f64());
        match event["type"].as_str().unwrap() {
            "final" => {
                assert_eq!(start, Some(before));
                before = end.unwrap();
            }
            "word" => assert!(start.unwrap() >= before, "{event} after {before}"),
            _ => {}
        }
    }
    let json = json_of(&["--backend", "cpu", "--endpoint", "800", &path], "");
    let segments: Vec<_> =
        json["segments"].as_array().unwrap().iter().map(|part| part["text"].as_str().unwrap()).collect();
    assert_eq!((segments, &json["text"]), (LINES.lines().collect(), &Value::from(DIGITS)));
    let plain = json_of(&[&path], "");
    assert_eq!((&plain["segments"], &plain["text"]), (&Value::Null, &json["text"]), "the model hears the same");
}

#[test]
fn cues_end_at_pauses() {
    let (dir, path, _) = paused();
    let out = format!("{}/out/", dir.path().display());
    run(&["--format", "srt,tsv,text", "-o", &out], &path);
    let read = |name: &str| fs::read_to_string(Path::new(&out).join(name)).unwrap();
    assert_eq!(read("paused.txt"), LINES);
    let cues: Vec<_> =
        read("paused.tsv").lines().skip(1).map(|line| line.split('\t').nth(2).unwrap().to_owned()).collect();
    assert_eq!(cues, LINES.lines().collect::<Vec<_>>());
    assert_eq!(read("paused.srt").matches(" --> ").count(), 3);
}

#[test]
fn silence_and_noise_make_no_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = 1_u32;
    let mut noise = |loudness: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 16) % (2 * loudness + 1)) as i16 - loudness as i16
    };
    for loudness in [0, 30, 300] {
        let path = dir.path().join("nobody.wav");
        let samples: Vec<i16> = (0..80_000).map(|_| noise(loudness)).collect();
        write_wav(&path, 16_000, 1, &samples);
        let path = path.to_str().unwrap();
        let plain = output(&["--backend", "cpu", path], "");
        assert_eq!(run(&[], path).replace('\n', " ").trim(), plain.trim(), "{loudness}");
        let finals = run(&["--format", "jsonl"], path);
        let empty = finals.lines().filter(|line| line.contains("\"final\"") && line.contains("\"text\":\"\"")).count();
        assert!(empty <= 1, "only the last may be of nothing: {finals}");
    }
}
