//! How many live streams a device keeps up with: so many, each in real time, and how late their tokens are.
//!
//! ```text
//! one recording, repeated without end ─┬─ stream 0: 80 ms every 80 ms ─ session ─ its reader: when did each token come?
//!                                      ├─ stream 1, a little later    ─ session ─ …
//!                                      └─ files beside them, as fast as they go
//! ```
//! Streams first hear some minutes as fast as possible, so that they are as large as streams that have gone on for so long.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use voxtral::{AudioIn, Event, Events, Options, SessionOptions, Voxtral};
use voxtral_model::TOKEN_MS;

use super::measure::{ms, pass_bytes, schedule, settings};
use super::report::{Capacity, Files, Measured, Memory, Percentiles, Settings, decimals};
use super::timeline::Timeline;
use crate::args::{Bench, Setup};
use crate::machine;
use crate::open;
use crate::recording::Recording;

/// How much live audio is pushed at a time.
const STEP: Duration = Duration::from_millis(TOKEN_MS as u64);
/// Pieces that a stream is pushed before it is the next one's turn, while context is built up: about a second.
const TURN: usize = 12;
/// Most threads that push: it is little work, which is to be done on time.
const PUSHERS: usize = 4;

/// Measures one backend with so many live sessions, with each recording.
pub(super) fn backend(
    setup: &Setup,
    args: &Bench,
    sessions: usize,
    recordings: &[Recording],
) -> anyhow::Result<(Settings, Measured)> {
    machine::forget_peak_rss();
    let start = Instant::now();
    let voxtral = open::to_measure(setup, |backend| backend)?;
    let load = start.elapsed();
    let start = Instant::now();
    voxtral.engine().prewarm(&[voxtral.delay()])?;
    let warm_start = start.elapsed();
    let capacity = recordings.iter().map(|recording| measure(&voxtral, args, sessions, recording));
    let capacity = capacity.collect::<Result<_, _>>()?;
    let info = voxtral.info();
    let measured = Measured {
        load_ms: ms(load),
        warm_start_ms: ms(warm_start),
        peak_rss_mb: decimals(voxtral::peak_rss_bytes() as f64 / 1e6),
        device_mb: decimals(voxtral.engine().peak_device_bytes() as f64 / 1e6),
        memory: Memory {
            pass_mb: decimals(pass_bytes(voxtral.model(), info.backend) / 1e6),
            rate_gb_s: None,
            rate_before_gb_s: None,
        },
        backend: info.backend.to_owned(),
        device: info.device,
        recordings: Vec::new(),
        capacity,
    };
    Ok((Settings { warm_up_runs: 0, runs: 1, ..settings(setup, args, &voxtral) }, measured))
}

/// Measures an engine with so many live sessions.
fn measure(voxtral: &Voxtral, args: &Bench, sessions: usize, recording: &Recording) -> anyhow::Result<Capacity> {
    anyhow::ensure!(!recording.samples.is_empty(), "{}: there is no audio to repeat", recording.name);
    let pieces = |seconds: f64| (seconds / STEP.as_secs_f64()).ceil() as usize;
    let (before, measured) = (pieces(args.minutes * 60.0), pieces(f64::from(args.seconds)));
    let timeline = Timeline::new(schedule(voxtral), &voxtral.model().config.audio);
    let wanted = timeline.tokens(before)..timeline.tokens(before + measured);

    // Each is promised memory for all that it will hear.
    let expected = STEP * (before + measured) as u32;
    let options = Options { expected: Some(expected), ..Options::default() };
    let (mut streams, mut events) = (Vec::new(), Vec::new());
    for number in 0..sessions {
        let (audio, of_it) = voxtral.session(&options)?.split();
        streams.push(Stream::new(number, sessions, audio, recording));
        events.push(of_it);
    }
    let phases: Vec<Duration> = streams.iter().map(|stream| stream.phase).collect();
    let (window, read) = thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let readers: Vec<_> = events
            .into_iter()
            .map(|events| {
                let (wanted, tell) = (wanted.clone(), tell.clone());
                machine::start(scope, move || read(events, wanted, &tell))
            })
            .collect::<anyhow::Result<_>>()?;
        push(&mut streams, |own| build_up(own, before))?;
        let all_caught_up = told.iter().take(sessions).all(|caught_up| caught_up);
        let window = all_caught_up.then(|| Window::measure(voxtral, args.beside, recording, &mut streams, measured));
        // That ends their audio.
        drop(streams);
        let join = |(number, reader): (usize, thread::ScopedJoinHandle<'_, anyhow::Result<Came>>)| {
            let came = reader.join().unwrap_or_else(|_| Err(anyhow::anyhow!("transcribing broke off")));
            came.with_context(|| format!("session {number} of {sessions}"))
        };
        anyhow::Ok((window, readers.into_iter().enumerate().map(join).collect::<anyhow::Result<Vec<Came>>>()))
    })?;
    let came = read?;
    let window = window.context("a session ended before it was measured")??;

    let due = |phase: Duration, token: usize| window.start + phase + STEP * (timeline.piece(token) - before) as u32;
    let late = came.iter().zip(&phases).flat_map(|(came, &phase)| {
        let tokens = came.times.iter().zip(wanted.clone());
        // Before it is due nothing can come.
        tokens.map(move |(time, token)| ms(time.saturating_duration_since(due(phase, token))))
    });
    let late: Vec<f64> = late.collect();
    let all = timeline.all_tokens(before + measured);
    Ok(Capacity {
        audio: recording.name.clone(),
        sessions: sessions as u64,
        minutes: args.minutes,
        seconds: decimals(window.time.as_secs_f64()),
        expected_s: decimals(expected.as_secs_f64()),
        tokens: late.len() as u64,
        tokens_lost: came.iter().map(|came| all.abs_diff(came.tokens) as u64).sum(),
        late_ms: Percentiles::of(late),
        device_start_mb: decimals(window.device_bytes[0] as f64 / 1e6),
        device_end_mb: decimals(window.device_bytes[1] as f64 / 1e6),
        // A call that was under way at the start counts whole.
        busy: decimals((window.busy.as_secs_f64() / window.time.as_secs_f64()).min(1.0)),
        files: window.files,
    })
}

/// One live stream, as who speaks sees it.
struct Stream {
    audio: AudioIn,
    /// How long after the first stream's its pieces are due.
    phase: Duration,
    sound: Repeated,
}

impl Stream {
    /// Number `number` of `sessions`: they are due one after the other, and begin at different places of the recording.
    fn new(number: usize, sessions: usize, audio: AudioIn, recording: &Recording) -> Self {
        let at = recording.samples.len() * number / sessions;
        Self { audio, phase: STEP * number as u32 / sessions as u32, sound: Repeated::new(recording, at) }
    }

    /// Where the session has ended, its last event says why.
    fn push(&mut self, pieces: usize) {
        let _ = self.audio.push_samples(self.sound.next(pieces));
    }
}

/// A recording without an end.
struct Repeated {
    samples: Arc<[f32]>,
    at: usize,
    next: Vec<f32>,
}

impl Repeated {
    fn new(recording: &Recording, at: usize) -> Self {
        Self { samples: Arc::clone(&recording.samples), at, next: Vec::new() }
    }

    /// The next pieces.
    fn next(&mut self, pieces: usize) -> &[f32] {
        let mut missing = pieces * voxtral::SAMPLE_RATE as usize * TOKEN_MS as usize / 1000;
        self.next.clear();
        while missing > 0 {
            let there = &self.samples[self.at..];
            let taken = there.len().min(missing);
            self.next.extend_from_slice(&there[..taken]);
            self.at = (self.at + taken) % self.samples.len();
            missing -= taken;
        }
        &self.next
    }
}

/// Pushes into all streams from a few threads, each with streams of its own.
fn push(streams: &mut [Stream], work: impl Fn(&mut [Stream]) + Sync) -> anyhow::Result<()> {
    let share = streams.len().div_ceil(machine::threads().min(PUSHERS));
    thread::scope(|scope| streams.chunks_mut(share).try_for_each(|own| machine::start(scope, || work(own)).map(drop)))
}

/// As fast as possible.
fn build_up(streams: &mut [Stream], pieces: usize) {
    for done in (0..pieces).step_by(TURN) {
        streams.iter_mut().for_each(|stream| stream.push(TURN.min(pieces - done)));
    }
}

fn in_real_time(streams: &mut [Stream], start: Instant, pieces: usize) {
    for piece in 0..pieces as u32 {
        for stream in &mut *streams {
            let due = start + stream.phase + STEP * piece;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            stream.push(1);
        }
    }
}

/// What came of a session.
struct Came {
    tokens: usize,
    /// When the wanted ones did.
    times: Vec<Instant>,
}

/// Reads a session to its end. Tells when all tokens before the wanted ones have come, or that they never will.
fn read(events: Events, wanted: Range<usize>, tell: &mpsc::Sender<bool>) -> anyhow::Result<Came> {
    let mut came = Came { tokens: 0, times: Vec::with_capacity(wanted.len()) };
    let mut told = false;
    let mut tell_once = |caught_up| {
        if !std::mem::replace(&mut told, true) {
            // Nobody listens once somebody has failed.
            let _ = tell.send(caught_up);
        }
    };
    if wanted.start == 0 {
        tell_once(true);
    }
    for event in events {
        match event.inspect_err(|_| tell_once(false))? {
            Event::Token(_) => {
                if wanted.contains(&came.tokens) {
                    came.times.push(Instant::now());
                }
                came.tokens += 1;
                if came.tokens == wanted.start {
                    tell_once(true);
                }
            }
            Event::Text(_) | Event::Word(_) | Event::Alternatives(_) | Event::Endpoint { .. } => {}
            Event::Flushed { .. } | Event::Done(_) => {}
        }
    }
    tell_once(false);
    Ok(came)
}

/// The time in which all streams are live.
struct Window {
    start: Instant,
    time: Duration,
    /// At its start and its end.
    device_bytes: [u64; 2],
    /// Time that the backend worked.
    busy: Duration,
    files: Option<Files>,
}

impl Window {
    fn measure(
        voxtral: &Voxtral,
        files: u8,
        recording: &Recording,
        streams: &mut [Stream],
        pieces: usize,
    ) -> anyhow::Result<Self> {
        let (heard, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let work = || {
            let counters = voxtral.engine().counters();
            counters.encode + counters.decode
        };
        thread::scope(|scope| {
            let mut begin = || {
                for _ in 0..files {
                    let options = SessionOptions {
                        delay: Some(voxtral.delay()),
                        live: false,
                        interval: usize::MAX,
                        ..SessionOptions::default()
                    };
                    let (audio, events) = voxtral.engine().session(options)?.split();
                    let mut sound = Repeated::new(recording, 0);
                    machine::start(scope, move || while audio.push_samples(sound.next(TURN)).is_ok() {})?;
                    let (heard, over) = (&heard, &over);
                    machine::start(scope, move || count(events, heard, over))?;
                }
                let before = (voxtral.info().device_bytes, work(), heard.load(Ordering::Relaxed));
                let begun = Instant::now() + STEP;
                push(streams, |own| in_real_time(own, begun, pieces))?;
                let time = begun.elapsed();
                let after = (voxtral.info().device_bytes, work(), heard.load(Ordering::Relaxed));
                let heard_s = (after.2 - before.2) as f64 * STEP.as_secs_f64();
                let speed = decimals(heard_s / time.as_secs_f64());
                Ok(Self {
                    start: begun,
                    time,
                    device_bytes: [before.0, after.0],
                    busy: after.1 - before.1,
                    files: (files > 0).then_some(Files { count: files, audio_s_per_s: speed }),
                })
            };
            let window = begin();
            over.store(true, Ordering::Relaxed);
            window
        })
    }
}

/// Counts the tokens of a session until it is over: then it ends where it is.
fn count(events: Events, tokens: &AtomicU64, over: &AtomicBool) -> Result<(), voxtral::EngineError> {
    for event in events {
        if let Event::Token(_) = event? {
            tokens.fetch_add(1, Ordering::Relaxed);
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_repeated_without_a_gap() {
        let samples = (0..1000u16).map(f32::from).collect();
        let recording = Recording { name: "r".into(), samples, damage: Vec::new() };
        let mut repeated = Repeated::new(&recording, 990);
        let heard: Vec<f32> = [repeated.next(1).to_vec(), repeated.next(2).to_vec()].concat();
        assert_eq!(heard.len(), 3 * 1280);
        assert!(heard.iter().zip(990..).all(|(&sample, at)| sample == f32::from(at as u16 % 1000)));
    }
}
