//! Where somebody speaks and the model writes nothing: padding, token after token. A little of it is between all words; a long run says that
//! the model does not hear what it should, or that what sounds like speech is none.

use std::collections::VecDeque;
use std::time::Duration;

use voxtral::{Delay, Pauses, SAMPLE_RATE, TOKEN_MS};

/// Samples of a token.
const PIECE: usize = (SAMPLE_RATE * TOKEN_MS / 1000) as usize;

/// A pause that ends a run.
const PAUSE: Duration = Duration::from_millis(500);

/// A run that is longer is told in parts of this length, so that one that does not end is told, too.
const LONGEST: Duration = Duration::from_secs(30);

/// Follows one utterance.
pub(super) struct Pads {
    pauses: Pauses,
    delay: Delay,
    /// Samples that are no piece yet.
    begun: Vec<f32>,
    /// Whether somebody spoke in each piece whose token has not come.
    speech: VecDeque<bool>,
    /// Tokens to come before that of the first piece: the model writes what it has heard a delay ago.
    ahead: u32,
    /// Tokens of the run that goes on.
    run: u32,
}

impl Pads {
    pub(super) fn new(delay: Delay) -> Self {
        let (pauses, ahead) = (Pauses::new(PAUSE), delay.ms() / TOKEN_MS);
        Self { pauses, delay, begun: Vec::with_capacity(PIECE), speech: VecDeque::new(), ahead, run: 0 }
    }

    /// Hears audio, before its tokens come.
    pub(super) fn hear(&mut self, mut samples: &[f32]) {
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(PIECE - self.begun.len()));
            self.begun.extend_from_slice(now);
            samples = later;
            if self.begun.len() == PIECE {
                self.pauses.push(&self.begun, &mut Vec::new());
                self.begun.clear();
                self.speech.push_back(self.pauses.speech_from().is_some());
            }
        }
    }

    /// The next token came. Returns how long the run of padding was that ends with it, if one does.
    pub(super) fn token(&mut self, is_pad: bool) -> Option<Duration> {
        if self.ahead > 0 {
            self.ahead -= 1;
            return None;
        }
        // After the audio, and in what a flush inserts, nobody speaks.
        let speech = self.speech.pop_front().unwrap_or(false);
        if is_pad && speech {
            self.run += 1;
            return (self.run == LONGEST.as_millis() as u32 / TOKEN_MS).then(|| self.end()).flatten();
        }
        self.end()
    }

    /// All that was heard has come out; what was heard since is not looked at. Returns the run that ends here.
    pub(super) fn flushed(&mut self) -> Option<Duration> {
        self.speech.clear();
        self.ahead = self.delay.ms() / TOKEN_MS;
        self.end()
    }

    fn end(&mut self) -> Option<Duration> {
        let run = std::mem::take(&mut self.run);
        (run > 0).then(|| Duration::from_millis(u64::from(run * TOKEN_MS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runs of the sample, said `times` times without a pause, if the tokens are such.
    fn runs(times: usize, mut is_pad: impl FnMut(u32) -> bool) -> Vec<u64> {
        let mut wav = hound::WavReader::open("../../samples/digits.wav").unwrap();
        let said: Vec<f32> = wav.samples::<i16>().map(|sample| f32::from(sample.unwrap()) / 32_768.0).collect();
        // From the first word to the last.
        let said = said[6400..128_000].repeat(times);
        let mut pads = Pads::new(Delay::from_ms(480).unwrap());
        let mut runs = Vec::new();
        for (token, piece) in (0..).zip(said.chunks(PIECE)) {
            pads.hear(piece);
            runs.extend(pads.token(is_pad(token)));
        }
        runs.extend(pads.flushed());
        runs.iter().map(|run| run.as_millis() as u64).collect()
    }

    #[test]
    fn a_model_that_writes_has_short_runs_and_one_that_does_not_a_long_one() {
        let written = runs(1, |token| token % 5 != 0);
        assert!(written.len() > 5 && written.iter().all(|&ms| ms <= 400), "{written:?}");
        let longest = |runs: Vec<u64>| runs.into_iter().max().unwrap();
        assert!(longest(runs(1, |_| true)) > 1000, "{:?}", runs(1, |_| true));
    }

    #[test]
    fn silence_is_no_run() {
        let mut pads = Pads::new(Delay::from_ms(480).unwrap());
        for _ in 0..1000 {
            pads.hear(&[0.0; PIECE]);
            assert_eq!(pads.token(true), None);
        }
        assert_eq!(pads.flushed(), None);
    }

    #[test]
    fn a_run_that_does_not_end_is_told_in_parts() {
        let mut pads = Pads::new(Delay::from_ms(480).unwrap());
        pads.ahead = 0;
        pads.speech = (0..1000).map(|_| true).collect();
        let runs: Vec<Duration> = (0..1000).filter_map(|_| pads.token(true)).collect();
        assert_eq!(runs, [LONGEST; 2]);
        assert_eq!(pads.token(false), Some(Duration::from_millis(250 * 80)));
    }
}
