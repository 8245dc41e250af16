use super::*;
use voxtral_model::testing::{array, golden, max_difference};

use crate::testing::{bits, noise};
use proptest::prelude::*;

fn config() -> MelConfig {
    MelConfig { sample_rate: 16_000, mel_bins: 128, hop: 160, window: 400, log_mel_max: 1.5 }
}

fn stream() -> MelStream {
    MelStream::new(config()).unwrap()
}

/// All frames of `samples`, pushed in pieces of `sizes`, over and over.
fn frames(samples: &[f32], sizes: &[usize]) -> Vec<f32> {
    let mut mel = stream();
    let mut out = Vec::new();
    let mut rest = samples;
    for &size in sizes.iter().cycle() {
        let (now, later) = rest.split_at(size.min(rest.len()));
        mel.push(now, &mut out);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    mel.finish(&mut out);
    out
}

/// The model's padding at a delay of `delay` tokens: 32 tokens before; up to a whole token and 11 + delay tokens after.
fn padded(samples: &[f32], delay: usize) -> Vec<f32> {
    let mut x = vec![0.0; 32 * 1280];
    x.extend_from_slice(samples);
    x.resize(x.len().next_multiple_of(1280) + 1280 * (delay + 11), 0.0);
    x
}

/// `[bins, frames]` as the goldens have it, to `[frames, bins]`.
fn transposed(shape: &[usize], values: &[f32]) -> Vec<f32> {
    (0..shape[1]).flat_map(|f| (0..shape[0]).map(move |b| values[b * shape[1] + f])).collect()
}

fn wav(path: &std::path::Path) -> Vec<f32> {
    let mut wav = hound::WavReader::open(path).unwrap();
    wav.samples::<i16>().map(|s| f32::from(s.unwrap()) / 32768.0).collect()
}

#[test]
fn filter_bank_has_the_bits_of_the_golden() {
    let (shape, golden) = array("mel_filters_f32");
    assert_eq!(shape, [201, 128]);
    let mut dense = vec![0.0f32; 201 * 128];
    for (b, filter) in filter_bank(&config()).iter().enumerate() {
        for (k, w) in filter.weights.iter().enumerate() {
            dense[(filter.first + k) * 128 + b] = *w;
        }
    }
    assert_eq!(dense.iter().filter(|w| **w != 0.0).count(), 394);
    // ln and exp differ in the last bit between libraries; after rounding to f32 hardly ever.
    assert!(max_difference(&dense, &golden) <= 1e-9, "{}", max_difference(&dense, &golden));
}

#[test]
fn window_is_the_golden() {
    let (_, golden) = array("hann400_f32");
    let hann: Vec<f32> = stream().hann.iter().map(|&w| w as f32).collect();
    assert!(max_difference(&hann, &golden) <= 1e-6);
}

#[test]
fn log_mel_is_the_golden() {
    for (wave, delay) in [("synth", 1), ("synth", 6), ("speech", 6), ("jfk", 6)] {
        let name = format!("{wave}_d{delay}_logmel");
        let samples = match golden(&format!("{wave}_wave.npy")) {
            Some(_) => array(&format!("{wave}_wave")).1,
            None => match golden(&format!("{wave}.wav")) {
                Some(path) => wav(&path),
                None => {
                    eprintln!("skipped: the golden {name} is not here");
                    continue;
                }
            },
        };
        let (shape, want) = array(&name);
        let difference = max_difference(&frames(&padded(&samples, delay), &[1280]), &transposed(&shape, &want));
        eprintln!("{name}: largest difference {difference:.2e}");
        assert!(difference <= 5e-5, "{name}: {difference}");
    }
}

#[test]
fn silence_is_the_floor() {
    let out = frames(&[0.0; 1600], &[160]);
    assert_eq!(out.len(), 10 * 128);
    assert!(out.iter().all(|&v| v == -0.625));
}

#[test]
fn a_frame_comes_with_its_last_sample() {
    let mut mel = stream();
    let mut out = Vec::new();
    mel.push(&[0.1; 199], &mut out);
    assert_eq!(out.len(), 0);
    mel.push(&[0.1; 1], &mut out);
    assert_eq!(out.len(), 128);
    mel.push(&[0.1; 159], &mut out);
    assert_eq!(out.len(), 128);
    mel.push(&[0.1; 1], &mut out);
    assert_eq!(out.len(), 2 * 128);
}

#[test]
fn finish_begins_anew() {
    let samples = noise(3000);
    let mut mel = stream();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    mel.push(&samples, &mut first);
    mel.finish(&mut first);
    mel.push(&samples, &mut second);
    mel.finish(&mut second);
    assert_eq!(first.len(), 3000 / 160 * 128);
    assert_eq!(bits(&first), bits(&second));
}

#[test]
fn impossible_front_ends_are_refused() {
    let refused = |c: MelConfig| matches!(MelStream::new(c), Err(Error::MelConfig { .. }));
    assert!(refused(MelConfig { window: 0, ..config() }));
    assert!(refused(MelConfig { hop: 0, ..config() }));
    assert!(refused(MelConfig { mel_bins: usize::MAX, ..config() }));
}

#[test]
fn any_window_and_hop_give_samples_over_hop_frames() {
    for (window, hop) in [(401, 160), (1, 1), (7, 3), (25, 160), (512, 100), (2, 5)] {
        let mut mel = MelStream::new(MelConfig { window, hop, mel_bins: 20, ..config() }).unwrap();
        for samples in [0, 1, hop, 1000, 1001] {
            let mut out = Vec::new();
            mel.push(&noise(samples), &mut out);
            mel.finish(&mut out);
            assert_eq!(out.len(), samples / hop * 20, "window {window} hop {hop} samples {samples}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn chunks_do_not_matter(sizes in prop::collection::vec(1usize..2000, 1..20), samples in 0usize..12_000) {
        let samples = noise(samples);
        prop_assert_eq!(bits(&frames(&samples, &sizes)), bits(&frames(&samples, &[samples.len().max(1)])));
    }
}

/// Not a test but a measurement: `cargo test --release -p voxtral-audio -- --ignored --nocapture speed`.
#[test]
#[ignore = "measures speed"]
fn speed_of_mel() {
    let samples = noise(16_000 * 600);
    let mut mel = stream();
    let mut out = Vec::new();
    let start = std::time::Instant::now();
    for block in samples.chunks(1280) {
        out.clear();
        mel.push(block, &mut out);
    }
    println!("log-mel: {:.0} seconds of audio a second", 600.0 / start.elapsed().as_secs_f64());
}
