//! Bytes of any kind to mono samples at the rate they were made with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::coded::CodedReader;
use crate::error::{Error, Result};
use crate::input::Input;
use crate::mix::Mixer;
use crate::pcm::{PcmReader, RawFormat};
use crate::sniff::{Content, sniff};
use crate::wav::find_samples;

/// Mono samples of a file or a stream, block by block, at the source's own rate. Several channels become their mean.
pub struct Decoder {
    reader: Reader,
    progress: Progress,
}

#[derive(PartialEq)]
enum Progress {
    Fresh,
    Running,
    Ended,
}

enum Reader {
    Pcm(PcmReader),
    Coded(CodedReader),
}

impl Decoder {
    /// Opens a file in any known format, told by its content; its name does not matter. A pipe or device by name is read as
    /// it comes.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened; [`Error::Empty`], [`Error::UnknownFormat`] and others for what is in it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match Self::new(Input::file(File::open(path)?)?, None) {
            // Symphonia looks at the end of what it can seek in, and gives up where an MP4 is cut off; reading on from the
            // beginning gets all that is there.
            Err(Error::Corrupt(_)) => Self::new(Input::stream(File::open(path)?), None),
            outcome => outcome,
        }
    }

    /// Reads a stream that cannot go back, standard input for one: any known format, told by its content, or else `raw`
    /// samples, or else an error. Every byte looked at is read.
    ///
    /// WAV and raw samples are handed out as they arrive; other formats packet by packet. M4A must have its
    /// index in front, and CAF must be a file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_reader(reader: impl Read + Send + Sync + 'static, raw: Option<RawFormat>) -> Result<Self> {
        Self::new(Input::stream(reader), raw)
    }

    /// Reads raw samples, whatever they look like.
    ///
    /// # Errors
    /// [`Error::Rate`] and [`Error::Channels`] for a format that cannot be.
    pub fn raw(reader: impl Read + Send + Sync + 'static, raw: RawFormat) -> Result<Self> {
        Ok(Self::of(Reader::Pcm(PcmReader::new(Input::stream(reader), raw, None)?)))
    }

    fn new(mut input: Input, raw: Option<RawFormat>) -> Result<Self> {
        if input.peek(1)?.is_empty() {
            return Err(Error::Empty);
        }
        let content = sniff(&mut input)?;
        if content == Content::Wav
            && let Some(samples) = find_samples(&mut input)?
        {
            input.skip_peeked(samples.offset);
            return Ok(Self::of(Reader::Pcm(PcmReader::new(input, samples.format, samples.count)?)));
        }
        match (content, raw) {
            (Content::Unknown, Some(raw)) => Ok(Self::of(Reader::Pcm(PcmReader::new(input, raw, None)?))),
            // An MPEG stream cut out of a broadcast begins in the middle of a frame; anything else is no audio.
            (Content::Unknown, None) => match CodedReader::open(input) {
                Ok(coded) if coded.damaged() == 0 => Ok(Self::of(Reader::Coded(coded))),
                Err(Error::Io(e)) => Err(Error::Io(e)),
                _ => Err(Error::UnknownFormat),
            },
            _ => Ok(Self::of(Reader::Coded(CodedReader::open(input)?))),
        }
    }

    fn of(reader: Reader) -> Self {
        Self { reader, progress: Progress::Fresh }
    }

    /// Samples a second.
    pub fn sample_rate(&self) -> u32 {
        match &self.reader {
            Reader::Pcm(pcm) => pcm.format().rate,
            Reader::Coded(coded) => coded.rate(),
        }
    }

    /// Channels before they are mixed to one.
    pub fn channels(&self) -> usize {
        match &self.reader {
            Reader::Pcm(pcm) => pcm.format().channels,
            Reader::Coded(coded) => coded.channels(),
        }
    }

    /// Samples per channel, where a header says so. It may lie.
    pub fn promised_samples(&self) -> Option<u64> {
        match &self.reader {
            Reader::Pcm(pcm) => pcm.promised(),
            Reader::Coded(coded) => coded.promised(),
        }
    }

    /// Packets so far that were too damaged to decode; silence stands in for them. Worth a warning when it is not 0.
    pub fn damaged_packets(&self) -> u64 {
        match &self.reader {
            Reader::Pcm(_) => 0,
            Reader::Coded(coded) => coded.damaged(),
        }
    }

    /// Samples so far, of all channels, that were not finite; silence stands in for them. Worth a warning when it is not 0.
    pub fn not_finite(&self) -> u64 {
        self.mixer().not_finite()
    }

    fn mixer(&self) -> &Mixer {
        match &self.reader {
            Reader::Pcm(pcm) => pcm.mixer(),
            Reader::Coded(coded) => coded.mixer(),
        }
    }

    /// The next samples, never none of them; `None` at the end.
    ///
    /// # Errors
    /// Damage, when all before it has been handed out; for an end with nothing before it [`Error::NoSamples`], and with no
    /// number before it [`Error::NotFinite`]. Once; `None` from then on.
    pub fn next_block(&mut self) -> Result<Option<&[f32]>> {
        let before = std::mem::replace(&mut self.progress, Progress::Ended);
        if before == Progress::Ended {
            return Ok(None);
        }
        let more = match &mut self.reader {
            Reader::Pcm(pcm) => pcm.read_block()?,
            Reader::Coded(coded) => coded.read_block()?,
        };
        if more {
            self.progress = Progress::Running;
            return Ok(Some(match &self.reader {
                Reader::Pcm(pcm) => pcm.block(),
                Reader::Coded(coded) => coded.block(),
            }));
        }
        if before == Progress::Fresh {
            return Err(Error::NoSamples);
        }
        let samples = self.mixer().samples();
        if samples == self.not_finite() { Err(Error::NotFinite { samples }) } else { Ok(None) }
    }
}
