//! What a test can make only on Unix: interrupts, terminals and FIFOs.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::live::{HANGS, Running, first_half, long_raw};
use crate::support::*;

/// What a terminal of 50 columns gets from the program, which is fed the sample in time.
fn on_a_terminal(flags: &str) -> String {
    let program = env!("CARGO_BIN_EXE_voxtral");
    let feed = "for i in 0 1 2 3 4; do dd if=samples/digits.wav bs=30000 skip=$i count=1 status=none; sleep 0.2; done";
    let command = format!("stty cols 50; ({feed}) | {program} --stdin {flags}");
    let mut script = Command::new("script");
    script
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env("HF_HUB_CACHE", NO_CACHE)
        .env_remove("VOXTRAL_MODEL")
        .current_dir(root());
    String::from_utf8(script.stdin(Stdio::null()).output().unwrap().stdout).unwrap()
}

#[test]
fn a_status_is_below_the_words_on_a_terminal_and_goes_away() {
    let seen = on_a_terminal("");
    let status = "lag ";
    assert!(seen.contains(status) && seen.contains("\x1b[1A\r"), "{seen:?}");
    assert!(seen.contains("\x1b[Jfour") && seen.contains("\x1b[J seven"), "{seen:?}");
    assert!(seen.ends_with("\x1b[J"), "{seen:?}");
    // In a pipe there is none, unless it is asked for.
    let piped = |flags: &[&str]| {
        let run = voxtral().args(["--backend", "cpu", "-"]).args(flags).write_stdin(raw()).output().unwrap();
        (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap().contains(status))
    };
    assert_eq!(piped(&[]), (format!("{DIGITS}\n"), false));
    assert_eq!(piped(&["--monitor"]), (format!("{DIGITS}\n"), true));
    for silent in ["--silent", "--format jsonl"] {
        assert!(!on_a_terminal(silent).contains(status), "{silent}");
    }
    assert!(on_a_terminal("> /dev/null").contains(status));
}

/// It would tear and wipe out the words.
#[test]
fn no_bar_is_among_words_on_a_terminal() {
    let seen = |flags: &str| {
        let program = env!("CARGO_BIN_EXE_voxtral");
        let command = format!("stty cols 80; {program} -d digits --backend cpu samples/digits.wav {flags}");
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").current_dir(root());
        String::from_utf8(script.stdin(Stdio::null()).output().unwrap().stdout).unwrap()
    };
    for flags in ["", "-o -", "-o /dev/stdout"] {
        assert_eq!(seen(flags), format!("{DIGITS}\r\n"), "{flags}");
    }
    assert!(seen("> /dev/null").contains("real time"));
}

#[test]
fn a_pipe_that_is_set_not_to_wait_is_waited_for() {
    let (mut sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let mut running = Running::start_with(&["--stdin"], std::os::fd::OwnedFd::from(receiver).into());
    let half = first_half();
    sender.write_all(&half).unwrap();
    running.wait_for("four seven");
    sender.write_all(&raw()[half.len()..]).unwrap();
    drop(sender);
    assert_eq!(running.end(), (Some(0), format!("{DIGITS}\n"), String::new()));
}

#[test]
fn an_interrupt_ends_a_live_stream_well() {
    let mut running = Running::start(&["-"]);
    running.write(&first_half());
    running.wait_for("four");
    running.interrupt();
    let (code, text, errors) = running.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert!(DIGITS.starts_with(text.trim_end()) && text.ends_with('\n'), "{text:?}");
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits for a reader of the FIFO and writes a WAV into it that has no end.
fn begin_recording(fifo: &Path) -> File {
    let mut writer = File::options().write(true).open(fifo).unwrap();
    let mut header = digits_wav()[..44].to_vec();
    header[40..].fill(0xff);
    writer.write_all(&header).unwrap();
    writer.write_all(&long_raw()).unwrap();
    writer
}

#[test]
fn an_interrupt_ends_a_live_stream_with_whole_json() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.json");
    for args in [&["--stdin"][..], &["--stdin", "-o", file.to_str().unwrap()]] {
        let mut running = Running::start(&[&["--format", "json"], args].concat());
        running.write(&long_raw());
        running.interrupt();
        let (code, mut text, errors) = running.end();
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
        if args.len() > 1 {
            assert_eq!(text, "");
            text = std::fs::read_to_string(&file).unwrap();
        }
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(json["text"].as_str().unwrap().starts_with("four"), "{text}");
    }
}

#[test]
fn a_wav_through_a_fifo_is_as_live_as_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("talk.wav");
    make_fifo(&fifo);
    let out = dir.path().join("out.json");
    std::fs::write(&out, "kept").unwrap();
    let fifo = fifo.to_str().unwrap();
    let mut running = Running::start(&[fifo]);
    let writer = begin_recording(fifo.as_ref());
    running.wait_for("eight");
    running.interrupt();
    assert_eq!(running.end().0, Some(0));
    drop(writer);
    for args in [&[fifo][..], &[fifo, "-o", out.to_str().unwrap()]] {
        let running = Running::start(&[&["--format", "json"], args].concat());
        let _writer = begin_recording(fifo.as_ref());
        running.interrupt();
        let (code, mut text, errors) = running.end();
        assert_eq!((code, errors), (Some(0), String::new()), "{text}");
        if args.len() > 1 {
            assert_eq!(text, "");
            text = std::fs::read_to_string(&out).unwrap();
        }
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(json["text"].as_str().unwrap().starts_with("four"), "{text}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left in the folder");
}

/// A recording of a quarter of an hour.
fn long_recording(dir: &Path) -> String {
    let path = dir.join("long.wav");
    write_wav(&path, 16_000, 1, &samples().repeat(100));
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_interrupted_recording_is_printed_as_far_as_it_was_heard_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = long_recording(dir.path());
    let mut running = Running::start(&["--jobs", "1", &path, "samples/digits.wav"]);
    running.wait_for("four");
    running.interrupt();
    let (code, text, errors) = running.end();
    assert_eq!(code, Some(130), "{errors}");
    assert!(text.starts_with(DIGITS.split_once(' ').unwrap().0) && text.ends_with('\n'), "{text:?}");
    assert_eq!(text.lines().count(), 1, "the next recording is not begun: {text:?}");
    let expected = format!("voxtral: {path}: interrupted\nvoxtral: 2 of 2 inputs are not whole: interrupted\n");
    assert_eq!(errors, expected);
}

#[test]
fn an_interrupt_leaves_files_of_all_that_was_heard() {
    let dir = tempfile::tempdir().unwrap();
    let path = long_recording(dir.path());
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    // What is written into this one is seen at once.
    let fifo = out.join("long.txt");
    make_fifo(&fifo);
    let folder = format!("{}/", out.display());
    let args = ["--jobs", "1", "--format", "text,json,srt", "-o", &folder, "samples/digits.wav", &path];
    let running = Running::start(&args);
    // It stays open between the attempt whether it can be written and the writing.
    let mut text = File::options().read(true).write(true).open(&fifo).unwrap();
    let mut four = [0; 4];
    text.read_exact(&mut four).unwrap();
    running.interrupt();
    let (code, _, errors) = running.end();
    assert_eq!((code, &four), (Some(130), b"four"), "{errors}");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read("digits.txt"), format!("{DIGITS}\n"));
    let json: serde_json::Value = serde_json::from_str(&read("long.json")).unwrap();
    assert!(json["text"].as_str().unwrap().starts_with("four") && read("long.srt").starts_with("1\n"));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 6, "nothing else is left in the folder");
}

#[test]
fn an_interrupt_while_nothing_is_heard_saves_what_was_heard_before() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("never.wav");
    make_fifo(&fifo);
    let out = dir.path().join("out.txt");
    let args = ["--jobs", "1", "-o", out.to_str().unwrap(), "samples/digits.wav", fifo.to_str().unwrap()];
    let running = Running::start(&args);
    // That waits until it is the second one's turn, and then it waits for the first byte.
    let _writer = File::options().write(true).open(&fifo).unwrap();
    running.interrupt();
    assert_eq!(running.end(), (Some(130), String::new(), String::new()));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), format!("{DIGITS}\n"));
}

#[test]
fn an_interrupt_while_nothing_is_heard_ends_it() {
    // When the first is printed, the second is waited for.
    let mut running = Running::start(&["samples/digits.wav", "-"]);
    running.wait_for("eight\n");
    running.interrupt();
    let (code, text, errors) = running.end();
    assert_eq!((code, errors.as_str()), (Some(130), ""), "{text}");
}

/// As after the end of a session over SSH.
#[test]
fn a_program_under_nohup_goes_on_when_its_terminal_is_gone() {
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_voxtral")).args(["--silent", "-d", "digits", "--stdin"]).stdin(Stdio::piped());
    let mut running = Running::of(command);
    running.write(&first_half());
    running.wait_for("four seven");
    running.signal("-HUP");
    running.write(&raw()[first_half().len()..]);
    drop(running.stdin.take());
    let (code, text, errors) = running.end();
    assert_eq!((code, text), (Some(0), format!("{DIGITS}\n")), "{errors}");
}

/// The output takes nothing, and so what was heard is never written.
#[test]
fn a_second_interrupt_ends_a_program_that_hangs() {
    let (_reader, mut full) = std::io::pipe().unwrap();
    full.write_all(&[0; 1 << 16]).unwrap();
    let mut command = program();
    command.args(["--silent", "--stdin"]).stdin(Stdio::piped()).stdout(full);
    let mut running = command.spawn().unwrap();
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(&long_raw()).unwrap();
    // A second one that came before the first was seen would be the first.
    let deadline = std::time::Instant::now() + HANGS;
    let ended = loop {
        let kill = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        match running.try_wait().unwrap() {
            Some(status) => break status,
            None if kill.success() && std::time::Instant::now() < deadline => {}
            None => {
                running.kill().unwrap();
                panic!("it hangs");
            }
        }
    };
    assert_eq!(ended.code(), Some(130));
}
