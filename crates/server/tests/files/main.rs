//! Recordings that are sent as a form, as clients send them.

#[path = "../common/mod.rs"]
mod common;

mod answers;
#[allow(dead_code, reason = "each test program uses its part")]
mod client;
mod limits;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use client::Form;
use hound::{SampleFormat, WavSpec, WavWriter};

const TEXT: &str = "four seven one one nine zero two six three five eight";

/// A file of the project.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Somebody saying [`TEXT`].
fn digits() -> Vec<u8> {
    std::fs::read(path("samples/digits.wav")).unwrap()
}

/// A WAV file of noughts.
fn silence(seconds: u32) -> Vec<u8> {
    let spec = WavSpec { channels: 1, sample_rate: 16_000, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut wav = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut wav, spec).unwrap();
    (0..seconds * 16_000).for_each(|_| writer.write_sample(0_i16).unwrap());
    writer.finalize().unwrap();
    wav.into_inner()
}

/// A form with the file last, as most clients send it.
fn form(fields: &[(&str, &str)], file: &[u8]) -> Form {
    let start = Form::default().field("model", "whisper-1");
    fields.iter().fold(start, |form, (name, value)| form.field(name, value)).file(file)
}
