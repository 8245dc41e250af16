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
    next: Vec<Guess>,
}

struct Guess {
    id: u32,
    age: usize,
}

/// A guess that a pass has judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Judged {
    /// Passes that predicted something for its position, each from better guesses than the one before; 0 for silence.
    pub(crate) age: usize,
    pub(crate) held: bool,
}

impl Guesses {
    pub(crate) fn new(pad: u32) -> Self {
        Self { pad, next: Vec::new() }
    }

    /// The inputs of `rows` positions, of which the first is certain.
    pub(crate) fn inputs(&self, certain: u32, rows: usize) -> Vec<u32> {
        let guesses = self.next.iter().map(|guess| guess.id).chain(std::iter::repeat(self.pad));
        std::iter::once(certain).chain(guesses).take(rows).collect()
    }

    /// The guesses among `inputs` up to the first that did not hold. The predictions behind those that did, and one, are certain: the
    /// others become guesses.
    pub(crate) fn accept(&mut self, inputs: &[u32], predictions: &[Prediction]) -> Vec<Judged> {
        let age = |ahead: usize| self.next.get(ahead).map_or(0, |guess| guess.age);
        let held = inputs[1..].iter().zip(predictions).map(|(guess, truth)| *guess == truth.id);
        let right = held.clone().take_while(|&held| held).count();
        let judged = held.take(right + 1).enumerate().map(|(ahead, held)| Judged { age: age(ahead), held }).collect();
        let guess = |(row, prediction): (usize, &Prediction)| Guess { id: prediction.id, age: age(row) + 1 };
        self.next = predictions.iter().enumerate().skip(right + 1).map(guess).collect();
        judged
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
    /// Guesses that held and that did not, by their age, up to that: older ones hold more often. All fade to [`HOPE`].
    guesses: [(f64, f64); 4],
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
        Self { cost: BTreeMap::new(), guesses: [HOPE; 4], budget: None }
    }

    /// Rows for each of `streams` that decode together, at most `most`.
    pub(crate) fn rows(&self, streams: usize, most: usize) -> usize {
        let (Some(&sequential), Some(budget)) = (self.cost.get(&streams), self.budget) else { return 1 };
        // Beyond twice what was tried, costs cannot be told, and guesses are too young to hold as they will.
        let tried = 2 * self.cost.keys().last().copied().unwrap_or(streams);
        let mut best = (1, 1.0 / sequential);
        for rows in [2, 4, 8, 16, 32, 64, 128].map(|rows: usize| rows.min(most)) {
            let Cost { expected, most } = self.cost_of(streams * rows);
            // What is not known yet is tried if the budget can bear that it costs the most.
            if most - sequential > budget || streams * rows > tried {
                continue;
            }
            let speed = self.tokens(rows) / expected;
            if speed > best.1 {
                best = (rows, speed);
            }
        }
        best.0
    }

    /// Tokens that passes of `rows` rows of one stream are expected to give.
    fn tokens(&self, rows: usize) -> f64 {
        // Part of the guesses of each age that hold: no less than of younger ones, where older ones are not known yet.
        let mut parts = self.guesses.map(|(held, failed)| held / (held + failed));
        (1..parts.len()).for_each(|age| parts[age] = parts[age].max(parts[age - 1]));
        let holds = |age: f64| {
            let part = |age: usize| parts[age.min(parts.len() - 1)];
            let younger = age as usize;
            part(younger) + age.fract() * (part(younger + 1) - part(younger))
        };
        // A guess comes as much nearer with each pass as that gives tokens, so its age depends on them as they do on its age.
        let mut tokens = 1.0;
        for _ in 0..8 {
            let reached = |certain: &mut f64, ahead| {
                *certain *= holds((rows - ahead) as f64 / tokens);
                Some(*certain)
            };
            tokens = (tokens + 1.0 + (1..rows).scan(1.0, reached).sum::<f64>()) / 2.0;
        }
        tokens
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

    /// Learns from one stream's guesses, up to the first that did not hold. Where none was made, what is known of them grows old.
    pub(crate) fn guessed(&mut self, guesses: &[Judged]) {
        if guesses.is_empty() {
            for (held, failed) in &mut self.guesses {
                *held = HOPE.0 + (*held - HOPE.0) * FADE;
                *failed = HOPE.1 + (*failed - HOPE.1) * FADE;
            }
        }
        let oldest = self.guesses.len() - 1;
        for guess in guesses {
            let right = f64::from(u8::from(guess.held));
            let (held, failed) = &mut self.guesses[guess.age.min(oldest)];
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
        let judged = |all: &[(usize, bool)]| all.iter().map(|&(age, held)| Judged { age, held }).collect::<Vec<_>>();
        assert_eq!(guesses.accept(&[7, 32, 32, 32], &predicted(&[32, 5, 9, 9])), judged(&[(0, true), (0, false)]));
        assert_eq!(guesses.inputs(5, 5), [5, 9, 9, 32, 32]);
        assert_eq!(guesses.accept(&[5, 9, 9, 32], &predicted(&[7, 8, 4, 6])), judged(&[(1, false)]));
        assert_eq!(guesses.inputs(7, 4), [7, 8, 4, 6]);
        assert_eq!(
            guesses.accept(&[7, 8, 4, 6], &predicted(&[8, 4, 6, 1])),
            judged(&[(2, true), (1, true), (1, true)])
        );
        assert_eq!(guesses.inputs(1, 2), [1, 32]);
    }

    /// Time for `tokens` tokens where a pass of r rows takes `cost(r)` and guesses of an age hold as `holds` says, and one token a pass.
    fn simulate(tokens: usize, cost: impl Fn(usize) -> f64, mut holds: impl FnMut(usize) -> bool) -> (f64, f64) {
        let (mut pace, mut done, mut total) = (Pace::new(), 0, 0.0);
        let mut ages = Vec::new();
        pace.took(8, Duration::from_secs_f64(cost(8))); // the prompt
        while done < tokens {
            let rows = pace.rows(1, 32.min(tokens - done));
            let age = |ahead: usize| ages.get(ahead).copied().unwrap_or(0);
            let mut judged = Vec::new();
            for age in (1..rows).map(|row| age(row - 1)) {
                judged.push(Judged { age, held: holds(age) });
                if !judged[judged.len() - 1].held {
                    break;
                }
            }
            let held = judged.iter().filter(|guess| guess.held).count();
            ages = (held + 1..rows).map(|row| age(row) + 1).collect();
            total += cost(rows);
            pace.gave(1, rows, held + 1, Duration::from_secs_f64(cost(rows)));
            pace.guessed(&judged);
            done += held + 1;
        }
        (total, tokens as f64 * cost(1))
    }

    #[test]
    fn loses_less_than_a_tenth_where_every_guess_fails() {
        let costs: [fn(usize) -> f64; 3] =
            [|rows| rows as f64, |rows| 1.0 + 0.05 * rows as f64, |rows| if rows <= 4 { 1.0 } else { 1.5 }];
        for (i, cost) in costs.into_iter().enumerate() {
            let (time, sequential) = simulate(500, cost, |_| false);
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
        let holds = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(seed) < 0.8 * f64::from(u32::MAX)
        };
        let (time, _) = simulate(140, |rows| 1.0 + 0.1 * rows as f64, holds);
        assert!(time < 1.1 * best, "{time} for {best}");
    }

    #[test]
    fn takes_what_there_is_to_gain() {
        let (time, sequential) = simulate(500, |rows| 1.0 + 0.01 * rows as f64, |_| true);
        assert!(time < sequential / 14.0, "{time} for {sequential}");
        // Where a row costs as much as a pass, there is nothing to gain, and nothing is lost.
        let (time, sequential) = simulate(500, |rows| rows as f64, |_| true);
        assert!(time <= 1.1 * sequential, "{time} for {sequential}");
    }
}
