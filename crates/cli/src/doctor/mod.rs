//! `voxtral doctor`: what this machine has, what works on it, and what to do about the rest.
//!
//! Each check is a line for people and an object for programs. One that cannot be made is a line that says so: only a recording
//! that cannot be read and an output that cannot be written end the program.

mod acceptance;
mod check;
mod gpu;
mod model;
mod smoke;
mod system;

use serde::Serialize;
use serde_json::{Value, json};

use crate::args::{Doctor, name};
use crate::input::spare;
use crate::models;
use crate::output::{Output, Unmet, unless_closed};
use crate::recording::Recording;
use check::{Check, Status};
use gpu::Gpu;
use smoke::Device;
use system::Host;

pub(crate) fn run(args: &Doctor) -> anyhow::Result<()> {
    let args = &Doctor { model: Some(models::resolved(args.model.as_ref())), ..args.clone() };
    spare(&args.file, args.output.as_deref());
    let file = args.output.as_deref().map(|path| Output::open(Some(path))).transpose()?;
    let recording = match &args.file {
        Some(path) => Some(Recording::open(path)?),
        None => args.acceptance.then(Recording::sample).transpose()?,
    };
    let mut checks = Checks { all: Vec::new(), printed: !args.json, output: Output::open(None)? };
    examine(args, recording.as_ref(), &mut checks)?;

    let report = json_of(args, &checks)? + "\n";
    let last = if args.json { report.clone() } else { checks.conclusion() };
    unless_closed(checks.output.write(&last))?;
    if let Some(mut file) = file {
        file.write(&report)?;
        file.finish()?;
    }
    match checks.count(Status::Failure) {
        0 => Ok(()),
        failed => Err(Unmet(format!("{failed} of {} checks failed", checks.all.len())).into()),
    }
}

/// All checks, in the order in which one explains the next.
fn examine(args: &Doctor, recording: Option<&Recording>, checks: &mut Checks) -> anyhow::Result<()> {
    let host = Host::look();
    checks.add(system::operating_system(&host))?;
    checks.add(system::cpu())?;
    checks.add(system::memory(&host))?;
    checks.add(system::audio())?;
    checks.add(system::disk(&host, model::folder(args)))?;

    let gpu = Gpu::look(args);
    checks.add(gpu::driver(&gpu, host.wsl, args))?;
    checks.add(gpu::device(&gpu, host.wsl, args))?;
    let (opened, check) = model::open(args, &host, &gpu);
    checks.add(check)?;

    let cuda = gpu.usable.is_ok().then_some(Device::Cuda(args.device));
    for device in [Some(Device::Cpu), cuda].into_iter().flatten() {
        checks.add(smoke::sample(device))?;
        checks.add(smoke::speed(device, &gpu))?;
    }
    let mut model = opened.as_ref().ok_or("there is no model to run");
    // The built-in one has just run.
    if let (Ok(opened), Some(_)) = (model, model::folder(args)) {
        let (check, ended) = smoke::run(args, opened);
        checks.add(check)?;
        if !ended {
            model = Err("the model takes too long, as the line run says");
        }
    }
    match recording {
        Some(recording) => acceptance::run(args, recording, model, &gpu, checks),
        None => Ok(()),
    }
}

/// The checks so far, printed as they are made.
struct Checks {
    all: Vec<Check>,
    printed: bool,
    output: Output,
}

impl Checks {
    fn add(&mut self, check: Check) -> anyhow::Result<()> {
        if self.printed {
            unless_closed(self.output.write(&check.to_string()))?;
        }
        self.all.push(check);
        Ok(())
    }

    fn count(&self, status: Status) -> usize {
        self.all.iter().filter(|check| check.status == status).count()
    }

    /// What it comes to; that something was skipped makes nothing worse.
    fn worst(&self) -> Status {
        let counted = self.all.iter().map(|check| check.status).filter(|status| *status != Status::Skipped);
        counted.max().unwrap_or(Status::Ok)
    }

    fn conclusion(&self) -> String {
        let [ok, skipped, warning, failure] =
            [Status::Ok, Status::Skipped, Status::Warning, Status::Failure].map(|status| self.count(status));
        format!("{ok} ok, {skipped} skipped, {warning} to look at, {failure} failed\n")
    }
}

fn json_of(args: &Doctor, checks: &Checks) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Report<'a> {
        version: &'static str,
        status: Status,
        asked: Value,
        checks: &'a [Check],
    }
    serde_json::to_string_pretty(&Report {
        version: env!("CARGO_PKG_VERSION"),
        status: checks.worst(),
        asked: json!({
            "model": model::folder(args), "backend": name(args.backend), "device": args.device, "acceptance": args.acceptance,
        }),
        checks: &checks.all,
    })
}
