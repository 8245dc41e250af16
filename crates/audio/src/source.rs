//! The one thing a program needs: audio from anywhere, as 16 kHz mono, everything in its place in time.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::codec::Samples;
use crate::damage::{Damage, DamageLog, Notice};
use crate::decode::{Piece, Reader};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::mix::Mixer;
use crate::options::AudioOptions;
use crate::packet::Span;
use crate::pcm::RawFormat;
use crate::suspect::Suspect;
use crate::timeline::{Gap, Timeline};

/// A shorter gap that nothing explains is a matter of rounding, and is not told.
const TOLD_GAP_S: f64 = 0.02;

/// After less than this a track has not begun.
const BEGUN_S: f64 = 0.15;

/// 16 kHz mono samples of a file or a stream, block by block.
///
/// What is damaged costs nothing but itself: silence stands in for it, and [`take_damage`](Self::take_damage) tells of it.
/// Dropping the source ends what it started; a thread that waits for a pipe ends when the pipe gives something or ends.
pub struct AudioSource {
    reader: Reader,
    suspect: Suspect,
    mixer: Mixer,
    timeline: Timeline,
    log: DamageLog,
    notices: Vec<Notice>,
    samples: Samples,
    block: Vec<f32>,
    missing: Option<Missing>,
    /// Seconds that are missing before the next samples, where those have no time of their own. Nothing follows an end, so
    /// silence for what is cut off is not made.
    owed_s: f64,
    /// Samples whose time leaps, until those that follow confirm it: a time may be damaged too.
    held: Option<Held>,
    /// Some packet could not be decoded.
    bad_packets: bool,
    /// Why the audio ends, until it is told.
    failure: Option<Error>,
    /// `block` was read on opening, as only the decoder knows rate and channels for certain, and has not been handed out.
    primed: bool,
    ended: bool,
}

/// Why time that is passed over next is missing.
enum Missing {
    Why(String),
    /// That was told when it was noticed, up to there, in seconds.
    Told {
        until_s: f64,
    },
}

struct Held {
    span: Span,
    rate: u32,
    mono: Vec<f32>,
}

impl AudioSource {
    /// Opens a file in any known format, told by its content; its name does not matter. A pipe or device by name is read
    /// as it comes.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened; [`Error::Empty`], [`Error::UnknownFormat`] and others for what is in it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &AudioOptions::default())
    }

    /// As [`open`](Self::open), with a choice of track, channel and second decoder.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::NoSuchTrack`], [`Error::NoSuchChannel`].
    pub fn open_with(path: impl AsRef<Path>, options: &AudioOptions) -> Result<Self> {
        Self::new(Reader::open(Input::open(path.as_ref())?, options)?, options)
    }

    /// Reads a stream that cannot go back, standard input for one: any known format, told by its content, or else `raw`
    /// samples, or else an error.
    ///
    /// Samples are handed out as they arrive. MP4 and CAF that have their index at the end are kept in a temporary file,
    /// of 2 GB at most, and handed out when they are whole.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::TooLongToKeep`].
    pub fn from_reader(reader: impl Read + Send + 'static, raw: Option<RawFormat>) -> Result<Self> {
        Self::from_reader_with(reader, &AudioOptions { raw, ..AudioOptions::default() })
    }

    /// As [`from_reader`](Self::from_reader), with a choice of track, channel and second decoder.
    ///
    /// # Errors
    /// As [`from_reader`](Self::from_reader), and [`Error::NoSuchTrack`], [`Error::NoSuchChannel`].
    pub fn from_reader_with(reader: impl Read + Send + 'static, options: &AudioOptions) -> Result<Self> {
        Self::new(Reader::open(Input::stream(reader)?, options)?, options)
    }

    /// Reads raw samples, whatever they look like.
    ///
    /// # Errors
    /// [`Error::Rate`] and [`Error::Channels`] for a format that cannot be.
    pub fn raw(reader: impl Read + Send + 'static, raw: RawFormat) -> Result<Self> {
        let options = AudioOptions { raw: Some(raw), ..AudioOptions::default() };
        Self::new(Reader::raw(Input::stream(reader)?, &options)?, &options)
    }

    fn new(reader: Reader, options: &AudioOptions) -> Result<Self> {
        let source = Self::begin(reader, options)?;
        if source.mixer.samples() > 0 {
            return Ok(source);
        }
        if !source.bad_packets {
            return Err(Error::NoSamples);
        }
        let source = Self::begin(source.reader.or_through_ffmpeg(options)?, options)?;
        if source.mixer.samples() > 0 { Ok(source) } else { Err(Error::NoSamples) }
    }

    /// Reads up to the first samples.
    fn begin(reader: Reader, options: &AudioOptions) -> Result<Self> {
        let mut source = Self {
            reader,
            suspect: Suspect::default(),
            mixer: Mixer::new(options.channel),
            timeline: Timeline::new(),
            log: DamageLog::default(),
            notices: Vec::new(),
            samples: Samples::default(),
            block: Vec::new(),
            missing: None,
            owed_s: 0.0,
            held: None,
            bad_packets: false,
            failure: None,
            primed: false,
            ended: false,
        };
        source.read_block();
        if source.block.is_empty()
            && let Some(error) = source.failure.take()
        {
            return Err(error);
        }
        source.primed = !source.block.is_empty();
        Ok(source)
    }

    /// Samples a second before resampling, of what was read last.
    pub fn sample_rate(&self) -> u32 {
        self.samples.rate
    }

    /// Channels before they are mixed to one, of what was read last.
    pub fn channels(&self) -> usize {
        self.samples.channels
    }

    /// How long the audio is, where a header says so. It may lie.
    pub fn duration(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.reader.seconds()?).ok()
    }

    /// Damage that is over, and was not taken before. After the last block it is all there is.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        self.log.take()
    }

    /// What is worth a line and was not taken before. Some of it is known only after the last block.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.notices.extend(self.reader.take_notices());
        std::mem::take(&mut self.notices)
    }

    /// The next samples at 16 kHz, never none of them; `None` at the end. A live stream is waited for.
    ///
    /// # Errors
    /// [`Error::Io`] where reading fails, when all that could be read before has been handed out, and
    /// [`Error::NotFinite`] at the end of samples of which none is a number. `None` from then on.
    pub fn next_block(&mut self) -> Result<Option<&[f32]>> {
        if !std::mem::take(&mut self.primed) {
            self.read_block();
        }
        if !self.block.is_empty() {
            return Ok(Some(&self.block));
        }
        self.failure.take().map_or(Ok(None), Err)
    }

    /// Steps until there are samples, or no more. What is wrong is told when all before it has been handed out.
    fn read_block(&mut self) {
        self.block.clear();
        while self.block.is_empty() {
            self.timeline.pending(&mut self.block);
            if !self.block.is_empty() || self.ended {
                return;
            }
            if let Err(error) = self.step() {
                self.timeline.finish(&mut self.block);
                self.log.close();
                self.ended = true;
                self.failure = Some(error);
            }
        }
    }

    /// The way of the samples: bytes to packets to samples, of all channels to one, to their place in time and 16 kHz.
    fn step(&mut self) -> Result<()> {
        match self.suspect.next(&mut self.reader, &mut self.samples)? {
            Piece::Samples(span) => self.take_samples(span)?,
            Piece::BadPacket(span, seconds) => self.lose_packet(span, seconds),
            Piece::Lost { seconds, what } => {
                if let Some(held) = self.held.take() {
                    self.release(held, None)?;
                }
                self.reader.forget();
                if seconds > 0.0 {
                    self.lose(seconds, &what);
                } else {
                    self.missing.get_or_insert(Missing::Why(what));
                }
            }
            Piece::End => self.end()?,
        }
        self.log.now(self.timeline.now());
        Ok(())
    }

    /// Mixes the samples of a packet and puts them into their place, or holds them where their time leaps.
    fn take_samples(&mut self, span: Span) -> Result<()> {
        let Samples { interleaved, rate, channels } = &self.samples;
        let rate = *rate;
        match self.mixer.mix(interleaved, *channels) {
            // Where the channels change, one that was there may end.
            Err(Error::NoSuchChannel { .. }) if self.mixer.samples() > 0 => {
                let seconds = self.samples.seconds();
                self.lose(seconds, "what follows has no such channel");
                return Ok(());
            }
            mixed => mixed?,
        }
        let owed_s = std::mem::take(&mut self.owed_s);
        if span.start.is_none() {
            self.timeline.fill(owed_s, &mut self.block);
        }
        if let Some(held) = self.held.take() {
            self.release(held, Some(&span))?;
        } else if self.timeline.leaps(&span) {
            self.held = Some(Held { span, rate, mono: self.mixer.mixed().to_vec() });
            return Ok(());
        }
        self.place(span, rate)
    }

    /// Puts what was mixed last into its place.
    fn place(&mut self, span: Span, rate: u32) -> Result<()> {
        let before_s = self.timeline.now();
        let gap = self.timeline.place(span, rate, self.mixer.mixed(), &mut self.block)?;
        self.tell(gap, before_s);
        Ok(())
    }

    /// Puts samples whose time leaps into their place, if what follows them agrees with it, else behind those before.
    fn release(&mut self, held: Held, next: Option<&Span>) -> Result<()> {
        let confirmed = next.and_then(|next| next.start).zip(held.span.start).is_none_or(|(next, start)| {
            // Within a second of where they end.
            let end = start + held.mono.len() as f64 / f64::from(held.rate);
            next >= start && next <= end + 1.0
        });
        let before_s = self.timeline.now();
        let span = if confirmed { held.span } else { Span::NEXT };
        let gap = self.timeline.place(span, held.rate, &held.mono, &mut self.block)?;
        self.tell(gap, before_s);
        if !confirmed {
            self.log.add(before_s, 0.0, "a time that cannot be");
        }
        Ok(())
    }

    /// Tells of a gap, if it is damage.
    fn tell(&mut self, gap: Gap, before_s: f64) {
        let missing = self.missing.take();
        match (gap, missing) {
            (Gap::Filled(seconds), Some(Missing::Told { until_s })) => {
                let more_s = before_s + seconds - until_s;
                if more_s >= TOLD_GAP_S && !self.reader.may_leave_out() {
                    self.log.add(until_s, more_s, "there are no packets");
                }
            }
            (_, Some(Missing::Told { .. })) => {}
            (Gap::Filled(seconds), Some(Missing::Why(what))) => self.log.add(before_s, seconds, &what),
            (Gap::None, Some(Missing::Why(what))) => self.log.add(before_s, 0.0, &what),
            // A track may begin late, also behind a packet of what encoders put first.
            (Gap::Filled(seconds), None)
                if before_s > BEGUN_S && seconds >= TOLD_GAP_S && !self.reader.may_leave_out() =>
            {
                self.log.add(before_s, seconds, "there are no packets");
            }
            (Gap::Filled(_) | Gap::None, None) => {}
            (Gap::NotBelieved, _) => self.log.add(before_s, 0.0, "a time that cannot be"),
        }
    }

    /// A packet that cannot be decoded is silence of its length. Before the first that can, it is what a stream begins with
    /// that was joined in its middle.
    fn lose_packet(&mut self, span: Span, seconds: f64) {
        self.bad_packets = true;
        if self.mixer.samples() == 0 && span.start.is_none() {
            return;
        }
        const WHAT: &str = "a packet that cannot be decoded";
        match span.start {
            None => self.lose(seconds, WHAT),
            // The next packet shows how long it was.
            Some(start) => {
                let at_s = start.max(self.timeline.now());
                self.log.add(at_s, seconds, WHAT);
                if !matches!(self.missing, Some(Missing::Why(_))) {
                    self.missing = Some(Missing::Told { until_s: at_s + seconds });
                }
            }
        }
    }

    /// So many seconds are missing before what follows.
    fn lose(&mut self, seconds: f64, what: &str) {
        self.log.add(self.timeline.now() + self.owed_s, seconds, what);
        self.owed_s += seconds;
    }

    fn end(&mut self) -> Result<()> {
        if let Some(held) = self.held.take() {
            self.release(held, None)?;
        }
        self.timeline.finish(&mut self.block);
        self.ended = true;
        if let Some(Missing::Why(what)) = self.missing.take() {
            self.log.add(self.timeline.now(), 0.0, &what);
        }
        if self.log.count() == 0 && self.reader.is_changed() {
            self.log.add(0.0, 0.0, "the checksum of the decoded audio is not the one in the header");
        }
        self.log.close();
        self.notices.extend(self.mixer.notices());
        let samples = self.mixer.samples();
        if samples > 0 && samples == self.mixer.not_finite() { Err(Error::NotFinite { samples }) } else { Ok(()) }
    }
}
