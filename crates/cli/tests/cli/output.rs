//! Formats, files and folders: what is written where, and what of it when something fails.

use std::fs;
use std::path::Path;

use predicates::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::*;

const TALK: &str = "samples/digits.wav";

/// What is in a folder, by name.
fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// The recordings a.wav, b.wav and so on in a folder, with the sample in each.
fn recordings(count: u8) -> (TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let names = (b'a'..b'a' + count).map(|name| {
        let path = dir.path().join(format!("{}.wav", char::from(name)));
        fs::write(&path, digits_wav()).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let names = names.collect();
    (dir, names)
}

/// A folder that is not there yet, as the command line has it.
fn folder_in(dir: &TempDir) -> String {
    format!("{}/new/out/", dir.path().display())
}

fn milliseconds(clock: &str) -> u64 {
    let (seconds, ms) = clock.rsplit_once(['.', ',']).unwrap();
    let seconds = seconds.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
    seconds * 1000 + ms.parse::<u64>().unwrap()
}

/// Start and end of everything that has them, in milliseconds; they rise and lie in the audio.
#[track_caller]
fn times(text: &str) -> Vec<(u64, u64)> {
    let lines = text.lines().filter_map(|line| line.split_once(" --> "));
    let clean = |clock: &str| milliseconds(clock.trim_start_matches('[').split(']').next().unwrap());
    let times: Vec<_> = lines.map(|(start, end)| (clean(start), clean(end))).collect();
    let mut before = 0;
    for &(start, end) in &times {
        assert!(before <= start && start < end && end <= 8195, "{times:?}");
        before = end;
    }
    times
}

#[test]
fn subtitles_have_all_words_and_rising_times() {
    let srt = output(&["--format", "srt", TALK], "");
    let vtt = output(&["--format", "vtt", TALK], "");
    let cues = times(&srt);
    assert!(cues.len() > 1, "{srt}");
    assert_eq!(times(&vtt), cues);
    assert!(srt.starts_with("1\n00:00:0") && vtt.starts_with("WEBVTT\n\n00:00:0"), "{srt}{vtt}");
    let said = |text: &str| {
        let words = text.split_whitespace().filter(|word| word.chars().all(|c| c.is_ascii_lowercase()));
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!([said(&srt), said(&vtt)], [DIGITS; 2]);
    let tsv = output(&["--format", "tsv", TALK], "");
    assert_eq!(tsv.lines().next(), Some("start\tend\ttext"));
    let texts: Vec<_> = tsv.lines().skip(1).map(|line| line.split('\t').nth(2).unwrap()).collect();
    assert_eq!(texts.join(" "), DIGITS);
}

#[test]
fn text_has_times_where_they_are_asked_for() {
    let text = output(&["--timestamps", TALK], "");
    let lines: Vec<_> = text.lines().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(lines.join(" "), DIGITS);
    assert_eq!(times(&text).len(), lines.len());
    let text = output(&["--words", TALK], "");
    let words: Vec<_> = text.lines().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(words, DIGITS.split(' ').collect::<Vec<_>>());
    // The times are those of the words in JSON.
    let json = json_of(&[TALK], "");
    let of_json = json["words"].as_array().unwrap().iter().map(|word| {
        let ms = |field: &str| (word[field].as_f64().unwrap() * 1000.0).round() as u64;
        (ms("start_s"), ms("end_s"))
    });
    assert_eq!(times(&text), of_json.collect::<Vec<_>>());
    for format in ["srt", "vtt"] {
        assert_eq!(times(&output(&["--words", "--format", format, TALK], "")).len(), words.len(), "{format}");
    }
}

#[test]
fn events_are_as_the_schema_says_and_come_to_the_text() {
    for (args, path) in [(&[TALK][..], TALK), (&["--stdin"], "-")] {
        let lines = output(&[&["--format", "jsonl"], args].concat(), digits_wav());
        let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let schema = schema_of("jsonl.schema.json");
        for event in &events {
            assert!(schema.is_valid(event) && event["path"] == path, "{event}");
        }
        let all = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
        let partial: String = all("partial").iter().map(|event| event["text"].as_str().unwrap()).collect();
        assert_eq!(partial, DIGITS);
        assert_eq!(all("word").len(), 11);
        let end = events.last().unwrap();
        assert_eq!((&end["type"], &end["text"], &end["end_s"]), (&"final".into(), &DIGITS.into(), &8.195.into()));
        assert_eq!(all("final").len(), 1);
    }
}

#[test]
fn a_folder_has_a_file_for_each_input_and_format() {
    let (dir, inputs) = recordings(2);
    let out = folder_in(&dir);
    let flags = ["--format", "srt,text,srt", "-o", &out];
    let args: Vec<&str> = flags.into_iter().chain(inputs.iter().map(String::as_str)).collect();
    assert_eq!(output(&args, ""), "");
    let srt = output(&["--format", "srt", TALK], "");
    let text = format!("{DIGITS}\n");
    let expected = [("a.srt", &srt), ("a.txt", &text), ("b.srt", &srt), ("b.txt", &text)];
    assert_eq!(files(Path::new(&out)), expected.map(|(name, text)| (name.to_owned(), text.clone())));
    assert_eq!(output(&["--format", "vtt", "-o", &out, "--stdin"], raw()), "");
    assert!(Path::new(&out).join("stdin.vtt").exists());
}

#[test]
fn a_dash_is_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let talk = root().join(TALK);
    let mut command = voxtral();
    let run = command.current_dir(dir.path()).args(["--silent", "-o", "-"]).arg(talk).assert().success();
    run.stdout(format!("{DIGITS}\n"));
    let mut command = voxtral();
    let compare = ["compare", "--decodes", "sequential,parallel", "--backend", "cpu", "-o", "-"];
    let run = command.current_dir(dir.path()).args(compare).assert().success();
    run.stdout(predicate::str::contains("mismatch 0.0000"));
    assert!(files(dir.path()).is_empty());
}

/// Also where that is a file that others write too, such as a log.
#[test]
#[cfg(unix)]
fn dev_stdout_is_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "before\n").unwrap();
    let to_log = || fs::File::options().append(true).open(&log).unwrap();
    for name in ["/dev/stdout", "/dev/fd/1"] {
        assert!(program().args(["--silent", TALK, "-o", name]).stdout(to_log()).status().unwrap().success());
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("before\n{DIGITS}\n{DIGITS}\n"));
    assert_eq!(output(&[TALK, "-o", "/dev/stdout"], ""), format!("{DIGITS}\n"));
}

#[test]
fn one_bad_input_costs_only_itself() {
    let (dir, mut inputs) = recordings(3);
    let bad = inputs[1].clone();
    fs::write(&bad, "this is no audio").unwrap();
    inputs.push("nowhere.wav".to_owned());
    let summary = format!("voxtral: 2 of 4 inputs failed: {bad}, nowhere.wav\n");
    let run = |args: &[&str]| {
        let run = voxtral().arg("--silent").args(args).args(&inputs).assert().code(1);
        run.stdout("").stderr(
            predicate::str::starts_with(format!("voxtral: {bad}: this is text, not audio"))
                .and(predicate::str::ends_with(summary.as_str())),
        );
    };
    let file = dir.path().join("all.txt");
    run(&["-o", file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{DIGITS}\n{DIGITS}\n"));
    let out = folder_in(&dir);
    fs::create_dir_all(&out).unwrap();
    fs::write(Path::new(&out).join("b.vtt"), "kept").unwrap();
    run(&["--format", "vtt", "-o", &out]);
    let files = files(Path::new(&out));
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, files[1].1.as_str()), (vec!["a.vtt", "b.vtt", "c.vtt"], "kept"));
}

#[test]
fn silence_has_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let out = folder_in(&dir);
    assert_eq!(output(&["--format", "srt,vtt,text", "-o", &out, "--stdin"], vec![0; 32_000]), "");
    let texts: Vec<_> = files(Path::new(&out)).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["", "\n", "WEBVTT\n\n"]);
}

#[test]
fn flags_that_do_not_go_together() {
    let (dir, inputs) = recordings(2);
    let out = folder_in(&dir);
    let cases: [(&[&str], &str); 6] = [
        (&["--format", "srt,json", &inputs[0]], "several formats need a folder"),
        (&["--format", "srt,json", "-o", "x.srt", &inputs[0]], "several formats need a folder"),
        (&["--format", "srt", &inputs[0], &inputs[1]], "times of several inputs would be mixed up"),
        (&["--timestamps", "--format", "srt", &inputs[0]], "--timestamps is for --format text"),
        (&["--words", "--format", "json", &inputs[0]], "--words is for --format text, srt, vtt and tsv"),
        (&["-o", &out, &inputs[0], &inputs[0]], "would both be written to"),
    ];
    for (args, says) in cases {
        let run = voxtral().args(args).assert().code(2).stdout("");
        run.stderr(predicate::str::starts_with("error: ").and(predicate::str::contains(says)));
    }
    assert!(!Path::new(&out).exists());
    // A recording is never replaced.
    let named = dir.path().join("talk.txt");
    fs::copy(&inputs[0], &named).unwrap();
    let folder = format!("{}/", dir.path().display());
    let run = voxtral().args(["-o", &folder]).arg(&named).assert().code(2);
    run.stderr(predicate::str::contains("talk.txt is an input, and --output would replace it"));
}

#[test]
#[cfg(unix)]
fn names_are_shown_so_that_they_cannot_break_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("a\nvoxtral: b\x1b[2J.wav");
    fs::write(&name, "no audio").unwrap();
    let run = voxtral().arg("--silent").args([name.as_os_str(), "nowhere".as_ref()]).assert().code(1);
    let said = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.contains(r"a\nvoxtral: b\u{1b}[2J.wav: this is text, not audio") && !said.contains('\x1b'), "{said}");
    // In the output it is what it is.
    fs::write(&name, digits_wav()).unwrap();
    let json = json_of(&[&name], "");
    assert_eq!(json["audio"]["path"], name.to_str().unwrap());
}

#[test]
#[ignore = "needs ffmpeg"]
fn the_real_ffmpeg_reads_subtitles_as_they_were_meant() {
    let (dir, inputs) = recordings(1);
    let out = folder_in(&dir);
    output(&["--format", "srt,vtt", "-o", &out, &inputs[0]], "");
    let read = |name: &str| {
        let file = format!("{out}{name}");
        let run = std::process::Command::new("ffmpeg").args(["-v", "error", "-i", &file, "-f", "srt", "-"]).output();
        String::from_utf8(run.unwrap().stdout).unwrap()
    };
    let written = fs::read_to_string(format!("{out}a.srt")).unwrap();
    assert!(written.contains("-->") && written.contains("eight"));
    for name in ["a.srt", "a.vtt"] {
        assert_eq!(read(name).trim(), written.trim(), "{name}");
    }
}
