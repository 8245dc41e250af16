//! The comparison as a whole, and as text.

use std::fmt::Write;

use serde::Serialize;

use super::score::{Divergence, Rate, Score};
use super::sides::Sides;

/// What a comparison found. Its JSON is described in `schemas/compare.schema.json`.
#[derive(Serialize)]
pub(super) struct Report {
    /// Of the program that compared.
    pub version: &'static str,
    /// What is on the left, the reference.
    pub left: String,
    pub right: String,
    pub limits: Limits,
    /// The limits that did not hold, as sentences.
    pub past: Vec<String>,
    pub total: Score,
    pub recordings: Vec<Compared>,
}

/// What was allowed; nothing is allowed or forbidden where there is no number.
#[derive(Serialize)]
pub(super) struct Limits {
    pub tolerance: Option<f64>,
    pub max_wer: Option<f64>,
    pub max_drift: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct Compared {
    pub audio: String,
    pub left: String,
    pub right: String,
    pub score: Score,
    pub first_divergence: Option<Divergence>,
}

impl Limits {
    /// Those that do not hold, as sentences. What could not be compared has not held.
    fn past(&self, total: &Score, recordings: &[Compared]) -> Vec<String> {
        let mut past = Vec::new();
        let mut hold = |what: &str, found: Option<f64>, limit: Option<f64>| {
            let (Some(found), Some(limit)) = (found, limit) else { return };
            if found > limit {
                past.push(format!("{what} is {found:.4}, at most {limit} is allowed"));
            }
        };
        hold("the mismatch ratio", total.mismatch, self.tolerance);
        hold("the word error rate", Some(total.wer.rate), self.max_wer);
        hold("the drift of log-probabilities", total.tokens.and_then(|tokens| tokens.max_drift), self.max_drift);
        for Compared { audio, score, .. } in recordings {
            if self.tolerance.is_some() && score.mismatch.is_none() {
                past.push(format!("{audio}: {NO_MISMATCH}"));
            }
            if self.max_drift.is_some() && score.tokens.is_some_and(|tokens| tokens.max_drift.is_none()) {
                past.push(format!("{audio}: {NO_DRIFT}"));
            }
        }
        past
    }
}

const NO_MISMATCH: &str = "the mismatch ratio was given up, since both texts repeat a few words too often";
const NO_DRIFT: &str = "not one token is equal, so there are no log-probabilities to compare";

impl Report {
    pub(super) fn new(sides: Sides, limits: Limits) -> anyhow::Result<Self> {
        let compared = sides.pairs.into_iter().map(|(audio, pair)| {
            let (score, first_divergence) = (Score::of(&pair), Divergence::of(&pair));
            let [left, right] = pair.map(|side| side.text);
            Compared { audio, left, right, score, first_divergence }
        });
        let recordings: Vec<Compared> = compared.collect();
        let total = Score::total(recordings.iter().map(|compared| &compared.score));
        if limits.max_drift.is_some() && total.tokens.is_none() {
            anyhow::bail!("--max-drift needs the tokens of both sides: write the JSON with --tokens");
        }
        let past = limits.past(&total, &recordings);
        let [left, right] = sides.names;
        Ok(Self { version: env!("CARGO_PKG_VERSION"), left, right, limits, past, total, recordings })
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out).unwrap_or_default(); // Writing to a string cannot fail.
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "left   {}\nright  {}\n", self.left, self.right)?;
        for compared in &self.recordings {
            writeln!(out, "{}\n  {}", compared.audio, compared.score.line())?;
            if let Some(divergence) = &compared.first_divergence {
                writeln!(out, "  {}", divergence.line())?;
            }
        }
        if self.recordings.len() > 1 {
            writeln!(out, "all {} recordings\n  {}", self.recordings.len(), self.total.line())?;
        }
        Ok(())
    }
}

impl Score {
    /// In a line.
    pub(super) fn line(&self) -> String {
        let percent = |rate: f64| format!("{:.2} %", rate * 100.0);
        let known = |rate: Option<Rate>| rate.map_or("given up".to_owned(), |rate| percent(rate.rate));
        let mut line = format!(
            "mismatch {}, WER {} (as written {}), CER {} (as written {})",
            self.mismatch.map_or("given up".to_owned(), |mismatch| format!("{mismatch:.4}")),
            percent(self.wer.rate),
            percent(self.wer_raw.rate),
            known(self.cer),
            known(self.cer_raw),
        );
        if let Some(tokens) = &self.tokens {
            line += &format!("; {} of {} tokens equal", tokens.equal, tokens.count);
            if let (Some(max), Some(mean)) = (tokens.max_drift, tokens.mean_drift) {
                line += &format!(", drift at most {max:.6}, mean {mean:.6}");
            }
            if let Some(first) = tokens.first_difference_s {
                line += &format!(", the first differs at {first:.2} s");
            }
        }
        line
    }
}

impl Divergence {
    /// In a line.
    pub(super) fn line(&self) -> String {
        let word = |word: &Option<String>| word.as_ref().map_or("nothing".to_owned(), |word| format!("{word:?}"));
        let at = self.at_s.map_or(String::new(), |at| format!(" at {at:.2} s"));
        format!("they part{at}: left {}, right {}", word(&self.left), word(&self.right))
    }
}
