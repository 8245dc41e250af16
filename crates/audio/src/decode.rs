//! Bytes of any kind to samples with their times: what they are is recognised, opened and read, by what is built in or else
//! through ffmpeg.

use crate::codec::{Decoder, Samples};
use crate::containers::open_container;
use crate::damage::Notice;
use crate::error::{Error, Result};
use crate::ffmpeg::{self, Ffmpeg};
use crate::input::Input;
use crate::options::AudioOptions;
use crate::packet::{Codec, Container, Event, Span, choose_track};
use crate::pcm::PcmReader;
use crate::sniff::{Content, sniff};

/// So much that is missing before a packet is made up for, where the codec can: less is rounding, more is silence.
const SHORTEST_LOSS_S: f64 = 0.0035;
const LONGEST_LOSS_S: f64 = 0.065;

/// An input that was recognised, and what reads it.
pub(crate) struct Reader {
    input: Input,
    container: Box<dyn Container>,
    decoder: Decoder,
    packet: Vec<u8>,
    ffmpeg: Option<(Ffmpeg, String)>,
    notices: Vec<Notice>,
    heard: bool,
    /// The stream has changed to what is not built in.
    undecodable: bool,
    /// Where the last samples ended, in seconds of their packets' clock.
    end: Option<f64>,
    concealed: Vec<f32>,
}

/// What reading gives.
pub(crate) enum Piece {
    /// Samples are in the buffer that was handed in.
    Samples(Span),
    /// A packet that cannot be decoded, and how long it is.
    BadPacket(Span, f64),
    /// Something is missing here: so many seconds, or what the time of the next samples tells.
    Lost {
        seconds: f64,
        what: String,
    },
    End,
}

impl Reader {
    /// Recognises and opens what `input` holds.
    pub(crate) fn open(mut input: Input, options: &AudioOptions) -> Result<Self> {
        if input.peek(1)?.is_empty() {
            return Err(Error::Empty);
        }
        let format = match (sniff(&mut input)?, options.raw) {
            (Content::Unknown, Some(raw)) => {
                input.restart()?;
                let mut reader = Self::new(input, Box::new(PcmReader::new(raw.into(), None)?), options)?;
                reader.notices.push(Notice::TakenAsRaw(raw));
                return Ok(reader);
            }
            (Content::Unknown, None) => {
                // There are more formats than are known here, and ffmpeg knows most of them.
                return Self::through_ffmpeg(input, options, "its format").map_err(|e| match e {
                    Error::NeedsFfmpeg { .. } | Error::Ffmpeg { .. } | Error::NoSamples => Error::UnknownFormat,
                    e => e,
                });
            }
            (content, _) => match open_track(content, &mut input, options) {
                Ok((container, track, decoder)) => return Self::with(input, container, track, decoder),
                Err(Error::NeedsFfmpeg { format }) => format,
                // Perhaps ffmpeg makes something of it.
                Err(error @ Error::Corrupt(what)) => {
                    return Self::through_ffmpeg(input, options, what).map_err(|_| error);
                }
                Err(e) => return Err(e),
            },
        };
        Self::through_ffmpeg(input, options, &format)
    }

    /// Plain samples, whatever they look like.
    pub(crate) fn raw(input: Input, options: &AudioOptions) -> Result<Self> {
        let raw = options.raw.unwrap_or_default();
        Self::new(input, Box::new(PcmReader::new(raw.into(), None)?), options)
    }

    fn new(input: Input, container: Box<dyn Container>, options: &AudioOptions) -> Result<Self> {
        let (track, decoder) = choose_track(container.tracks(), options.track, Decoder::new)?;
        Self::with(input, container, track, decoder)
    }

    fn with(input: Input, mut container: Box<dyn Container>, track: usize, decoder: Decoder) -> Result<Self> {
        container.choose(track)?;
        Ok(Self {
            input,
            container,
            decoder,
            packet: Vec::new(),
            ffmpeg: None,
            notices: Vec::new(),
            heard: false,
            undecodable: false,
            end: None,
            concealed: Vec::new(),
        })
    }

    fn through_ffmpeg(input: Input, options: &AudioOptions, format: &str) -> Result<Self> {
        let Some(program) = &options.ffmpeg else { return Err(Error::NeedsFfmpeg { format: format.to_owned() }) };
        let (mut ffmpeg, mut output) = ffmpeg::start(program, input, options, format)?;
        let failed = |ffmpeg: &mut Ffmpeg| {
            let message = ffmpeg.outcome().unwrap_or_else(|| "it found no audio".to_owned());
            Error::Ffmpeg { format: format.to_owned(), message }
        };
        if output.peek(1)?.is_empty() {
            return Err(failed(&mut ffmpeg));
        }
        let container = open_container(Content::Wav, &mut output)?;
        // The track has been chosen already.
        let mut reader = Self::new(output, container, &AudioOptions::default())?;
        reader.notices.push(Notice::ThroughFfmpeg { format: format.to_owned() });
        reader.ffmpeg = Some((ffmpeg, format.to_owned()));
        Ok(reader)
    }

    /// Where not one packet could be decoded: begins anew through ffmpeg.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where ffmpeg has been tried, or where it is too late to begin anew.
    pub(crate) fn or_through_ffmpeg(mut self, options: &AudioOptions) -> Result<Self> {
        let corrupt = Error::Corrupt("no packet can be decoded");
        if self.ffmpeg.is_some() || self.input.path().is_none() && !self.input.restart()? {
            return Err(corrupt);
        }
        let format = format!("such {} in {}", self.decoder.format().name(), self.container.name());
        match Self::through_ffmpeg(self.input, options, &format) {
            Err(Error::Ffmpeg { .. } | Error::NoSamples) => Err(corrupt),
            outcome => outcome,
        }
    }

    /// Seconds of the presentation, where a header says so.
    pub(crate) fn seconds(&self) -> Option<f64> {
        if self.ffmpeg.is_some() { None } else { self.container.seconds() }
    }

    /// What was noticed since this was last asked.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        self.notices.extend(self.container.take_notice());
        std::mem::take(&mut self.notices)
    }

    /// Whether packets may be left out for silence, so that a gap is none.
    pub(crate) fn may_leave_out(&self) -> bool {
        self.decoder.format().codec == Codec::Opus || self.ffmpeg.is_some()
    }

    /// What is decoded.
    pub(crate) fn codec(&self) -> &Codec {
        &self.decoder.format().codec
    }

    /// Forgets what the decoder keeps from packet to packet: what comes does not follow what was.
    pub(crate) fn forget(&mut self) {
        self.decoder.reset();
        self.end = None;
    }

    /// Reads a packet and decodes it.
    pub(crate) fn next(&mut self, samples: &mut Samples) -> Result<Piece> {
        loop {
            if let Some((ffmpeg, _)) = &mut self.ffmpeg
                && let Some(complaint) = ffmpeg.complaint()
            {
                return Ok(Piece::Lost { seconds: 0.0, what: format!("ffmpeg: {complaint}") });
            }
            match self.container.next(&mut self.input, &mut self.packet)? {
                Event::Packet { span, seconds } if self.undecodable => return Ok(Piece::BadPacket(span, seconds)),
                Event::Packet { mut span, seconds } => {
                    self.conceal(&mut span);
                    return Ok(match self.decoder.decode(&self.packet, samples) {
                        Ok(()) if samples.interleaved.is_empty() => continue,
                        Ok(()) => {
                            self.heard = true;
                            self.input.settle();
                            samples.interleaved.splice(..0, self.concealed.drain(..));
                            self.end_of(&span, samples);
                            Piece::Samples(span)
                        }
                        Err(_) => Piece::BadPacket(span, seconds),
                    });
                }
                Event::Format(format) => {
                    let decoder = Decoder::new(&format);
                    self.undecodable = decoder.is_err();
                    match decoder {
                        Ok(decoder) => self.decoder = decoder,
                        Err(Error::NeedsFfmpeg { format }) => {
                            let what = format!("what follows is {format}, which is not built in");
                            return Ok(Piece::Lost { seconds: 0.0, what });
                        }
                        Err(e) => return Ok(Piece::Lost { seconds: 0.0, what: e.to_string() }),
                    }
                }
                Event::Lost { seconds, what } => return Ok(Piece::Lost { seconds, what: what.to_owned() }),
                Event::End => return self.end(),
            }
        }
    }

    /// Makes up for a packet or two that are missing before this one, where the codec can.
    fn conceal(&mut self, span: &mut Span) {
        self.concealed.clear();
        if let Some((start, end)) = span.start.zip(self.end)
            && (SHORTEST_LOSS_S..=LONGEST_LOSS_S).contains(&(start - end))
        {
            self.decoder.conceal(start - end, &mut self.concealed);
            if !self.concealed.is_empty() {
                span.start = Some(end);
            }
        }
    }

    /// Keeps in mind where samples end.
    fn end_of(&mut self, span: &Span, samples: &Samples) {
        let count = samples.interleaved.len() / samples.channels.max(1);
        let start = span.start.or(self.end);
        self.end = start.map(|start| start + count as f64 / f64::from(samples.rate.max(1)));
    }

    fn end(&mut self) -> Result<Piece> {
        if let Some((mut ffmpeg, format)) = self.ffmpeg.take()
            && let Some(message) = ffmpeg.outcome()
        {
            if !self.heard {
                return Err(Error::Ffmpeg { format, message });
            }
            return Ok(Piece::Lost { seconds: 0.0, what: format!("ffmpeg: {message}") });
        }
        Ok(Piece::End)
    }

    /// Whether a checksum of all that was decoded does not hold.
    pub(crate) fn is_changed(&mut self) -> bool {
        self.decoder.verified() == Some(false)
    }
}

/// Opens a container, and a decoder for the track to read.
fn open_track(
    content: Content,
    input: &mut Input,
    options: &AudioOptions,
) -> Result<(Box<dyn Container>, usize, Decoder)> {
    let container = open_container(content, input)?;
    let name = container.name();
    let chosen = choose_track(container.tracks(), options.track, Decoder::new).map_err(|e| match e {
        Error::NeedsFfmpeg { format } => Error::NeedsFfmpeg { format: format!("{format} in {name}") },
        e => e,
    });
    chosen.map(|(track, decoder)| (container, track, decoder))
}
