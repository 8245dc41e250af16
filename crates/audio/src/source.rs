//! The one thing a program needs: audio from anywhere, as 16 kHz mono.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::pcm::RawFormat;
use crate::resample::Resampler;

/// 16 kHz mono samples of a file or a stream, block by block: a [`Decoder`] followed by a [`Resampler`].
pub struct AudioSource {
    decoder: Decoder,
    resampler: Resampler,
    block: Vec<f32>,
    state: State,
}

enum State {
    Running,
    /// The last block has been handed out; this is what comes after it.
    Ended(Option<Error>),
}

impl AudioSource {
    /// Opens a file in any known format, told by its content.
    ///
    /// # Errors
    /// As [`Decoder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(Decoder::open(path)?)
    }

    /// Reads a stream that cannot go back: any known format, told by its content, or else `raw` samples, or else an error.
    ///
    /// # Errors
    /// As [`Decoder::from_reader`].
    pub fn from_reader(reader: impl Read + Send + Sync + 'static, raw: Option<RawFormat>) -> Result<Self> {
        Self::new(Decoder::from_reader(reader, raw)?)
    }

    /// Reads raw samples, whatever they look like.
    ///
    /// # Errors
    /// As [`Decoder::raw`].
    pub fn raw(reader: impl Read + Send + Sync + 'static, raw: RawFormat) -> Result<Self> {
        Self::new(Decoder::raw(reader, raw)?)
    }

    fn new(decoder: Decoder) -> Result<Self> {
        let resampler = Resampler::new(decoder.sample_rate())?;
        Ok(Self { decoder, resampler, block: Vec::new(), state: State::Running })
    }

    /// Samples a second before resampling.
    pub fn sample_rate(&self) -> u32 {
        self.decoder.sample_rate()
    }

    /// Channels before they are mixed to one.
    pub fn channels(&self) -> usize {
        self.decoder.channels()
    }

    /// How long the audio is, where a header says so. It may lie.
    pub fn duration(&self) -> Option<Duration> {
        let seconds = self.decoder.promised_samples()? as f64 / f64::from(self.sample_rate());
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Packets so far that were too damaged to decode; silence stands in for them. Worth a warning when it is not 0.
    pub fn damaged_packets(&self) -> u64 {
        self.decoder.damaged_packets()
    }

    /// Samples so far, of all channels, that were not finite; silence stands in for them. Worth a warning when it is not 0.
    pub fn not_finite(&self) -> u64 {
        self.decoder.not_finite()
    }

    /// The next samples at 16 kHz, never none of them; `None` at the end. A live stream is waited for.
    ///
    /// # Errors
    /// What is wrong with the audio, once, when all that could be read before it has been handed out; `None` from then on.
    pub fn next_block(&mut self) -> Result<Option<&[f32]>> {
        self.block.clear();
        while self.block.is_empty() {
            if let State::Ended(error) = &mut self.state {
                return error.take().map_or(Ok(None), Err);
            }
            match self.decoder.next_block() {
                Ok(Some(samples)) => self.resampler.push(samples, &mut self.block),
                end => {
                    self.resampler.finish(&mut self.block);
                    self.state = State::Ended(end.err());
                }
            }
        }
        Ok(Some(&self.block))
    }
}
