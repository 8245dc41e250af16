//! The containers that are built in, each behind one face.

use crate::aiff;
use crate::caf;
use crate::error::{Error, Result};
use crate::flac::Flac;
use crate::input::Input;
use crate::mkv::Mkv;
use crate::mp4::Mp4;
use crate::mpeg::FrameStream;
use crate::ogg::Ogg;
use crate::packet::{Codec, Container, Event, Format, Span, Track};
use crate::pcm::{PcmReader, PcmStart, SLACK_S};
use crate::sniff::Content;
use crate::wav::{self, Wav};

/// Opens a container.
///
/// # Errors
/// [`Error::NeedsFfmpeg`] where it is not built in, [`Error::Foreign`], [`Error::UnknownFormat`], and what opening it finds.
pub(crate) fn open_container(content: Content, input: &mut Input) -> Result<Box<dyn Container>> {
    Ok(match content {
        Content::Frames => Box::new(FrameStream::open(input, None)?),
        Content::Flac => Box::new(Flac::open(input)?),
        Content::Ogg => Box::new(Ogg::open(input)?),
        Content::Mkv => Box::new(Mkv::open(input)?),
        Content::Mp4 => Box::new(Mp4::open(input)?),
        Content::Wav => match wav::read_header(input)? {
            Wav::Pcm(start) => plain(input, start)?,
            Wav::Blocks { format, offset, bytes, block } => {
                input.skip(offset)?;
                Box::new(Blocks::new(format, bytes, block))
            }
            Wav::Frames { offset, bytes } => {
                input.skip(offset)?;
                match FrameStream::open(input, bytes) {
                    Ok(frames) => Box::new(frames),
                    Err(Error::UnknownFormat) => Box::new(NotBuiltIn::new("WAV", "AAC without frames".to_owned())),
                    Err(e) => return Err(e),
                }
            }
            Wav::Other(codec) => Box::new(NotBuiltIn::new("WAV", codec)),
        },
        Content::Aiff => match aiff::read_aiff(input)? {
            Ok(start) => plain(input, start)?,
            Err(codec) => Box::new(NotBuiltIn::new("AIFF", codec)),
        },
        Content::Au => match aiff::read_au(input)? {
            Ok(start) => plain(input, start)?,
            Err(codec) => Box::new(NotBuiltIn::new("AU", codec)),
        },
        Content::Caf => match caf::open(input)? {
            caf::Opened::Pcm(start) => plain(input, start)?,
            caf::Opened::Packets(caf) => caf,
        },
        Content::NotBuiltIn(what) => return Err(Error::NeedsFfmpeg { format: what.to_owned() }),
        Content::Foreign(what) => return Err(Error::Foreign(what)),
        Content::Unknown => return Err(Error::UnknownFormat),
    })
}

fn plain(input: &mut Input, start: PcmStart) -> Result<Box<dyn Container>> {
    input.skip(start.offset)?;
    Ok(Box::new(PcmReader::new(start.format, start.bytes)?))
}

/// A file whose codec is not built in.
struct NotBuiltIn {
    name: &'static str,
    tracks: [Track; 1],
}

impl NotBuiltIn {
    fn new(name: &'static str, codec: String) -> Self {
        Self { name, tracks: [Track { format: Format::other(codec), default: true }] }
    }
}

impl Container for NotBuiltIn {
    fn name(&self) -> &'static str {
        self.name
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, _track: usize) -> Result<()> {
        Ok(())
    }

    fn next(&mut self, _input: &mut Input, _packet: &mut Vec<u8>) -> Result<Event> {
        Ok(Event::End)
    }
}

/// Coded blocks of equal size, as WAV has them.
struct Blocks {
    tracks: [Track; 1],
    block: usize,
    seconds: f64,
    total: Option<u64>,
    left: Option<u64>,
}

impl Blocks {
    fn new(format: Format, bytes: Option<u64>, block: usize) -> Self {
        let samples = match format.codec {
            Codec::ImaAdpcm(samples) | Codec::MsAdpcm(samples) => f64::from(samples),
            _ => 0.0,
        };
        let seconds = samples / f64::from(format.rate.max(1));
        Self { tracks: [Track { format, default: true }], block, seconds, total: bytes, left: bytes }
    }
}

impl Container for Blocks {
    fn name(&self) -> &'static str {
        "WAV"
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, _track: usize) -> Result<()> {
        Ok(())
    }

    fn seconds(&self) -> Option<f64> {
        self.total.map(|bytes| bytes as f64 / self.block as f64 * self.seconds)
    }

    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event> {
        let block = self.block as u64;
        if self.left.is_some_and(|left| left < block) {
            return Ok(Event::End);
        }
        input.take(self.block, packet)?;
        if packet.len() < self.block {
            let seconds = self.left.take().map_or(0.0, |left| left as f64 / block as f64 * self.seconds);
            // Once; what is missing of less than a block may be a header that is a little off.
            self.left = Some(0);
            let cut = seconds >= SLACK_S;
            return Ok(if cut {
                Event::Lost { seconds, what: "cut off: the header promises more samples" }
            } else {
                Event::End
            });
        }
        self.left = self.left.map(|left| left - block);
        Ok(Event::Packet { span: Span::NEXT, seconds: self.seconds })
    }
}
