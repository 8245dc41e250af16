//! Recording: from real sound servers, with an output that is played to in real time and recorded.
//!
//! They need Debian's packages pulseaudio and pulseaudio-utils, or pipewire-pulse, wireplumber and dbus-daemon, and are ignored where
//! nobody asks for them: `cargo test -p voxtral-cli --test cli microphone -- --ignored`.

#[path = "../../../microphone/src/testing.rs"]
mod testing;

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::live::Running;
use crate::support::*;
use testing::{DESCRIPTION, Daemon, Kind, MONITOR};

/// The program, with a sound server.
fn program_at(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = program();
    daemon.environment(&mut command).args(args).stdin(Stdio::null());
    command
}

/// A sound server, the program recording from it, and the digits being said as soon as it does.
fn talk(kind: Kind, args: &[&str]) -> (Daemon, Running) {
    let mut daemon = Daemon::start(kind);
    let running = Running::of(program_at(&daemon, &[&["--silent"], args].concat()));
    while daemon.recordings() == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = daemon.dir.path().join("said.wav");
    let silence = |seconds: usize| vec![0; seconds * 16_000];
    // A server may take two seconds to wake up.
    write_wav(&said, 16_000, 1, &[silence(3), samples(), silence(2)].concat());
    daemon.play(&said);
    (daemon, running)
}

fn what_is_said_is_written(kind: Kind) {
    let (_daemon, mut running) = talk(kind, &["--mic", "test-output"]);
    running.wait_for("four seven");
    running.wait_for("eight");
    running.interrupt();
    assert_eq!(running.end(), (Some(0), format!("{DIGITS}\n"), String::new()));
}

#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn what_is_said_is_written_until_an_interrupt() {
    what_is_said_is_written(Kind::PulseAudio);
}

#[test]
#[ignore = "needs pipewire-pulse, wireplumber, dbus-daemon and pulseaudio-utils"]
fn what_is_said_is_written_until_an_interrupt_with_pipewire() {
    what_is_said_is_written(Kind::PipeWire);
}

/// The server keeps what is not read meanwhile.
#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn a_program_that_stood_still_has_lost_nothing() {
    let (_daemon, mut running) = talk(Kind::PulseAudio, &["--mic"]);
    running.wait_for("four");
    running.signal("-STOP");
    std::thread::sleep(Duration::from_secs(4));
    running.signal("-CONT");
    running.wait_for("eight");
    running.interrupt();
    assert_eq!(running.end(), (Some(0), format!("{DIGITS}\n"), String::new()));
}

/// The device is asleep for a while, and then it goes on: its time does, too.
#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn what_was_not_recorded_is_damage_and_keeps_its_time() {
    let (daemon, mut running) = talk(Kind::PulseAudio, &["--mic", "--format", "json"]);
    std::thread::sleep(Duration::from_secs(3));
    daemon.sleep(true);
    std::thread::sleep(Duration::from_secs(3));
    daemon.sleep(false);
    std::thread::sleep(Duration::from_secs(4));
    running.interrupt();
    running.wait_for("}\n");
    let (code, text, _) = running.end();
    assert_eq!(code, Some(4), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let damage = json["audio"]["damage"].as_array().unwrap();
    let lost_s = damage.iter().map(|entry| entry["lost_s"].as_f64().unwrap()).sum::<f64>();
    assert!((2.0..6.0).contains(&lost_s), "{text}");
    assert!(json["audio"]["duration_s"].as_f64().unwrap() > 2.0 + lost_s, "{text}");
}

fn ends_with_what_was_heard(end: impl FnOnce(&mut Daemon), error: &str) {
    let (mut daemon, mut running) = talk(Kind::PulseAudio, &["--mic", MONITOR]);
    running.wait_for("four seven");
    end(&mut daemon);
    let (code, text, errors) = running.end();
    assert_eq!((code, errors), (Some(1), format!("voxtral: microphone: {error}\n")), "{text}");
    assert!(DIGITS.starts_with(text.trim_end()) && text.ends_with('\n'), "{text:?}");
}

#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn a_device_that_is_unplugged_is_an_error_after_the_words_before_it() {
    ends_with_what_was_heard(|daemon| daemon.unplug(), &format!("the device {DESCRIPTION} is gone"));
}

#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn a_server_that_ends_is_an_error_after_the_words_before_it() {
    ends_with_what_was_heard(Daemon::kill, "the sound server has ended");
}

#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn devices_are_listed_without_a_model_and_one_that_is_not_among_them_is_refused() {
    let daemon = Daemon::start(Kind::PulseAudio);
    let list = program_at(&daemon, &["--list-devices"]).env("VOXTRAL_MODEL", "/nowhere").output().unwrap();
    let expected = format!(" 1  {MONITOR}  {DESCRIPTION} (default)\n");
    assert_eq!((list.status.code(), String::from_utf8(list.stdout).unwrap()), (Some(0), expected));
    let other = program_at(&daemon, &["--silent", "--mic", "yeti"]).output().unwrap();
    let expected = format!("voxtral: microphone: there is no device \"yeti\"; choose one of these: {MONITOR}\n");
    assert_eq!((other.status.code(), String::from_utf8(other.stderr).unwrap()), (Some(1), expected));
}

#[test]
fn without_a_server_it_says_where_it_looked() {
    for (args, what) in [(&["--silent", "--mic"][..], "microphone: "), (&["--list-devices"], "")] {
        let run = program().args(args).env("PULSE_SERVER", "unix:/nowhere/native").output().unwrap();
        let expected = format!(
            "voxtral: {what}there is no sound server: /nowhere/native: No such file or directory (os error 2)\n"
        );
        assert_eq!((run.status.code(), String::from_utf8(run.stderr).unwrap()), (Some(1), expected));
    }
}
