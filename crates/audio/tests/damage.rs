//! Damaged files of every format: an error or samples, never a panic, a hang, or memory by what a header says.

mod common;

use std::io::Cursor;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use voxtral_audio::{AudioSource, RawFormat};

const FILES: [&str; 13] = [
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
    "plain.wav",
];

/// Cases of each test; more by `AUDIO_DAMAGE_CASES`.
fn cases() -> u32 {
    std::env::var("AUDIO_DAMAGE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

fn original(name: &str) -> Vec<u8> {
    match name {
        "plain.wav" => common::wav(1, 2, 16, 44_100, 2000, &[7; 2000]),
        name => common::bytes_of(name),
    }
}

/// Decodes to the end, as a file that can be sought or as a pipe.
fn survive(bytes: Vec<u8>, as_file: bool) {
    let start = Instant::now();
    let source = if as_file {
        let path = std::env::temp_dir().join(format!(
            "voxtral-audio-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, &bytes).unwrap();
        let source = AudioSource::open(&path);
        std::fs::remove_file(&path).unwrap();
        source
    } else {
        AudioSource::from_reader(Cursor::new(bytes), Some(RawFormat::default()))
    };
    if let Ok(mut source) = source {
        // The densest coding is a FLAC frame of one repeated value: 65 536 samples in 15 bytes.
        let mut left = 500_000_000usize;
        while let Ok(Some(block)) = source.next_block() {
            assert!(block.iter().all(|v| v.is_finite()));
            left = left.checked_sub(block.len()).expect("endless samples from a small file");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|l| l.strip_prefix("VmPeak:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 4 << 20, "asked for {kib} KiB");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes(
        name in prop::sample::select(&FILES[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        in_header in any::<bool>(),
        as_file in any::<bool>(),
    ) {
        let mut bytes = original(name);
        let reach = if in_header { bytes.len().min(200) } else { bytes.len() };
        for (index, value) in changes {
            bytes[index.index(reach)] = value;
        }
        survive(bytes, as_file);
    }

    #[test]
    fn cut_and_doubled(
        name in prop::sample::select(&FILES[..]),
        at in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
        as_file in any::<bool>(),
    ) {
        let bytes = original(name);
        let mut cut = bytes[..at.index(bytes.len() + 1)].to_vec();
        survive(cut.clone(), as_file);
        cut.extend_from_slice(&bytes[again.index(bytes.len())..]);
        survive(cut, as_file);
    }

    #[test]
    fn numbers_at_their_ends(
        name in prop::sample::select(&FILES[..]),
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(&[0u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX][..]),
        as_file in any::<bool>(),
    ) {
        let mut bytes = original(name);
        let at = at.index(bytes.len().min(1000) - 4);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        survive(bytes, as_file);
    }

    #[test]
    fn magic_and_noise(name in prop::sample::select(&FILES[..]), keep in 4usize..100, rest in prop::collection::vec(any::<u8>(), 0..4000)) {
        let mut bytes = original(name);
        bytes.truncate(keep);
        bytes.extend(rest);
        survive(bytes, false);
    }
}
