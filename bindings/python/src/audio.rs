//! What Python hands over to be transcribed.

use std::io::Cursor;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use voxtral::{AudioError, AudioOptions, AudioSource, Channel, RawFormat, SampleFormat, Source};

/// A recording: `_audio.py` makes it of what people have.
#[derive(FromPyObject)]
pub(crate) enum Recording {
    /// Samples of 32 bit, interleaved `[samples, channels]`, least significant byte first; channels; Hz.
    Samples(PyBackedBytes, usize, u32),
    /// What is in a file.
    #[pyo3(transparent)]
    Content(PyBackedBytes),
    /// Where a file is.
    #[pyo3(transparent)]
    Path(PathBuf),
}

impl Recording {
    /// What it is called, if it has a name.
    pub(crate) fn name(&self) -> Option<String> {
        if let Self::Path(path) = self { Some(path.display().to_string()) } else { None }
    }

    /// Opens it: the mix of its channels, or one of them, counted from 1.
    pub(crate) fn open(self, channel: Option<usize>) -> Result<Source, AudioError> {
        let channel = channel.map_or(Channel::Mix, Channel::One);
        let options = AudioOptions { channel, ..AudioOptions::default() };
        match self {
            Self::Samples(samples, channels, rate) => {
                let format = RawFormat { sample: SampleFormat::F32, rate, channels };
                Ok(AudioSource::raw(Cursor::new(samples), format)?.into())
            }
            Self::Content(bytes) => Ok(AudioSource::from_reader_with(Cursor::new(bytes), &options)?.into()),
            Self::Path(path) => Source::file_with(path, &options),
        }
    }
}

/// Samples as [`Recording::Samples`] has them, as numbers. Bytes that are no whole sample are left out; `_audio.py` gives none.
pub(crate) fn numbers(samples: &[u8]) -> Vec<f32> {
    samples.as_chunks().0.iter().map(|&sample| f32::from_le_bytes(sample)).collect()
}
