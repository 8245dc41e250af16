//! Against real servers. They need Debian's packages pulseaudio and pulseaudio-utils, or pipewire-pulse and wireplumber, and are
//! ignored where nobody asks for them: `cargo test -p voxtral-microphone -- --ignored`.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::*;
use crate::Heard;
use crate::testing::{DESCRIPTION, Daemon, Kind, MONITOR};

fn environment_of(daemon: &Daemon) -> Environment {
    let dir = daemon.dir.path().as_os_str().to_owned();
    Environment::new(|name| matches!(name, "XDG_RUNTIME_DIR" | "HOME").then(|| dir.clone()))
}

fn environment_at(server: &str) -> Environment {
    Environment::new(|name| (name == "PULSE_SERVER").then(|| server.into()))
}

/// A WAV of one second, a sine of half the full scale.
fn sine(daemon: &Daemon) -> std::path::PathBuf {
    let path = daemon.dir.path().join("sine.wav");
    let mut bytes = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    bytes.extend([48_000_u32, 96_000].iter().flat_map(|rate| rate.to_le_bytes()));
    bytes.extend(b"\x02\0\x10\0data\0\x77\x01\0");
    let sample = |i: u16| (f32::from(i % 48) * std::f32::consts::TAU / 48.0).sin() * 16384.0;
    bytes.extend((0..48_000).flat_map(|i| (sample(i) as i16).to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn hears_what_is_played(kind: Kind) {
    let mut daemon = Daemon::start(kind);
    let environment = environment_of(&daemon);
    let devices = devices_of(&environment).unwrap();
    let monitor = devices.iter().find(|device| device.name == MONITOR).unwrap();
    assert!(monitor.is_monitor && monitor.is_default && monitor.description == DESCRIPTION, "{devices:?}");

    let mut microphone = open_of(&environment, Some("test-output")).unwrap();
    // It takes a moment to wake up.
    assert!(matches!(microphone.next(), Some(Ok(Heard::Samples(_)))));
    let path = sine(&daemon);
    daemon.play(&path);
    let (mut heard, mut loud, mut peak) = (0, 0, 0.0f32);
    while heard < 8 * 16_000 {
        let Heard::Samples(samples) = microphone.next().unwrap().unwrap() else { panic!("nothing is lost") };
        heard += samples.len();
        loud += samples.iter().filter(|sample| sample.abs() > 0.01).count();
        peak = samples.iter().fold(peak, |peak, sample| peak.max(sample.abs()));
    }
    // Of each 16 samples two may lie where the sine is 0. PipeWire gives the sum of both channels, 3 dB more than their mean.
    assert!(loud > 13_500 && (0.47..0.84).contains(&peak), "{loud} of 16000 samples, up to {peak}");

    assert_eq!(daemon.recordings(), 1);
    drop(microphone);
    while daemon.recordings() > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn says_that_the_device_is_gone(kind: Kind) {
    let daemon = Daemon::start(kind);
    let mut microphone = open_of(&environment_of(&daemon), Some(MONITOR)).unwrap();
    assert!(matches!(microphone.next(), Some(Ok(Heard::Samples(_)))));
    daemon.unplug();
    let error = microphone.find_map(Result::err).unwrap();
    assert!(matches!(&error, Error::DeviceGone { name } if name == DESCRIPTION), "{error}");
    assert!(microphone.next().is_none());
}

fn says_that_the_server_is_gone(kind: Kind) {
    let mut daemon = Daemon::start(kind);
    let mut microphone = open_of(&environment_of(&daemon), None).unwrap();
    assert!(matches!(microphone.next(), Some(Ok(Heard::Samples(_)))));
    daemon.kill();
    let error = microphone.find_map(Result::err).unwrap();
    assert!(matches!(error, Error::ServerGone), "{error}");
    assert!(microphone.next().is_none());
}

/// It goes on when the device does, and time has gone on too.
#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn a_device_that_slept_leaves_a_gap() {
    let daemon = Daemon::start(Kind::PulseAudio);
    let mut microphone = open_of(&environment_of(&daemon), None).unwrap();
    assert!(matches!(microphone.next(), Some(Ok(Heard::Samples(_)))));
    daemon.sleep(true);
    std::thread::sleep(Duration::from_secs(3));
    daemon.sleep(false);
    let gap = microphone.find_map(|heard| if let Ok(Heard::Gap(samples)) = heard { Some(samples) } else { None });
    let seconds = gap.unwrap() as f64 / f64::from(SAMPLE_RATE);
    assert!((2.0..8.0).contains(&seconds), "{seconds} s");
}

/// One test for each thing that a server must do, with each server.
macro_rules! with {
    ($kind:ident, $module:ident, $packages:literal) => {
        mod $module {
            use super::Kind::$kind;

            #[test]
            #[ignore = $packages]
            fn hears_what_is_played_and_ends_when_dropped() {
                super::hears_what_is_played($kind);
            }

            #[test]
            #[ignore = $packages]
            fn says_that_the_device_is_gone() {
                super::says_that_the_device_is_gone($kind);
            }

            #[test]
            #[ignore = $packages]
            fn says_that_the_server_is_gone() {
                super::says_that_the_server_is_gone($kind);
            }
        }
    };
}

with!(PulseAudio, pulseaudio, "needs pulseaudio and pulseaudio-utils");
with!(PipeWire, pipewire, "needs pipewire-pulse, wireplumber and pulseaudio-utils");

#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn a_stop_leaves_what_was_heard() {
    let daemon = Daemon::start(Kind::PulseAudio);
    let mut microphone = open_of(&environment_of(&daemon), None).unwrap();
    let control = microphone.control();
    while control.backlog() < Duration::from_millis(200) {
        std::thread::sleep(Duration::from_millis(10));
    }
    control.stop();
    let left = control.backlog();
    let taken: usize =
        microphone.by_ref().map(|heard| if let Ok(Heard::Samples(s)) = heard { s.len() } else { 0 }).sum();
    assert_eq!(taken as f64 / f64::from(SAMPLE_RATE), left.as_secs_f64());
    assert!(left >= Duration::from_millis(200));
}

#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn without_a_device_it_says_so() {
    let daemon = Daemon::start(Kind::PulseAudio);
    daemon.unplug();
    assert_eq!(devices_of(&environment_of(&daemon)).unwrap(), []);
    assert!(matches!(open_of(&environment_of(&daemon), None), Err(Error::NoDevice)));
    assert!(matches!(open_of(&environment_of(&daemon), Some("1")), Err(Error::NoSuchDevice { .. })));
}

/// A network server asks everybody for its cookie.
#[test]
#[ignore = "needs pulseaudio and pulseaudio-utils"]
fn over_the_network_the_cookie_decides() {
    let daemon = Daemon::start(Kind::PulseAudio);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    daemon.pactl(&["load-module", "module-native-protocol-tcp", &format!("port={port}"), "listen=127.0.0.1"]);
    let cookie = daemon.dir.path().join(".config/pulse/cookie");
    let with = |cookie: &str| {
        devices_of(&Environment::new(|name| match name {
            "PULSE_SERVER" => Some(format!("tcp:127.0.0.1:{port}").into()),
            "PULSE_COOKIE" => Some(cookie.into()),
            _ => None,
        }))
    };
    assert_eq!(with(cookie.to_str().unwrap()).unwrap()[0].name, MONITOR);
    let refused = with("/nowhere").unwrap_err();
    assert!(matches!(&refused, Error::Refused { server } if *server == format!("127.0.0.1:{port}")), "{refused}");
}

#[test]
fn no_server_is_an_error_that_says_where_it_was_looked_for() {
    let error = devices_of(&environment_at("unix:/nowhere/native tcp:127.0.0.1:1")).unwrap_err();
    let expected = "there is no sound server: /nowhere/native: No such file or directory (os error 2); \
                    127.0.0.1:1: Connection refused (os error 111)";
    assert_eq!(error.to_string(), expected);
}

/// What a peer that is no sound server does.
fn error_from(peer: impl FnOnce(UnixStream) + Send + 'static) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("native");
    let listener = UnixListener::bind(&path).unwrap();
    let peer = std::thread::spawn(move || peer(listener.accept().unwrap().0));
    let error = devices_of(&environment_at(path.to_str().unwrap())).unwrap_err();
    peer.join().unwrap();
    error
}

#[test]
fn a_peer_that_hangs_up_or_talks_nonsense_is_an_error() {
    let says = |bytes: &'static [u8]| {
        error_from(move |mut peer| {
            io::Write::write_all(&mut peer, bytes).unwrap();
            // Its question is read, so that the answer is not thrown away.
            io::Read::read_exact(&mut peer, &mut [0; 290]).unwrap();
        })
    };
    assert!(matches!(says(b""), Error::ServerGone));
    assert!(matches!(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Error::Protocol(_)));
    assert!(matches!(
        says(&[0, 0, 0, 4, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
        Error::Protocol(_)
    ));
}

#[test]
fn a_peer_that_says_nothing_is_an_error() {
    let error = error_from(|mut peer| drop(io::copy(&mut peer, &mut io::sink())));
    assert!(matches!(error, Error::Unanswered { .. }), "{error}");
}
