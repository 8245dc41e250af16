//! What is written: text, JSON, and the same tokens whatever way the audio comes in and whatever computes.

use std::fs;
use std::path::{Path, PathBuf};

use predicates::prelude::*;
use voxtral_model::testing::{array, golden, ids as golden_ids};
use voxtral_transcript::score::{Errors, word_errors};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::*;

const NUMBER: &str = r"-?\d+(\.\d+)?(e-?\d+)?";

#[test]
fn a_recording_is_written_down() {
    let run =
        voxtral().args(["--backend", "cpu", "samples/digits.wav"]).assert().success().stdout(format!("{DIGITS}\n"));
    let one_line = predicate::str::is_match("^voxtral: using the built-in demo model.*\n$").unwrap();
    run.stderr(one_line);
    voxtral().args(["--silent", "samples/digits.wav"]).assert().success().stderr("");
    voxtral().args(["--backend", "cpu", "-d", "digits", "samples/digits.wav"]).assert().success().stderr("");
}

#[test]
fn json_is_as_it_is_documented() {
    let word = format!(r#"\{{"text":"[a-z]+","start_s":{NUMBER},"end_s":{NUMBER},"logprob":{NUMBER}\}}"#);
    let token = format!(r#"\{{"id":\d+,"logprob":{NUMBER}\}}"#);
    let times = ["load_ms", "encode_ms", "decode_ms", "total_ms", "first_text_ms"];
    let times: String = times.iter().map(|field| format!(r#""{field}":{NUMBER},"#)).collect();
    let line = |tokens: &str| {
        let head = r#""model":"digits","backend":"cpu","device":"[^"]+","audio":\{"path":"samples/digits.wav","duration_s":8.195,"damage":\[\]\}"#;
        let rest = format!(
            r#""stats":\{{{times}"positions":\d+,"passes":\d+,"tokens_per_pass":{NUMBER},"rtf":{NUMBER},"peak_rss_mb":{NUMBER},"device_mb":{NUMBER}\}}"#
        );
        let body = format!(r#""delay_ms":480,"text":"{DIGITS}","words":\[({word},?){{11}}\],{tokens}{rest}"#);
        predicate::str::is_match(format!("^\\{{{head},{body}\\}}\n$")).unwrap()
    };
    let run = |args: &[&str]| voxtral().args(["--format", "json", "samples/digits.wav"]).args(args).assert().success();
    run(&[]).stdout(line(""));
    run(&["--tokens"]).stdout(line(&format!(r#""tokens":\[({token},?){{113}}\],"#)));
    // Of silence, all there is to say.
    let silence = json_of(&["--stdin"], vec![0; 32_000]);
    assert_eq!((&silence["text"], &silence["words"]), (&"".into(), &serde_json::json!([])));
    assert_eq!(silence["stats"]["first_text_ms"], serde_json::Value::Null);
}

#[test]
fn every_80_ms_of_audio_are_one_token() {
    for samples in [1, 2, 1279, 1280, 1281, 25_600] {
        let json = json_of(&["--stdin"], vec![0; 2 * samples]);
        assert_eq!(ids(&json).len(), samples.div_ceil(1280) + 10, "{samples} samples");
    }
}

#[test]
fn words_follow_each_other_within_the_audio() {
    let json = json_of(&["samples/digits.wav"], "");
    let mut before = 0.0;
    for word in json["words"].as_array().unwrap() {
        let (start, end) = (word["start_s"].as_f64().unwrap(), word["end_s"].as_f64().unwrap());
        assert!(before <= start && start < end && end <= 8.195, "{word} after {before}");
        assert!(word["logprob"].as_f64().unwrap() <= 0.0, "{word}");
        before = end;
    }
}

#[test]
fn several_recordings_come_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let parts = [(0, 32_000, "four seven"), (32_000, 67_000, "one one nine"), (67_000, 96_000, "zero two six")];
    let paths: Vec<PathBuf> = parts
        .iter()
        .map(|(start, end, said)| {
            let path = dir.path().join(format!("{said}.wav"));
            write_wav(&path, 16_000, 1, &samples()[*start..*end]);
            path
        })
        .collect();
    assert_eq!(output(&paths, ""), "four seven\none one nine\nzero two six\n");
    let json = output(&[Path::new("--format"), Path::new("json"), &paths[2], &paths[0]], "");
    let texts: Vec<_> =
        json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].clone()).collect();
    assert_eq!(texts, ["zero two six", "four seven"]);
}

/// Linear interpolation to a higher rate: good enough to be understood.
fn stretched(rate: usize) -> Vec<i16> {
    let samples = samples();
    let value = |at: f64| {
        let (i, part) = (at as usize, at.fract());
        let next = samples.get(i + 1).copied().unwrap_or_default();
        (f64::from(samples[i]) * (1.0 - part) + f64::from(next) * part) as i16
    };
    (0..samples.len() * rate / 16_000).map(|i| value(i as f64 * 16_000.0 / rate as f64)).collect()
}

fn doubled(samples: &[i16]) -> Vec<i16> {
    samples.iter().flat_map(|&sample| [sample, sample]).collect()
}

#[test]
fn every_way_in_gives_the_same_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let stereo = dir.path().join("stereo");
    write_wav(&stereo, 16_000, 2, &doubled(&samples()));
    let link = dir.path().join("link.mp3");
    fs::copy(root().join("samples/digits.wav"), &link).unwrap();
    let mut live_wav = digits_wav();
    live_wav[4..8].fill(0xff);
    live_wav[40..44].fill(0xff);
    let as_bytes = |bytes: fn(i16) -> Vec<u8>| samples().into_iter().flat_map(bytes).collect::<Vec<u8>>();
    let nothing = Vec::new;
    let raw_as = |format: &'static str| vec!["--stdin", "--raw-format", format];
    let ways = [
        ("-i", vec!["-i", "samples/digits.wav"], nothing()),
        ("misleading name", vec![link.to_str().unwrap()], nothing()),
        ("stereo", vec![stereo.to_str().unwrap()], nothing()),
        ("WAV as -", vec!["-"], digits_wav()),
        ("WAV on stdin", vec!["--stdin"], digits_wav()),
        ("WAV of unknown length", vec!["--stdin"], live_wav),
        ("raw", vec!["--stdin"], raw()),
        ("raw as -", vec!["-i", "-"], raw()),
        ("s24le", raw_as("s24le"), as_bytes(|s| (i32::from(s) << 8).to_le_bytes()[..3].to_vec())),
        ("s32le", raw_as("s32le"), as_bytes(|s| (i32::from(s) << 16).to_le_bytes().to_vec())),
        ("f32le", raw_as("f32le"), as_bytes(|s| (f32::from(s) / 32768.0).to_le_bytes().to_vec())),
        ("f64le", raw_as("f64le"), as_bytes(|s| (f64::from(s) / 32768.0).to_le_bytes().to_vec())),
        ("raw stereo", vec!["--stdin", "--raw-channels", "2"], as_bytes(|s| [s.to_le_bytes(); 2].concat())),
    ];
    let file = json_of(&["samples/digits.wav"], "");
    for (label, args, stdin) in ways {
        let json = json_of(&args, stdin);
        assert_eq!((&json["text"], &json["tokens"]), (&file["text"], &file["tokens"]), "{label}");
    }
}

#[test]
fn other_rates_and_coarser_samples_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    for (rate, channels) in [(22_050, 1), (44_100, 2), (48_000, 2), (96_000, 1)] {
        let samples = stretched(rate as usize);
        let samples = if channels == 2 { doubled(&samples) } else { samples };
        let path = dir.path().join(rate.to_string());
        write_wav(&path, rate, channels, &samples);
        assert_eq!(output(&[&path], ""), format!("{DIGITS}\n"), "{rate} Hz");
        let bytes: Vec<u8> = samples.into_iter().flat_map(i16::to_le_bytes).collect();
        let raw = ["--stdin", "--raw-rate", &rate.to_string(), "--raw-channels", &channels.to_string()];
        assert_eq!(output(&raw, bytes), format!("{DIGITS}\n"), "raw, {rate} Hz");
    }
    let eight_bits: Vec<u8> = samples().into_iter().map(|s| ((s >> 8) + 128) as u8).collect();
    assert_eq!(output(&["--stdin", "--raw-format", "u8"], eight_bits), format!("{DIGITS}\n"));
    // Tones of every format are heard as something, to the end.
    for name in ["tone.flac", "tone.mp3", "tone.m4a", "tone.ogg", "tone.aac", "tone.aiff", "tone.caf", "tone.mkv"] {
        let file = json_of(&[root().join("crates/audio/tests/data").join(name)], "");
        assert!(file["audio"]["duration_s"].as_f64().unwrap() > 0.1, "{name}: {file}");
        // These two have to be sought in.
        if !["tone.caf", "tone.m4a"].contains(&name) {
            assert_eq!(json_of(&["--stdin"], tone(name))["tokens"], file["tokens"], "{name} through a pipe");
        }
    }
}

#[test]
fn tokens_do_not_depend_on_how_they_are_computed() {
    let run = |args: &str| json_of(&args.split(' ').chain(["samples/digits.wav"]).collect::<Vec<_>>(), "");
    let sequential = "--decode sequential --threads 1";
    let reference = run(&format!("--precision f32 {sequential}"));
    for precision in ["f32", "auto"] {
        let same = run(&format!("--precision {precision} {sequential}"));
        assert_eq!(ids(&same), ids(&reference), "{precision}");
        for how in [
            "--threads 2",
            "--decode sequential --threads 2",
            "--decode parallel --threads 1",
            "--decode parallel --threads 2",
            "--lookahead 1",
            "--lookahead 7",
            "--lookahead 128",
        ] {
            let json = run(&format!("--precision {precision} {how}"));
            assert_eq!(json["tokens"], same["tokens"], "--precision {precision} {how}");
            assert_eq!(json["words"], same["words"], "--precision {precision} {how}");
        }
    }
}

/// A golden wave as a WAV file. Its samples are multiples of 1/32768.
fn wave(name: &str, dir: &Path) -> PathBuf {
    let samples: Vec<i16> = array(&format!("{name}_wave")).1.iter().map(|s| (s * 32768.0) as i16).collect();
    let path = dir.join(name).with_extension("wav");
    write_wav(&path, 16_000, 1, &samples);
    path
}

/// Log-probability of each of `ids`, the first of which the logits at position `first` predict.
fn golden_logprobs(case: &str, first: usize, ids: &[u32]) -> Vec<f64> {
    let (shape, logits) = array(&format!("{case}_logits"));
    let rows = logits.chunks_exact(shape[1]).skip(first);
    let logprob = |(row, &id): (&[f32], &u32)| {
        let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
        f64::from(row[id as usize]) - sum.ln()
    };
    rows.zip(ids).map(logprob).collect()
}

#[test]
fn ids_and_log_probabilities_are_those_of_an_independent_implementation() {
    let dir = tempfile::tempdir().unwrap();
    for case in voxtral_model::testing::cases() {
        let (name, delay) = case.split_once("_d").unwrap();
        let delay = (delay.parse::<u32>().unwrap() * 80).to_string();
        let wave = wave(name, dir.path());
        let prompt = golden_ids(&format!("{case}_prompt_ids")).len();
        let want = &golden_ids(&format!("{case}_greedy_ids"))[prompt..];
        // The logits are those of other inputs from where the teacher's ids leave the greedy ones.
        let teacher = golden_ids(&format!("{case}_teacher_ids"));
        let common = want.iter().zip(&teacher[prompt..]).take_while(|(a, b)| a == b).count() + 1;
        let want_logprobs = golden_logprobs(case, prompt - 1, &want[..common.min(want.len())]);
        for model in ["tiny", "tiny_hf"] {
            for decode in ["sequential", "parallel"] {
                let label = format!("{case}, {model}, {decode}");
                let model = golden(model).unwrap();
                let args = ["--precision", "f32", "--delay", &delay, "--decode", decode, "-d"].map(Path::new);
                let json = json_of(&[&args[..], &[&model, &wave]].concat(), "");
                assert_eq!(ids(&json), want, "{label}");
                for (i, (got, want)) in logprobs(&json).iter().zip(&want_logprobs).enumerate() {
                    assert!((got - want).abs() <= 2e-3, "{label}, token {i}: {got}, not {want}");
                }
                assert_eq!(json["delay_ms"].to_string(), delay, "{label}");
            }
        }
    }
}

#[test]
fn the_end_of_sequence_token_ends_nothing_unless_it_is_asked_to() {
    if golden("eos_greedy_ids.npy").is_none() {
        eprintln!("skipped: the golden case eos is not here");
        return;
    }
    let dir = copy_of("tiny");
    let weights = dir.path().join("consolidated.safetensors");
    let mut parts = Weights::read(&weights);
    let row = array("eos_row_bf16_as_f32").1;
    let embedding = parts.elements("mm_streams_embeddings.embedding_module.tok_embeddings.weight");
    for (element, value) in embedding[2 * row.len()..].iter_mut().zip(&row) {
        *element = bf16(*value);
    }
    parts.write(&weights);

    let wave = wave("speech", dir.path());
    let prompt = golden_ids("speech_d6_prompt_ids").len();
    let want = &golden_ids("eos_greedy_ids")[prompt..];
    assert_eq!(want.last(), Some(&2));
    for decode in ["sequential", "parallel"] {
        let args = ["--precision", "f32", "--delay", "480", "--decode", decode, "-d"].map(Path::new);
        let args = [&args[..], &[dir.path(), &wave]].concat();
        let whole = ids(&json_of(&args, ""));
        assert_eq!(&whole[..want.len()], want, "{decode}");
        let samples = array("speech_wave").0[0];
        assert_eq!(whole.len(), samples.div_ceil(1280) + 10, "{decode}");
        let stopped = json_of(&[&args[..], &[Path::new("--stop-at-eos")]].concat(), "");
        assert_eq!(ids(&stopped), want, "{decode}, --stop-at-eos");
    }
}

#[test]
fn models_of_any_dimensions_run() {
    let dir = tempfile::tempdir().unwrap();
    let small = "encoder.layers=2 decoder.layers=2 encoder.dim=72 encoder.ffn_dim=200 decoder.ffn_dim=296 vocab=1500";
    let models = [
        "encoder.head_dim=16 decoder.head_dim=16 decoder.heads=6 decoder.kv_heads=2 decoder.dim=96 encoder.window=20",
        "encoder.head_dim=24 decoder.head_dim=40 decoder.heads=5 decoder.kv_heads=5 decoder.dim=130 decoder.window=20",
        "encoder.head_dim=128 encoder.heads=3 encoder.kv_heads=1 decoder.head_dim=128 decoder.dim=202 encoder.window=1",
        "encoder.head_dim=2 decoder.head_dim=66 decoder.dim=66 ada_dim=3 audio.mel_bins=80 vocab=1283 decoder.window=1",
    ];
    for (i, fields) in models.iter().enumerate() {
        let model = dir.path().join(i.to_string());
        let size = small.split(' ').chain(fields.split(' '));
        voxtral()
            .args(["synth-model", "--out"])
            .arg(&model)
            .args(["--size", "small"])
            .args(size)
            .assert()
            .success()
            .stdout("");
        let run = |args: &str| {
            let args = args.split(' ').map(Path::new);
            json_of(&args.chain([Path::new("-d"), &model, Path::new("samples/digits.wav")]).collect::<Vec<_>>(), "")
        };
        for precision in ["f32", "auto"] {
            let one = run(&format!("--precision {precision} --threads 1 --decode sequential"));
            assert_eq!(ids(&one).len(), 113, "{fields}");
            let two = run(&format!("--precision {precision} --threads 2 --decode parallel"));
            assert_eq!(one["tokens"], two["tokens"], "{fields}, {precision}");
        }
    }
}

#[test]
fn recordings_of_several_speakers_are_understood() {
    let eval = root().join("../shared/digits/eval");
    let Ok(refs) = fs::read_to_string(eval.join("refs.tsv")) else {
        eprintln!("skipped: {} is absent", eval.display());
        return;
    };
    let refs: Vec<(&str, &str)> = refs.lines().filter_map(|line| line.split_once('\t')).collect();
    let paths: Vec<PathBuf> = refs.iter().map(|(name, _)| eval.join(name)).collect();
    for (delay, most) in [("80", 0.03), ("480", 0.005), ("1200", 0.03)] {
        let run = |decode: &str| {
            let args = ["--format", "json", "--tokens", "--delay", delay, "--decode", decode].map(Path::new);
            let all: Vec<&Path> = args.into_iter().chain(paths.iter().map(PathBuf::as_path)).collect();
            output(&all, "").lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
        };
        let (sequential, parallel) = (run("sequential"), run("parallel"));
        let mut errors = Errors::default();
        for (((name, said), one), other) in refs.iter().zip(&sequential).zip(&parallel) {
            assert_eq!(one["tokens"], other["tokens"], "{name}, delay {delay}");
            errors += word_errors(said, one["text"].as_str().unwrap());
        }
        println!("delay {delay} ms: word error rate {:.2} % of {} words", errors.rate() * 100.0, errors.reference);
        assert_eq!(sequential.len(), refs.len());
        assert!(errors.rate() <= most, "delay {delay}: {errors:?}");
    }
}

/// Where the words of the sample begin and end, in hundredths of a second, by its energy.
const SPOKEN: [(usize, usize); 11] = [
    (50, 87),
    (125, 172),
    (207, 249),
    (283, 326),
    (365, 407),
    (436, 476),
    (508, 538),
    (575, 614),
    (641, 685),
    (702, 745),
    (766, 796),
];

#[test]
fn words_end_where_they_were_spoken() {
    let (sample, names) = (samples(), DIGITS.split(' ').collect::<Vec<_>>());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spoken.wav");
    for seed in 0..8 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut audio, mut truth) = (sample[..4800].to_vec(), Vec::new());
        for _ in 0..20 {
            let word = rng.random_range(0..SPOKEN.len());
            let (from, to) = SPOKEN[word];
            audio.extend(&sample[from * 160 - 800..to * 160]);
            truth.push((names[word], audio.len() as f64 / 16e3));
            // Its last echo, and a pause in which nothing is said.
            audio.extend(&sample[to * 160..to * 160 + 800]);
            for _ in 0..rng.random_range(1..6) {
                audio.extend(&sample[..3200]);
            }
        }
        write_wav(&path, 16_000, 1, &audio);
        let json = json_of(&[&path], "");
        let words = json["words"].as_array().unwrap();
        let heard: Vec<_> = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
        assert_eq!(heard, truth.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "seed {seed}");
        for (word, (name, end_s)) in words.iter().zip(&truth) {
            let off_s = word["end_s"].as_f64().unwrap() - end_s;
            assert!(off_s.abs() <= 0.12, "seed {seed}: {name} is {off_s:.3} s off at {end_s:.3} s");
        }
    }
}
