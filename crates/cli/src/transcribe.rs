//! `voxtral FILE…`: every input through a session, every event to the output.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use voxtral_audio::SAMPLE_RATE;
use voxtral_engine::{Engine, EngineOptions, Event, Events, SessionOptions, SessionStats, Stopper, Summary};
use voxtral_model::Delay;
use voxtral_transcript::{Audio, Report};

use crate::args::{Format, Transcribe};
use crate::input::Input;
use crate::output::{Output, complain};
use crate::recording::{Heard, ms};
use crate::{backend, machine, model};

pub(crate) fn run(args: &Transcribe) -> anyhow::Result<()> {
    let inputs = Input::all(args);
    let mut output = Output::open(args.output.as_deref())?;
    let interrupt = Interrupt::install()?;

    // Nobody should wait for a model to hear that the recording is not there. Where there are several, the others are transcribed.
    if let [input] = &inputs[..] {
        input.try_to_open()?;
    }
    let start = Instant::now();
    let model = model::open(args.setup.model.as_deref(), args.silent)?;
    let delay = args.setup.delay.unwrap_or(model.tokenizer.default_delay());
    let engine = Engine::new(&model, backend::choose(&model, &args.setup, args.silent)?, EngineOptions::default())?;
    let job = Job { args, engine: &engine, model: &model.name, delay, interrupt: &interrupt };
    let mut load = start.elapsed();

    let mut failed = 0;
    std::thread::scope(|scope| {
        let (mut waiting, mut running) = (inputs.iter(), VecDeque::new());
        loop {
            while running.len() < usize::from(args.jobs) && !interrupt.is_set() {
                let Some(input) = waiting.next() else { break };
                let (text, written) = mpsc::channel();
                let (job, load) = (&job, std::mem::take(&mut load));
                running.push_back((input, written, scope.spawn(move || job.transcribe(input, load, &text))));
            }
            // The first is printed as it comes; what those behind it write waits for its turn.
            let Some((input, written, first)) = running.pop_front() else { return Ok(()) };
            let printed = written.into_iter().try_for_each(|text: String| output.write(&text));
            if let Err(error) = printed {
                // Nobody will see what the others would write.
                interrupt.stop_all();
                return Err(error);
            }
            // One file that cannot be read is no reason to leave out the others.
            let broke_off = || Err(anyhow::anyhow!("{}: transcribing broke off", input.name()));
            match first.join().unwrap_or_else(|_| broke_off()) {
                Err(error) if inputs.len() > 1 => {
                    complain(&error);
                    failed += 1;
                }
                result => result?,
            }
        }
    })?;
    if failed > 0 {
        let nothing = if args.output.is_some() { ", nothing was written" } else { "" };
        anyhow::bail!("{failed} of {} inputs failed{nothing}", inputs.len());
    }
    output.finish()
}

/// What all inputs have in common.
struct Job<'a> {
    args: &'a Transcribe,
    engine: &'a Engine,
    model: &'a str,
    delay: Delay,
    interrupt: &'a Interrupt,
}

impl Job<'_> {
    /// Transcribes one input and sends what is to be printed, as it comes.
    fn transcribe(&self, input: &Input, load: Duration, output: &Sender<String>) -> anyhow::Result<()> {
        let start = Instant::now();
        let source = input.open()?;
        let samples = source.duration().map(|duration| (duration.as_secs_f64() * f64::from(SAMPLE_RATE)).ceil() as u64);
        let options = SessionOptions {
            delay: Some(self.delay),
            decoding: self.args.setup.decoding(),
            stop_at_eos: self.args.stop_at_eos,
            live: input.is_live(),
            interval: if input.is_live() { self.args.interval.unwrap_or(1) } else { usize::MAX },
            samples: samples.filter(|_| !input.is_live()),
        };
        let (audio, events) = self.engine.session(options)?.split();
        let audible = self.interrupt.stops(audio.stopper());

        // A thread of its own, which an interrupt may leave behind where it waits for input that never comes.
        let feeding = input.clone();
        let (fed, feeder) = mpsc::channel();
        std::thread::spawn(move || {
            // The outcome is told, and its channel closed, before the audio ends: when the session has ended, it is known.
            let (audio, fed) = (audio, fed);
            // Nobody listens after an interrupt.
            let _ = fed.send(feeding.feed(source, &audio));
        });

        let heard = self.read(events, output).with_context(|| input.name());
        drop(audible);
        let failed = match feeder.try_recv() {
            Ok(outcome) => outcome.err(),
            // The session ended before its audio.
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(anyhow::anyhow!("{}: reading it broke off", input.name())),
        };
        let heard = heard?;
        tell(input, &heard.summary, start.elapsed());
        let last = match self.args.format {
            Format::Text if failed.is_some() && heard.summary.text.is_empty() => String::new(),
            Format::Text => "\n".to_owned(),
            Format::Json if failed.is_some() => String::new(),
            Format::Json => self.report(input, heard, load, start.elapsed())? + "\n",
        };
        // Where printing has failed, that is told by who prints.
        let _ = output.send(last);
        match failed {
            Some(error) => Err(error),
            None if self.interrupt.is_set() && !input.is_live() => {
                Err(anyhow::anyhow!("{}: interrupted", input.name()))
            }
            None => Ok(()),
        }
    }

    /// Follows a session to its end, sending text as it comes.
    fn read(&self, events: Events, output: &Sender<String>) -> anyhow::Result<Heard> {
        let as_text = self.args.format == Format::Text;
        let (mut tokens, mut words) = (Vec::new(), Vec::new());
        for event in events {
            match event? {
                Event::Text(text) if as_text => {
                    // As above.
                    let _ = output.send(text);
                }
                Event::Text(_) => {}
                Event::Token(token) if self.args.tokens => tokens.push(token),
                Event::Token(_) => {}
                Event::Word(word) if !as_text => words.push(word),
                Event::Word(_) => {}
                Event::Done(summary) => return Ok(Heard { summary, tokens, words }),
            }
        }
        anyhow::bail!("the engine ended without a result")
    }

    fn report(&self, input: &Input, heard: Heard, load: Duration, total: Duration) -> anyhow::Result<String> {
        let info = self.engine.info();
        let Heard { summary, tokens, words } = heard;
        let report = Report {
            model: self.model.to_owned(),
            backend: info.backend.to_owned(),
            device: info.device,
            audio: Audio { path: input.name(), duration_s: summary.audio_s },
            delay_ms: self.delay.ms(),
            text: summary.text,
            words,
            tokens: self.args.tokens.then_some(tokens),
            stats: voxtral_transcript::Stats {
                load_ms: ms(load),
                encode_ms: ms(summary.stats.encode),
                decode_ms: ms(summary.stats.decode),
                total_ms: ms(total),
                first_text_ms: summary.stats.first_text.map(ms),
                positions: summary.stats.positions as u64,
                passes: summary.stats.passes as u64,
                tokens_per_pass: summary.stats.tokens as f64 / summary.stats.passes.max(1) as f64,
                rtf: if summary.audio_s > 0.0 { total.as_secs_f64() / summary.audio_s } else { 0.0 },
                peak_rss_mb: machine::peak_rss_bytes() as f64 / 1e6,
                device_mb: self.engine.peak_device_bytes() as f64 / 1e6,
            },
        };
        report.to_json().context("the result cannot be written as JSON")
    }
}

/// For those who asked for more on standard error.
fn tell(input: &Input, summary: &Summary, total: Duration) {
    let SessionStats { positions, passes, certain, encode, decode, .. } = summary.stats;
    tracing::debug!(
        "{}: {:.2} s of audio in {:.2} s ({:.2} s encoding, {:.2} s decoding)",
        input.name(),
        summary.audio_s,
        total.as_secs_f64(),
        encode.as_secs_f64(),
        decode.as_secs_f64(),
    );
    let lengths = certain.iter().enumerate().filter(|(_, passes)| **passes > 0);
    let lengths: Vec<_> = lengths.map(|(i, passes)| format!("{}: {passes}", tokens_of(i))).collect();
    tracing::debug!(
        "{positions} positions in {passes} passes; passes by the tokens that they gave: {}",
        lengths.join(", ")
    );
}

/// The lengths that bucket `i` of [`Stats::certain`] counts.
fn tokens_of(i: usize) -> String {
    if i == 0 { "1".to_owned() } else { format!("{} to {}", 1 << i, (2 << i) - 1) }
}

/// Ctrl-C: the first ends the audio, so that what was heard is printed; the second, or one while no audio is heard, ends the
/// program.
struct Interrupt(Arc<Mutex<InterruptState>>);

#[derive(Default)]
struct InterruptState {
    set: bool,
    /// Sessions that hear audio, by the order in which they began.
    sessions: BTreeMap<u64, Stopper>,
    begun: u64,
}

impl InterruptState {
    fn stop_all(&mut self) {
        self.set = true;
        self.sessions.values().for_each(Stopper::stop);
    }
}

/// A session that an interrupt ends.
struct Audible<'a> {
    interrupt: &'a Interrupt,
    number: u64,
}

impl Drop for Audible<'_> {
    fn drop(&mut self) {
        self.interrupt.lock().sessions.remove(&self.number);
    }
}

impl Interrupt {
    fn install() -> anyhow::Result<Self> {
        let interrupt = Self(Arc::default());
        let seen = Self(Arc::clone(&interrupt.0));
        ctrlc::set_handler(move || {
            let mut state = seen.lock();
            if state.set || state.sessions.is_empty() {
                std::process::exit(130);
            }
            state.stop_all();
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(interrupt)
    }

    fn lock(&self) -> MutexGuard<'_, InterruptState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An interrupt ends this session's audio, as long as what is returned lives, even one that came already.
    fn stops(&self, session: Stopper) -> Audible<'_> {
        let mut state = self.lock();
        if state.set {
            session.stop();
        }
        state.begun += 1;
        let number = state.begun;
        state.sessions.insert(number, session);
        Audible { interrupt: self, number }
    }

    fn stop_all(&self) {
        self.lock().stop_all();
    }

    fn is_set(&self) -> bool {
        self.lock().set
    }
}
