//! Every format that can be read, as a program reads it: files made by other people's encoders, and WAV in all its kinds.

mod common;

use std::io::{Cursor, Read};
use std::time::Duration;

use common::testing::noise;
use common::{Pipe, all, amplitude, bytes_of, error_of, wav};
use hound::{SampleFormat as Kind, WavSpec, WavWriter};
use voxtral_audio::{AudioSource, Error, Notice, RawFormat, SampleFormat};

/// 440 Hz, 0.6 left and 0.4 right, half a second at 44.1 kHz or 0.3 at 8 kHz, by ffmpeg. With what codecs may add, in ms.
const TONES: [(&str, u32, f64, f64); 12] = [
    ("tone.flac", 8_000, 0.3, 0.0),
    ("tone_alac.m4a", 8_000, 0.3, 0.0),
    ("tone.mp3", 44_100, 0.5, 0.0),
    ("tone.mp2", 44_100, 0.5, 0.057),
    ("tone.m4a", 44_100, 0.5, 0.057),
    ("tone.aac", 44_100, 0.5, 0.057),
    ("tone.ogg", 44_100, 0.5, 0.0),
    ("tone.mkv", 44_100, 0.5, 0.057),
    ("tone.aiff", 8_000, 0.3, 0.0),
    ("tone.caf", 8_000, 0.3, 0.0),
    ("tone_ima.wav", 8_000, 0.3, 0.138),
    ("tone_ms.wav", 8_000, 0.3, 0.138),
];

#[test]
fn every_format_is_heard() {
    for (name, rate, seconds, extra) in TONES {
        let mut file = common::open(common::data(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((file.sample_rate(), file.channels()), (rate, 2), "{name}");
        let (heard, error) = all(&mut file);
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(file.take_damage(), [], "{name}");
        let length = heard.len() as f64 / 16_000.0;
        // A millisecond is what MP4's clock of the movie has.
        assert!((seconds - 1e-4..=seconds + extra + 1.1e-3).contains(&length), "{name}: {length} s");
        let level = amplitude(&heard[heard.len() / 4..heard.len() * 3 / 4], 440.0, 16_000);
        assert!((level - 0.5).abs() < 0.03, "{name}: amplitude {level}"); // 48 kbit/s MP3 loses 0.5 dB

        // The name says nothing, and a pipe gives the same as a file.
        let mut piped = common::from_reader(Pipe::new(bytes_of(name), 1000), None).unwrap();
        assert_eq!(all(&mut piped).0, heard, "{name} as a pipe");
    }
}

#[test]
fn wav_of_every_kind_is_exact() {
    let values = noise(3000);
    for (bits, kind) in [(8, Kind::Int), (16, Kind::Int), (24, Kind::Int), (32, Kind::Int), (32, Kind::Float)] {
        for channels in [1, 2, 3, 8] {
            let spec = WavSpec { channels, sample_rate: 16_000, bits_per_sample: bits, sample_format: kind };
            let mut file = Cursor::new(Vec::new());
            let mut writer = WavWriter::new(&mut file, spec).unwrap();
            let scale = 2f64.powi(i32::from(bits) - 1);
            let mut expected = Vec::new();
            for frame in values.chunks_exact(usize::from(channels)) {
                let mut sum = 0.0f64;
                for &v in frame {
                    if kind == Kind::Float {
                        writer.write_sample(v).unwrap();
                        sum += f64::from(v);
                    } else {
                        let whole = (f64::from(v) * scale) as i32;
                        writer.write_sample(whole).unwrap();
                        sum += f64::from(whole) / scale;
                    }
                }
                expected.push((sum / f64::from(channels)) as f32);
            }
            writer.finalize().unwrap();
            let label = format!("{bits} bit {kind:?}, {channels} channels");
            for step in [1, 7, 100_000] {
                let mut wav = common::from_reader(Pipe::new(file.get_ref().clone(), step), None).unwrap();
                assert_eq!((wav.sample_rate(), wav.channels()), (16_000, usize::from(channels)), "{label}");
                assert_eq!(
                    wav.duration().map(|d| (d.as_secs_f64() * 16_000.0).round() as usize),
                    Some(expected.len()),
                    "{label}"
                );
                let (heard, error) = all(&mut wav);
                assert!(error.is_none(), "{label}: {error:?}");
                assert_eq!(heard.len(), expected.len(), "{label}");
                assert!(heard.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{label}");
            }
        }
    }
}

#[test]
fn g711_and_doubles_are_read() {
    // Codes and values of G.711's tables, scaled to 16 bits.
    for (tag, codes, values) in [
        (6u16, [0xd5u8, 0x55, 0xaa, 0x2a, 0x80], [8i16, -8, 32256, -32256, 5504]),
        (7, [0xff, 0x7f, 0x80, 0x00, 0xf0], [0, 0, 32124, -32124, 120]),
    ] {
        let mut source = common::from_reader(Cursor::new(wav(tag, 1, 8, 16_000, 5, &codes)), None).unwrap();
        let expected: Vec<f32> = values.iter().map(|&v| f32::from(v) / 32768.0).collect();
        assert_eq!(all(&mut source).0, expected, "format {tag}");
    }
    let doubles: Vec<u8> = [0.25f64, -1.0, f64::NAN, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut source = common::from_reader(Cursor::new(wav(3, 2, 64, 16_000, 32, &doubles)), None).unwrap();
    assert_eq!(all(&mut source).0, [-0.375, 0.25]);
}

#[test]
fn samples_that_are_no_numbers_are_counted() {
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let raw = |channels| RawFormat { sample: SampleFormat::F32, rate: 16_000, channels };
    let values = f32s(&[0.25, f32::NAN, f32::INFINITY, -0.5, f32::NEG_INFINITY, 0.5]);
    let mut mono = AudioSource::raw(Cursor::new(values.clone()), raw(1)).unwrap();
    assert_eq!(all(&mut mono).0, [0.25, 0.0, 0.0, -0.5, 0.0, 0.5]);
    assert_eq!(mono.take_notices(), [Notice::NotFinite { samples: 3 }]);
    let mut stereo = AudioSource::raw(Cursor::new(values), raw(2)).unwrap();
    assert_eq!(all(&mut stereo).0, [0.125, -0.25, 0.25]);
    assert_eq!(stereo.take_notices(), [Notice::NotFinite { samples: 3 }]);

    let none = f32s(&[f32::NAN; 4]);
    assert!(matches!(error_of(&wav(3, 2, 32, 16_000, 16, &none)), Error::NotFinite { samples: 4 }));
    let doubles: Vec<u8> = [f64::INFINITY; 3].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert!(matches!(error_of(&wav(3, 1, 64, 16_000, 24, &doubles)), Error::NotFinite { samples: 3 }));
}

#[test]
fn no_sample_is_so_loud_that_sums_are_no_numbers() {
    let loud: Vec<u8> = [f32::MAX; 4096].iter().flat_map(|v| v.to_le_bytes()).collect();
    for rate in [16_000, 44_100] {
        let raw = RawFormat { sample: SampleFormat::F32, rate, channels: 2 };
        let mut source = AudioSource::raw(Cursor::new(loud.clone()), raw).unwrap();
        let (heard, error) = all(&mut source);
        assert!(error.is_none() && heard.iter().all(|v| v.is_finite()), "{rate}");
        assert!(matches!(source.take_notices()[..], [Notice::OutOfScale { .. }]));
    }
}

#[test]
#[cfg(unix)]
fn a_pipe_that_is_set_not_to_wait_is_waited_for() {
    use std::io::Write;

    let (mut sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let mut alone = receiver.try_clone().unwrap();
    assert_eq!(alone.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let (heard, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut source = common::from_reader(voxtral_audio::Waiting(receiver), Some(RawFormat::default())).unwrap();
        while let Some(block) = source.next_block().unwrap() {
            heard.send(block.to_vec()).unwrap();
        }
    });
    for value in [16384i16, -16384] {
        // The reader has found nothing by now, or will find something: it must not matter.
        std::thread::sleep(Duration::from_millis(20));
        sender.write_all(&value.to_le_bytes().repeat(6)).unwrap();
        let block = told.recv_timeout(Duration::from_secs(60)).expect("it waits for what has come");
        assert_eq!(block, [f32::from(value) / 32768.0; 6]);
    }
    drop(sender);
    assert!(told.recv_timeout(Duration::from_secs(60)).is_err());
}

#[test]
fn signals_interrupt_no_reading() {
    /// Interrupted before each byte.
    struct Interrupted(Pipe, bool);
    impl Read for Interrupted {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(std::io::ErrorKind::Interrupted.into()) } else { self.0.read(buffer) }
        }
    }
    for name in ["tone.flac", "tone.mp3"] {
        let (whole, _) = all(&mut common::from_reader(Cursor::new(bytes_of(name)), None).unwrap());
        let interrupted = Interrupted(Pipe::new(bytes_of(name), 1000), false);
        let (heard, error) = all(&mut common::from_reader(interrupted, None).unwrap());
        assert!(error.is_none() && heard == whole, "{name}: {error:?}");
    }
}

#[test]
fn a_piped_wav_is_live_and_endless() {
    for size in [0u32, u32::MAX, 0x7fff_f000] {
        let (sender, reader) = common::live();
        let head = wav(1, 1, 16, 16_000, size, &[]);
        sender.send(head).unwrap();
        sender.send(vec![0, 64, 0, 64]).unwrap();
        let mut source = common::from_reader(reader, None).unwrap();
        assert_eq!(source.duration(), None);
        // The sender is still open: a reader that waited for more than this would hang here.
        assert_eq!(source.next_block().unwrap().unwrap(), [0.5, 0.5]);
        sender.send(vec![0, 192, 0]).unwrap();
        assert_eq!(source.next_block().unwrap().unwrap(), [-0.5]);
        sender.send(vec![32]).unwrap();
        assert_eq!(source.next_block().unwrap().unwrap(), [0.25]);
        drop(sender);
        assert!(source.next_block().unwrap().is_none(), "size {size:#x}");
    }
}

#[test]
fn raw_samples_are_live_and_complete() {
    let (sender, reader) = common::live();
    sender.send((0..12).collect()).unwrap();
    let mut source = common::from_reader(reader, Some(RawFormat::default())).unwrap();
    assert_eq!(source.take_notices(), [Notice::TakenAsRaw(RawFormat::default())]);
    let first: Vec<f32> = [0x0100, 0x0302, 0x0504, 0x0706, 0x0908, 0x0b0a].map(|v: i16| f32::from(v) / 32768.0).into();
    assert_eq!(source.next_block().unwrap().unwrap(), first);
    sender.send(vec![0, 64, 9]).unwrap();
    assert_eq!(source.next_block().unwrap().unwrap(), [0.5]);
    drop(sender);
    assert!(source.next_block().unwrap().is_none());
    assert_eq!(source.take_notices(), [Notice::PartialSample { extra: 1, frame: 2 }]);
    assert_eq!(source.take_damage(), []);
}

#[test]
fn raw_formats_are_what_they_are_said_to_be() {
    let raw = RawFormat { sample: SampleFormat::F32, rate: 16_000, channels: 2 };
    let bytes: Vec<u8> = [0.5f32, 0.25, -1.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut source = AudioSource::raw(Cursor::new(bytes), raw).unwrap();
    assert_eq!((source.sample_rate(), source.channels(), source.duration()), (16_000, 2, None));
    assert_eq!(all(&mut source).0, [0.375, -0.5]);
    // Forced raw is raw, even if it looks like something else.
    let mut forced = AudioSource::raw(Cursor::new(bytes_of("tone.flac")), RawFormat::default()).unwrap();
    assert_eq!(all(&mut forced).0.len(), bytes_of("tone.flac").len() / 2);
}

#[test]
fn raw_samples_near_minus_one_are_not_taken_for_mpeg() {
    // The last two are whole frame headers, of MP3 and of AAC, with nothing like a frame behind them.
    let starts: [&[u8]; 6] = [
        &[0xff, 0xfb],
        &[0xff, 0xff],
        &[0xff, 0xf1],
        &[0xff, 0xfa],
        &[0xff, 0xfb, 0x90, 0x64],
        &[0xff, 0xf1, 0x50, 0x80, 0x02, 0x1f],
    ];
    for first in starts {
        let mut bytes = if first.len() == 2 { first.repeat(3000) } else { first.to_vec() };
        bytes.extend(noise(4000).iter().map(|v| (v * 255.0) as u8));
        let count = bytes.len() / 2;
        let mut source = common::from_reader(Pipe::new(bytes, 4096), Some(RawFormat::default())).unwrap();
        assert_eq!(all(&mut source).0.len(), count, "{first:x?}");
    }
}

#[test]
fn sources_may_move_to_another_thread() {
    fn assert_send<T: Send + 'static>() {}
    assert_send::<AudioSource>();
}

#[test]
fn duration_is_what_the_header_says() {
    assert_eq!(common::open(common::data("tone.flac")).unwrap().duration(), Some(Duration::from_millis(300)));
}

#[test]
fn what_is_no_audio_is_said_to_be_none() {
    assert!(matches!(error_of(b""), Error::Empty));
    assert!(matches!(error_of(b"\x00"), Error::UnknownFormat));
    assert!(matches!(error_of(b"It was a dark and stormy night; the rain fell in torrents"), Error::Foreign("text")));
    let random: Vec<u8> = noise(4_000_000).iter().map(|v| (v * 255.0) as i8 as u8).collect();
    for part in random.chunks(100_000) {
        let error = error_of(part);
        assert!(matches!(error, Error::UnknownFormat), "{error:?}");
    }
    assert!(matches!(common::open("/nowhere/at/all.wav"), Err(Error::Io(_))));
    assert!(matches!(common::open("/"), Err(Error::Io(_))));
}

#[test]
fn wrong_headers_are_named() {
    assert!(matches!(error_of(&wav(1, 0, 16, 16_000, 4, &[0; 4])), Error::Channels(0)));
    assert!(matches!(error_of(&wav(1, 1, 16, 0, 4, &[0; 4])), Error::Rate(0)));
    assert!(matches!(error_of(&wav(1, 1, 16, u32::MAX, 4, &[0; 4])), Error::Rate(u32::MAX)));
    assert!(matches!(error_of(&wav(1, 1, 16, 16_000, 0, &[])), Error::NoSamples));
    assert!(matches!(error_of(&wav(1, 1, 16, 16_000, 1, &[0])), Error::NoSamples));
    let error = error_of(&wav(0x31, 1, 16, 16_000, 4, &[0; 4]));
    assert!(matches!(&error, Error::NeedsFfmpeg { format } if format == "GSM 6.10 in WAV"), "{error:?}");
}

#[test]
fn what_is_cut_off_is_told_after_what_is_there() {
    let samples = [0u8, 64].repeat(1000);
    let mut short = common::from_reader(Cursor::new(wav(1, 1, 16, 16_000, 8000, &samples)), None).unwrap();
    let (heard, error) = all(&mut short);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(heard, [0.5; 1000]);
    let [damage] = &short.take_damage()[..] else { panic!("one entry") };
    assert_eq!((damage.at_s, damage.lost_s), (0.063, 0.188), "0.0625 and 0.1875, to the millisecond");

    // Less than 80 ms is no damage.
    let mut short = common::from_reader(Cursor::new(wav(1, 1, 16, 16_000, 4000, &samples)), None).unwrap();
    assert_eq!(all(&mut short).0.len(), 1000);
    assert_eq!(short.take_damage(), []);

    // A header that asks for all there can be costs nothing.
    let mut boast = common::from_reader(Cursor::new(wav(1, 2, 16, 16_000, 0x7ffe_ffff, &samples)), None).unwrap();
    assert!(boast.next_block().unwrap().is_some());
    drop(boast);

    // Cut off in the middle of the last packet, as files and as pipes.
    for (name, ..) in TONES {
        let mut bytes = bytes_of(name);
        bytes.truncate(bytes.len() - bytes.len() / 3);
        let path = std::env::temp_dir().join(format!("voxtral-audio-{}-{name}", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        for outcome in [common::open(&path), common::from_reader(Cursor::new(bytes), None)] {
            match outcome {
                // The index is at the end, and so are a table of packets and the only page of Ogg.
                Err(e) => assert!(matches!(e, Error::Corrupt(_) | Error::NoSamples), "{name}: {e:?}"),
                Ok(mut short) => {
                    let (_, error) = all(&mut short);
                    let damage = short.take_damage();
                    assert!(error.is_none() && !damage.is_empty(), "{name}: {error:?}, {damage:?}");
                }
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_broadcast_may_begin_anywhere() {
    let bytes = bytes_of("tone.mp2");
    let (whole, _) = all(&mut common::from_reader(Cursor::new(bytes.clone()), None).unwrap());
    let mut source = common::from_reader(Cursor::new(bytes[100..].to_vec()), None).unwrap();
    let (heard, error) = all(&mut source);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(source.take_damage(), []);
    assert!(whole.len().abs_diff(heard.len() + 1152 * 16_000 / 44_100) <= 1);
}

#[test]
fn lost_packets_are_told_and_keep_their_place() {
    let bytes = bytes_of("tone.aac");
    let (whole, _) = all(&mut common::from_reader(Cursor::new(bytes.clone()), None).unwrap());
    let mut told = 0;
    for at in (1000..2600).step_by(50) {
        let mut damaged = bytes.clone();
        damaged[at..at + 4].fill(0xff);
        let mut source = common::from_reader(Cursor::new(damaged), None).unwrap();
        let (heard, _) = all(&mut source);
        let damage = source.take_damage();
        if !damage.is_empty() {
            told += 1;
            assert!(heard.len().abs_diff(whole.len()) < 800, "damage at {at}: {} samples", heard.len());
            assert!(damage[0].at_s > 0.05 && damage[0].at_s < 0.5, "{damage:?}");
        }
    }
    assert!(told > 5, "{told}");
}

#[test]
fn a_changed_byte_in_flac_is_noticed() {
    let mut bytes = bytes_of("tone.flac");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let mut source = common::from_reader(Cursor::new(bytes), None).unwrap();
    let (heard, error) = all(&mut source);
    assert!(error.is_none());
    assert_eq!(heard.len(), 4800);
    assert_eq!(source.take_damage().len(), 1);
}
