//! Where audio comes from.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use voxtral_audio::{AudioOptions, AudioSource, Error as AudioError, SAMPLE_RATE};
use voxtral_engine::AudioIn;
use voxtral_microphone::{Control, Device, Microphone};
use voxtral_model::TOKEN_MS;

use crate::Error;
use crate::transcribe::Told;

/// Samples of a token: what [`Source::spoken`] gives out at a time.
const PIECE: usize = (SAMPLE_RATE * TOKEN_MS / 1000) as usize;

/// Audio to transcribe, and whether it is recorded or live.
///
/// Live audio goes before recordings where both need the device, and is encoded as it arrives; recordings are encoded in large pieces.
/// The tokens are the same.
pub struct Source {
    audio: Audio,
    live: bool,
    ear: Option<Ear>,
    /// When it was opened: the time that it takes counts from here.
    pub(crate) opened: Instant,
}

/// Who else hears the samples.
type Ear = Box<dyn FnMut(&[f32]) + Send>;

enum Audio {
    Decoded(Box<AudioSource>),
    Samples(Arc<[f32]>),
    Pieces(Box<dyn Iterator<Item = Vec<f32>> + Send>),
    Microphone(Microphone),
}

impl Source {
    /// A recording: a file in any format that [`AudioSource`] knows, told by its content. A pipe by name is live.
    ///
    /// # Errors
    /// When it cannot be read or holds no audio.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, AudioError> {
        Self::file_with(path, &AudioOptions::default())
    }

    /// As [`file`](Self::file), with a choice of track, channel and second decoder.
    ///
    /// # Errors
    /// As [`file`](Self::file), and where there is no such track or channel.
    pub fn file_with(path: impl AsRef<Path>, options: &AudioOptions) -> Result<Self, AudioError> {
        let (opened, live) = (Instant::now(), Self::is_pipe(&path));
        Ok(Self { opened, live, ..AudioSource::open_with(path, options)?.into() })
    }

    /// A live stream of bytes, such as standard input: any known format, or else the raw samples that the options name. Waits for
    /// the first bytes.
    ///
    /// # Errors
    /// When it cannot be read or holds no audio.
    pub fn stream(reader: impl Read + Send + 'static, options: &AudioOptions) -> Result<Self, AudioError> {
        let opened = Instant::now();
        Ok(Self { opened, live: true, ..AudioSource::from_reader_with(reader, options)?.into() })
    }

    /// Whether this names something that is read as it comes: a pipe or a device, and no file or folder.
    pub fn is_pipe(path: impl AsRef<Path>) -> bool {
        std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
    }

    /// A recording in memory, 16 kHz mono.
    pub fn samples(samples: impl Into<Arc<[f32]>>) -> Self {
        Self { audio: Audio::Samples(samples.into()), live: false, ear: None, opened: Instant::now() }
    }

    /// Live samples, 16 kHz mono, in pieces of any size, such as the receiver of a channel gives them. They end where it ends.
    pub fn live<Pieces>(pieces: Pieces) -> Self
    where
        Pieces: IntoIterator<Item = Vec<f32>>,
        Pieces::IntoIter: Send + 'static,
    {
        Self { audio: Audio::Pieces(Box::new(pieces.into_iter())), live: true, ear: None, opened: Instant::now() }
    }

    /// What a microphone hears. A [`Stop`](crate::Stop) ends the recording, and what was heard before it is transcribed.
    pub fn microphone(microphone: Microphone) -> Self {
        Self { audio: Audio::Microphone(microphone), live: true, ear: None, opened: Instant::now() }
    }

    /// What it is recorded from, if a microphone is.
    pub fn device(&self) -> Option<&Device> {
        if let Audio::Microphone(microphone) = &self.audio { Some(microphone.device()) } else { None }
    }

    /// What ends it, where it can be ended at its beginning.
    pub(crate) fn control(&self) -> Option<Control> {
        if let Audio::Microphone(microphone) = &self.audio { Some(microphone.control()) } else { None }
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

    /// Lets `ear` hear all samples that are transcribed, 16 kHz mono, on the thread that reads them; in pieces of any size.
    pub fn heard_by(self, ear: impl FnMut(&[f32]) + Send + 'static) -> Self {
        Self { ear: Some(Box::new(ear)), ..self }
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
            Audio::Pieces(_) | Audio::Microphone(_) => None,
        }
    }

    /// Pushes all of it into a session, and tells what is damaged or worth a line, and what comes in live. Ends early, without an error,
    /// where the session does: its last event says why.
    pub(crate) fn feed(self, session: &AudioIn, tell: &mut dyn FnMut(Told)) -> Result<(), Error> {
        let mut feed = Feed { session, tell, live: self.live, ear: self.ear, samples: 0, waiting_s: 0.0 };
        match self.audio {
            Audio::Decoded(source) => feed.decoded(*source)?,
            Audio::Samples(samples) => drop(feed.push(&samples)),
            Audio::Pieces(mut pieces) => drop(pieces.all(|piece| feed.push(&piece))),
            Audio::Microphone(microphone) => feed.microphone(microphone)?,
        }
        Ok(())
    }
}

/// The way of the samples into a session.
pub(crate) struct Feed<'a> {
    session: &'a AudioIn,
    pub(crate) tell: &'a mut dyn FnMut(Told),
    live: bool,
    ear: Option<Ear>,
    pub(crate) samples: u64,
    /// Seconds that came in and wait behind those that are pushed.
    pub(crate) waiting_s: f64,
}

impl Feed<'_> {
    /// Whether the session takes more.
    pub(crate) fn push(&mut self, samples: &[f32]) -> bool {
        if let Some(ear) = &mut self.ear {
            ear(samples);
        }
        let more = self.session.push_samples(samples).is_ok();
        self.samples += samples.len() as u64;
        if self.live {
            let power = samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len().max(1) as f32;
            let audio_s = self.samples as f64 / f64::from(SAMPLE_RATE) + self.waiting_s;
            (self.tell)(Told::Audio(audio_s, 10.0 * power.log10()));
        }
        more
    }

    fn decoded(&mut self, mut source: AudioSource) -> Result<(), AudioError> {
        loop {
            let block = source.next_block();
            let more = matches!(&block, Ok(Some(block)) if self.push(block));
            let end = block.map(drop);
            source.take_notices().into_iter().map(Told::Notice).for_each(&mut *self.tell);
            source.take_damage().into_iter().map(Told::Damage).for_each(&mut *self.tell);
            if !more {
                return end;
            }
        }
    }
}

/// A recording.
impl From<AudioSource> for Source {
    fn from(source: AudioSource) -> Self {
        Self { audio: Audio::Decoded(Box::new(source)), live: false, ear: None, opened: Instant::now() }
    }
}
