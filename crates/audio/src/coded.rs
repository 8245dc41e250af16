//! Containers and codecs, through symphonia.
//!
//! Symphonia 0.6.1 panics on some damaged files (fuzzing found it in ADPCM, AIFF and CAF, by checked arithmetic of debug
//! builds), so this is the one place that contains panics: one becomes [`Error::Corrupt`], and the reader is done.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::well_known::{
    FORMAT_ID_ADTS, FORMAT_ID_FLAC, FORMAT_ID_MKV, FORMAT_ID_MP1, FORMAT_ID_MP2, FORMAT_ID_MP3,
};
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;

use crate::error::{Error, Result, check_channels, check_rate};
use crate::input::Input;
use crate::mix::Mixer;

/// Lossy codecs add some samples before and after the audio, and containers differ in whether their count has them: two
/// MPEG frames at most. A larger shortfall is a truncated file.
const LOSSY_SLACK: u64 = 2304;
/// Samples per channel of the largest packet that is believed; the codecs themselves have at most 65 536.
const MAX_PACKET: u64 = 1 << 17;
const CUT: &str = "the input ends in the middle of a structure";

/// Reads packets of one track, decodes them and mixes them to mono.
pub(crate) struct CodedReader {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    rate: u32,
    channels: usize,
    promised: Option<u64>,
    got: u64,
    damaged: u64,
    /// The input ended in the middle of a packet.
    cut: bool,
    interleaved: Vec<f32>,
    mixer: Mixer,
    mono: Vec<f32>,
    /// `mono` was decoded on opening and has not been handed out.
    primed: bool,
}

impl CodedReader {
    /// Opens the container and decodes the first packet, as only the decoder knows sample rate and channels for certain.
    pub(crate) fn open(input: Input) -> Result<Self> {
        contained(|| Self::probe(input))
    }

    fn probe(input: Input) -> Result<Self> {
        let stream = MediaSourceStream::new(Box::new(input), Default::default());
        let format = symphonia::default::get_probe()
            .probe(&Default::default(), stream, Default::default(), Default::default())
            .map_err(|e| match e {
                // Said when nothing was recognised, and when a container was but not its kind.
                SymphoniaError::Unsupported("core (probe): no suitable format reader found") => Error::UnknownFormat,
                e => e.into(),
            })?;
        let track = format.default_track(TrackType::Audio).ok_or(Error::NoTrack)?;
        let decoder = make_decoder(track)?;
        let promised = promised_samples(&*format, track);
        let mut reader = Self {
            track: track.id,
            format,
            decoder,
            rate: 0,
            channels: 0,
            promised,
            got: 0,
            damaged: 0,
            cut: false,
            interleaved: Vec::new(),
            mixer: Mixer::default(),
            mono: Vec::new(),
            primed: false,
        };
        if !reader.decode_block()? {
            return Err(reader.ending().unwrap_or(Error::NoSamples));
        }
        reader.primed = true;
        Ok(reader)
    }

    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    pub(crate) fn promised(&self) -> Option<u64> {
        self.promised
    }

    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    pub(crate) fn mixer(&self) -> &Mixer {
        &self.mixer
    }

    /// What [`read_block`](Self::read_block) read.
    pub(crate) fn block(&self) -> &[f32] {
        &self.mono
    }

    /// Reads the next samples; `false` at the end.
    pub(crate) fn read_block(&mut self) -> Result<bool> {
        let more = std::mem::take(&mut self.primed) || contained(|| self.decode_block())?;
        if more { Ok(true) } else { self.ending().map_or(Ok(false), Err) }
    }

    /// What is wrong with having ended here.
    fn ending(&mut self) -> Option<Error> {
        let lossless = self.format.format_info().format == FORMAT_ID_FLAC;
        let slack = if lossless { 0 } else { LOSSY_SLACK };
        match self.promised {
            Some(expected) if self.got + slack < expected => Some(Error::Truncated { expected, got: self.got }),
            _ if self.cut && !self.ends_by_being_cut() => Some(Error::Corrupt(CUT)),
            _ if self.got == 0 && self.damaged > 0 => Some(Error::Corrupt("no packet can be decoded")),
            _ if self.decoder.finalize().verify_ok == Some(false) => Some(Error::Checksum),
            _ => None,
        }
    }

    /// Symphonia 0.6.1 looks for another element of Matroska until the input ends, and then says that it is cut off, when it
    /// comes through a pipe. The length in its header, if it has one, tells whether it is.
    fn ends_by_being_cut(&self) -> bool {
        self.format.format_info().format == FORMAT_ID_MKV && self.got > 0
    }

    /// Decodes packets into `mono` until there are samples; `false` at the end.
    fn decode_block(&mut self) -> Result<bool> {
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(false),
                Err(SymphoniaError::IoError(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    self.cut = true;
                    return Ok(false);
                }
                Err(SymphoniaError::ResetRequired) => {
                    // Ogg files may be one after another in one; each begins with its own headers.
                    let track = self.format.default_track(TrackType::Audio).ok_or(Error::NoTrack)?;
                    self.decoder = make_decoder(track)?;
                    self.track = track.id;
                    self.promised = None;
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            if packet.track_id != self.track {
                continue;
            }
            match self.decoder.decode(&packet) {
                Ok(decoded) => {
                    let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
                    decoded.copy_to_vec_interleaved(&mut self.interleaved);
                    if self.interleaved.is_empty() {
                        continue;
                    }
                    self.keep_format(rate, channels)?;
                    let mixer = &mut self.mixer;
                    let mean = |instant: &[f32]| mixer.mean(instant.iter().copied());
                    self.mono.clear();
                    self.mono.extend(self.interleaved.chunks_exact(channels).map(mean));
                }
                // Decoders go on after a damaged packet. What it held is lost, but what follows stays in its place in
                // time: packets of a codec are nearly always equally long.
                Err(SymphoniaError::DecodeError(_) | SymphoniaError::IoError(_)) => {
                    self.damaged += 1;
                    if self.mono.is_empty() {
                        continue;
                    }
                    self.mono.fill(0.0);
                }
                Err(e) => return Err(e.into()),
            }
            self.got += self.mono.len() as u64;
            return Ok(true);
        }
    }

    /// Takes the format of the first decoded samples; later ones must have it too.
    fn keep_format(&mut self, rate: u32, channels: usize) -> Result<()> {
        if self.rate == 0 {
            self.rate = check_rate(rate)?;
            self.channels = check_channels(channels)?;
        }
        if (rate, channels) != (self.rate, self.channels) {
            return Err(Error::FormatChange {
                from_rate: self.rate,
                from_channels: self.channels,
                to_rate: rate,
                to_channels: channels,
            });
        }
        Ok(())
    }
}

/// What `work` returns, or an error if it panics. What it worked on is not to be used after that; see [`crate::Decoder`].
fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    CONTAINING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINING.set(false);
    outcome.unwrap_or(Err(Error::Corrupt("the decoder broke down over it")))
}

thread_local! {
    static CONTAINING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would become an [`Error`] just now: a program's panic hook may keep silent about it.
pub fn is_containing_panics() -> bool {
    CONTAINING.get()
}

fn make_decoder(track: &Track) -> Result<Box<dyn AudioDecoder>> {
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else { return Err(Error::NoTrack) };
    // Decoders allocate by these two.
    if parameters.max_frames_per_packet.is_some_and(|samples| samples > MAX_PACKET) {
        return Err(Error::Corrupt("the header asks for packets of absurd length"));
    }
    if let Some(channels) = &parameters.channels {
        check_channels(channels.count())?;
    }
    let options = AudioDecoderOptions::default().verify(true);
    Ok(symphonia::default::get_codecs().make_audio_decoder(parameters, &options)?)
}

/// Samples per channel that the container says it has. Streams of MPEG and ADTS frames have no header; what symphonia says of
/// those is an estimate, unless there is an encoder's tag.
fn promised_samples(format: &dyn FormatReader, track: &Track) -> Option<u64> {
    let headerless = [FORMAT_ID_MP1, FORMAT_ID_MP2, FORMAT_ID_MP3, FORMAT_ID_ADTS];
    let estimated = headerless.contains(&format.format_info().format) && track.delay.is_none();
    track.num_frames.filter(|_| !estimated)
}

impl From<SymphoniaError> for Error {
    fn from(error: SymphoniaError) -> Self {
        match error {
            SymphoniaError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => Self::Corrupt(CUT),
            SymphoniaError::IoError(e) => Self::Io(e),
            SymphoniaError::Unsupported("isomp4: missing moov atom") => {
                Self::Corrupt("MP4 without its index; it is cut off, or piped with the index at its end")
            }
            SymphoniaError::DecodeError(what) | SymphoniaError::LimitError(what) => Self::Corrupt(what),
            SymphoniaError::Unsupported(what) => Self::Unsupported(what),
            SymphoniaError::SeekError(_) => Self::Corrupt("a structure points outside of the file"),
            _ => Self::Corrupt("the structure changes midway"),
        }
    }
}
