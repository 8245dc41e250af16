//! Finding the next tokens: one a pass, or several by guessing.
//!
//! A token depends on all tokens before it, so decoding seems to need a pass for each. But a pass over several positions costs
//! little more than one, and the audio decides most tokens: so guess the inputs of the next positions, decode them all at once, and
//! keep what the guesses turn out to be right for, plus the one correction (Jacobi decoding; Santilli et al., "Accelerating
//! Transformer Inference for Translation via Parallel Decoding", ACL 2023). What is kept is exactly what one at a time would give.

use std::collections::BTreeMap;
use std::time::Duration;

use voxtral_model::{MAX_DECODE_ROWS, Prediction};

/// How the next tokens are found. The tokens are the same either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoding {
    /// As many positions a pass as pay off.
    Auto,
    /// One position a pass.
    Sequential,
    /// `lookahead` positions a pass where there is audio for them, whether that pays off or not.
    Parallel {
        /// At most [`MAX_DECODE_ROWS`](voxtral_model::MAX_DECODE_ROWS).
        lookahead: usize,
    },
}

impl Decoding {
    /// Most positions of one stream in a pass.
    pub(crate) fn lookahead(self) -> usize {
        match self {
            Self::Auto => MAX_DECODE_ROWS,
            Self::Sequential => 1,
            Self::Parallel { lookahead } => lookahead.clamp(1, MAX_DECODE_ROWS),
        }
    }
}

/// Guesses of one stream: what the pass before predicted behind the first wrong guess, then silence.
pub(crate) struct Guesses {
    pad: u32,
    next: Vec<u32>,
}

impl Guesses {
    pub(crate) fn new(pad: u32) -> Self {
        Self { pad, next: Vec::new() }
    }

    /// The inputs of `rows` positions, of which the first is certain.
    pub(crate) fn inputs(&self, certain: u32, rows: usize) -> Vec<u32> {
        let guesses = self.next.iter().copied().chain(std::iter::repeat(self.pad));
        std::iter::once(certain).chain(guesses).take(rows).collect()
    }

    /// How many of the predictions for `inputs` are certain: the first, and each one whose input was predicted by the one before.
    /// The rest become guesses.
    pub(crate) fn accept(&mut self, inputs: &[u32], predictions: &[Prediction]) -> usize {
        let right = inputs[1..].iter().zip(predictions).take_while(|(guess, truth)| **guess == truth.id).count();
        self.next.clear();
        self.next.extend(predictions[right + 1..].iter().map(|p| p.id));
        right + 1
    }
}

/// How far to look ahead: as far as it pays, on a budget.
///
/// It learns what passes cost and how often guesses hold, and takes the number of rows that promises most tokens a second. Until
/// guesses have paid for themselves, they may lose at most [`BUDGET`] of what one token a pass would have cost; so even where
/// every guess is wrong, little is lost.
pub(crate) struct Pace {
    /// Seconds of a pass by its number of rows.
    cost: BTreeMap<usize, f64>,
    /// Guesses that held and that did not, by how far ahead they were: 1, 2 to 3, 4 to 7 and so on. Far ones hold more often, once
    /// near ones have: they were corrected by more passes, or lie in a pause. All fade to [`HOPE`].
    guesses: [(f64, f64); 7],
    /// Seconds that passes may still cost above the sequential ones.
    budget: Option<f64>,
}

/// Seconds of a pass: what it is expected to take, and what it takes at most.
struct Cost {
    expected: f64,
    most: f64,
}

/// Part of the sequential time that wrong guesses may cost.
const BUDGET: f64 = 0.05;
/// Tokens whose budget is given in advance, five seconds of audio: enough for a pass or two that are not worth it, so that what a short
/// recording can gain is found before it ends, and little enough that all guesses together lose less than a tenth of anything longer.
const ADVANCE: f64 = 60.0;
/// Guesses that hold and that do not, before any was made.
const HOPE: (f64, f64) = (1.5, 0.5);
/// Weight that older guesses keep at each new one, and at each pass without any.
const FADE: f64 = 0.98;
/// What a cost that is not tried falls to with each pass.
const FADE_COST: f64 = 0.99;

impl Pace {
    pub(crate) fn new() -> Self {
        Self { cost: BTreeMap::new(), guesses: [HOPE; 7], budget: None }
    }

    /// Rows for each of `streams` that decode together, at most `most`.
    pub(crate) fn rows(&self, streams: usize, most: usize) -> usize {
        let (Some(&sequential), Some(budget)) = (self.cost.get(&streams), self.budget) else { return 1 };
        let holds = |ahead: usize| {
            let (held, failed) = self.guesses[ahead.ilog2() as usize];
            held / (held + failed)
        };
        let tokens = |rows: usize| {
            let reached = |certain: &mut f64, ahead| {
                *certain *= holds(ahead);
                Some(*certain)
            };
            1.0 + (1..rows).scan(1.0, reached).sum::<f64>()
        };
        let mut best = (1, 1.0 / sequential);
        for rows in [2, 4, 8, 16, 32, 64, 128].map(|rows: usize| rows.min(most)) {
            let Cost { expected, most } = self.cost_of(streams * rows);
            // What is not known yet is tried if the budget can bear that it costs the most.
            let speed = tokens(rows) / expected;
            if most - sequential <= budget && speed > best.1 {
                best = (rows, speed);
            }
        }
        best.0
    }

    /// What a pass of `rows` costs: on the line through the two numbers of rows next to it whose costs are known, and at most what it can:
    /// one over twice the rows takes at most twice as long, and one over fewer rows takes no longer. Where one cost is known, the hope is
    /// that more rows cost nothing.
    fn cost_of(&self, rows: usize) -> Cost {
        if let Some(&known) = self.cost.get(&rows) {
            return Cost { expected: known, most: known };
        }
        let mut below = self.cost.range(..rows).rev().map(|(&rows, &cost)| (rows as f64, cost));
        let mut above = self.cost.range(rows..).map(|(&rows, &cost)| (rows as f64, cost));
        let (low, lower, high) = (below.next(), below.next(), above.next());
        let rows = rows as f64;
        let line = |(x0, y0): (f64, f64), (x1, y1): (f64, f64)| y0 + (y1 - y0).max(0.0) / (x1 - x0) * (rows - x0);
        let most = low.map_or(f64::INFINITY, |(known, cost)| cost * rows / known);
        let most = high.map_or(most, |(_, cost)| cost.min(most));
        let expected = match (lower, low, high) {
            (_, Some(low), Some(high)) => line(low, high),
            (Some(lower), Some(low), None) => line(lower, low),
            (None, Some((_, cost)), None) | (_, None, Some((_, cost))) => cost,
            (_, None, None) => 0.0,
        };
        Cost { expected: expected.min(most), most }
    }

    /// Learns what a pass of `rows` rows costs.
    pub(crate) fn took(&mut self, rows: usize, time: Duration) {
        let seconds = time.as_secs_f64();
        // A pass is sometimes slow for reasons of its own (the first one, other programs), never fast.
        let known = self.cost.entry(rows).or_insert(seconds);
        *known = if seconds < *known { seconds } else { *known + 0.2 * (seconds - *known) };
    }

    /// Learns what a pass of `rows` rows was good for, which gave `tokens` tokens to `streams` streams.
    pub(crate) fn gave(&mut self, streams: usize, rows: usize, tokens: usize, time: Duration) {
        self.took(rows, time);
        if let Some(&sequential) = self.cost.get(&streams) {
            let passes = tokens as f64 / streams as f64;
            let gained = (1.0 + BUDGET) * passes * sequential - time.as_secs_f64().max(sequential);
            *self.budget.get_or_insert(BUDGET * ADVANCE * sequential) += gained;
            // What has not been tried for long may have become cheaper.
            for (_, cost) in self.cost.range_mut(rows + 1..) {
                *cost = (*cost * FADE_COST).max(sequential);
            }
        }
    }

    /// Learns from one stream's guesses, of which `held` were right before the first wrong one, if there was one. Where none was made, what
    /// is known of them grows old.
    pub(crate) fn guessed(&mut self, held: usize, failed: bool) {
        if held == 0 && !failed {
            for (held, failed) in &mut self.guesses {
                *held = HOPE.0 + (*held - HOPE.0) * FADE;
                *failed = HOPE.1 + (*failed - HOPE.1) * FADE;
            }
        }
        for ahead in 1..=held + usize::from(failed) {
            let right = f64::from(u8::from(ahead <= held));
            let (held, failed) = &mut self.guesses[ahead.ilog2() as usize];
            (*held, *failed) = (*held * FADE + right, *failed * FADE + 1.0 - right);
        }
    }
}

#[cfg(test)]
mod tests {
    use voxtral_model::RUNNERS_UP;

    use super::*;

    fn predicted(ids: &[u32]) -> Vec<Prediction> {
        ids.iter().map(|&id| Prediction { id, logprob: 0.0, runners_up: [None; RUNNERS_UP] }).collect()
    }

    #[test]
    fn keeps_what_the_guesses_were_right_for_and_one_more() {
        let mut guesses = Guesses::new(32);
        assert_eq!(guesses.inputs(7, 3), [7, 32, 32]);
        assert_eq!(guesses.accept(&[7, 32, 32, 32], &predicted(&[32, 5, 9, 9])), 2);
        assert_eq!(guesses.inputs(5, 5), [5, 9, 9, 32, 32]);
        assert_eq!(guesses.accept(&[5, 9], &predicted(&[9, 8])), 2);
        assert_eq!(guesses.inputs(8, 2), [8, 32]);
    }

    /// Time for `tokens` tokens where a pass of r rows takes `cost(r)` and guesses hold as `holds` says, and one token a pass.
    fn simulate(tokens: usize, cost: impl Fn(usize) -> f64, mut holds: impl FnMut() -> bool) -> (f64, f64) {
        let (mut pace, mut done, mut total) = (Pace::new(), 0, 0.0);
        pace.took(8, Duration::from_secs_f64(cost(8))); // the prompt
        while done < tokens {
            let rows = pace.rows(1, 32.min(tokens - done));
            let held = (1..rows).take_while(|_| holds()).count();
            total += cost(rows);
            pace.gave(1, rows, held + 1, Duration::from_secs_f64(cost(rows)));
            pace.guessed(held, held + 1 < rows);
            done += held + 1;
        }
        (total, tokens as f64 * cost(1))
    }

    #[test]
    fn loses_less_than_a_tenth_where_every_guess_fails() {
        let costs: [fn(usize) -> f64; 3] =
            [|rows| rows as f64, |rows| 1.0 + 0.05 * rows as f64, |rows| if rows <= 4 { 1.0 } else { 1.5 }];
        for (i, cost) in costs.into_iter().enumerate() {
            let (time, sequential) = simulate(500, cost, || false);
            assert!(time <= 1.1 * sequential, "cost {i}: {time} for {sequential}");
        }
    }

    #[test]
    fn finds_the_best_lookahead_within_a_short_recording() {
        // 11 s, where four guesses of five hold.
        let fixed = |rows: usize| {
            let tokens = (0..rows).map(|ahead| 0.8_f64.powi(ahead as i32)).sum::<f64>();
            140.0 * (1.0 + 0.1 * rows as f64) / tokens
        };
        let best = [1, 2, 4, 8, 16, 32].map(fixed).into_iter().fold(f64::INFINITY, f64::min);
        let mut seed = 1_u32;
        let holds = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(seed) < 0.8 * f64::from(u32::MAX)
        };
        let (time, _) = simulate(140, |rows| 1.0 + 0.1 * rows as f64, holds);
        assert!(time < 1.1 * best, "{time} for {best}");
    }

    #[test]
    fn takes_what_there_is_to_gain() {
        let (time, sequential) = simulate(500, |rows| 1.0 + 0.01 * rows as f64, || true);
        assert!(time < sequential / 14.0, "{time} for {sequential}");
        // Where a row costs as much as a pass, there is nothing to gain, and nothing is lost.
        let (time, sequential) = simulate(500, |rows| rows as f64, || true);
        assert!(time <= 1.1 * sequential, "{time} for {sequential}");
    }
}
