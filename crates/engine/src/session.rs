//! A session as its owner sees it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use voxtral_model::Delay;
use voxtral_transcript::Event;

use crate::port::{EventQueue, Port, Wait};
use crate::{Decoding, EngineError};

/// How to transcribe.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// How long after a word it is written; the model's own default if none.
    pub delay: Option<Delay>,
    /// How tokens are found.
    pub decoding: Decoding,
    /// End the session at the model's end-of-sequence token, instead of where the audio ends.
    pub stop_at_eos: bool,
    /// Whether the audio comes as it is spoken. Live sessions go before others: recordings take what time they leave.
    pub live: bool,
    /// Tokens of audio (80 ms each) that the encoder waits for: 1 for the least latency, many for the least work; more than one call of
    /// the backend takes counts as that many. The result is the same.
    pub interval: usize,
    /// Tell what the model nearly wrote: the two most probable other texts of a token whose probability is at least so near to that of the
    /// one written. 0 is as probable, 0.5 half as probable, 1 all. Asking costs a little time.
    pub alternatives: Option<f32>,
    /// Tell when speech has paused for so long, with [`Event::Endpoint`]. The model hears the pauses all the same.
    pub endpoint: Option<Duration>,
    /// How many samples there will be, if that is known, else [`EngineOptions::expected`](crate::EngineOptions::expected): memory for
    /// so many is promised. If there are more after all, the session goes on as long as there is memory.
    pub samples: Option<u64>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            delay: None,
            decoding: Decoding::Auto,
            stop_at_eos: false,
            live: true,
            interval: 1,
            alternatives: None,
            endpoint: None,
            samples: None,
        }
    }
}

/// One input and what comes of it.
///
/// Dropping it ends the session where it is and frees its memory.
pub struct Session {
    input: AudioIn,
    output: Events,
}

impl Session {
    pub(crate) fn new(port: Arc<Port>) -> Self {
        let input = AudioIn { port: Arc::clone(&port) };
        Self { input, output: Events { port, early: EventQueue::new(), over: false } }
    }

    /// As [`AudioIn::push_samples`]; events that come while it waits are kept for the reader, who is the same.
    ///
    /// # Errors
    /// When the session has ended; its last event says why.
    pub fn push_samples(&mut self, mut samples: &[f32]) -> Result<(), EngineError> {
        while !samples.is_empty() {
            let taken = self.input.port.push(samples, Some(&mut self.output.early), Wait::Forever)?;
            samples = &samples[taken..];
        }
        Ok(())
    }

    /// As [`AudioIn::flush`].
    ///
    /// # Errors
    /// When the session has ended; its last event says why.
    pub fn flush(&mut self) -> Result<(), EngineError> {
        self.input.flush()
    }

    /// Ends the audio. What was heard is transcribed to its end.
    pub fn finish(&mut self) {
        self.input.port.finish();
    }

    /// Waits for the next event; `None` when there are no more. The last one is [`Event::Done`] or an error.
    pub fn next_event(&mut self) -> Option<Result<Event, EngineError>> {
        self.output.next()
    }

    /// Parts the session, for a thread that pushes and one that reads. Both halves must be in use: a session whose events nobody
    /// reads pauses.
    pub fn split(self) -> (AudioIn, Events) {
        (self.input, self.output)
    }
}

/// The half of a session that takes audio: 16 kHz mono, in pieces of any size. It becomes log-mel frames on the thread that pushes. Ten
/// seconds of them, or what the encoder takes in two calls where that is more, wait for the engine; what comes beyond that has to wait,
/// and the functions differ in how.
///
/// Dropping it ends the audio, as [`AudioIn::finish`] does.
pub struct AudioIn {
    port: Arc<Port>,
}

impl AudioIn {
    /// Adds audio. Waits while the queue is full.
    ///
    /// # Errors
    /// When the session has ended, or its reader is gone.
    pub fn push_samples(&self, mut samples: &[f32]) -> Result<(), EngineError> {
        while !samples.is_empty() {
            samples = &samples[self.port.push(samples, None, Wait::Forever)?..];
        }
        Ok(())
    }

    /// Adds what audio there is room for within `timeout`, which may be zero. Returns the number of samples taken.
    ///
    /// # Errors
    /// When the session has ended, or its reader is gone.
    pub fn push_timeout(&self, samples: &[f32], timeout: Duration) -> Result<usize, EngineError> {
        let deadline = Instant::now() + timeout;
        let mut taken = 0;
        while taken < samples.len() {
            match self.port.push(&samples[taken..], None, Wait::Until(deadline))? {
                0 => break,
                more => taken += more,
            }
        }
        Ok(taken)
    }

    /// Adds what audio there is room for, for callers that must not wait: where there is no room for any, the task is woken when there is.
    /// Ready with the number of samples taken, which may be fewer than all.
    ///
    /// # Errors
    /// When the session has ended, or its reader is gone.
    pub fn poll_push(&self, context: &mut Context<'_>, samples: &[f32]) -> Poll<Result<usize, EngineError>> {
        match self.port.push(samples, None, Wait::Poll(context)) {
            Ok(0) if !samples.is_empty() => Poll::Pending,
            taken => Poll::Ready(taken),
        }
    }

    /// Brings out all that was said so far, without ending the session: words that the model would write only with the audio to come are
    /// written as if there were none. [`Event::Flushed`] follows them. Audio that is pushed afterwards goes on where the audio before
    /// the flush has ended, in text and times.
    ///
    /// # Errors
    /// When the session has ended, or its reader is gone.
    pub fn flush(&self) -> Result<(), EngineError> {
        self.port.flush()
    }

    /// Ends the audio.
    pub fn finish(self) {}

    /// A handle that ends the audio from elsewhere, as an interrupt does while this half waits for more.
    pub fn stopper(&self) -> Stopper {
        Stopper { port: Arc::clone(&self.port) }
    }
}

impl Drop for AudioIn {
    fn drop(&mut self) {
        self.port.finish();
    }
}

/// Ends a session's audio from anywhere. What was pushed is transcribed; pushing more fails with [`EngineError::Ended`].
pub struct Stopper {
    port: Arc<Port>,
}

impl Stopper {
    /// Ends the audio.
    pub fn stop(&self) {
        self.port.finish();
    }
}

/// The half of a session that gives events. As an iterator it waits for each. The last one is [`Event::Done`] or an error.
///
/// Dropping it ends the session.
pub struct Events {
    port: Arc<Port>,
    /// Events that came while a push was waiting.
    early: EventQueue,
    over: bool,
}

impl Events {
    /// Waits for the next event, but no longer than `timeout`, which may be zero: pending when none has come, `None` when there are no
    /// more.
    pub fn next_timeout(&mut self, timeout: Duration) -> Poll<Option<Result<Event, EngineError>>> {
        self.next_within(Wait::Until(Instant::now() + timeout))
    }

    /// The next event, for callers that must not wait: where there is none, the task is woken when there is.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, EngineError>>> {
        self.next_within(Wait::Poll(context))
    }

    fn next_within(&mut self, wait: Wait<'_, '_>) -> Poll<Option<Result<Event, EngineError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let event = self.early.pop_front().map_or_else(|| self.port.next_event(wait), Poll::Ready);
        self.over = matches!(event, Poll::Ready(Ok(Event::Done(_)) | Err(_)));
        event.map(Some)
    }
}

impl Iterator for Events {
    type Item = Result<Event, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_within(Wait::Forever) {
            Poll::Ready(event) => event,
            // It waits for ever.
            Poll::Pending => None,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.port.abandon();
    }
}
