//! Every format that can be read, as a program reads it: files made by other people's encoders, and WAV in all its kinds.

mod common;

use std::io::{Cursor, Read, Write};
use std::time::Duration;

use common::testing::noise;
use common::{Pipe, all, amplitude, bytes_of, error_of, wav};
use hound::{SampleFormat as Kind, WavSpec, WavWriter};
use voxtral_audio::{AudioSource, Decoder, Error, RawFormat, SampleFormat, Waiting};

/// 440 Hz, 0.6 left and 0.4 right, half a second at 44.1 kHz or 0.3 at 8 kHz, by ffmpeg. With what codecs may add.
const TONES: [(&str, u32, usize, usize); 12] = [
    ("tone.flac", 8_000, 2_400, 0),
    ("tone_alac.m4a", 8_000, 2_400, 0),
    ("tone.mp3", 44_100, 22_050, 0),
    ("tone.mp2", 44_100, 22_050, 2500),
    ("tone.m4a", 44_100, 22_050, 2500),
    ("tone.aac", 44_100, 22_050, 2500),
    ("tone.ogg", 44_100, 22_050, 0),
    ("tone.mkv", 44_100, 22_050, 2500),
    ("tone.aiff", 8_000, 2_400, 0),
    ("tone.caf", 8_000, 2_400, 0),
    ("tone_ima.wav", 8_000, 2_400, 1100),
    ("tone_ms.wav", 8_000, 2_400, 1100),
];

#[test]
fn every_format_is_heard() {
    for (name, rate, samples, extra) in TONES {
        let mut file = Decoder::open(common::data(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((file.sample_rate(), file.channels()), (rate, 2), "{name}");
        let (heard, error) = all(&mut file);
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(file.damaged_packets(), 0, "{name}");
        eprintln!("{name}: promised {:?}, heard {}", file.promised_samples(), heard.len());
        assert!((samples..=samples + extra).contains(&heard.len()), "{name}: {} samples", heard.len());
        let middle = &heard[heard.len() / 4..heard.len() * 3 / 4];
        let level = amplitude(middle, 440.0, rate);
        assert!((level - 0.5).abs() < 0.03, "{name}: amplitude {level}"); // 48 kbit/s MP3 loses 0.5 dB

        // The name says nothing, and a pipe gives the same as a file, where the format allows.
        if ![".m4a", ".caf"].iter().any(|extension| name.ends_with(extension)) {
            let mut piped = Decoder::from_reader(Pipe::new(bytes_of(name), 1000), None).unwrap();
            assert_eq!(all(&mut piped).0, heard, "{name} as a pipe");
        }
    }
}

#[test]
fn every_source_becomes_16_khz() {
    for (name, ..) in TONES {
        let mut source = AudioSource::open(common::data(name)).unwrap();
        let mut heard = Vec::new();
        while let Some(block) = source.next_block().unwrap() {
            assert!(!block.is_empty());
            heard.extend_from_slice(block);
        }
        let level = amplitude(&heard[heard.len() / 4..heard.len() * 3 / 4], 440.0, 16_000);
        assert!((level - 0.5).abs() < 0.03, "{name}: amplitude {level}"); // 48 kbit/s MP3 loses 0.5 dB
    }
}

#[test]
fn wav_of_every_kind_is_exact() {
    let values = noise(3000);
    for (bits, kind) in [(8, Kind::Int), (16, Kind::Int), (24, Kind::Int), (32, Kind::Int), (32, Kind::Float)] {
        for (rate, channels) in [(16_000, 1), (8_000, 2), (44_100, 3), (192_000, 8)] {
            let spec = WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format: kind };
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
            let label = format!("{bits} bit {kind:?}, {rate} Hz, {channels} channels");
            for step in [1, 7, 100_000] {
                let mut wav = Decoder::from_reader(Pipe::new(file.get_ref().clone(), step), None).unwrap();
                assert_eq!((wav.sample_rate(), wav.channels()), (rate, usize::from(channels)), "{label}");
                assert_eq!(wav.promised_samples(), Some(expected.len() as u64), "{label}");
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
        let mut source = Decoder::from_reader(Cursor::new(wav(tag, 1, 8, 8_000, 5, &codes)), None).unwrap();
        let expected: Vec<f32> = values.iter().map(|&v| f32::from(v) / 32768.0).collect();
        assert_eq!(all(&mut source).0, expected, "format {tag}");
    }
    let doubles: Vec<u8> = [0.25f64, -1.0, f64::NAN, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut source = Decoder::from_reader(Cursor::new(wav(3, 2, 64, 48_000, 32, &doubles)), None).unwrap();
    assert_eq!(all(&mut source).0, [-0.375, 0.25]);
}

#[test]
fn samples_that_are_no_numbers_are_counted() {
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let raw = |channels| RawFormat { sample: SampleFormat::F32, rate: 16_000, channels };
    let values = f32s(&[0.25, f32::NAN, f32::INFINITY, -0.5, f32::NEG_INFINITY, 0.5]);
    let mut mono = AudioSource::raw(Cursor::new(values.clone()), raw(1)).unwrap();
    assert_eq!(mono.next_block().unwrap().unwrap(), [0.25, 0.0, 0.0, -0.5, 0.0, 0.5]);
    assert!(mono.next_block().unwrap().is_none());
    assert_eq!(mono.not_finite(), 3);
    let mut stereo = AudioSource::raw(Cursor::new(values), raw(2)).unwrap();
    assert_eq!(stereo.next_block().unwrap().unwrap(), [0.125, -0.25, 0.25]);
    assert!(stereo.next_block().unwrap().is_none());
    assert_eq!(stereo.not_finite(), 3);

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
        while let Some(block) = source.next_block().unwrap() {
            assert!(block.iter().all(|v| v.is_finite()), "{rate}");
        }
        assert_eq!(source.not_finite(), 0);
    }
}

#[test]
#[cfg(unix)]
fn a_pipe_that_is_set_not_to_wait_is_waited_for() {
    let (mut sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let mut alone = receiver.try_clone().unwrap();
    assert_eq!(alone.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let (heard, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut source = AudioSource::from_reader(Waiting(receiver), Some(RawFormat::default())).unwrap();
        while let Some(block) = source.next_block().unwrap() {
            heard.send(block.to_vec()).unwrap();
        }
    });
    for value in [16384i16, -16384] {
        // The reader has found nothing by now, or will find something: it must not matter.
        std::thread::sleep(Duration::from_millis(20));
        // As much as is looked at to tell what it is.
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
        let (whole, _) = all(&mut Decoder::from_reader(Cursor::new(bytes_of(name)), None).unwrap());
        let interrupted = Interrupted(Pipe::new(bytes_of(name), 1000), false);
        let (heard, error) = all(&mut Decoder::from_reader(interrupted, None).unwrap());
        assert!(error.is_none() && heard == whole, "{name}: {error:?}");
    }
}

#[test]
fn a_piped_wav_is_live_and_endless() {
    for size in [0u32, u32::MAX, 0x7fff_f000] {
        let (sender, reader) = common::live();
        let head = wav(1, 1, 16, 16_000, size, &[]);
        sender.send(head).unwrap();
        sender.send(vec![0, 64]).unwrap();
        let mut source = AudioSource::from_reader(reader, None).unwrap();
        assert_eq!(source.duration(), None);
        // The sender is still open: a reader that waited for more than this would hang here.
        assert_eq!(source.next_block().unwrap().unwrap(), [0.5]);
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
    let mut source = AudioSource::from_reader(reader, Some(RawFormat::default())).unwrap();
    let first: Vec<f32> = [0x0100, 0x0302, 0x0504, 0x0706, 0x0908, 0x0b0a].map(|v: i16| f32::from(v) / 32768.0).into();
    assert_eq!(source.next_block().unwrap().unwrap(), first);
    sender.send(vec![0, 64, 9]).unwrap();
    assert_eq!(source.next_block().unwrap().unwrap(), [0.5]);
    drop(sender);
    assert!(matches!(source.next_block(), Err(Error::PartialFrame { extra: 1, frame: 2 })));
    assert!(source.next_block().unwrap().is_none());
}

#[test]
fn raw_formats_are_what_they_are_said_to_be() {
    let raw = RawFormat { sample: SampleFormat::F32, rate: 48_000, channels: 2 };
    let bytes: Vec<u8> = [0.5f32, 0.25, -1.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut source = Decoder::raw(Cursor::new(bytes), raw).unwrap();
    assert_eq!((source.sample_rate(), source.channels(), source.promised_samples()), (48_000, 2, None));
    assert_eq!(all(&mut source).0, [0.375, -0.5]);
    // Forced raw is raw, even if it looks like something else.
    let mut forced = Decoder::raw(Cursor::new(bytes_of("tone.flac")), RawFormat::default()).unwrap();
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
        let mut source = Decoder::from_reader(Pipe::new(bytes, 4096), Some(RawFormat::default())).unwrap();
        assert_eq!(all(&mut source).0.len(), count, "{first:x?}");
    }
}

#[test]
fn sources_may_move_to_another_thread() {
    fn assert_send<T: Send + 'static>() {}
    assert_send::<AudioSource>();
    assert_send::<Decoder>();
}

#[test]
fn duration_is_what_the_header_says() {
    assert_eq!(AudioSource::open(common::data("tone.flac")).unwrap().duration(), Some(Duration::from_millis(300)));
}

#[test]
fn what_is_no_audio_is_said_to_be_none() {
    assert!(matches!(error_of(b""), Error::Empty));
    assert!(matches!(error_of(b"\x00"), Error::UnknownFormat));
    assert!(matches!(error_of(b"It was a dark and stormy night; the rain fell in torrents"), Error::UnknownFormat));
    let random: Vec<u8> = noise(4_000_000).iter().map(|v| (v * 255.0) as i8 as u8).collect();
    for part in random.chunks(100_000) {
        let error = error_of(part);
        assert!(matches!(error, Error::UnknownFormat), "{error:?}");
    }
    assert!(matches!(AudioSource::open("/nowhere/at/all.wav"), Err(Error::Io(_))));
}

#[test]
fn wrong_headers_are_named() {
    assert!(matches!(error_of(&wav(1, 0, 16, 16_000, 4, &[0; 4])), Error::Channels(0)));
    assert!(matches!(error_of(&wav(1, 1, 16, 0, 4, &[0; 4])), Error::Rate(0)));
    assert!(matches!(error_of(&wav(1, 1, 16, u32::MAX, 4, &[0; 4])), Error::Rate(u32::MAX)));
    assert!(matches!(error_of(&wav(1, 1, 16, 16_000, 0, &[])), Error::NoSamples));
    assert!(matches!(error_of(&wav(1, 1, 16, 16_000, 1, &[0])), Error::NoSamples));
    let opus_like = error_of(&wav(0x704f, 1, 16, 16_000, 4, &[0; 4]));
    assert!(matches!(opus_like, Error::Unsupported(_)), "{opus_like:?}");
}

#[test]
fn truncation_is_an_error_after_what_is_there() {
    let samples = [0u8, 64].repeat(1000);
    let mut short = Decoder::from_reader(Cursor::new(wav(1, 1, 16, 16_000, 4000, &samples)), None).unwrap();
    let (heard, error) = all(&mut short);
    assert_eq!(heard, vec![0.5; 1000]);
    assert!(matches!(error, Some(Error::Truncated { expected: 2000, got: 1000 })), "{error:?}");

    let mut flac = bytes_of("tone.flac");
    flac.truncate(flac.len() / 2);
    let mut short = Decoder::from_reader(Cursor::new(flac), None).unwrap();
    let (heard, error) = all(&mut short);
    assert_eq!(heard.len(), 1024);
    assert!(matches!(error, Some(Error::Truncated { expected: 2400, got: 1024 })), "{error:?}");

    // A header that asks for all there can be costs nothing.
    let mut boast = Decoder::from_reader(Cursor::new(wav(1, 2, 16, 16_000, 0x7ffe_ffff, &samples)), None).unwrap();
    assert!(matches!(all(&mut boast).1, Some(Error::Truncated { got: 500, .. })));

    // Cut off in the middle of the last packet, as files and as pipes.
    for (name, ..) in TONES.iter().filter(|(name, ..)| !["tone.aac", "tone.mp2", "tone.mkv"].contains(name)) {
        let mut bytes = bytes_of(name);
        bytes.truncate(bytes.len() - bytes.len() / 3);
        let path = std::env::temp_dir().join(format!("voxtral-audio-{}-{name}", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        for outcome in [Decoder::open(&path), Decoder::from_reader(Cursor::new(bytes), None)] {
            let error = outcome.map(|mut short| all(&mut short).1);
            let said = matches!(
                error,
                Err(Error::Truncated { .. } | Error::Corrupt(_))
                    | Ok(Some(Error::Truncated { .. } | Error::Corrupt(_)))
            );
            assert!(said, "{name}: {error:?}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_broadcast_may_begin_anywhere() {
    let bytes = bytes_of("tone.mp2");
    let (whole, _) = all(&mut Decoder::from_reader(Cursor::new(bytes.clone()), None).unwrap());
    let mut source = Decoder::from_reader(Cursor::new(bytes[100..].to_vec()), None).unwrap();
    let (heard, error) = all(&mut source);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(heard.len(), whole.len() - 1152);
}

#[test]
fn lost_packets_are_counted_and_keep_their_place() {
    let bytes = bytes_of("tone.aac");
    let (whole, _) = all(&mut Decoder::from_reader(Cursor::new(bytes.clone()), None).unwrap());
    let mut counted = 0;
    for at in (1000..2600).step_by(50) {
        let mut damaged = bytes.clone();
        damaged[at..at + 4].fill(0xff);
        let mut source = Decoder::from_reader(Cursor::new(damaged), None).unwrap();
        let (heard, _) = all(&mut source);
        if source.damaged_packets() > 0 {
            counted += 1;
            assert!(heard.len() >= whole.len() - 2048, "damage at {at}: {} samples", heard.len());
        }
    }
    assert!(counted > 5, "{counted}");
}

#[test]
fn a_changed_byte_in_flac_is_noticed() {
    let mut bytes = bytes_of("tone.flac");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let mut source = Decoder::from_reader(Cursor::new(bytes), None).unwrap();
    let (_, error) = all(&mut source);
    assert!(error.is_some() || source.damaged_packets() > 0);
}
