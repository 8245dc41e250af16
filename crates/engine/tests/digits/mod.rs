//! The demo model at work, and what it hears.
#![allow(dead_code)] // each test file uses a part

use voxtral_audio::AudioSource;
use voxtral_cpu::{CpuBackend, CpuOptions, Precision};
use voxtral_engine::{Engine, EngineOptions};
use voxtral_model::Model;

pub const SAMPLE_RATE: f64 = 16_000.0;

/// Somebody saying digits.
pub fn sample() -> Vec<f32> {
    let mut source = AudioSource::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/digits.wav")).unwrap();
    let mut samples = Vec::new();
    while let Some(block) = source.next_block().unwrap() {
        samples.extend_from_slice(block);
    }
    samples
}

/// An engine on one thread of the CPU, in single precision.
pub fn engine_of(model: &Model) -> Engine {
    let options = CpuOptions { threads: 1, precision: Precision::F32, ..CpuOptions::default() };
    let backend = CpuBackend::new(model, options).unwrap();
    Engine::new(model, Box::new(backend), EngineOptions::default()).unwrap()
}

pub fn engine() -> Engine {
    engine_of(&voxtral_digits::model())
}
