//! One input from its first sample to its last word.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use voxtral_audio::{Damage, Notice, SAMPLE_RATE};
use voxtral_engine::{AudioIn, Decoding, EngineError, Event, Events, SessionOptions, Summary};
use voxtral_model::{Delay, TOKEN_MS};
use voxtral_transcript::render::{End, Sink};

use crate::memory::peak_rss_bytes;
use crate::{Error, Source, Stop, Voxtral};

/// How to transcribe one input.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How long after a word it is written; what the [`Config`](crate::Config) says if none.
    pub delay: Option<Delay>,
    /// How tokens are found; what the [`Config`](crate::Config) says if none.
    pub decoding: Option<Decoding>,
    /// End at the model's end-of-sequence token, instead of where the audio ends.
    pub stop_at_eos: bool,
    /// Tokens of live audio (80 ms each) that are encoded at once; 1 if none. More is less work, and later text.
    pub interval: Option<usize>,
    /// Tell what the model nearly wrote, as [`SessionOptions::alternatives`](crate::SessionOptions::alternatives) says.
    pub alternatives: Option<f32>,
    /// Tell when speech has paused for so long. The model hears the pauses all the same.
    pub endpoint: Option<Duration>,
    /// How long the audio is expected to be where nobody knows: memory for so much is promised. What the [`Config`](crate::Config)
    /// says if none.
    pub expected: Option<Duration>,
    /// What ends the audio from elsewhere.
    pub stop: Option<Stop>,
}

impl Voxtral {
    /// Transcribes all of `source`, and tells `sink` what happens as it happens. Any number of threads may do that at a time.
    ///
    /// A thread of its own reads the source, so that a [`Stop`] need not wait for more to come; where it does wait then, it is left
    /// behind until it gets some.
    ///
    /// # Errors
    /// Where reading the audio fails, what came before is transcribed first, [`Sink::end`] included. Where the engine fails
    /// or the sink does, the session ends there.
    pub fn transcribe(&self, source: Source, options: &Options, sink: &mut dyn Sink) -> Result<Summary, Error> {
        let opened = source.opened;
        let expected = source.expected();
        let session = self.session_options(source.is_live(), expected, options);
        let (audio, events) = self.engine.session(session)?.split();
        let covered = options.stop.as_ref().map(|stop| {
            let (stopper, control) = (audio.stopper(), source.control());
            stop.covers(move || control.as_ref().map_or_else(|| stopper.stop(), |control| control.stop()))
        });
        let mut reading = Reading::start(source, audio)?;
        let summary = follow(events, &mut reading, expected, sink)?;
        drop(covered);

        let why = reading.failed.as_ref().map(ToString::to_string);
        let end = End {
            summary: &summary,
            cut_short: why.as_deref(),
            total: opened.elapsed(),
            peak_rss_bytes: peak_rss_bytes(),
            peak_device_bytes: self.engine.peak_device_bytes(),
        };
        sink.end(&end).map_err(Error::Sink)?;
        reading.failed.map_or(Ok(summary), Err)
    }

    pub(crate) fn session_options(&self, live: bool, samples: Option<u64>, options: &Options) -> SessionOptions {
        SessionOptions {
            delay: Some(options.delay.unwrap_or(self.delay)),
            decoding: options.decoding.unwrap_or(self.decoding),
            stop_at_eos: options.stop_at_eos,
            live,
            interval: if live { options.interval.unwrap_or(1) } else { usize::MAX },
            alternatives: options.alternatives,
            endpoint: options.endpoint,
            samples: samples.or_else(|| Some((options.expected?.as_secs_f64() * f64::from(SAMPLE_RATE)) as u64)),
        }
    }
}

/// Follows a session to its end.
fn follow(events: Events, reading: &mut Reading, expected: Option<u64>, sink: &mut dyn Sink) -> Result<Summary, Error> {
    let total_s = expected.map(|samples| samples as f64 / f64::from(SAMPLE_RATE));
    let mut tokens = 0;
    for event in events {
        reading.listen(sink)?;
        let told = match event? {
            Event::Token(token) => {
                tokens += 1;
                // The last tokens are of the silence after the audio.
                let done_s = f64::from(tokens * TOKEN_MS) / 1e3;
                sink.token(&token).and_then(|()| sink.progress(done_s.min(total_s.unwrap_or(done_s)), total_s))
            }
            Event::Alternatives(alternatives) => sink.alternatives(&alternatives),
            Event::Text(text) => sink.text(&text),
            Event::Endpoint { at_s } => sink.endpoint(at_s),
            // Nobody asked for that.
            Event::Flushed { .. } => Ok(()),
            Event::Word(word) => sink.word(&word),
            Event::Done(summary) => return Ok(summary),
        };
        told.map_err(Error::Sink)?;
    }
    Err(EngineError::Stopped.into())
}

/// What is told of a source while it is read.
pub(crate) enum Told {
    Damage(Damage),
    Notice(Notice),
    /// Seconds of live audio that came in, and the level of the newest.
    Audio(f64, f32),
    /// It was read to its end, or why not. Nothing follows.
    Ended(Result<(), Error>),
}

/// A source that is being read, on a thread of its own.
struct Reading {
    told: Receiver<Told>,
    ended: bool,
    /// Why it was not read to its end.
    failed: Option<Error>,
}

impl Reading {
    fn start(source: Source, audio: AudioIn) -> Result<Self, Error> {
        let (tell, told) = mpsc::channel();
        let read = move || {
            // However this ends, all is told and the channel is closed before the audio ends: when the session has ended, it is known.
            let (audio, tell) = (audio, tell);
            // Where nobody listens any more, the transcription has ended.
            let outcome = source.feed(&audio, &mut |told| drop(tell.send(told)));
            let _ = tell.send(Told::Ended(outcome));
        };
        std::thread::Builder::new().name("voxtral-audio".into()).spawn(read).map_err(Error::Thread)?;
        Ok(Self { told, ended: false, failed: None })
    }

    /// Takes what has been told so far.
    fn listen(&mut self, sink: &mut dyn Sink) -> Result<(), Error> {
        while !self.ended {
            match self.told.try_recv() {
                Ok(Told::Damage(damage)) => sink.damage(&damage).map_err(Error::Sink)?,
                Ok(Told::Notice(notice)) => sink.notice(&notice).map_err(Error::Sink)?,
                Ok(Told::Audio(audio_s, level_db)) => sink.audio(audio_s, level_db).map_err(Error::Sink)?,
                Ok(Told::Ended(outcome)) => (self.ended, self.failed) = (true, outcome.err()),
                Err(TryRecvError::Disconnected) => (self.ended, self.failed) = (true, Some(Error::BrokeOff)),
                // The session may end before its audio.
                Err(TryRecvError::Empty) => break,
            }
        }
        Ok(())
    }
}
