//! The comparison as a whole, and as text.

use std::fmt::Write;

use serde::Serialize;

use super::score::{Divergence, Score};
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

impl Report {
    pub(super) fn new(sides: Sides, limits: Limits) -> anyhow::Result<Self> {
        let compared = sides.pairs.into_iter().map(|(audio, pair)| {
            let (score, first_divergence) = (Score::of(&pair), Divergence::of(&pair));
            let [left, right] = pair.map(|side| side.text);
            Compared { audio, left, right, score, first_divergence }
        });
        let recordings: Vec<Compared> = compared.collect();
        let total = Score::total(recordings.iter().map(|compared| &compared.score));
        let drift = total.tokens.map(|tokens| tokens.max_drift);
        if limits.max_drift.is_some() && drift.is_none() {
            anyhow::bail!("--max-drift needs the tokens of both sides: write the JSON with --tokens");
        }
        let figures = [
            ("the mismatch ratio", Some(total.mismatch), limits.tolerance),
            ("the word error rate", Some(total.wer.rate), limits.max_wer),
            ("the drift of log-probabilities", drift, limits.max_drift),
        ];
        let past = figures.into_iter().filter_map(|(what, found, limit)| {
            let (found, limit) = (found?, limit?);
            (found > limit).then(|| format!("{what} is {found:.4}, at most {limit} is allowed"))
        });
        let past = past.collect();
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
        let mut line = format!(
            "mismatch {:.4}, WER {} (as written {}), CER {} (as written {})",
            self.mismatch,
            percent(self.wer.rate),
            percent(self.wer_raw.rate),
            percent(self.cer.rate),
            percent(self.cer_raw.rate),
        );
        if let Some(tokens) = &self.tokens {
            let drift = format!("{:.6}, mean {:.6}", tokens.max_drift, tokens.mean_drift);
            line += &format!("; {} of {} tokens equal, drift at most {drift}", tokens.equal, tokens.count);
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
