//! `voxtral FILE…`: every input through the library, every transcript to the output, in the order of the inputs.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use voxtral::{
    About, AudioOptions, CueFormat, Damage, Error, Json, JsonLines, Notice, Options, Sink, Source, Stop, Subtitles,
    Summary, Text, Voxtral,
};
use voxtral_transcript::SessionStats;

use crate::args::{Format, Transcribe};
use crate::destination::Destination;
use crate::input::Input;
use crate::interrupt::{self, Interrupted};
use crate::output::{Output, complain, escaped, say};
use crate::progress::Recordings;
use crate::status::Status;
use crate::{machine, microphone, open};

/// More failed inputs are not named once more in the end.
const MOST_NAMES: usize = 20;
/// All is done, and some of the audio is damaged.
const DAMAGED: u8 = 4;

pub(crate) fn run(args: &Transcribe) -> anyhow::Result<ExitCode> {
    let mut inputs = Input::all(&args.inputs);
    let all = inputs.len();
    let destination = Arc::new(Destination::open(&args.outputs, &mut inputs)?);
    let skipped = all - inputs.len();
    if skipped > 0 && !args.work.silent {
        say(&format!("{skipped} of {all} inputs are skipped: their files are there"));
    }
    if inputs.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let stop = Stop::new();
    let at_end = Arc::clone(&destination);
    interrupt::stops(&stop, move || at_end.break_off())?;

    // Nobody should wait for a model to hear that the recording is not there. Where there are several, the others are transcribed.
    let audio = AudioOptions {
        track: args.inputs.track.map(usize::from),
        channel: args.inputs.channel,
        ..AudioOptions::default()
    };
    if let [input] = &inputs[..] {
        input.try_to_open(&audio)?;
    }
    let start = Instant::now();
    if !args.work.silent {
        open::tell_of_default(&args.setup);
    }
    let voxtral = open::open(&args.setup, args.work.silent, |backend| backend)?;
    let options = Options {
        stop_at_eos: args.work.stop_at_eos,
        interval: args.work.interval,
        alternatives: args.outputs.alt,
        endpoint: args.outputs.endpoint.map(|ms| Duration::from_millis(ms.into())),
        stop: Some(stop.clone()),
        ..Options::default()
    };
    let watched = !args.work.silent && (!destination.is_stdout() || !io::stdout().is_terminal());
    let bytes = inputs.iter().map(Input::bytes).sum();
    let progress = Recordings::new(watched && bytes > 0, inputs.len(), bytes);
    let job = Job {
        args,
        progress: &progress,
        voxtral: &voxtral,
        audio: &audio,
        options: &options,
        stop: &stop,
        destination: &destination,
    };
    let Outcome { failures, damaged } = job.transcribe_all(&inputs, start.elapsed())?;
    drop(progress);

    if let Destination::Shared(_, turns) = &*destination {
        turns.finish(failures.is_empty())?;
    }
    conclude(failures, &inputs)?;
    Ok(if damaged { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS })
}

/// An input that was not transcribed to its end, and why.
type Failure<'a> = (&'a Input, anyhow::Error);

/// What all inputs came to.
#[derive(Default)]
struct Outcome<'a> {
    failures: Vec<Failure<'a>>,
    /// Whether some of the audio of some of them is.
    damaged: bool,
}

/// What all failures come to.
fn conclude(mut failures: Vec<Failure<'_>>, inputs: &[Input]) -> anyhow::Result<()> {
    if inputs.len() == 1 {
        return failures.pop().map_or(Ok(()), |(_, error)| Err(error));
    }
    let interrupted = failures.iter().filter(|(_, error)| error.is::<Interrupted>()).count();
    if interrupted > 0 {
        return Err(Interrupted).with_context(|| format!("{interrupted} of {} inputs are not whole", inputs.len()));
    }
    if failures.is_empty() {
        return Ok(());
    }
    let mut names: Vec<_> = failures.iter().take(MOST_NAMES).map(|(input, _)| input.name()).collect();
    if failures.len() > MOST_NAMES {
        names.push(format!("and {} more", failures.len() - MOST_NAMES));
    }
    anyhow::bail!("{} of {} inputs failed: {}", failures.len(), inputs.len(), names.join(", "))
}

/// Whether an error is one of the output that all write to: nobody will see what the others would write.
fn is_of_the_output(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Sink(_)))
}

/// What all inputs have in common.
struct Job<'a> {
    args: &'a Transcribe,
    progress: &'a Recordings,
    voxtral: &'a Voxtral,
    audio: &'a AudioOptions,
    options: &'a Options,
    stop: &'a Stop,
    destination: &'a Destination,
}

impl Job<'_> {
    /// Transcribes all inputs, some at a time. One that cannot be read is no reason to leave out the others.
    fn transcribe_all<'i>(&self, inputs: &'i [Input], mut load: Duration) -> anyhow::Result<Outcome<'i>> {
        let mut all = Outcome::default();
        std::thread::scope(|scope| {
            let (mut waiting, mut running) = (inputs.iter().enumerate(), VecDeque::new());
            loop {
                while running.len() < usize::from(self.args.work.jobs) && !self.stop.is_stopped() {
                    let Some((number, input)) = waiting.next() else { break };
                    let load = std::mem::take(&mut load);
                    let work = move || self.transcribe(input, number, load);
                    running.push_back((input, machine::start(scope, work)));
                }
                let Some((input, first)) = running.pop_front() else { break };
                let broke_off = || Err(anyhow::anyhow!("{}: transcribing broke off", input.name()));
                let outcome = match first {
                    Ok(thread) => thread.join().unwrap_or_else(|_| broke_off()),
                    Err(error) => Err(error).with_context(|| input.name()),
                };
                match outcome {
                    Err(error) if is_of_the_output(&error) => Err(error),
                    Err(error) => {
                        if inputs.len() > 1 {
                            complain(&error);
                        }
                        all.failures.push((input, error));
                        Ok(())
                    }
                    Ok(damaged) => {
                        all.damaged |= damaged;
                        Ok(())
                    }
                }
                .and_then(|()| if let Destination::Shared(_, turns) = self.destination { turns.next() } else { Ok(()) })
                .inspect_err(|_| {
                    self.stop.stop();
                })?;
            }
            all.failures.extend(waiting.map(|(_, input)| (input, Interrupted.into())));
            Ok(all)
        })
    }

    /// Transcribes one input to where its transcript goes; whether some of its audio is damaged.
    fn transcribe(&self, input: &Input, number: usize, load: Duration) -> anyhow::Result<bool> {
        let progress = self.progress.follow(input.bytes());
        let source = input.open(self.audio)?;
        if !self.args.work.silent {
            microphone::announce(&source);
        }
        let files = match self.destination {
            Destination::Shared(format, turns) => {
                let sink = self.sink(*format, turns.turn(number), input, load);
                return self.write(input, source, vec![sink, Box::new(progress)]);
            }
            Destination::Folder(files) => &files[number],
        };
        let mut outputs: Vec<_> = files.iter().map(|(_, path)| Output::open(Some(path))).collect::<Result<_, _>>()?;
        let sinks = files.iter().zip(&mut outputs).map(|((format, _), output)| self.sink(*format, output, input, load));
        let written = self.write(input, source, sinks.chain([Box::new(progress) as _]).collect());
        // What is there counts as whole the next time.
        if written.is_ok() || !self.args.outputs.skip_existing {
            outputs.iter().try_for_each(|output| output.finish_if(written.is_ok()))?;
        }
        written
    }

    /// What shows how live audio goes, where somebody watches.
    fn status(&self) -> Option<Status> {
        let words = matches!(self.destination, Destination::Shared(Format::Text, turns) if turns.is_stdout());
        let elsewhere = !words && matches!(self.destination, Destination::Shared(_, turns) if turns.is_stdout());
        let is_terminal = io::stdout().is_terminal();
        // Other formats are shown as they are, and nothing between their lines.
        if self.args.work.silent || elsewhere && is_terminal {
            return None;
        }
        Status::new(words && is_terminal, self.args.work.monitor)
    }

    /// What writes a transcript in a format.
    fn sink<'o>(&self, format: Format, output: impl Write + 'o, input: &Input, load: Duration) -> Box<dyn Sink + 'o> {
        let words = self.args.outputs.words;
        match format {
            Format::Text if words || self.args.outputs.timestamps => {
                Box::new(Subtitles::new(output, CueFormat::Lines, words))
            }
            Format::Text => Box::new(Text::new(output)),
            Format::Json => {
                let about = self.voxtral.about(input.name(), self.options, load);
                Box::new(Json::new(output, About { tokens: self.args.outputs.tokens, ..about }))
            }
            Format::Jsonl => Box::new(JsonLines::new(output, input.name())),
            Format::Srt => Box::new(Subtitles::new(output, CueFormat::Srt, words)),
            Format::Vtt => Box::new(Subtitles::new(output, CueFormat::Vtt, words)),
            Format::Tsv => Box::new(Subtitles::new(output, CueFormat::Tsv, words)),
        }
    }

    /// Transcribes one input to some sinks; whether some of its audio is damaged.
    fn write(&self, input: &Input, source: Source, mut sinks: Vec<Box<dyn Sink + '_>>) -> anyhow::Result<bool> {
        let (start, is_live) = (Instant::now(), source.is_live());
        let mut lines = Lines { input, silent: self.args.work.silent, damaged: false };
        let mut status = if is_live { self.status() } else { None };
        let mut all: Vec<&mut dyn Sink> = sinks.iter_mut().map(|sink| &mut **sink as &mut dyn Sink).collect();
        all.push(&mut lines);
        all.extend(status.as_mut().map(|status| status as &mut dyn Sink));
        match self.voxtral.transcribe(source, self.options, &mut all) {
            Ok(summary) => tell(input, &summary, start.elapsed()),
            // That names the output.
            Err(error @ Error::Sink(_)) => return Err(error.into()),
            Err(error) => return Err(error).with_context(|| input.name()),
        }
        if self.stop.is_stopped() && !is_live {
            return Err(Interrupted).context("interrupted").with_context(|| input.name());
        }
        Ok(lines.damaged)
    }
}

/// Tells on standard error what is damaged and what is worth a line.
struct Lines<'a> {
    input: &'a Input,
    silent: bool,
    damaged: bool,
}

impl Lines<'_> {
    fn say(&self, what: &dyn Display) {
        if !self.silent {
            say(&format!("{}: {what}", self.input.name()));
        }
    }
}

impl Sink for Lines<'_> {
    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.damaged = true;
        self.say(damage);
        Ok(())
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        self.say(notice);
        Ok(())
    }
}

/// For those who asked for more on standard error.
fn tell(input: &Input, summary: &Summary, total: Duration) {
    let SessionStats { positions, passes, certain, encode, decode, .. } = summary.stats;
    tracing::debug!(
        "{}: {:.2} s of audio in {:.2} s ({:.2} s encoding, {:.2} s decoding)",
        escaped(&input.name()),
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

/// The lengths that bucket `i` of [`SessionStats::certain`] counts.
fn tokens_of(i: usize) -> String {
    if i == 0 { "1".to_owned() } else { format!("{} to {}", 1 << i, (2 << i) - 1) }
}
