//! `voxtral FILE…`: every input through the library, every transcript to the output, in the order of the inputs.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use voxtral::{About, Damage, Error, Json, Lost, Options, Sink, Stop, Summary, Text, Voxtral};
use voxtral_transcript::SessionStats;

use crate::args::{Format, Transcribe};
use crate::input::Input;
use crate::interrupt;
use crate::open;
use crate::output::{Output, complain};
use crate::turns::{Turn, Turns};

pub(crate) fn run(args: &Transcribe) -> anyhow::Result<()> {
    let inputs = Input::all(args);
    let output = Output::open(args.output.as_deref())?;
    let stop = Stop::new();
    interrupt::stops(&stop)?;

    // Nobody should wait for a model to hear that the recording is not there. Where there are several, the others are transcribed.
    if let [input] = &inputs[..] {
        input.try_to_open()?;
    }
    let start = Instant::now();
    if !args.silent {
        open::tell_of_demo(&args.setup);
    }
    let voxtral = open::open(&args.setup, args.silent, |backend| backend)?;
    let options = Options {
        stop_at_eos: args.stop_at_eos,
        interval: args.interval,
        stop: Some(stop.clone()),
        ..Options::default()
    };
    let job = Job { args, voxtral: &voxtral, options: &options, stop: &stop };
    let mut load = start.elapsed();

    let turns = Turns::new(output);
    let mut failed = 0;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let (mut waiting, mut running) = (inputs.iter().zip(0..), VecDeque::new());
        loop {
            while running.len() < usize::from(args.jobs) && !stop.is_stopped() {
                let Some((input, number)) = waiting.next() else { break };
                let (job, turn, load) = (&job, turns.turn(number), std::mem::take(&mut load));
                let work = move || job.transcribe(input, load, turn);
                let thread = std::thread::Builder::new().spawn_scoped(scope, work);
                running.push_back((input, thread));
            }
            let Some((input, first)) = running.pop_front() else { return Ok(()) };
            let broke_off = || Err(anyhow::anyhow!("{}: transcribing broke off", input.name()));
            let outcome = match first {
                Ok(thread) => thread.join().unwrap_or_else(|_| broke_off()),
                Err(error) => Err(error).context("cannot start a thread").with_context(|| input.name()),
            };
            match outcome {
                // One file that cannot be read is no reason to leave out the others.
                Err(error) if inputs.len() > 1 && !is_of_the_output(&error) => {
                    complain(&error);
                    failed += 1;
                    Ok(())
                }
                outcome => outcome,
            }
            .and_then(|()| turns.next())
            // Nobody will see what the others would write.
            .inspect_err(|_| {
                stop.stop();
            })?;
        }
    })?;
    if failed > 0 {
        let nothing = if args.output.is_some() { ", nothing was written" } else { "" };
        anyhow::bail!("{failed} of {} inputs failed{nothing}", inputs.len());
    }
    turns.into_output().finish()
}

fn is_of_the_output(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Sink(_)))
}

/// What all inputs have in common.
struct Job<'a> {
    args: &'a Transcribe,
    voxtral: &'a Voxtral,
    options: &'a Options,
    stop: &'a Stop,
}

impl Job<'_> {
    /// Transcribes one input.
    fn transcribe(&self, input: &Input, load: Duration, output: Turn<'_>) -> anyhow::Result<()> {
        let start = Instant::now();
        let source = input.open()?;
        let mut sink: Box<dyn Sink> = match self.args.format {
            Format::Text => Box::new(Text::new(output)),
            Format::Json => {
                let about = self.voxtral.about(input.name(), self.options, load);
                Box::new(Json::new(output, About { tokens: self.args.tokens, ..about }))
            }
        };
        let mut losses = Losses::default();
        let outcome = self.voxtral.transcribe(source, self.options, &mut (&mut *sink, &mut losses));
        losses.warn(input);
        match outcome {
            Ok(summary) => tell(input, &summary, start.elapsed()),
            // That names the output.
            Err(error @ Error::Sink(_)) => return Err(error.into()),
            Err(error) => return Err(error).with_context(|| input.name()),
        }
        anyhow::ensure!(input.is_live() || !self.stop.is_stopped(), "{}: interrupted", input.name());
        Ok(())
    }
}

/// Counts what silence stands in for.
#[derive(Default)]
struct Losses {
    packets: u64,
    not_finite: u64,
}

impl Sink for Losses {
    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        match damage.lost {
            Lost::Packets(packets) => self.packets += packets,
            Lost::NotFinite(samples) => self.not_finite += samples,
            _ => {}
        }
        Ok(())
    }
}

impl Losses {
    fn warn(&self, input: &Input) {
        if self.packets > 0 {
            tracing::warn!("{}: {} damaged packets were replaced by silence", input.name(), self.packets);
        }
        if self.not_finite > 0 {
            tracing::warn!("{}: {} samples are not finite numbers: taken as silence", input.name(), self.not_finite);
        }
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

/// The lengths that bucket `i` of [`SessionStats::certain`] counts.
fn tokens_of(i: usize) -> String {
    if i == 0 { "1".to_owned() } else { format!("{} to {}", 1 << i, (2 << i) - 1) }
}
