//! `voxtral FILE…`: every input through a session, every event to the output.

use std::path::Path;
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use voxtral_engine::{Decoding, Engine, Event, Events, SessionOptions, Stopper, Summary};
use voxtral_model::{Delay, MAX_ENCODE_TOKENS, Model};
use voxtral_transcript::{Audio, Report, Stats, TokenRecord, Word};

use crate::args::{DecodeChoice, Format, Transcribe};
use crate::input::Input;
use crate::output::{Output, complain, say};
use crate::{backend, memory};

pub(crate) fn run(args: &Transcribe) -> anyhow::Result<()> {
    let inputs = Input::all(args);
    let mut output = Output::open(args.output.as_deref())?;
    let interrupt = Interrupt::install()?;

    let start = Instant::now();
    let model = open_model(args)?;
    let delay = args.delay.unwrap_or(model.tokenizer.default_delay());
    let engine = Engine::new(&model, backend::choose(&model, args)?)?;
    let job = Job { args, engine: &engine, model: &model.name, delay, interrupt: &interrupt };
    let mut load = start.elapsed();

    let mut failed = 0;
    for input in &inputs {
        match job.transcribe(input, load, &mut output) {
            Ok(()) => {}
            // One file that cannot be read is no reason to leave out the others; an output that cannot be written is.
            Err(Failure::Input(error)) if inputs.len() > 1 => {
                complain(&error);
                failed += 1;
            }
            Err(Failure::Input(error) | Failure::Output(error)) => return Err(error),
        }
        if interrupt.is_set() {
            break;
        }
        load = Duration::ZERO;
    }
    if failed > 0 {
        let nothing = if args.output.is_some() { ", nothing was written" } else { "" };
        anyhow::bail!("{failed} of {} inputs failed{nothing}", inputs.len());
    }
    output.finish()
}

fn open_model(args: &Transcribe) -> anyhow::Result<Model> {
    match args.model.as_deref() {
        Some(dir) if dir != Path::new("digits") => Ok(Model::open(dir)?),
        chosen => {
            if chosen.is_none() && !args.silent {
                say("using the built-in demo model, which knows spoken English digits only; for everything else get \
                     mistralai/Voxtral-Mini-4B-Realtime-2602 and name its folder with -d or VOXTRAL_MODEL");
            }
            Ok(Model::digits())
        }
    }
}

/// What went wrong, by what it means for the other inputs.
enum Failure {
    Input(anyhow::Error),
    Output(anyhow::Error),
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
    fn transcribe(&self, input: &Input, load: Duration, output: &mut Output) -> Result<(), Failure> {
        let start = Instant::now();
        let options = SessionOptions {
            delay: Some(self.delay),
            decoding: match self.args.decode {
                DecodeChoice::Sequential => Decoding::Sequential,
                DecodeChoice::Auto => Decoding::Auto,
                DecodeChoice::Parallel => Decoding::Parallel { lookahead: usize::from(self.args.lookahead) },
            },
            stop_at_eos: self.args.stop_at_eos,
            interval: if input.is_live() { self.args.interval.unwrap_or(1) } else { MAX_ENCODE_TOKENS },
            samples: None,
        };
        let source = input.open().map_err(Failure::Input)?;
        let session = self.engine.session(options).map_err(|e| Failure::Input(e.into()))?;
        let (audio, events) = session.split();
        self.interrupt.stops(Some(audio.stopper()));

        // A thread of its own, which an interrupt may leave behind where it waits for input that never comes.
        let feeding = input.clone();
        let (fed, feeder) = mpsc::channel();
        std::thread::spawn(move || {
            // The outcome is told, and its channel closed, before the audio ends: when the session has ended, it is known.
            let (audio, fed) = (audio, fed);
            // Nobody listens after an interrupt.
            let _ = fed.send(feeding.feed(source, &audio));
        });

        let heard = self.read(events, output).map_err(|failure| match failure {
            Failure::Input(error) => Failure::Input(error.context(input.name())),
            failure => failure,
        });
        self.interrupt.stops(None);
        let failed = match feeder.try_recv() {
            Ok(outcome) => outcome.err(),
            // The session ended before its audio.
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(anyhow::anyhow!("{}: reading it broke off", input.name())),
        };
        let heard = heard?;
        let result = match self.args.format {
            Format::Text if failed.is_some() && heard.summary.text.is_empty() => Ok(()),
            Format::Text => output.write("\n"),
            Format::Json if failed.is_some() => Ok(()),
            Format::Json => {
                self.report(input, heard, load, start.elapsed()).and_then(|json| output.write(&(json + "\n")))
            }
        };
        result.map_err(Failure::Output)?;
        match failed {
            Some(error) => Err(Failure::Input(error)),
            None if self.interrupt.is_set() && !input.is_live() => {
                Err(Failure::Input(anyhow::anyhow!("{}: interrupted", input.name())))
            }
            None => Ok(()),
        }
    }

    /// Follows a session to its end, printing text as it comes.
    fn read(&self, events: Events, output: &mut Output) -> Result<Heard, Failure> {
        let as_text = self.args.format == Format::Text;
        let (mut tokens, mut words) = (Vec::new(), Vec::new());
        for event in events {
            match event.map_err(|e| Failure::Input(e.into()))? {
                Event::Text(text) if as_text => output.write(&text).map_err(Failure::Output)?,
                Event::Text(_) => {}
                Event::Token { id, logprob } if self.args.tokens => tokens.push(TokenRecord { id, logprob }),
                Event::Token { .. } => {}
                Event::Word(word) if !as_text => words.push(word),
                Event::Word(_) => {}
                Event::Done(summary) => return Ok(Heard { summary, tokens, words }),
            }
        }
        Err(Failure::Input(anyhow::anyhow!("the engine ended without a result")))
    }

    fn report(&self, input: &Input, heard: Heard, load: Duration, total: Duration) -> anyhow::Result<String> {
        let info = self.engine.info();
        let Heard { summary, tokens, words } = heard;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let report = Report {
            model: self.model.to_owned(),
            backend: info.backend.to_owned(),
            device: info.device,
            audio: Audio { path: input.name(), duration_s: summary.audio_s },
            delay_ms: self.delay.ms(),
            text: summary.text,
            words,
            tokens: self.args.tokens.then_some(tokens),
            stats: Stats {
                load_ms: ms(load),
                encode_ms: ms(summary.stats.encode),
                decode_ms: ms(summary.stats.decode),
                total_ms: ms(total),
                first_text_ms: summary.stats.first_text.map(ms),
                positions: summary.stats.positions as u64,
                passes: summary.stats.passes as u64,
                rtf: if summary.audio_s > 0.0 { total.as_secs_f64() / summary.audio_s } else { 0.0 },
                peak_rss_mb: memory::peak_rss_bytes() as f64 / 1e6,
                device_mb: info.device_bytes as f64 / 1e6,
            },
        };
        report.to_json().context("the result cannot be written as JSON")
    }
}

/// What a session gave.
struct Heard {
    summary: Summary,
    tokens: Vec<TokenRecord>,
    words: Vec<Word>,
}

/// Ctrl-C: the first ends the audio, so that what was heard is printed; the second, or one while no audio is heard, ends the
/// program.
struct Interrupt(Arc<Mutex<InterruptState>>);

#[derive(Default)]
struct InterruptState {
    set: bool,
    session: Option<Stopper>,
}

impl Interrupt {
    fn install() -> anyhow::Result<Self> {
        let interrupt = Self(Arc::default());
        let seen = Self(Arc::clone(&interrupt.0));
        ctrlc::set_handler(move || {
            let mut state = seen.lock();
            match &state.session {
                Some(session) if !state.set => session.stop(),
                _ => std::process::exit(130),
            }
            state.set = true;
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(interrupt)
    }

    fn lock(&self) -> MutexGuard<'_, InterruptState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An interrupt from now on ends this session's audio.
    fn stops(&self, session: Option<Stopper>) {
        self.lock().session = session;
    }

    fn is_set(&self) -> bool {
        self.lock().set
    }
}
