//! `voxtral doctor --acceptance`: all that the program promises of a backend, with the user's own model and recording.

use std::borrow::Cow;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use voxtral::{BackendError, Decoding, Engine, Error, SessionOptions, Voxtral};
use voxtral_audio::SAMPLE_RATE;
use voxtral_cuda::CudaBackend;
use voxtral_transcript::score::mismatch_ratio;
use voxtral_transcript::{Report, TokenRecord};

use super::Checks;
use super::check::{Check, Status};
use super::gpu::Gpu;
use super::model::Opened;
use super::smoke::Device;
use crate::args::Doctor;
use crate::compare;
use crate::machine;
use crate::recording::{Heard, Recording, ms};

const LOOKAHEAD: usize = 32;
const SESSIONS: usize = 10;
/// How far the driver's own count of free memory may be off: other programs use the GPU too.
const MEMORY_NOISE: u64 = 64 << 20;

/// What every backend is asked to show.
const ITEMS: [&str; 6] = ["load", "transcript", "timings", "parallel", "sessions", "stdin"];

pub(crate) fn run(
    args: &Doctor,
    recording: &Recording,
    opened: Result<&Opened, &'static str>,
    gpu: &Gpu,
    checks: &mut Checks,
) -> anyhow::Result<()> {
    let encoded = match &args.file {
        Some(path) => Cow::Owned(fs::read(path).with_context(|| path.display().to_string())?),
        None => Cow::Borrowed(voxtral_digits::SAMPLE),
    };
    let mut show = |device: Device, why_not: Option<&str>| -> anyhow::Result<Option<Heard>> {
        let trial = match (opened, why_not) {
            (Ok(opened), None) => Ok(Trial { args, recording, encoded: &encoded, opened, device }),
            (Err(why), _) => Err(why),
            (_, Some(why)) => Err(why),
        };
        match trial {
            Ok(trial) => trial.run(checks),
            Err(why) => ITEMS
                .into_iter()
                .try_for_each(|item| checks.add(Check::skipped(item, why).on(device.name())))
                .map(|()| None),
        }
    };
    let cpu = show(Device::Cpu, None)?;
    let cuda = show(Device::Cuda(args.device), gpu.usable.as_ref().err().map(String::as_str))?;
    checks.add(match (&cpu, &cuda) {
        (Some(cpu), Some(cuda)) => agreement(cpu, cuda),
        _ => Check::skipped("agreement", "it takes a transcript of the CPU and one of the GPU"),
    })?;
    checks.add(match &cpu {
        Some(heard) => verdict("fallback", fallback(args, &encoded, gpu, heard)),
        None => Check::skipped("fallback", "it takes a transcript of the CPU"),
    })
}

/// A check, or the error that it ended with.
fn verdict(name: &'static str, outcome: anyhow::Result<Check>) -> Check {
    outcome.unwrap_or_else(|error| failed(name, format!("{error:#}")))
}

fn failed(name: &'static str, found: impl Into<String>) -> Check {
    Check::bad(name, Status::Failure, found, "please report it, with what `voxtral doctor --acceptance --json` prints")
}

/// One backend at work on a recording.
struct Trial<'a> {
    args: &'a Doctor,
    recording: &'a Recording,
    /// The bytes of its file.
    encoded: &'a [u8],
    opened: &'a Opened,
    device: Device,
}

impl Trial<'_> {
    /// Shows all [`ITEMS`]; what one token a pass gave, if anything.
    fn run(&self, checks: &mut Checks) -> anyhow::Result<Option<Heard>> {
        let mut add = |check: Check| checks.add(check.on(self.device.name()));
        let start = Instant::now();
        let voxtral = match self.device.open(&self.opened.model) {
            Ok(voxtral) => voxtral,
            Err(error) => {
                add(match &error {
                    // Where that is a failure, the check of the model has said so.
                    Error::Backend(BackendError::OutOfMemory { .. } | BackendError::Unsupported(_)) => {
                        Check::skipped("load", error.to_string())
                    }
                    _ => failed("load", format!("{:#}", anyhow::Error::from(error))),
                })?;
                ITEMS[1..].iter().try_for_each(|item| add(Check::skipped(item, "the model did not load")))?;
                return Ok(None);
            }
        };
        let (open, place) = (self.opened.took, start.elapsed());
        add(load(&voxtral, open, place))?;

        let start = Instant::now();
        let heard = match self.recording.hear(&voxtral, Some(Decoding::Sequential)) {
            Ok(heard) => heard,
            Err(error) => {
                add(failed("transcript", format!("{error:#}")))?;
                ITEMS[2..].iter().try_for_each(|item| add(Check::skipped(item, "there is no transcript")))?;
                return Ok(None);
            }
        };
        let total = start.elapsed();
        add(transcript(&heard))?;
        add(timings(&heard, total))?;
        add(verdict("parallel", self.parallel(&voxtral, &heard)))?;
        add(verdict("sessions", self.sessions(voxtral.engine())))?;
        // The program that is started next puts the model on the device again.
        drop(voxtral);
        add(verdict("stdin", self.stdin(&heard)))?;
        Ok(Some(heard))
    }

    /// Guessing ahead gives the tokens of one a pass.
    fn parallel(&self, voxtral: &Voxtral, sequential: &Heard) -> anyhow::Result<Check> {
        let decoding = Decoding::Parallel { lookahead: LOOKAHEAD };
        let parallel = self.recording.hear(voxtral, Some(decoding))?;
        let passes = [sequential, &parallel].map(|heard| heard.summary.stats.passes);
        let differ = different(&sequential.tokens, &parallel.tokens);
        let facts = json!({ "different_tokens": differ, "sequential_passes": passes[0], "parallel_passes": passes[1] });
        let found =
            format!("{} tokens in {} passes one by one, in {} ahead", sequential.tokens.len(), passes[0], passes[1]);
        Ok(equal("parallel", differ, found).with(facts))
    }

    /// Many sessions at once give back the device memory that they take.
    fn sessions(&self, engine: &Engine) -> anyhow::Result<Check> {
        let Device::Cuda(device) = self.device else {
            return Ok(Check::skipped("sessions", "it is about device memory, and the CPU has none of its own"));
        };
        let memory =
            || -> anyhow::Result<[u64; 2]> { Ok([engine.info().device_bytes, CudaBackend::probe(device)?.free]) };
        let [before, free_before] = memory()?;
        // Longer than any delay, so that each session gives a token while it is still open.
        let silence = vec![0.0; 4 * SAMPLE_RATE as usize];
        let options = SessionOptions { live: false, samples: Some(silence.len() as u64), ..SessionOptions::default() };
        let mut open = Vec::new();
        for _ in 0..SESSIONS {
            let mut session = engine.session(options)?;
            session.push_samples(&silence)?;
            open.push(session);
        }
        for session in &mut open {
            session.next_event().context("a session ended without a result")??;
        }
        let [most, _] = memory()?;
        drop(open);
        let patience = Instant::now() + Duration::from_secs(10);
        while engine.info().device_bytes > before && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        let [after, free_after] = memory()?;
        let facts = json!({
            "before_bytes": before, "most_bytes": most, "after_bytes": after,
            "free_before_bytes": free_before, "free_after_bytes": free_after,
        });
        let mb = |bytes: u64| bytes / 1_000_000;
        let found = format!(
            "{SESSIONS} sessions: {} MB before, {} with all open, {} after; free {} MB before, {} after",
            mb(before),
            mb(most),
            mb(after),
            mb(free_before),
            mb(free_after)
        );
        // Less than before: the transcript before these was still being put away. Ten would not hide behind one.
        let back = after <= before && free_after + MEMORY_NOISE >= free_before;
        Ok(if back { Check::ok("sessions", found) } else { failed("sessions", found) }.with(facts))
    }

    /// The recording through a pipe, into the program as users start it, gives the tokens that the file gave.
    fn stdin(&self, file: &Heard) -> anyhow::Result<Check> {
        let mut program = program(self.args)?;
        program.args(["--silent", "--backend", self.device.name()]);
        let Answer { tokens, .. } = ask(program, self.encoded)?;
        let differ = different(&file.tokens, &tokens);
        let found = format!("{} tokens from the file, {} from the pipe", file.tokens.len(), tokens.len());
        Ok(equal("stdin", differ, found).with(json!({ "different_tokens": differ })))
    }
}

fn load(voxtral: &Voxtral, open: Duration, place: Duration) -> Check {
    let info = voxtral.info();
    let [open_ms, place_ms] = [open, place].map(ms);
    let mut found = format!("{}: opened in {open_ms:.0} ms, in place after {place_ms:.0} ms more", info.device);
    if info.device_bytes > 0 {
        found += &format!(", {} MB on the device", info.device_bytes / 1_000_000);
    }
    let facts =
        json!({ "device": info.device, "open_ms": open_ms, "place_ms": place_ms, "device_bytes": info.device_bytes });
    Check::ok("load", found).with(facts)
}

fn transcript(heard: &Heard) -> Check {
    let text = &heard.summary.text;
    let facts = json!({ "text": text, "tokens": heard.tokens.len() });
    let words = text.split_whitespace().count();
    let check = if text.is_empty() {
        Check::bad(
            "transcript",
            Status::Failure,
            "nothing was heard",
            "take a recording of speech in which something is said",
        )
    } else {
        Check::ok("transcript", format!("{words} words of {:.1} s of audio", heard.summary.audio_s))
    };
    check.with(facts)
}

/// One token a pass, without loading.
fn timings(heard: &Heard, total: Duration) -> Check {
    let stats = &heard.summary.stats;
    let [encode_ms, decode_ms, total_ms] = [stats.encode, stats.decode, total].map(ms);
    let step_ms = decode_ms / stats.passes.max(1) as f64;
    let rtf = total_ms / 1e3 / heard.summary.audio_s.max(f64::MIN_POSITIVE);
    let found = format!(
        "encoder {encode_ms:.0} ms, {} steps of {step_ms:.2} ms, in all {total_ms:.0} ms: {rtf:.3} of real time",
        stats.passes
    );
    Check::ok("timings", found).with(json!({
        "audio_s": heard.summary.audio_s, "encode_ms": encode_ms, "decode_ms": decode_ms, "total_ms": total_ms,
        "first_text_ms": stats.first_text.map(ms), "passes": stats.passes, "step_ms": step_ms, "real_time_factor": rtf,
    }))
}

/// The GPU hears what the CPU hears.
fn agreement(cpu: &Heard, cuda: &Heard) -> Check {
    let Some(mismatch) = mismatch_ratio(&cpu.summary.text, &cuda.summary.text) else {
        return failed("agreement", "both transcripts repeat a few words too often to be compared");
    };
    let differ = different(&cpu.tokens, &cuda.tokens);
    let mut facts =
        json!({ "mismatch_ratio": mismatch, "most_mismatch": compare::TOLERANCE, "different_tokens": differ });
    let mut found = format!(
        "the words of GPU and CPU differ by {mismatch:.4}, {} at the most; {differ} of {} tokens differ",
        compare::TOLERANCE,
        cpu.tokens.len()
    );
    if let Some((token, [cpu, cuda])) = parting(&cpu.tokens, &cuda.tokens) {
        found +=
            &format!(", the first token {token}: log-probability {cpu:.3} of the CPU's choice, {cuda:.3} of the GPU's");
        facts["parting"] = json!({ "token": token, "cpu_logprob": cpu, "cuda_logprob": cuda });
    }
    let check = if mismatch <= compare::TOLERANCE {
        Check::ok("agreement", found)
    } else {
        let remedy = "take the real model: random weights decide by a hair, which no two ways of rounding do alike; else please \
                      report it, with this report";
        Check::bad("agreement", Status::Failure, found, remedy)
    };
    check.with(facts)
}

/// Where no GPU can be used, the program says so and runs on the CPU.
fn fallback(args: &Doctor, encoded: &[u8], gpu: &Gpu, cpu: &Heard) -> anyhow::Result<Check> {
    let mut program = program(args)?;
    program.args(["--backend", "auto"]).env("CUDA_VISIBLE_DEVICES", "-1");
    let Answer { backend, tokens, stderr } = ask(program, encoded)?;
    let differ = different(&cpu.tokens, &tokens);
    let said = stderr.lines().find_map(|line| Some(&line[line.find("running on the CPU")?..])).unwrap_or_default();
    let facts = json!({ "backend": backend, "different_tokens": differ, "said": said });
    let how = if gpu.usable.is_ok() { "with the GPU hidden" } else { "on this machine, which has no GPU to use," };
    if backend != "cpu" || said.is_empty() {
        return Ok(failed("fallback", format!("{how} the program ran on {backend}, and said {stderr:?}")).with(facts));
    }
    Ok(equal("fallback", differ, format!("{how} it says {said:?} and gives the same tokens")).with(facts))
}

/// The first token that both have and that differs, and what each gave its choice: nearly the same where it was a near tie, after which
/// two transcripts may well go different ways.
fn parting(a: &[TokenRecord], b: &[TokenRecord]) -> Option<(usize, [f32; 2])> {
    let token = compare::first_difference(a, b)?;
    Some((token, [a.get(token)?.logprob, b.get(token)?.logprob]))
}

/// Tokens that differ, those that only one has included.
fn different(a: &[TokenRecord], b: &[TokenRecord]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a.id != b.id).count() + a.len().abs_diff(b.len())
}

fn equal(name: &'static str, differ: usize, found: String) -> Check {
    match differ {
        0 => Check::ok(name, found),
        _ => failed(name, format!("{found}: {differ} tokens differ")),
    }
}

/// This program, to transcribe standard input with the same model.
fn program(args: &Doctor) -> anyhow::Result<Command> {
    let mut program = Command::new(std::env::current_exe().context("the program does not know where it is")?);
    program.args(["--stdin", "--format", "json", "--tokens", "--device", &args.device.to_string()]);
    program.arg("--model").arg(args.model.clone().unwrap_or_default().as_os_str());
    Ok(program)
}

/// What a program answered.
struct Answer {
    backend: String,
    tokens: Vec<TokenRecord>,
    stderr: String,
}

/// Starts a program and pipes `input` into it.
fn ask(mut program: Command, input: &[u8]) -> anyhow::Result<Answer> {
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().context("the program could not be started")?;
    let mut pipe = child.stdin.take().context("the program has no standard input")?;
    let output = std::thread::scope(|scope| {
        // Where it ends early, what it says tells why.
        machine::start(scope, move || pipe.write_all(input))?;
        anyhow::Ok(child.wait_with_output()?)
    })?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    anyhow::ensure!(output.status.success(), "the program ended with {}: {stderr}", output.status);
    let report: Report = serde_json::from_slice(&output.stdout).context("the program did not answer in JSON")?;
    let tokens = report.tokens.context("the program's answer has no tokens")?;
    Ok(Answer { backend: report.backend, tokens, stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_only_one_side_has_differ() {
        let tokens = |ids: &[u32]| ids.iter().map(|&id| TokenRecord { id, logprob: 0.0 }).collect::<Vec<_>>();
        let differ = |a: &[u32], b: &[u32]| different(&tokens(a), &tokens(b));
        assert_eq!((differ(&[1, 2, 3], &[1, 2, 3]), differ(&[1, 2, 3], &[1, 9]), differ(&[], &[4])), (0, 2, 1));
        assert_eq!(equal("stdin", 2, "x".into()).status, Status::Failure);
    }

    #[test]
    fn transcripts_part_at_the_first_token_that_differs() {
        let tokens =
            |of: &[(u32, f32)]| of.iter().map(|&(id, logprob)| TokenRecord { id, logprob }).collect::<Vec<_>>();
        let a = tokens(&[(1, -0.5), (2, -2.725), (3, -0.5)]);
        let b = tokens(&[(1, -0.4), (9, -2.722), (8, -0.1)]);
        assert_eq!(parting(&a, &b), Some((1, [-2.725, -2.722])));
        assert_eq!((parting(&a, &a), parting(&a, &a[..1])), (None, None));
    }
}
