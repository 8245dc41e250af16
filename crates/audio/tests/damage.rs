//! Damaged files of every format: an error, or samples and what is to be told; never a panic, a hang, or memory by what a
//! header says.
//!
//! A short run is a test; `AUDIO_MUTATIONS=1000000 cargo test -p voxtral-audio --test damage -- --nocapture` is a long one.
//! Each prints how many inputs it tried. `AUDIO_SEED` makes it another.

mod common;

use std::io::Cursor;
use std::time::{Duration, Instant};

use voxtral_audio::{AudioSource, RawFormat};

/// From other people's encoders, one at least of every container and codec that is built in.
const FILES: [&str; 25] = [
    "tone.flac",
    "tone_alac.m4a",
    "tone.mp3",
    "tone.mp2",
    "tone.m4a",
    "tone.aac",
    "tone.ogg",
    "tone.mkv",
    "tone.aiff",
    "tone.caf",
    "tone_ima.wav",
    "tone_ms.wav",
    "cases/opus.opus",
    "cases/cut70.webm",
    "cases/fragmented_cut60.mp4",
    "cases/gap3s.mp4",
    "cases/gap3s.mkv",
    "cases/starts_at_5s.mp4",
    "cases/edit_list_4.2_to_8.1s.m4a",
    "cases/alac.caf",
    "cases/no_ftyp.mov",
    "cases/chained_channels.ogg",
    "cases/mono_then_stereo.mp3",
    "cases/rate_change.aac",
    "cases/default_flag_second.mkv",
];
/// Files are cut to this, to try more of them.
const MOST: usize = 24 << 10;
/// One input takes no longer. A machine that does other things meanwhile may take several times as long as a quiet one.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes of memory of the whole test, with what a hundred inputs leave behind.
const MOST_MEMORY: u64 = 200 << 20;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % bound.max(1) as u64) as usize
    }
}

fn originals() -> Vec<(&'static str, Vec<u8>)> {
    let plain = ("plain.wav", common::wav(1, 2, 16, 44_100, 2000, &[7; 2000]));
    let au =
        ("plain.au", [&b".snd\0\0\0\x18\xff\xff\xff\xff\0\0\0\x03\0\0\x3e\x80\0\0\0\x01"[..], &[9; 2000]].concat());
    let raw = ("raw", common::testing::noise(2000).iter().flat_map(|v| ((v * 32768.0) as i16).to_le_bytes()).collect());
    let files = FILES.iter().map(|&name| {
        let mut bytes = common::bytes_of(name);
        // An index at the end is not to be cut off.
        if !bytes.windows(4).skip(MOST).any(|kind| kind == b"moov" || kind == b"pakt") {
            bytes.truncate(MOST);
        }
        (name, bytes)
    });
    files.chain([plain, au, raw]).collect()
}

/// Changes, cuts, doubles, joins.
fn mutate(random: &mut Random, originals: &[(&'static str, Vec<u8>)], bytes: &mut Vec<u8>) {
    const EDGES: [u32; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX];
    for _ in 0..=random.below(3) {
        let reach = if random.below(2) == 0 { bytes.len().min(600) } else { bytes.len() };
        let at = random.below(reach);
        match random.below(9) {
            0 => bytes.truncate(at),
            1 => {
                let from = random.below(bytes.len());
                let again = bytes[from..].to_vec();
                bytes.truncate(at);
                bytes.extend(again);
            }
            2 => {
                for _ in 0..random.below(12) {
                    let at = random.below(reach);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = random.below(256) as u8;
                    }
                }
            }
            3 | 4 => {
                let value = EDGES[random.below(EDGES.len())];
                let value = if random.below(2) == 0 { value.to_be_bytes() } else { value.to_le_bytes() };
                let len = 1 + random.below(4);
                if let Some(place) = bytes.get_mut(at..at + len) {
                    place.copy_from_slice(&value[4 - len..]);
                }
            }
            5 => {
                let until = (at + random.below(3000)).min(bytes.len());
                bytes[at..until].fill_with(|| random.below(256) as u8);
            }
            6 => {
                let until = (at + random.below(500)).min(bytes.len());
                bytes.drain(at..until);
            }
            7 => {
                let other = &originals[random.below(originals.len())].1;
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
    bytes.truncate(4 * MOST);
}

/// Reads to the end, as a file that can be sought or as a pipe.
fn survive(bytes: Vec<u8>, as_file: bool) {
    let source = if as_file {
        let path = std::env::temp_dir().join(format!(
            "voxtral-audio-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, &bytes).unwrap();
        let source = common::open(&path);
        std::fs::remove_file(&path).unwrap();
        source
    } else {
        common::from_reader(Cursor::new(bytes), Some(RawFormat::default()))
    };
    if let Ok(source) = source {
        drain(source);
    }
}

fn drain(mut source: AudioSource) {
    // The densest coding is a FLAC frame of one repeated value, 65 536 samples in 15 bytes; and gaps are silence.
    let mut left = 500_000_000usize;
    while let Ok(Some(block)) = source.next_block() {
        assert!(!block.is_empty() && block.iter().all(|v| v.is_finite()));
        left = left.checked_sub(block.len()).expect("endless samples from a small file");
        for damage in source.take_damage() {
            assert!(damage.at_s.is_finite() && damage.lost_s.is_finite() && damage.lost_s >= 0.0, "{damage:?}");
        }
    }
    source.take_damage();
    source.take_notices();
    assert!(source.next_block().unwrap().is_none());
}

/// The most memory that the process has had.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kib.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

#[test]
fn mutated_files_neither_panic_nor_hang() {
    // Panics of symphonia are contained, and say nothing of value here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !voxtral_audio::is_containing_panics() {
            hook(info);
        }
    }));
    let number = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (inputs, seed): (u64, u64) = (number("AUDIO_MUTATIONS", 3000), number("AUDIO_SEED", 1));
    let originals = originals();
    let mut slowest = (Duration::ZERO, 0);
    for input in 0..inputs {
        // Each can be made again alone.
        let mut random = Random((seed << 32 | (input + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(1);
        let (name, bytes) = &originals[random.below(originals.len())];
        let mut bytes = bytes.clone();
        mutate(&mut random, &originals, &mut bytes);
        let as_file = random.below(4) == 0;
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| survive(bytes.clone(), as_file)));
        let took = start.elapsed();
        slowest = slowest.max((took, input));
        let memory = peak().unwrap_or(0);
        if outcome.is_err() || took > LONGEST || memory > MOST_MEMORY {
            let kept = std::env::temp_dir().join(format!("voxtral-audio-mutation-{seed}-{input}"));
            std::fs::write(&kept, &bytes).unwrap();
            panic!(
                "{name}, input {input} of seed {seed}, file {as_file}: {took:?}, {memory} bytes; {}",
                kept.display()
            );
        }
    }
    eprintln!("{inputs} inputs of seed {seed}; the slowest, {}, took {:?}; peak {:?}", slowest.1, slowest.0, peak());
}
