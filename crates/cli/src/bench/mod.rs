//! `voxtral bench`: recordings through each backend, and what it took.
//!
//! ```text
//! flags ─┬─measure──┬─ figures of each backend and recording ─report─ table, JSON, CSV
//!        └─capacity─┘  (one at a time, or many live ones)   └─against─ ratios to an earlier report
//! ```

mod against;
mod capacity;
mod clock;
mod environment;
mod measure;
mod report;
mod timeline;

use crate::args::{Bench, BenchFormat, Setup};
use crate::input::spare;
use crate::open;
use crate::output::{Output, Unmet, unless_closed};
use crate::recording::Recording;
use environment::Environment;
use report::Report;

pub(crate) fn run(args: &Bench) -> anyhow::Result<()> {
    spare(&args.files, args.output.as_deref());
    let before = args.against.as_deref().map(|path| anyhow::Ok((path, Report::read(path)?))).transpose()?;
    let recordings = Recording::all(&args.files)?;
    let mut output = Output::open(args.output.as_deref())?;

    let with = |&backend| Setup { backend, ..args.setup.clone() };
    let setups =
        if args.backends.is_empty() { vec![args.setup.clone()] } else { args.backends.iter().map(with).collect() };
    setups.iter().try_for_each(open::expect)?;
    let measured =
        setups.iter().map(|setup| measure::backend(setup, args, &recordings)).collect::<Result<Vec<_>, _>>()?;
    let (mut settings, backends): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
    let environment = Environment::now(&args.setup, backends.iter().any(|measured| measured.backend == "cuda"));
    // All backends run the same model in the same way.
    let mut report = Report { environment, settings: settings.swap_remove(0), backends, against: None };
    let past =
        before.map(|(path, before)| against::compare(&mut report, path, &before, args.max_slowdown)).transpose()?;

    let written = output.write(&match args.format {
        BenchFormat::Table => report.table(),
        BenchFormat::Json => serde_json::to_string(&report)? + "\n",
        BenchFormat::Csv => report.csv(),
    });
    unless_closed(written)?;
    output.finish()?;
    match report.lost().or(past.flatten()) {
        Some(unmet) => Err(Unmet(unmet).into()),
        None => Ok(()),
    }
}
