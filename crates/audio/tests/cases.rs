//! Files from the field, as people have them: damaged, cut off, joined, late, with lies in their headers, or no audio at all.
//!
//! Most are of `samples/digits.wav`. What is heard is compared with it by its envelope, stretch by stretch: that all of it is
//! there, and where. The files in `data/cases` were made by other people's encoders, the plain ones are made here.

mod common;

use std::io::Cursor;
#[cfg(unix)]
use std::path::Path;

use common::{all, built_in, digits, wav};
use voxtral_audio::{AudioOptions, AudioSource, Channel, Damage, Error, Notice, RawFormat};

/// A stretch of the recording and where it must be heard, in seconds: from, to, at.
type Stretch = (f64, f64, f64);

/// Samples a second of envelopes.
const ENVELOPE_RATE: f64 = 100.0;
/// Words may be off by so much.
const OFF_S: f64 = 0.1;

struct Heard {
    samples: Vec<f32>,
    damage: Vec<Damage>,
    notices: Vec<Notice>,
}

fn hear(mut source: AudioSource) -> Heard {
    let (samples, error) = all(&mut source);
    assert!(error.is_none(), "{error:?}");
    Heard { samples, damage: source.take_damage(), notices: source.take_notices() }
}

/// By its name and as a pipe, which must be the same.
fn both(bytes: &[u8], label: &str, options: &AudioOptions) -> Heard {
    let path = std::env::temp_dir().join(format!("-voxtral-audio-case-{}-{label}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let file = hear(AudioSource::open_with(&path, options).unwrap_or_else(|e| panic!("{label}: {e}")));
    std::fs::remove_file(&path).unwrap();
    let piped = AudioOptions { raw: Some(RawFormat::default()), ..options.clone() };
    let pipe = AudioSource::from_reader_with(Cursor::new(bytes.to_vec()), &piped);
    let pipe = hear(pipe.unwrap_or_else(|e| panic!("{label}, piped: {e}")));
    assert!(pipe.samples == file.samples, "{label}: a pipe is another");
    assert_eq!((&pipe.damage, &pipe.notices), (&file.damage, &file.notices), "{label}: a pipe is another");
    file
}

fn case(name: &str) -> Vec<u8> {
    std::fs::read(common::data("cases").join(name)).unwrap()
}

fn envelope(samples: &[f32]) -> Vec<f64> {
    let step = (16_000.0 / ENVELOPE_RATE) as usize;
    let level = |piece: &[f32]| piece.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / piece.len() as f64;
    samples.chunks(step).map(|piece| (level(piece) + 1e-6).log10()).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let pairs = || a.iter().zip(b).map(|(a, b)| (a - mean_a, b - mean_b));
    let product: f64 = pairs().map(|(a, b)| a * b).sum();
    let (of_a, of_b): (f64, f64) = pairs().fold((0.0, 0.0), |(x, y), (a, b)| (x + a * a, y + b * b));
    product / (of_a * of_b).sqrt().max(1e-9)
}

/// That each stretch is heard where it must be.
fn assert_heard(heard: &Heard, stretches: &[Stretch], label: &str) {
    let (truth, got) = (envelope(&digits()), envelope(&heard.samples));
    let frame = |seconds: f64| (seconds * ENVELOPE_RATE).round() as i64;
    for &(from, to, at) in stretches {
        let wanted = &truth[frame(from) as usize..(frame(to) as usize).min(truth.len())];
        let off = frame(OFF_S);
        let best = (-off..=off)
            .filter_map(|lag| got.get(usize::try_from(frame(at) + lag).ok()?..)?.get(..wanted.len()))
            .map(|part| correlation(wanted, part))
            .fold(-1.0, f64::max);
        assert!(best > 0.9, "{label}: {from} to {to} s is not heard at {at} s: {best:.2}");
    }
}

fn assert_damage(heard: &Heard, near: Option<f64>, label: &str) {
    match near {
        None => assert_eq!(heard.damage, [], "{label}"),
        Some(at) => {
            assert!(heard.damage.iter().any(|d| (d.at_s - at).abs() < 1.0), "{label}: {:?}", heard.damage);
            assert!(heard.damage.len() <= 2, "{label}: {:?}", heard.damage);
        }
    }
}

const ALL: Stretch = (0.3, 8.1, 0.3);

#[test]
fn damage_costs_nothing_but_itself() {
    let cases: [(&str, &[Stretch], f64); 6] = [
        ("ogg_one_bad_byte.ogg", &[(0.3, 2.9, 0.3), (4.2, 8.1, 4.2)], 3.2),
        ("damaged_4000.mp3", &[(0.3, 3.6, 0.35), (5.0, 8.0, 5.05)], 3.8),
        ("damaged_1500.m4a", &[(0.3, 3.7, 0.3), (4.7, 8.1, 4.7)], 3.8),
        ("cut70.webm", &[(0.3, 5.3, 0.3)], 5.5),
        ("fragmented_cut60.mp4", &[(0.3, 4.8, 0.35)], 5.0),
        ("gap3s.mkv", &[(0.3, 1.9, 0.35), (5.3, 8.1, 5.35)], 2.0),
    ];
    for (name, stretches, at) in cases {
        let heard = both(&case(name), name, &built_in());
        assert_heard(&heard, stretches, name);
        assert_damage(&heard, Some(at), name);
    }
}

/// Where `pattern` is in `bytes`, in its order.
fn places(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(pattern)).collect()
}

#[test]
fn a_frame_of_flac_whose_end_is_missing_costs_no_more() {
    let flac = case("id3v1.flac");
    // Headers of frames: a sync code, 16 kHz, mono, and the number.
    let frames: Vec<usize> = (1..30)
        .filter_map(|n| places(&flac, &[0xff, 0xf8, flac[places(&flac, &[0xff, 0xf8])[0] + 2], 8, n]).pop())
        .collect();
    assert!(frames.len() > 20);
    for header in &frames[4..] {
        let mut bytes = flac.clone();
        bytes.drain(header - 30..header + 30);
        let heard = both(&bytes, "FLAC", &built_in());
        assert_eq!(heard.samples.len(), 42_400);
        let lost: f64 = heard.damage.iter().map(|damage| damage.lost_s).sum();
        assert!(lost < 0.6, "{header}: {:?}", heard.damage);
    }
}

#[test]
fn a_flac_stream_may_begin_in_the_middle() {
    let flac = case("id3v1.flac");
    let rate = flac[places(&flac, &[0xff, 0xf8])[0] + 2];
    let tenth = places(&flac, &[0xff, 0xf8, rate, 8, 10])[0];
    let first = places(&flac, &[0xff, 0xf8, rate, 8, 0])[0];
    let mut bytes = flac.clone();
    bytes.drain(first..tenth);
    let heard = both(&bytes, "FLAC from its middle", &built_in());
    assert_damage(&heard, None, "FLAC from its middle");
    let from = 2.65 - heard.samples.len() as f64 / 16_000.0;
    assert!(from > 0.5);
    assert_heard(&heard, &[(from + 0.05, 2.6, 0.05)], "FLAC from its middle");
}

#[test]
fn damage_to_a_fragment_costs_no_other() {
    let whole = case("fragmented_cut60.mp4");
    let run = places(&whole, b"trun")[1];
    // A size of a sample that is larger than all the fragment.
    let mut size = whole.clone();
    size[run + 18] = 0x40;
    // The head of the index of a fragment.
    let mut index = whole.clone();
    index[places(&whole, b"moof")[1]] ^= 0x20;
    for (label, bytes) in [("a size", size), ("an index", index)] {
        let heard = both(&bytes, label, &built_in());
        assert_heard(&heard, &[(2.3, 4.8, 2.35)], label);
        let at: Vec<f64> = heard.damage.iter().map(|damage| damage.at_s).collect();
        assert!(matches!(at[..], [at, cut] if (0.5..1.7).contains(&at) && cut > 4.7), "{label}: {:?}", heard.damage);
    }
}

#[test]
fn addresses_of_fragments_may_be_moved() {
    let whole = case("fragmented_cut60.mp4");
    // An address in the file for the second fragment, as if its file had lost a byte since.
    let head = places(&whole, b"tfhd")[1];
    let moof = places(&whole, b"moof")[1] - 4;
    let grow = |bytes: &mut Vec<u8>, at: usize| {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) + 8;
        bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
    };
    let mut bytes = whole.clone();
    for at in [moof, places(&whole, b"traf")[1] - 4, head - 4] {
        grow(&mut bytes, at);
    }
    let run = places(&whole, b"trun")[1];
    grow(&mut bytes, run + 12);
    bytes[head + 7] |= 1;
    bytes.splice(head + 12..head + 12, (moof as u64 + 1).to_be_bytes());
    let heard = both(&bytes, "a moved fragment", &built_in());
    assert_heard(&heard, &[(0.3, 4.8, 0.35)], "a moved fragment");
    assert_eq!(heard.damage.len(), 1, "{:?}", heard.damage);
}

#[test]
fn a_gap_behind_a_bad_packet_is_told_whole() {
    // The last packet before the three seconds that are missing.
    let mut bytes = case("gap3s.mkv");
    let last = places(&bytes, &[0x81, 0, 0, 0x80])[1];
    bytes[last + 4] = 0x40;
    let heard = both(&bytes, "a bad packet before a gap", &built_in());
    let told = |damage: &Damage| damage.lost_s > 3.0 && damage.what == "a packet that cannot be decoded";
    assert!(matches!(&heard.damage[..], [damage] if told(damage)), "{:?}", heard.damage);
}

#[test]
fn elements_of_matroska_that_are_not_known_are_no_damage() {
    let mut bytes = case("gap3s.mkv");
    // Before the timestamps of clusters, and behind one.
    let cluster = places(&bytes, b"\x1f\x43\xb6\x75");
    for at in cluster.into_iter().rev() {
        let body = at + 4 + bytes[at + 4].leading_zeros() as usize + 1;
        bytes.splice(body..body, *b"\x44\x44\x83abc");
    }
    let heard = both(&bytes, "unknown elements", &built_in());
    assert_damage(&heard, Some(2.0), "unknown elements");
    assert_eq!(heard.damage.len(), 1, "{:?}", heard.damage);
}

#[test]
fn what_lost_nothing_is_no_damage() {
    let (to_5, to_2_6): ([Stretch; 1], [Stretch; 1]) = ([(0.3, 4.9, 0.3)], [(0.3, 2.6, 0.3)]);
    let cases: [(&str, &[Stretch]); 9] = [
        ("he_v1_implicit.m4a", &[(0.3, 8.0, 0.4)]),
        ("he_explicit.m4a", &[ALL]),
        ("alac.caf", &to_5),
        ("ima_ffmpeg_pipe.wav", &to_5),
        ("ima_riffsize_minus8.wav", &[ALL]),
        ("id3v1.flac", &to_2_6),
        ("no_ftyp.mov", &[ALL]),
        ("opus.opus", &[ALL]),
        ("zeros_before.mp3", &[(0.3, 8.0, 0.35)]),
    ];
    for (name, stretches) in cases {
        let heard = both(&case(name), name, &built_in());
        assert_heard(&heard, stretches, name);
        assert_damage(&heard, None, name);
        assert_eq!(heard.notices, [], "{name}");
    }
}

#[test]
fn times_are_those_of_the_presentation() {
    let cases: [(&str, &[Stretch], f64); 3] = [
        ("gap3s.mp4", &[(0.3, 1.9, 0.35), (5.3, 8.1, 5.35)], 8.2),
        ("starts_at_5s.mp4", &[(0.3, 2.6, 5.3)], 7.65),
        ("edit_list_4.2_to_8.1s.m4a", &[(4.3, 8.05, 0.1)], 3.9),
    ];
    for (name, stretches, seconds) in cases {
        let heard = both(&case(name), name, &built_in());
        assert_heard(&heard, stretches, name);
        let length = heard.samples.len() as f64 / 16_000.0;
        assert!((length - seconds).abs() < 0.15, "{name}: {length} s");
    }
    let late = both(&case("starts_at_5s.mp4"), "late", &built_in());
    assert!(late.samples[..79_000].iter().all(|v| v.abs() < 1e-3));
    assert_damage(&late, None, "late");
}

#[test]
fn the_format_may_change_in_the_middle() {
    // Behind the first 2.65 s of the digits comes another recording of three words.
    for (name, first_at) in [("mono_then_stereo.mp3", 0.35), ("rate_change.aac", 0.35), ("chained_channels.ogg", 0.3)] {
        let heard = both(&case(name), name, &built_in());
        assert_heard(&heard, &[(0.3, 2.6, first_at)], name);
        assert_damage(&heard, None, name);
        let length = heard.samples.len() as f64 / 16_000.0;
        assert!((5.6..5.9).contains(&length), "{name}: {length} s");
        let loud = envelope(&heard.samples[(2.8 * 16_000.0) as usize..]).iter().filter(|&&level| level > -4.0).count();
        assert!(loud > 100, "{name}: {loud}");
    }
}

#[test]
fn lost_packets_of_opus_are_made_up_for() {
    // One of six of 20 ms. Silence in their place would leave holes in every word.
    let heard = both(&case("lost_packets.webm"), "lost packets", &built_in());
    assert_damage(&heard, None, "lost packets");
    let (truth, got) = (envelope(&digits()[..79_200]), envelope(&heard.samples));
    let whole = correlation(&truth, &got);
    assert!(whole > 0.95, "{whole}");
}

#[test]
fn what_follows_an_mp3_is_no_damage() {
    let mp3 = case("zeros_before.mp3");
    let lyrics = [&b"LYRICSBEGININD0000200LYR00005Hello000032LYRICS200TAG"[..], &[b' '; 125]].concat();
    for (label, tail) in [("lyrics", &lyrics[..]), ("a line end", b"\r\n"), ("filling", &[0xff; 2000])] {
        let heard = both(&[&mp3[..], tail].concat(), label, &built_in());
        assert_heard(&heard, &[(0.3, 8.0, 0.35)], label);
        assert_damage(&heard, None, label);
    }
}

/// The sum of an Ogg page whose own field for it is 0.
fn ogg_sum(page: &[u8]) -> u32 {
    page.iter().fold(0u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte) << 24, |s, _| if s >> 31 == 1 { s << 1 ^ 0x04c1_1db7 } else { s << 1 })
    })
}

#[test]
fn an_ogg_stream_beside_a_picture_may_begin_late() {
    let opus = case("opus.opus");
    let mut bytes = Vec::new();
    for (number, at) in places(&opus, b"OggS").into_iter().enumerate() {
        let segments = usize::from(opus[at + 26]);
        let len = 27 + segments + opus[at + 27..at + 27 + segments].iter().map(|&n| usize::from(n)).sum::<usize>();
        let mut page = opus[at..at + len].to_vec();
        if number > 1 {
            let granule = u64::from_le_bytes(page[6..14].try_into().unwrap()) + 3 * 48_000;
            page[6..14].copy_from_slice(&granule.to_le_bytes());
        }
        let mut picture = [&b"OggS\0\x02"[..], &[0; 8], &[7; 4], &[0; 8], &[1, 7], b"\x80theora"].concat();
        for page in [Some(&mut page), (number == 0).then_some(&mut picture)].into_iter().flatten() {
            page[22..26].fill(0);
            let sum = ogg_sum(page);
            page[22..26].copy_from_slice(&sum.to_le_bytes());
            bytes.extend_from_slice(page);
        }
    }
    let heard = both(&bytes, "a late stream", &built_in());
    assert_heard(&heard, &[(0.3, 8.1, 3.3)], "a late stream");
    assert_damage(&heard, None, "a late stream");
}

#[test]
fn a_slow_pipe_is_the_same() {
    let bytes = case("rate_change.aac");
    let (sender, live) = common::live();
    let feeder = std::thread::spawn(move || {
        // Longer than what raw samples are waited for.
        for part in [&bytes[..1], &bytes[1..100], &bytes[100..]] {
            sender.send(part.to_vec()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
    });
    let heard = hear(common::from_reader(live, Some(RawFormat::default())).unwrap());
    feeder.join().unwrap();
    assert_heard(&heard, &[(0.3, 2.6, 0.35)], "slow");
    assert_eq!(heard.notices, []);
}

#[test]
fn files_may_be_joined() {
    let flac = case("id3v1.flac");
    let whole: Vec<u8> = flac[..flac.len() - 128].to_vec();
    for joined in [[&whole[..], &whole].concat(), [&flac[..], &flac].concat()] {
        let heard = both(&joined, "joined FLAC", &built_in());
        assert_heard(&heard, &[(0.3, 2.6, 0.3), (0.3, 2.6, 2.95)], "joined FLAC");
        assert_damage(&heard, None, "joined FLAC");
    }
    let opus = case("opus.opus");
    let heard = both(&[&opus[..], &opus].concat(), "joined Opus", &built_in());
    assert_heard(&heard, &[ALL, (0.3, 8.1, 8.5)], "joined Opus");
    assert_damage(&heard, None, "joined Opus");
    // The second may have another rate and other channels.
    let matroska = [case("gap3s.mkv"), common::bytes_of("tone.mkv")].concat();
    let heard = both(&matroska, "joined Matroska", &built_in());
    assert_damage(&heard, Some(2.0), "joined Matroska");
    assert_eq!(heard.damage.len(), 1);
    let tone = &heard.samples[heard.samples.len() - 8000..];
    assert!(common::amplitude(&tone[2000..6000], 440.0, 16_000) > 0.4);
    // What is not read is told.
    let heard = both(&[&opus[..], &case("speex.spx")].concat(), "Speex behind Opus", &built_in());
    assert_heard(&heard, &[ALL], "Speex behind Opus");
    assert_damage(&heard, Some(8.2), "Speex behind Opus");
    let sound = wav(1, 1, 16, 16_000, 64_000, &le(&s16(2.0)));
    let heard = both(&[&sound[..], &sound].concat(), "joined WAV", &built_in());
    assert_damage(&heard, Some(2.0), "joined WAV");
}

#[test]
fn a_radio_may_be_joined_in_the_middle_of_a_frame() {
    let heard = both(&case("radio_mid_frame.mp3"), "radio", &built_in());
    assert_heard(&heard, &[(1.2, 8.0, 0.95)], "radio");
    assert_damage(&heard, None, "radio");
    // Behind junk, too.
    let junk: Vec<u8> = common::testing::noise(3000).iter().map(|v| (v * 255.0) as i8 as u8).collect();
    let heard = both(&[&junk[..], &case("zeros_before.mp3")].concat(), "junk", &built_in());
    assert_heard(&heard, &[(0.3, 8.0, 0.35)], "junk");
}

#[test]
fn tracks_are_chosen() {
    let heard = both(&case("default_flag_second.mkv"), "default flag", &built_in());
    assert_heard(&heard, &[(0.3, 8.0, 0.35)], "default flag");
    let first = AudioOptions { track: Some(1), ..built_in() };
    let heard = both(&case("default_flag_second.mkv"), "first track", &first);
    assert!(heard.samples.iter().all(|v| v.abs() < 1e-3));
    let third = AudioOptions { track: Some(3), ..built_in() };
    let outcome = AudioSource::from_reader_with(Cursor::new(case("default_flag_second.mkv")), &third);
    assert!(matches!(outcome.err(), Some(Error::NoSuchTrack { asked: 3, there: 2 })));

    // Where the first cannot be decoded, the first that can is.
    let heard = both(&case("ac3_then_aac.mp4"), "AC-3 first", &built_in());
    assert_heard(&heard, &[(0.3, 2.6, 0.3)], "AC-3 first");
    let outcome = AudioSource::from_reader_with(Cursor::new(case("ac3_then_aac.mp4")), &first);
    assert!(matches!(&outcome.err(), Some(Error::NeedsFfmpeg { format }) if format == "AC-3 in MP4"));
}

#[test]
fn what_is_not_built_in_is_named() {
    let cases = [
        ("unsupported.wma", "ASF/WMA"),
        ("video.ts", "MPEG-TS"),
        ("sound.mpg", "MPEG-PS"),
        ("speex.spx", "Speex in Ogg"),
    ];
    for (name, wanted) in cases {
        let bytes = case(name);
        let piped = AudioOptions { raw: Some(RawFormat::default()), ..built_in() };
        let outcomes =
            [common::open(common::data("cases").join(name)), AudioSource::from_reader_with(Cursor::new(bytes), &piped)];
        for outcome in outcomes {
            let error = outcome.err();
            assert!(matches!(&error, Some(Error::NeedsFfmpeg { format }) if format == wanted), "{name}: {error:?}");
        }
    }
}

/// Signed samples of 16 bits of the first seconds of the digits.
fn s16(seconds: f64) -> Vec<i16> {
    digits()[..(seconds * 16_000.0) as usize].iter().map(|v| (v * 32768.0) as i16).collect()
}

fn le(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn be(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|v| v.to_be_bytes()).collect()
}

#[test]
fn lies_of_wav_headers_are_seen_through() {
    let (short, long) = (le(&s16(2.65)), le(&s16(4.95)));
    let says = |size: usize, samples: &[u8]| wav(1, 1, 16, 16_000, size as u32, samples);
    let plain = |bytes: &[u8], label: &str, to: f64| {
        let heard = both(bytes, label, &built_in());
        assert_heard(&heard, &[(0.3, to, 0.3)], label);
        assert_damage(&heard, None, label);
        heard
    };
    plain(&says(short.len() + 8, &short), "a little too long", 2.6);
    let heard = plain(&says(short.len(), &long), "too short", 4.9);
    assert_eq!(heard.notices, [Notice::LongerThanHeader]);

    let mut list = says(short.len(), &[]);
    list.truncate(36);
    list.extend(b"LIST\x19\0\0\0INFOISFT\x0d\0\0\0Lavf59.27.100");
    list.extend(b"data");
    list.extend((short.len() as u32).to_le_bytes());
    list.extend(&short);
    plain(&list, "an odd chunk without padding", 2.6);
    // The length behind the name makes "ata" look like the name of a chunk, too.
    let even = short.len() - short.len() % 256 + 0x42;
    list.truncate(69);
    list.extend(b"data");
    list.extend((even as u32).to_le_bytes());
    list.extend(&le(&s16(3.0))[..even]);
    plain(&list, "a length that looks like a letter", 2.6);

    let mut behind = says(short.len(), &short);
    behind.extend(b"LIST\x04\0\0\0INFO");
    assert_eq!(plain(&behind, "a chunk behind", 2.6).notices, []);

    let mut empty = says(0, &[]);
    empty.extend(b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf59.27.100\0");
    assert!(matches!(common::error_of(&empty), Error::NoSamples));

    let mut long_size = says(0, &[]);
    long_size.truncate(36);
    long_size[..4].copy_from_slice(b"BW64");
    let mut ds64 = b"ds64\x1c\0\0\0".to_vec();
    ds64.extend([0; 8]);
    ds64.extend((short.len() as u64).to_le_bytes());
    ds64.extend([0; 12]);
    long_size.splice(12..12, ds64);
    long_size.extend(b"data\xff\xff\xff\xff");
    long_size.extend(&short);
    plain(&long_size, "BW64", 2.6);
}

#[test]
fn samples_may_have_their_highest_byte_first() {
    let samples = be(&s16(2.65));
    let mut rifx = wav(1, 1, 16, 16_000, 0, &[]);
    rifx[..4].copy_from_slice(b"RIFX");
    for (at, size) in [(16, 4), (20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2)] {
        rifx[at..at + size].reverse();
    }
    rifx[40..44].copy_from_slice(&(samples.len() as u32).to_be_bytes());
    rifx.extend(&samples);

    let numbers = |values: &[u32]| values.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>();
    let au = [&b".snd"[..], &numbers(&[24, u32::MAX, 3, 16_000, 1]), &samples].concat();

    // Sizes of 0, as they are written into a pipe.
    let common =
        [&b"COMM"[..], &numbers(&[18]), &[0, 1, 0, 0, 0, 0, 0, 16, 0x40, 0x0c, 0xfa, 0, 0, 0, 0, 0, 0, 0]].concat();
    let aiff = [&b"FORM"[..], &numbers(&[0]), b"AIFF", &common, b"SSND", &numbers(&[0, 0, 0]), &samples].concat();

    // SoX's size in a pipe.
    let sox =
        [&b"FORM"[..], &numbers(&[0x7f00_0050]), b"AIFF", &common, b"SSND", &numbers(&[0x7f00_0008, 0, 0]), &samples];
    let sox = sox.concat();

    // A size of -1.
    let description = [&16_000f64.to_be_bytes()[..], b"lpcm", &numbers(&[0, 2, 1, 1, 16])].concat();
    let caf =
        [&b"caff\0\x01\0\0desc"[..], &32u64.to_be_bytes(), &description, b"data", &u64::MAX.to_be_bytes(), &[0; 4]];
    let caf = [&caf.concat()[..], &samples].concat();

    for (label, bytes) in [("rifx", rifx), ("au", au), ("aiff", aiff), ("sox", sox), ("caf", caf)] {
        let heard = both(&bytes, label, &built_in());
        assert_heard(&heard, &[(0.3, 2.6, 0.3)], label);
        assert_damage(&heard, None, label);
    }
}

#[test]
fn channels_that_cancel_each_other_are_told_and_chosen() {
    let stereo: Vec<i16> = s16(2.65).into_iter().flat_map(|v| [v, v.saturating_neg()]).collect();
    let bytes = wav(1, 2, 16, 16_000, stereo.len() as u32 * 2, &le(&stereo));
    let heard = both(&bytes, "antiphase", &built_in());
    assert_eq!(heard.notices, [Notice::ChannelsCancel]);
    let one = AudioOptions { channel: Channel::One(1), ..built_in() };
    let heard = both(&bytes, "channel 1", &one);
    assert_heard(&heard, &[(0.3, 2.6, 0.3)], "channel 1");
    assert_eq!(heard.notices, []);
}

#[test]
fn scales_and_silence_are_told() {
    let loud: Vec<u8> = s16(2.65).iter().flat_map(|&v| f32::from(v).to_le_bytes()).collect();
    let heard = both(&wav(3, 1, 32, 16_000, loud.len() as u32, &loud), "scale", &built_in());
    assert!(matches!(heard.notices[..], [Notice::OutOfScale { .. }]), "{:?}", heard.notices);
    let heard = both(&wav(1, 1, 16, 16_000, 32_000, &[0; 32_000]), "silence", &built_in());
    assert_eq!(heard.notices, [Notice::AllSilence]);
}

#[test]
fn documents_are_never_samples() {
    let page = "<!doctype html><html><body>".to_owned() + &"It was not found. ".repeat(500);
    let wide: Vec<u8> = page.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(9000, 7);
    for bytes in [page.clone().into_bytes(), [b"\xff\xfe", &wide[..]].concat(), elf] {
        let outcome = common::from_reader(Cursor::new(bytes), Some(RawFormat::default()));
        assert!(matches!(outcome.err(), Some(Error::Foreign(_))));
    }
}

/// A Matroska file of one track of plain samples, or of what else its codec is called, with so many bytes before its header.
fn matroska(codec: &str, channels: u8, before: u32) -> Vec<u8> {
    let unknown = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let element = |id: &[u8], body: &[u8]| [id, &[0x80 | body.len() as u8], body].concat();
    let rate = element(&[0xb5], &16_000f32.to_be_bytes());
    let audio = element(&[0xe1], &[rate, element(&[0x9f], &[channels]), element(&[0x62, 0x64], &[16])].concat());
    let parts = [element(&[0xd7], &[1]), element(&[0x83], &[2]), element(&[0x86], codec.as_bytes()), audio];
    let tracks = element(&[0x16, 0x54, 0xae, 0x6b], &element(&[0xae], &parts.concat()));
    let void = [&[0xec, 0x01, 0, 0, 0][..], &before.to_be_bytes(), &vec![0; before as usize]].concat();
    let block = [&[0xe7, 0x81, 0, 0xa3, 0x40, 104, 0x81, 0, 0, 0x80][..], &[7; 100]].concat();
    let (segment, cluster) = (&[0x18, 0x53, 0x80, 0x67], &[0x1f, 0x43, 0xb6, 0x75]);
    [&element(&[0x1a, 0x45, 0xdf, 0xa3], &[]), &segment[..], &unknown, &void, &tracks, cluster, &unknown, &block]
        .concat()
}

#[test]
fn plain_samples_of_no_channels_are_refused() {
    let heard = hear(common::from_reader(Cursor::new(matroska("A_PCM/INT/LIT", 1, 0)), None).unwrap());
    assert_eq!(heard.samples.len(), 50);
    let outcome = common::from_reader(Cursor::new(matroska("A_PCM/INT/LIT", 0, 0)), None);
    assert!(matches!(outcome.err(), Some(Error::Channels(0))));
}

#[test]
fn a_pipe_whose_beginning_is_gone_is_not_given_to_ffmpeg() {
    let bytes = matroska("A_AC3", 2, 5 << 20);
    let outcome = AudioSource::from_reader(Cursor::new(bytes), None).err();
    assert!(
        matches!(&outcome, Some(Error::Ffmpeg { message, .. }) if message.contains("give the file itself")),
        "{outcome:?}"
    );
}

/// A program in the place of ffmpeg.
#[cfg(unix)]
fn stand_in(name: &str, script: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("voxtral-audio-{}-{name}", std::process::id()));
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[cfg(unix)]
fn with_program(path: &Path) -> AudioOptions {
    AudioOptions { ffmpeg: Some(path.to_str().unwrap().to_owned()), ..AudioOptions::default() }
}

#[test]
#[cfg(unix)]
fn ffmpeg_is_the_second_decoder() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/digits.wav");
    let sample = sample.to_str().unwrap();
    // It must be given all of a pipe, and gives what it would have decoded.
    let good = stand_in("good", &format!("test $(cat | wc -c) = 29544 || exit 1; cat {sample}"));
    let heard = hear(AudioSource::from_reader_with(Cursor::new(case("speex.spx")), &with_program(&good)).unwrap());
    assert_heard(&heard, &[ALL], "piped");
    assert_eq!(heard.notices, [Notice::ThroughFfmpeg { format: "Speex in Ogg".to_owned() }]);
    assert_damage(&heard, None, "piped");

    // What had to be kept to be read is given so that it can be sought.
    let kept = stand_in(
        "kept",
        &format!(
            "case \"$*\" in *' -i file:/dev/fd/0 '*) test $(cat | wc -c) = 54378 && cat {sample};; *) exit 1;; esac"
        ),
    );
    let first = AudioOptions { track: Some(1), ..with_program(&kept) };
    let heard = hear(AudioSource::from_reader_with(Cursor::new(case("ac3_then_aac.mp4")), &first).unwrap());
    assert_heard(&heard, &[ALL], "kept");

    // A file is given by its name, whatever that looks like.
    let named = stand_in("named", &format!("case \"$*\" in *' -i file:'*speex.spx*) cat {sample};; *) exit 1;; esac"));
    let path = common::data("cases").join("speex.spx");
    let heard = hear(AudioSource::open_with(&path, &with_program(&named)).unwrap());
    assert_heard(&heard, &[ALL], "by name");

    // What it complains of is damage.
    let complaining = stand_in("complaining", &format!("cat > /dev/null; echo 'bad frame' >&2; cat {sample}"));
    let heard =
        hear(AudioSource::from_reader_with(Cursor::new(case("speex.spx")), &with_program(&complaining)).unwrap());
    assert_heard(&heard, &[ALL], "complaining");
    assert!(heard.damage.iter().any(|damage| damage.what == "ffmpeg: bad frame"), "{:?}", heard.damage);

    // It fails at once.
    let failing = stand_in("failing", "echo 'no such codec' >&2; exit 1");
    let outcome = AudioSource::from_reader_with(Cursor::new(case("speex.spx")), &with_program(&failing)).err();
    assert!(matches!(&outcome, Some(Error::Ffmpeg { message, .. }) if message == "no such codec"), "{outcome:?}");

    // It goes on for ever, and ends with the source.
    let endless = stand_in("endless", &format!("echo $$ > {}.pid; cat {sample}; exec sleep 1000", good.display()));
    let mut source = AudioSource::from_reader_with(Cursor::new(case("speex.spx")), &with_program(&endless)).unwrap();
    assert!(source.next_block().unwrap().is_some());
    drop(source);
    let pid = std::fs::read_to_string(format!("{}.pid", good.display())).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists() || !cfg!(target_os = "linux"));

    let missing = AudioOptions { ffmpeg: Some("/nowhere/ffmpeg".to_owned()), ..AudioOptions::default() };
    let outcome = AudioSource::open_with(&path, &missing).err();
    assert!(matches!(&outcome, Some(Error::NeedsFfmpeg { format }) if format == "Speex in Ogg"), "{outcome:?}");
    for name in ["good", "kept", "named", "complaining", "failing", "endless", "good.pid"] {
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("voxtral-audio-{}-{name}", std::process::id())));
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn the_real_ffmpeg_reads_what_is_not_built_in() {
    let cases: [(&str, Stretch); 4] = [
        ("unsupported.wma", (0.3, 4.8, 0.35)),
        ("video.ts", (0.3, 2.6, 0.35)),
        ("sound.mpg", (0.3, 4.8, 0.35)),
        ("speex.spx", (0.3, 8.0, 0.35)),
    ];
    for (name, stretch) in cases {
        let heard = both(&case(name), name, &AudioOptions::default());
        assert_heard(&heard, &[stretch], name);
        assert_damage(&heard, None, name);
    }
}
