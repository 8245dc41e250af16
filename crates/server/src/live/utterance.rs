//! What a client says, one utterance after the other, and what comes of it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use voxtral::{AudioIn, EngineError, Event, Events, Options, SAMPLE_RATE, Sink};

use super::audio::Intake;
use super::dialect::Fault;
use super::pads::Pads;
use crate::app::App;
use crate::error::ApiError;
use crate::keep::Kept;
use crate::requests::RequestId;

/// Samples that may wait for the engine. A client that has a recording sends it faster than it is transcribed.
pub(super) const MAX_SAMPLES: usize = 300 * SAMPLE_RATE as usize;

/// Steps that may wait.
const MAX_STEPS: usize = 4096;

/// Samples that are pushed at once. Meanwhile nothing is read.
const PIECE: usize = SAMPLE_RATE as usize;

/// The utterances of one connection. One runs at a time; the others wait, in a queue with a bound.
///
/// Dropping it ends them where they are and frees their memory.
pub(super) struct Utterances {
    app: Arc<App>,
    id: RequestId,
    /// Utterances that were begun.
    begun: usize,
    steps: VecDeque<Step>,
    /// Samples in all steps.
    waiting: usize,
    running: Option<Running>,
}

enum Step {
    Begin(Options),
    /// At most [`PIECE`] samples, however small or large the pieces are that a client sends, and when the first of them came.
    Audio(Vec<f32>, Instant),
    #[allow(dead_code, reason = "as `flush`")]
    Flush,
    End,
}

/// An utterance that has begun. Events are dropped first: the session then ends where it is.
struct Running {
    events: Events,
    /// None when its audio has ended.
    audio: Option<AudioIn>,
    arrivals: Arrivals,
    pads: Pads,
    kept: Option<Kept>,
}

/// When the newest audio came.
#[derive(Default)]
struct Arrivals {
    samples: u64,
    /// Samples up to the end of a piece, and when it came.
    pieces: VecDeque<(u64, Instant)>,
}

impl Arrivals {
    fn add(&mut self, samples: usize, came: Instant) {
        self.samples += samples as u64;
        self.pieces.push_back((self.samples, came));
        // A minute of pieces of 20 ms. Words that are later count as less late than they are.
        if self.pieces.len() > 3000 {
            self.pieces.pop_front();
        }
    }

    /// How long ago the audio came that ends at `end_s`. Those who ask later ask for later audio.
    fn since(&mut self, end_s: f64) -> Option<Duration> {
        while self.pieces.len() > 1 && (self.pieces[0].0 as f64) < end_s * f64::from(SAMPLE_RATE) {
            self.pieces.pop_front();
        }
        self.pieces.front().map(|(_, came)| came.elapsed())
    }
}

impl Utterances {
    /// None yet, of a request that is called so.
    pub(super) fn new(app: Arc<App>, id: RequestId) -> Self {
        Self { app, id, begun: 0, steps: VecDeque::new(), waiting: 0, running: None }
    }

    pub(super) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Begins an utterance, when those before have ended.
    ///
    /// # Errors
    /// When too many wait.
    pub(super) fn begin(&mut self, options: Options) -> Result<(), Fault> {
        if self.steps.len() >= MAX_STEPS {
            return Err(Fault::buffer_full());
        }
        self.steps.push_back(Step::Begin(options));
        Ok(())
    }

    /// Adds audio to the utterance that was begun last: 16 kHz.
    ///
    /// # Errors
    /// When there is no room for it. Nothing of it is taken then.
    pub(super) fn audio(&mut self, samples: &[f32]) -> Result<(), Fault> {
        self.check_room(samples.len())?;
        self.waiting += samples.len();
        for piece in samples.chunks(PIECE) {
            match self.steps.back_mut() {
                Some(Step::Audio(last, _)) if last.len() + piece.len() <= PIECE => last.extend_from_slice(piece),
                _ => self.steps.push_back(Step::Audio(piece.to_vec(), Instant::now())),
            }
        }
        Ok(())
    }

    /// Whether [`audio`](Self::audio) would take so many samples.
    ///
    /// # Errors
    /// When it would not.
    pub(super) fn check_room(&self, samples: usize) -> Result<(), Fault> {
        if self.waiting + samples > MAX_SAMPLES { Err(Fault::buffer_full()) } else { Ok(()) }
    }

    /// Brings out all that was said so far in the utterance that was begun last; [`Event::Flushed`] follows it.
    ///
    /// # Errors
    /// When too many wait.
    #[allow(dead_code, reason = "neither of the two protocols has it; Mistral's does")]
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        if self.steps.len() >= MAX_STEPS {
            return Err(Fault::buffer_full());
        }
        self.steps.push_back(Step::Flush);
        Ok(())
    }

    /// Ends the utterance that was begun last; [`Event::Done`] is its last event.
    pub(super) fn end(&mut self) {
        self.steps.push_back(Step::End);
    }

    /// Ends it as [`end`](Self::end) does, with the audio that `intake` still holds.
    ///
    /// # Errors
    /// When there is no room for that, or the audio ends in the middle of a sample. It has ended all the same.
    pub(super) fn end_of(&mut self, intake: &mut Intake) -> Result<(), Fault> {
        let (rest, whole) = intake.finish();
        let taken = self.audio(&rest);
        self.end();
        taken.and(whole)
    }

    /// Forgets the utterance that was begun last and has not ended.
    pub(super) fn abandon(&mut self) {
        match self.steps.iter().rposition(|step| matches!(step, Step::Begin(_))) {
            Some(begin) => self.steps.truncate(begin),
            None => {
                self.steps.clear();
                self.running.take().and_then(|running| running.kept).into_iter().for_each(Kept::forget);
            }
        }
        let samples = |step: &Step| if let Step::Audio(samples, _) = step { samples.len() } else { 0 };
        self.waiting = self.steps.iter().map(samples).sum();
    }

    /// Whether there is nothing to do until the client goes on.
    pub(super) fn wait_for_client(&self) -> bool {
        self.steps.is_empty() && self.running.as_ref().is_none_or(|running| running.audio.is_some())
    }

    /// Whether no utterance runs or waits.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.running.is_none()
    }

    /// Waits for the next event of the utterance that runs, and goes on with the steps meanwhile. The last event is [`Event::Done`] or an
    /// error. Nothing is lost if this is not awaited to its end.
    pub(super) async fn next(&mut self) -> Result<Event, ApiError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, ApiError>> {
        if let Err(error) = self.go_on(context) {
            return Poll::Ready(Err(error));
        }
        let Some(running) = &mut self.running else { return Poll::Pending };
        let event = ready!(running.events.poll_next(context)).unwrap_or(Err(EngineError::Stopped));
        let metrics = &self.app.metrics;
        if let (Ok(event), Some(kept)) = (&event, &mut running.kept) {
            keep(kept, event);
        }
        match &event {
            Ok(Event::Token(token)) => {
                let pad = self.app.voxtral.model().tokenizer.streaming_pad();
                running.pads.token(token.id == pad).into_iter().for_each(|run| metrics.pads(run));
            }
            Ok(Event::Flushed { .. }) => running.pads.flushed().into_iter().for_each(|run| metrics.pads(run)),
            Ok(Event::Word(word)) => {
                running.arrivals.since(word.end_s).into_iter().for_each(|late| metrics.word_lateness(late))
            }
            Ok(Event::Done(summary)) => {
                running.pads.flushed().into_iter().for_each(|run| metrics.pads(run));
                metrics.audio(summary.audio_s);
                summary.stats.first_text.into_iter().for_each(|after| metrics.first_word(after));
            }
            _ => {}
        }
        if matches!(event, Ok(Event::Done(_)) | Err(_)) {
            self.running = None;
        }
        Poll::Ready(event.map_err(ApiError::from))
    }

    /// Takes steps, as far as the engine has room; at most a second of audio, then the task is woken again.
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<(), ApiError> {
        while let Some(step) = self.steps.front_mut() {
            match (step, &mut self.running) {
                (Step::Begin(_), Some(_)) => break,
                (Step::Begin(options), None) => {
                    let session = self.app.voxtral.session(options).map_err(ApiError::from);
                    self.begun += 1;
                    let name = format!("{}-{}", self.id.0, self.begun);
                    let kept = session.as_ref().ok().and_then(|_| self.app.keep(&name, options));
                    let pads = Pads::new(options.delay.unwrap_or(self.app.voxtral.delay()));
                    self.steps.pop_front();
                    let (audio, events) = session?.split();
                    let (audio, arrivals) = (Some(audio), Arrivals::default());
                    self.running = Some(Running { events, audio, arrivals, pads, kept });
                }
                (Step::Audio(samples, came), Some(Running { audio: Some(audio), arrivals, pads, kept, .. })) => {
                    match audio.poll_push(context, samples) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(taken)) => {
                            arrivals.add(taken, *came);
                            pads.hear(&samples[..taken]);
                            kept.iter().for_each(|kept| kept.ear().hear(&samples[..taken]));
                            samples.drain(..taken);
                            if samples.is_empty() {
                                self.steps.pop_front();
                            }
                            self.waiting -= taken;
                            context.waker().wake_by_ref();
                            break;
                        }
                        // Its last event says why.
                        Poll::Ready(Err(_)) => self.pop(),
                    }
                }
                (Step::Flush, Some(Running { audio: Some(audio), .. })) => {
                    // Where the session has ended, its last event says why.
                    let _ = audio.flush();
                    self.pop();
                }
                (Step::End, Some(running)) => {
                    running.audio = None;
                    self.pop();
                }
                // Of an utterance that has failed.
                (Step::Audio(..) | Step::Flush | Step::End, _) => self.pop(),
            }
        }
        Ok(())
    }

    fn pop(&mut self) {
        if let Some(Step::Audio(samples, _)) = self.steps.pop_front() {
            self.waiting -= samples.len();
        }
    }
}

fn keep(kept: &mut Kept, event: &Event) {
    // Nothing is written before the end.
    let _ = match event {
        Event::Text(text) => kept.text(text),
        Event::Word(word) => kept.word(word),
        Event::Done(summary) => return kept.end(summary),
        _ => Ok(()),
    };
}
