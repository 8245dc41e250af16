//! Where audio comes from.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use voxtral_audio::{AudioSource, Error as AudioError, RawFormat, SAMPLE_RATE};
use voxtral_engine::AudioIn;
use voxtral_model::TOKEN_MS;
use voxtral_transcript::{Damage, Lost};

/// Samples of a token: what [`Source::spoken`] gives out at a time.
const PIECE: usize = (SAMPLE_RATE * TOKEN_MS / 1000) as usize;

/// Audio to transcribe, and whether it is recorded or live.
///
/// Live audio goes before recordings where both need the device, and is encoded as it arrives; recordings are encoded in large pieces.
/// The tokens are the same.
pub struct Source {
    audio: Audio,
    live: bool,
    /// When it was opened: the time that it takes counts from here.
    pub(crate) opened: Instant,
}

enum Audio {
    Decoded(Box<AudioSource>),
    Samples(Arc<[f32]>),
    Pieces(Box<dyn Iterator<Item = Vec<f32>> + Send>),
}

impl Source {
    /// A recording: a file in any format that [`AudioSource`] knows, told by its content.
    ///
    /// # Errors
    /// When it cannot be read or holds no audio.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, AudioError> {
        let opened = Instant::now();
        Ok(Self { opened, ..AudioSource::open(path)?.into() })
    }

    /// A live stream of bytes, such as standard input: any known format, or else `raw` samples. Waits for the first bytes.
    ///
    /// # Errors
    /// When it cannot be read or holds no audio.
    pub fn stream(reader: impl Read + Send + Sync + 'static, raw: Option<RawFormat>) -> Result<Self, AudioError> {
        let opened = Instant::now();
        Ok(Self { opened, live: true, ..AudioSource::from_reader(reader, raw)?.into() })
    }

    /// A recording in memory, 16 kHz mono.
    pub fn samples(samples: impl Into<Arc<[f32]>>) -> Self {
        Self { audio: Audio::Samples(samples.into()), live: false, opened: Instant::now() }
    }

    /// Live samples, 16 kHz mono, in pieces of any size, such as the receiver of a channel gives them. They end where it ends.
    pub fn live<Pieces>(pieces: Pieces) -> Self
    where
        Pieces: IntoIterator<Item = Vec<f32>>,
        Pieces::IntoIter: Send + 'static,
    {
        Self { audio: Audio::Pieces(Box::new(pieces.into_iter())), live: true, opened: Instant::now() }
    }

    /// Live samples that are all there, but are given out no faster than they are spoken, 80 ms at a time: to measure with.
    pub fn spoken(samples: impl Into<Arc<[f32]>>) -> Self {
        let samples = samples.into();
        let mut given = 0;
        let mut start = None;
        Self::live(std::iter::from_fn(move || {
            let piece = samples.get(given..)?.chunks(PIECE).next()?.to_vec();
            given += piece.len();
            let due = *start.get_or_insert_with(Instant::now) + Self::spoken_after(given);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            Some(piece)
        }))
    }

    /// When [`spoken`](Self::spoken) audio has been given out up to this sample: with the piece that it is the last of, or within.
    pub fn spoken_after(samples: usize) -> Duration {
        Duration::from_millis(u64::from(TOKEN_MS)) * samples.div_ceil(PIECE) as u32
    }

    /// Whether its audio is live.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// How many samples there will be, where that is known. A header may lie; one of a stream is written before anybody knows.
    pub(crate) fn expected(&self) -> Option<u64> {
        match &self.audio {
            _ if self.live => None,
            Audio::Decoded(source) => Some((source.duration()?.as_secs_f64() * f64::from(SAMPLE_RATE)).ceil() as u64),
            Audio::Samples(samples) => Some(samples.len() as u64),
            Audio::Pieces(_) => None,
        }
    }

    /// Pushes all of it into a session, and tells what is damaged. Ends early, without an error, where the session does: its last event
    /// says why.
    pub(crate) fn feed(self, session: &AudioIn, told: &mut dyn FnMut(Damage)) -> Result<(), AudioError> {
        match self.audio {
            Audio::Decoded(source) => feed_decoded(*source, session, told),
            Audio::Samples(samples) => {
                let _ = session.push_samples(&samples);
                Ok(())
            }
            Audio::Pieces(mut pieces) => {
                let _ = pieces.try_for_each(|piece| session.push_samples(&piece));
                Ok(())
            }
        }
    }
}

fn feed_decoded(mut source: AudioSource, session: &AudioIn, told: &mut dyn FnMut(Damage)) -> Result<(), AudioError> {
    let (mut samples, mut packets, mut not_finite) = (0, 0, 0);
    loop {
        let block = source.next_block();
        let more = match &block {
            Ok(Some(block)) => {
                samples += block.len();
                session.push_samples(block).is_ok()
            }
            Ok(None) | Err(_) => false,
        };
        let end = block.map(drop);
        let at_s = samples as f64 / f64::from(SAMPLE_RATE);
        let mut count = |before: &mut u64, now: u64, lost: fn(u64) -> Lost| {
            let more = now - std::mem::replace(before, now);
            if more > 0 {
                told(Damage { at_s, lost: lost(more) });
            }
        };
        count(&mut packets, source.damaged_packets(), Lost::Packets);
        count(&mut not_finite, source.not_finite(), Lost::NotFinite);
        if !more {
            return end;
        }
    }
}

/// A recording.
impl From<AudioSource> for Source {
    fn from(source: AudioSource) -> Self {
        Self { audio: Audio::Decoded(Box::new(source)), live: false, opened: Instant::now() }
    }
}
