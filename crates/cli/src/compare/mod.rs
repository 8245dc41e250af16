//! `voxtral compare`: how far two transcripts of the same recordings are from each other.
//!
//! ```text
//! flags ─sides─ two transcripts of each recording ─score─ Report ─┬─ text
//!                                                                 ├─ JSON
//!                                                                 └─ html: a page
//! ```

mod html;
mod report;
mod score;
mod sides;

use anyhow::Context;

use crate::args::{Compare, CompareFormat};
use crate::input::spare;
use crate::output::{Output, Unmet, unless_closed};
use report::{Limits, Report};
pub(crate) use score::first_difference;
use sides::Sides;

/// The largest mismatch ratio of two ways to compute one thing, where the user names no other: that of voxtral.c's accuracy script.
pub(crate) const TOLERANCE: f64 = 0.005;

pub(crate) fn run(args: &Compare) -> anyhow::Result<()> {
    spare(&args.files, args.output.as_deref());
    let mut output = Output::open(args.output.as_deref())?;
    let sides = Sides::gather(args)?;
    // Against references there is no such thing: how good is good enough, the user knows.
    let tolerance = args.tolerance.or(args.sides.refs.is_none().then_some(TOLERANCE));
    let limits = Limits { tolerance, max_wer: args.max_wer, max_drift: args.max_drift };
    let report = Report::new(sides, limits)?;
    let written = output.write(&match args.format {
        CompareFormat::Text => report.text(),
        CompareFormat::Json => serde_json::to_string(&report).context("the report cannot be written as JSON")? + "\n",
        CompareFormat::Html => html::page(&report),
    });
    unless_closed(written)?;
    output.finish()?;
    if report.past.is_empty() { Ok(()) } else { Err(Unmet(report.past.join("; ")).into()) }
}
