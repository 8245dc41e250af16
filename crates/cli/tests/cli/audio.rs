//! Any audio in: what is read, what is told of it, and with which exit code. The reader's own tests are in the crate `audio`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::*;

/// A folder without programs in it, for a PATH without ffmpeg.
fn nowhere() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A file of other people's encoders, see `audio/tests/data/README.md`.
fn case(name: &str) -> PathBuf {
    root().join("crates/audio/tests/data/cases").join(name)
}

/// Transcribes on the CPU without an ffmpeg on the PATH.
fn run(args: &[&str], file: &Path, piped: bool) -> Output {
    let mut command = voxtral();
    command.env("PATH", nowhere().path()).env("VOXTRAL_MODEL", "digits").args(["--backend", "cpu"]).args(args);
    if piped {
        command.arg("-").pipe_stdin(file).unwrap()
    } else {
        command.arg(file)
    };
    command.output().unwrap()
}

fn json(run: &Output) -> Value {
    serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}"))
}

fn said(run: &Output) -> String {
    String::from_utf8(run.stderr.clone()).unwrap()
}

/// A file of these bytes, and what transcribing it says.
#[track_caller]
fn audio_fails(label: &str, bytes: &[u8], says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talk.wav");
    fs::write(&path, bytes).unwrap();
    fails(label, &[&path], b"", &[path.to_str().unwrap(), says]);
}

/// That word ends there, within 0.3 s.
#[track_caller]
fn assert_ends(json: &Value, word: &str, at_s: f64) {
    let words = json["words"].as_array().unwrap();
    let ends: Vec<f64> = words.iter().filter(|w| w["text"] == word).map(|w| w["end_s"].as_f64().unwrap()).collect();
    assert!(ends.iter().any(|end| (end - at_s).abs() < 0.3), "{word} ends at {ends:?}, not at {at_s}");
}

#[test]
fn what_lost_nothing_is_heard_without_a_word() {
    let (six, three, two) = ("four seven one one nine zero", "four seven one", "four seven one eight three two");
    let cases = [
        ("he_v1_implicit.m4a", DIGITS),
        ("he_explicit.m4a", DIGITS),
        ("alac.caf", six),
        ("ima_ffmpeg_pipe.wav", six),
        ("ima_riffsize_minus8.wav", DIGITS),
        ("id3v1.flac", three),
        ("no_ftyp.mov", DIGITS),
        ("mono_then_stereo.mp3", two),
        ("rate_change.aac", two),
        ("chained_channels.ogg", two),
        ("default_flag_second.mkv", DIGITS),
        ("ac3_then_aac.mp4", three),
        ("opus.opus", DIGITS),
        ("radio_mid_frame.mp3", DIGITS),
        ("zeros_before.mp3", DIGITS),
    ];
    for (name, words) in cases {
        for piped in [false, true] {
            let run = run(&["--format", "json"], &case(name), piped);
            assert_eq!((run.status.code(), said(&run)), (Some(0), String::new()), "{name}, piped: {piped}");
            let json = json(&run);
            assert_eq!(
                (json["text"].as_str(), &json["audio"]["damage"]),
                (Some(words), &Value::Array(vec![])),
                "{name}"
            );
        }
    }
}

#[test]
fn damage_is_told_and_costs_only_itself() {
    type Ends = &'static [(&'static str, f64)];
    let cases: [(&str, &str, f64, Ends); 6] = [
        (
            "ogg_one_bad_byte.ogg",
            "four seven one one zero two six three five eight",
            3.5,
            &[("zero", 4.8), ("eight", 8.0)],
        ),
        ("damaged_4000.mp3", "four seven one one two six three five eight", 4.0, &[("six", 6.24), ("eight", 8.08)]),
        ("damaged_1500.m4a", DIGITS, 3.8, &[("nine", 4.0), ("zero", 4.8)]),
        ("gap3s.mp4", "four seven two six three five eight", 2.0, &[("two", 5.44), ("eight", 8.0)]),
        ("cut70.webm", "four seven one one nine zero two", 5.5, &[("zero", 4.8)]),
        ("fragmented_cut60.mp4", "four seven one one nine zero", 5.0, &[("nine", 4.1)]),
    ];
    for (name, words, at_s, ends) in cases {
        for piped in [false, true] {
            let run = run(&["--format", "json"], &case(name), piped);
            let said = said(&run);
            assert_eq!(run.status.code(), Some(4), "{name}, piped: {piped}: {said}");
            let json = json(&run);
            assert_eq!(json["text"], words, "{name}");
            ends.iter().for_each(|&(word, at_s)| assert_ends(&json, word, at_s));
            let [damage] = &json["audio"]["damage"].as_array().unwrap()[..] else { panic!("{name}: {json}") };
            let told_s = damage["at_s"].as_f64().unwrap();
            assert!((told_s - at_s).abs() < 1.5 && damage["lost_s"].is_number(), "{name}: {damage}");
            let line = format!(": damaged at {told_s:.2} s: {}", damage["what"].as_str().unwrap());
            assert!(said.lines().count() == 1 && said.contains(&line), "{name}: {said}");
        }
    }
}

#[test]
fn damage_is_an_event_and_no_format_goes_without() {
    let dir = tempfile::tempdir().unwrap();
    let out = format!("{}/", dir.path().display());
    let all = run(&["--silent", "--format", "text,json,jsonl,srt", "-o", &out], &case("ogg_one_bad_byte.ogg"), false);
    assert_eq!((all.status.code(), all.stderr.len(), all.stdout.len()), (Some(4), 0, 0));
    let read = |ending: &str| fs::read_to_string(format!("{out}ogg_one_bad_byte.{ending}")).unwrap();
    assert!(read("txt").ends_with("five eight\n") && read("srt").contains("zero"));
    let events: Vec<Value> = read("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let damage: Vec<_> = events.iter().filter(|event| event["type"] == "damage").collect();
    let json: Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!(damage.len(), 1);
    assert!(schema_of("jsonl.schema.json").is_valid(damage[0]), "{}", damage[0]);
    for field in ["at_s", "lost_s", "what"] {
        assert_eq!(damage[0][field], json["audio"]["damage"][0][field]);
    }
}

#[test]
fn a_failed_input_counts_more_than_a_damaged_one() {
    let damaged = case("ogg_one_bad_byte.ogg");
    let both = run(&["nowhere.wav"], &damaged, false);
    assert_eq!(both.status.code(), Some(1));
    let with_good = run(&["samples/digits.wav"], &damaged, false);
    assert_eq!(with_good.status.code(), Some(4));
    assert_eq!(String::from_utf8(with_good.stdout).unwrap().lines().next(), Some(DIGITS));
}

#[test]
fn times_are_those_of_the_presentation() {
    for (name, words, ends) in [
        ("starts_at_5s.mp4", "four seven one", [("four", 5.88), ("one", 7.56)]),
        ("edit_list_4.2_to_8.1s.m4a", "zero two six three five eight", [("zero", 0.6), ("eight", 3.8)]),
    ] {
        let json = json(&run(&["--format", "json"], &case(name), false));
        assert_eq!(json["text"], words, "{name}");
        ends.iter().for_each(|&(word, at_s)| assert_ends(&json, word, at_s));
    }
}

#[test]
fn what_is_not_built_in_is_named() {
    for (name, format) in
        [("unsupported.wma", "ASF/WMA"), ("video.ts", "MPEG-TS"), ("sound.mpg", "MPEG-PS"), ("speex.spx", "Speex")]
    {
        for piped in [false, true] {
            let run = run(&["--silent"], &case(name), piped);
            let said = said(&run);
            assert_eq!((run.status.code(), run.stdout.len()), (Some(1), 0), "{name}: {said}");
            assert!(said.contains(format) && said.contains("install ffmpeg"), "{name}: {said}");
        }
    }
}

#[test]
fn tracks_and_channels_are_chosen() {
    let two = case("default_flag_second.mkv");
    let silent = run(&["--track", "1"], &two, false);
    assert_eq!((silent.status.code(), &*silent.stdout), (Some(0), &b"\n"[..]));
    assert!(said(&silent).contains("the whole input is silence"));
    assert_eq!(run(&["--track", "2"], &two, false).stdout, format!("{DIGITS}\n").as_bytes());
    assert!(said(&run(&["--track", "3"], &two, false)).contains("there is no audio track 3"));

    let dir = tempfile::tempdir().unwrap();
    let stereo = dir.path().join("opposite.wav");
    write_wav(&stereo, 16_000, 2, &samples().into_iter().flat_map(|s| [s, s.saturating_neg()]).collect::<Vec<_>>());
    assert!(said(&run(&[], &stereo, false)).contains("the channels cancel each other"));
    for channel in ["1", "2"] {
        let one = run(&["--channel", channel], &stereo, false);
        assert_eq!((&*one.stdout, said(&one)), (format!("{DIGITS}\n").as_bytes(), String::new()));
    }
    assert!(said(&run(&["--channel", "3"], &stereo, false)).contains("there is no channel 3"));
    assert_eq!(run(&["--channel", "0"], &stereo, false).status.code(), Some(2));
}

#[test]
fn raw_samples_are_told_to_be_such() {
    let run = voxtral().args(["--backend", "cpu", "-"]).env("VOXTRAL_MODEL", "digits").write_stdin(raw()).assert();
    let run = run.code(0).stdout(format!("{DIGITS}\n"));
    run.stderr("voxtral: -: no known format, taken as raw samples: s16, 16000 Hz, 1 channel\n");
}

#[test]
fn audio_that_is_none() {
    fails("missing", &["nowhere/talk.wav"], b"", &[&format!("nowhere/talk.wav: {}", no_folder())]);
    let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &noise(1, 3000)].concat();
    let text = include_bytes!("faults.rs");
    let cases: [(&str, &[u8], &str); 9] = [
        ("empty", b"", "the input is empty"),
        ("one byte", b"R", "not audio in any known format"),
        ("text", text, "this is text, not audio"),
        ("JSON", b"{\"error\":\"not found\"}", "this is JSON, not audio"),
        ("PNG", &png, "this is PNG, not audio"),
        ("noise", &noise(2, 20_000), "not audio in any known format"),
        ("zeros", &[0; 5000], "not audio in any known format"),
        ("RIFF of a picture", b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0aaaaaaaaaaaaaaaa", ""),
        ("WAV without samples", &digits_wav()[..44], "there is not a single sample"),
    ];
    for (label, bytes, says) in cases {
        audio_fails(label, bytes, says);
    }
}

#[test]
fn audio_that_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut");
    let files =
        [digits_wav(), tone("tone.flac"), tone("tone.m4a"), tone("tone.ogg"), tone("tone.mkv"), tone("tone.mp3")];
    for whole in files {
        for length in [1, 4, 12, 30, 43, 100, whole.len() / 4, whole.len() / 2, whole.len() * 3 / 4] {
            fs::write(&path, &whole[..length]).unwrap();
            let run = run(&["--format", "json"], &path, false);
            let label = format!("{length} of {} bytes: {run:?}", whole.len());
            match run.status.code() {
                Some(4) => assert!(!json(&run)["audio"]["damage"].as_array().unwrap().is_empty(), "{label}"),
                Some(1) => assert!(run.stdout.is_empty() && said(&run).lines().count() == 1, "{label}"),
                // Nothing in an MP3 tells how long it is, if it is cut between two frames.
                code => assert!(code == Some(0) && whole == tone("tone.mp3"), "{label}"),
            }
        }
    }
    fs::write(&path, &digits_wav()[..80_000]).unwrap();
    let run = run(&[], &path, false);
    assert_eq!((run.status.code(), &*run.stdout), (Some(4), &b"four seven one\n"[..]));
    assert!(said(&run).contains("damaged at 2.50 s: cut off: the header promises more samples; 5.70 s lost"));
}

#[test]
fn headers_that_lie() {
    let changed = |at: usize, with: &[u8]| {
        let mut wav = digits_wav();
        wav[at..at + with.len()].copy_from_slice(with);
        wav
    };
    audio_fails("no channels", &changed(22, &[0, 0]), "0 channels");
    audio_fails("65535 channels", &changed(22, &[0xff, 0xff]), "65535 channels");
    audio_fails("0 Hz", &changed(24, &[0; 4]), "0 Hz");
    audio_fails("4 GHz", &changed(24, &[0xff; 4]), "4294967295 Hz");
    audio_fails("unknown coding", &changed(20, &[0x99, 0x99]), "");
    audio_fails("format of 4 GB", &changed(16, &[0xff; 4]), "");
    audio_fails("chunk sizes of 0", &changed(16, &[0; 4]), "");
    let mut flac = tone("tone.flac");
    flac[21] |= 0x0f;
    flac[22..26].fill(0xff);
    let rf64 = |samples: u64| {
        let ds64 =
            [&b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0"[..], &samples.to_le_bytes(), &samples.to_le_bytes(), &[0; 12]];
        [&ds64.concat()[..], &digits_wav()[12..40], &[0xff; 4], &digits_wav()[44..2000]].concat()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("liar");
    for promise in [changed(40, &[0, 0, 0, 0x70]), rf64(1 << 45), flac] {
        fs::write(&path, promise).unwrap();
        let run = run(&["--format", "json"], &path, false);
        assert_eq!(run.status.code(), Some(4), "{run:?}");
        assert!(said(&run).contains("damaged at"), "{run:?}");
    }
    // A length that nobody knew yet is no lie.
    for unknown in [[0xff; 4], [0, 0, 0, 0], [0, 0xf0, 0xff, 0x7f]] {
        let text = output(&["--stdin"], changed(40, &unknown));
        assert_eq!(text, format!("{DIGITS}\n"), "length {unknown:?}");
    }
}

#[test]
fn standard_input_that_is_wrong() {
    for (label, stdin, says) in [
        ("empty", &b""[..], "-: the input is empty"),
        ("one byte", b"x", "-: there is not a single sample"),
        ("WAV header alone", &digits_wav()[..44], "-: there is not a single sample"),
    ] {
        fails(label, &["-"], stdin, &[says]);
    }
    let nan = f32::NAN.to_le_bytes().repeat(8000);
    fails("no numbers", &["-", "--raw-format", "f32le"], &nan, &["-: not one of the 8000 samples is a finite number"]);
}

#[test]
fn a_piece_of_a_sample_is_told() {
    for (args, extra, frame) in
        [(&["-"][..], 1, 2), (&["-", "--raw-format", "f32le"], 3, 4), (&["-", "--raw-channels", "2"], 2, 4)]
    {
        let run = voxtral().args(args).write_stdin(&raw()[..50_000 + extra]).assert().code(0);
        let told = format!("-: the last {extra} bytes are not a whole sample of {frame} bytes (all channels)");
        run.stderr(predicates::str::contains(told));
    }
}

#[test]
fn samples_that_are_no_numbers_are_silence_and_told() {
    let mut samples: Vec<f32> = samples().into_iter().map(|sample| f32::from(sample) / 32768.0).collect();
    samples[100] = f32::NAN;
    samples[2000] = f32::INFINITY;
    let bytes: Vec<u8> = samples.into_iter().flat_map(f32::to_le_bytes).collect();
    let run = voxtral().args(["--backend", "cpu", "--raw-format", "f32le", "-"]).write_stdin(bytes).assert().code(0);
    let run = run.stdout(format!("{DIGITS}\n"));
    run.stderr(predicates::str::contains("-: 2 samples are not finite numbers: taken as silence\n"));
}
