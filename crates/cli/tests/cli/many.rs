//! Many recordings: folders, patterns, what is there already, and bad ones among good ones.

use std::fs;
use std::path::Path;

use predicates::prelude::*;

use crate::support::*;

/// The files below a folder, relative to it, in order.
fn below(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            all.extend(below(&path).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            all.push(name);
        }
    }
    all.sort();
    all
}

/// A folder with `a.wav`, `b` (a recording without an ending), `deep/a.wav` and things that are no recordings.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("talks/deep")).unwrap();
    for name in ["a.wav", "b", "deep/a.wav", ".hidden.wav"] {
        fs::write(dir.path().join("talks").join(name), digits_wav()).unwrap();
    }
    fs::write(dir.path().join("talks/notes.txt"), "four seven one").unwrap();
    fs::write(dir.path().join("talks/cover.jpg"), b"\xff\xd8\xff\xe0\0\x10JFIF").unwrap();
    dir
}

#[test]
fn a_folder_is_the_recordings_in_it() {
    let dir = folder();
    let (talks, out) = (dir.path().join("talks"), dir.path().join("out"));
    let (talks, to) = (talks.to_str().unwrap(), format!("{}/", out.display()));
    assert_eq!(output(&[talks], ""), format!("{DIGITS}\n{DIGITS}\n"));
    assert_eq!(output(&["-o", &to, talks], ""), "");
    assert_eq!(below(&out), ["a.txt", "b.txt"]);
    assert_eq!(output(&["--recursive", "--format", "srt,json", "-o", &to, talks], ""), "");
    let expected = ["a.json", "a.srt", "a.txt", "b.json", "b.srt", "b.txt", "deep/a.json", "deep/a.srt"];
    assert_eq!(below(&out), expected);

    fs::create_dir(dir.path().join("empty")).unwrap();
    let run = voxtral().arg(dir.path().join("empty")).assert().code(1).stdout("");
    run.stderr(predicate::str::contains("empty: no recordings in this folder; --recursive looks into its folders too"));
}

/// What is in the folder that it leads to is transcribed anyway.
#[test]
#[cfg(unix)]
fn a_link_back_up_is_passed_over() {
    let dir = folder();
    let talks = dir.path().join("talks");
    std::os::unix::fs::symlink("..", talks.join("deep/up")).unwrap();
    std::os::unix::fs::symlink(".", talks.join("self")).unwrap();
    let talks = talks.to_str().unwrap();
    assert_eq!(output(&[talks], ""), format!("{DIGITS}\n{DIGITS}\n"));
    assert_eq!(output(&["--recursive", talks], ""), format!("{DIGITS}\n{DIGITS}\n{DIGITS}\n"));
}

#[test]
fn a_pattern_that_the_shell_has_left_is_the_files_that_it_names() {
    let dir = folder();
    let pattern = |name: &str| dir.path().join("talks").join(name).to_str().unwrap().to_owned();
    assert_eq!(output(&[pattern("*.wav")], ""), format!("{DIGITS}\n"));
    assert_eq!(output(&[pattern("**/*.wav")], ""), format!("{DIGITS}\n{DIGITS}\n"));
    // No file of Windows can have a star in its name.
    let no_star = if cfg!(windows) { std::io::Error::from_raw_os_error(123).to_string() } else { no_file() };
    let none = "no file has such a name".to_owned();
    for (wrong, says) in [("*.mp3", none), ("***.wav", no_star), ("[x.wav", no_file())] {
        voxtral().arg(pattern(wrong)).assert().code(1).stdout("").stderr(predicate::str::contains(says));
    }
    // One that names nothing costs only itself.
    let run = voxtral().arg("--silent").args([pattern("*.wav"), pattern("*.mp3")]).assert().code(1);
    run.stdout(format!("{DIGITS}\n")).stderr(predicate::str::contains("1 of 2 inputs failed"));
    // A name is what it is, if there is such a file.
    fs::write(dir.path().join("talks/[1].wav"), digits_wav()).unwrap();
    assert_eq!(output(&[pattern("[1].wav")], ""), format!("{DIGITS}\n"));
}

#[test]
fn an_address_is_told_to_be_piped() {
    let run = voxtral().arg("https://example.com/talk.mp3").assert().code(1).stdout("");
    run.stderr("voxtral: https://example.com/talk.mp3: addresses are not opened; pipe what is there: curl -L ADDRESS | voxtral --stdin\n");
}

#[test]
fn namesakes_keep_their_endings() {
    let dir = folder();
    let talks = dir.path().join("talks");
    fs::copy(talks.join("a.wav"), talks.join("a.mp3")).unwrap();
    let to = format!("{}/", dir.path().join("out").display());
    output(&["-o", &to, talks.to_str().unwrap()], "");
    assert_eq!(below(&dir.path().join("out")), ["a.mp3.txt", "a.wav.txt", "b.txt"]);
}

#[test]
fn what_is_there_is_not_done_again() {
    let dir = folder();
    let (talks, out) = (dir.path().join("talks"), dir.path().join("out"));
    let to = format!("{}/", out.display());
    fs::create_dir(&out).unwrap();
    fs::write(out.join("a.txt"), "kept").unwrap();
    fs::write(out.join("b.txt"), "kept").unwrap();
    fs::write(out.join("b.srt"), "kept").unwrap();
    let flags = ["--skip-existing", "--format", "text,srt", "-o", &to, talks.to_str().unwrap()];
    let run = voxtral().args(flags).assert().code(0).stdout("");
    run.stderr(predicate::str::contains("1 of 2 inputs are skipped: their files are there"));
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!((read("a.txt"), read("b.txt")), (format!("{DIGITS}\n"), "kept".to_owned()));
    // When all are there, no model is opened.
    let run = voxtral().args(flags).args(["-d", "nowhere"]).assert().code(0).stdout("");
    run.stderr("voxtral: 2 of 2 inputs are skipped: their files are there\n");
    let run = voxtral().args(["--skip-existing", talks.to_str().unwrap()]).assert().code(2);
    run.stderr(predicate::str::contains("--skip-existing looks for a file of each input"));
}

/// So many short recordings in a folder, so many of them bad in different ways: the others are written, and the bad ones are named.
fn one_in_many(count: usize, bad: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (talks, out) = (dir.path().join("talks"), dir.path().join("out"));
    fs::create_dir(&talks).unwrap();
    let four = [&digits_wav()[..40], &24_000u32.to_le_bytes(), &digits_wav()[44..24_044]].concat();
    let is_bad = |number: usize| number % (count / bad) == 3;
    for number in 0..count {
        let broken: [&[u8]; 4] = [b"", b"<html>404</html>", &four[..44], b"\0\0\0\0 no header"];
        let bytes = if is_bad(number) { broken[number / (count / bad) % 4] } else { &four };
        fs::write(talks.join(format!("{number:04}.wav")), bytes).unwrap();
    }
    let to = format!("{}/", out.display());
    let mut run = voxtral();
    let run =
        run.timeout(std::time::Duration::from_secs(600)).args(["--silent", "-o", &to]).arg(&talks).assert().code(1);
    let said = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    let names = (0..count).filter(|&number| is_bad(number)).map(|number| format!("{number:04}.wav"));
    for name in names {
        assert_eq!(said.matches(&name).count(), 2, "once where it fails, once in the summary: {said}");
    }
    assert!(said.contains(&format!("{bad} of {count} inputs failed")) && said.lines().count() == bad + 1, "{said}");
    let written = below(&out);
    assert_eq!(written.len(), count - bad);
    assert!(written.iter().all(|name| fs::read_to_string(out.join(name)).unwrap() == "four\n"));
}

#[test]
fn bad_ones_among_a_hundred_cost_only_themselves() {
    one_in_many(100, 4);
}

#[test]
#[ignore = "takes a minute"]
fn bad_ones_among_a_thousand_cost_only_themselves() {
    one_in_many(1000, 10);
}
