//! What the tests of the crate's public face share.
#![allow(dead_code, reason = "each test program uses its part")]

use std::f64::consts::TAU;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use voxtral_audio::{AudioOptions, AudioSource, Error, RawFormat};

#[path = "../../src/testing.rs"]
pub mod testing;

/// A file among those of this crate.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).unwrap()
}

/// What is built in, whatever is on the PATH.
pub fn built_in() -> AudioOptions {
    AudioOptions { ffmpeg: None, ..AudioOptions::default() }
}

pub fn open(path: impl AsRef<Path>) -> Result<AudioSource, Error> {
    AudioSource::open_with(path, &built_in())
}

pub fn from_reader(reader: impl Read + Send + 'static, raw: Option<RawFormat>) -> Result<AudioSource, Error> {
    AudioSource::from_reader_with(reader, &AudioOptions { raw, ..built_in() })
}

/// Somebody saying digits, at 16 kHz.
pub fn digits() -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/digits.wav");
    all(&mut open(path).unwrap()).0
}

/// All samples, and the error that ended them.
pub fn all(source: &mut AudioSource) -> (Vec<f32>, Option<Error>) {
    let mut heard = Vec::new();
    loop {
        match source.next_block() {
            Ok(Some(block)) => heard.extend_from_slice(block),
            Ok(None) => return (heard, None),
            Err(e) => return (heard, Some(e)),
        }
    }
}

/// What is wrong with a stream, on opening it or later.
pub fn error_of(bytes: &[u8]) -> Error {
    let mut source = match from_reader(Cursor::new(bytes.to_vec()), None) {
        Ok(source) => source,
        Err(e) => return e,
    };
    loop {
        match source.next_block() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("nothing was wrong"),
            Err(e) => return e,
        }
    }
}

/// A WAV file of format `tag` whose header says that `size` bytes of samples follow.
pub fn wav(tag: u16, channels: u16, bits: u16, rate: u32, size: u32, samples: &[u8]) -> Vec<u8> {
    let frame = channels * (bits / 8);
    let mut file = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0".to_vec();
    file.extend_from_slice(&tag.to_le_bytes());
    file.extend_from_slice(&channels.to_le_bytes());
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&rate.wrapping_mul(u32::from(frame)).to_le_bytes());
    file.extend_from_slice(&frame.to_le_bytes());
    file.extend_from_slice(&bits.to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&size.to_le_bytes());
    file.extend_from_slice(samples);
    file
}

/// Amplitude of the sine of `hz` in `samples`.
pub fn amplitude(samples: &[f32], hz: f64, rate: u32) -> f64 {
    // Whole periods, so that the two sums are orthogonal.
    let period = f64::from(rate) / hz;
    let count = ((samples.len() as f64 / period).floor() * period).round() as usize;
    let (mut re, mut im) = (0.0, 0.0);
    for (i, &v) in samples[..count].iter().enumerate() {
        let (sin, cos) = (TAU * hz * i as f64 / f64::from(rate)).sin_cos();
        re += f64::from(v) * cos;
        im += f64::from(v) * sin;
    }
    2.0 * re.hypot(im) / count as f64
}

/// A stream that cannot go back and gives at most `step` bytes at once.
pub struct Pipe {
    bytes: Cursor<Vec<u8>>,
    step: usize,
}

impl Pipe {
    pub fn new(bytes: Vec<u8>, step: usize) -> Self {
        Self { bytes: Cursor::new(bytes), step }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.step);
        self.bytes.read(&mut buffer[..count])
    }
}

/// A stream of what is sent; it waits while there is nothing and the sender lives.
pub fn live() -> (Sender<Vec<u8>>, Live) {
    let (sender, receiver) = channel();
    (sender, Live { receiver: Mutex::new(receiver), rest: Vec::new() })
}

pub struct Live {
    receiver: Mutex<Receiver<Vec<u8>>>,
    rest: Vec<u8>,
}

impl Read for Live {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            match self.receiver.get_mut().unwrap().recv() {
                Ok(bytes) => self.rest = bytes,
                Err(_) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Ok(count)
    }
}
