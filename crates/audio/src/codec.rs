//! Packets to samples: symphonia's decoders, opus-pure's, and plain samples.
//!
//! Symphonia 0.6.1 panics on some damaged packets (fuzzing found it, by checked arithmetic of debug builds), so this is the
//! one place that contains panics: a packet that causes one is a packet that cannot be decoded.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_ADPCM_IMA_WAV, CODEC_ID_ADPCM_MS, CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_MP1, CODEC_ID_MP2,
    CODEC_ID_MP3, CODEC_ID_VORBIS,
};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use crate::error::{Error, Result, check_channels, check_rate};
use crate::flac;
use crate::frames::{Frame, Stream};
use crate::opus::{self, OpusReader};
use crate::packet::{Codec, Format, Numbers};
use crate::pcm::PcmFormat;

/// Samples per channel of the largest packet that is believed; the codecs themselves have at most 65 536.
const MAX_PACKET: u32 = 1 << 17;

/// Samples of all channels, interleaved.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) interleaved: Vec<f32>,
    pub(crate) rate: u32,
    pub(crate) channels: usize,
}

impl Samples {
    /// How long they are.
    pub(crate) fn seconds(&self) -> f64 {
        (self.interleaved.len() / self.channels.max(1)) as f64 / f64::from(self.rate.max(1))
    }
}

/// A packet cannot be decoded.
pub(crate) struct BadPacket;

/// The decoder of one track.
pub(crate) struct Decoder {
    inner: Inner,
    format: Format,
}

enum Inner {
    Pcm(PcmFormat),
    Opus(Box<OpusReader>),
    Symphonia(Box<dyn AudioDecoder>),
}

impl Decoder {
    /// A decoder for `format`.
    ///
    /// # Errors
    /// [`Error::NeedsFfmpeg`] where it is not built in, [`Error::Rate`] and [`Error::Channels`].
    pub(crate) fn new(format: &Format) -> Result<Self> {
        // Decoders allocate by these. 0 leaves it to the packets, and plain samples cannot tell.
        let must_tell = matches!(format.codec, Codec::Pcm(_));
        if format.channels != 0 || must_tell {
            check_channels(format.channels)?;
        }
        if format.rate != 0 || must_tell {
            check_rate(format.rate)?;
        }
        let inner = match &format.codec {
            Codec::Pcm(pcm) => Inner::Pcm(*pcm),
            Codec::Opus => Inner::Opus(Box::new(
                OpusReader::new(&format.setup, format.channels).ok_or_else(|| not_built_in(format))?,
            )),
            Codec::Other(_) => return Err(not_built_in(format)),
            _ => {
                let made = contained(|| make(format));
                Inner::Symphonia(made.ok().flatten().ok_or_else(|| cannot_begin(format))?)
            }
        };
        Ok(Self { inner, format: format.clone() })
    }

    pub(crate) fn format(&self) -> &Format {
        &self.format
    }

    /// Decodes a packet into `samples`. There may be none, from the first packet of some codecs.
    pub(crate) fn decode(&mut self, packet: &[u8], samples: &mut Samples) -> Result<(), BadPacket> {
        samples.interleaved.clear();
        self.follow_layer(packet)?;
        match &mut self.inner {
            Inner::Pcm(pcm) => {
                (samples.rate, samples.channels) = (pcm.rate, pcm.channels);
                let whole = packet.len() / pcm.frame() * pcm.frame();
                samples.interleaved.extend(packet[..whole].chunks_exact(pcm.sample.bytes()).map(|b| pcm.value(b)));
                Ok(())
            }
            Inner::Opus(opus) => contained(|| opus.decode(packet, samples)).unwrap_or(Err(BadPacket)),
            // Containers keep frames whole, and the checksum is their last two bytes.
            Inner::Symphonia(_) if self.format.codec == Codec::Flac && flac::crc16(0, packet) != 0 => Err(BadPacket),
            Inner::Symphonia(decoder) => {
                let duration = match self.format.codec {
                    Codec::ImaAdpcm(block) | Codec::MsAdpcm(block) => u64::from(block),
                    _ => 0,
                };
                let packet = Packet::new(0, Timestamp::ZERO, Duration::new(duration), packet.to_vec());
                let decoded = contained(|| {
                    let Ok(decoded) = decoder.decode(&packet) else { return Err(BadPacket) };
                    (samples.rate, samples.channels) = (decoded.spec().rate(), decoded.spec().channels().count());
                    decoded.copy_to_vec_interleaved(&mut samples.interleaved);
                    Ok(())
                });
                match decoded {
                    Ok(decoded) => decoded,
                    Err(Panicked) => {
                        // What it worked on may be in any state.
                        if let Ok(Ok(fresh)) = contained(|| Self::new(&self.format)) {
                            self.inner = fresh.inner;
                        }
                        Err(BadPacket)
                    }
                }
            }
        }
    }

    /// MP4 calls all layers of MPEG audio the same: the frames say which it is.
    fn follow_layer(&mut self, packet: &[u8]) -> Result<(), BadPacket> {
        if let Codec::Mpeg(layer) = self.format.codec
            && let Some(Stream::Mpeg(found)) = Frame::at(packet).map(|frame| frame.stream)
            && found != layer
        {
            let format = Format { codec: Codec::Mpeg(found), ..self.format.clone() };
            *self = Self::new(&format).map_err(|_| BadPacket)?;
        }
        Ok(())
    }

    /// Seconds of samples that stand in for a packet that is missing before the next one, put into `interleaved`: of Opus,
    /// which is made for that.
    pub(crate) fn conceal(&mut self, seconds: f64, interleaved: &mut Vec<f32>) {
        /// Samples of the shortest packet.
        const STEP: f64 = 120.0;
        if let Inner::Opus(opus) = &mut self.inner {
            let count = (seconds * f64::from(opus::RATE) / STEP).round() * STEP;
            if contained(|| opus.conceal(count as usize, interleaved)).is_err() {
                interleaved.clear();
            }
        }
    }

    /// Begins anew behind a gap, where what was before does not continue.
    pub(crate) fn reset(&mut self) {
        match &mut self.inner {
            Inner::Pcm(_) => {}
            Inner::Opus(opus) => opus.reset(),
            Inner::Symphonia(decoder) => {
                let _ = contained(|| decoder.reset());
            }
        }
    }

    /// Whether what was decoded is what the encoder was given, where a checksum says so. At the end.
    pub(crate) fn verified(&mut self) -> Option<bool> {
        match &mut self.inner {
            Inner::Symphonia(decoder) if self.format.codec == Codec::Flac => {
                contained(|| decoder.finalize().verify_ok).unwrap_or(None)
            }
            _ => None,
        }
    }
}

/// Why there is no decoder: what a codec keeps apart from its packets is damaged, or asks for more than the decoder knows.
fn cannot_begin(format: &Format) -> Error {
    match format.codec {
        Codec::Vorbis | Codec::Flac | Codec::Alac => Error::Corrupt("the header of the codec"),
        _ => not_built_in(format),
    }
}

fn not_built_in(format: &Format) -> Error {
    Error::NeedsFfmpeg { format: format.name().to_owned() }
}

fn make(format: &Format) -> Option<Box<dyn AudioDecoder>> {
    let mut parameters = AudioCodecParameters::new();
    let id = match format.codec {
        Codec::Aac => CODEC_ID_AAC,
        Codec::Mpeg(1) => CODEC_ID_MP1,
        Codec::Mpeg(2) => CODEC_ID_MP2,
        Codec::Mpeg(_) => CODEC_ID_MP3,
        Codec::Alac => CODEC_ID_ALAC,
        Codec::Flac => CODEC_ID_FLAC,
        Codec::Vorbis => CODEC_ID_VORBIS,
        Codec::ImaAdpcm(_) => CODEC_ID_ADPCM_IMA_WAV,
        Codec::MsAdpcm(_) => CODEC_ID_ADPCM_MS,
        Codec::Pcm(_) | Codec::Opus | Codec::Other(_) => return None,
    };
    parameters.for_codec(id);
    if format.rate != 0 {
        parameters.with_sample_rate(format.rate);
    }
    if let Some(position) = Position::from_count(u32::try_from(format.channels).ok()?) {
        parameters.with_channels(Channels::Positioned(position));
    }
    if let Codec::ImaAdpcm(block) | Codec::MsAdpcm(block) = format.codec {
        if block > MAX_PACKET {
            return None;
        }
        parameters.with_max_frames_per_packet(block.into()).with_frames_per_block(block.into());
    }
    if format.codec == Codec::Alac && !alac_setup_is_sane(&format.setup) {
        return None;
    }
    if !format.setup.is_empty() {
        parameters.with_extra_data(format.setup.clone().into_boxed_slice());
    }
    let options = AudioDecoderOptions::default().verify(true);
    symphonia::default::get_codecs().make_audio_decoder(&parameters, &options).ok()
}

/// The decoder allocates by what its setup says.
fn alac_setup_is_sane(setup: &[u8]) -> bool {
    setup.be32(0).is_some_and(|samples| (1..=MAX_PACKET / 2).contains(&samples))
        && setup.get(9).is_some_and(|&c| (1..=8).contains(&c))
}

/// A decoder panicked.
pub(crate) struct Panicked;

/// What `work` returns, unless it panics. What it worked on is not to be used after that.
fn contained<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = CONTAINING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINING.set(before);
    outcome.map_err(|_| Panicked)
}

thread_local! {
    static CONTAINING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would be contained just now: a program's panic hook may keep silent about it.
pub fn is_containing_panics() -> bool {
    CONTAINING.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_say_their_layer() {
        let mp2 = include_bytes!("../tests/data/tone.mp2");
        let len = Frame::at(mp2).unwrap().len;
        let mut decoder = Decoder::new(&Format::new(Codec::Mpeg(3), 44_100, 2)).unwrap();
        let mut samples = Samples::default();
        assert!(decoder.decode(&mp2[..len], &mut samples).is_ok());
        assert_eq!(samples.interleaved.len(), 2 * 1152);
    }
}
