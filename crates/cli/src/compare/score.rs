//! How far one transcript is from another, in figures.

use serde::Serialize;
use voxtral_model::TOKEN_MS;
use voxtral_transcript::score::{Edit, Errors, align, char_errors, mismatch_ratio, normalise, word_errors};
use voxtral_transcript::{TokenRecord, Word};

use super::sides::Transcript;
use crate::recording::letters;

/// Of one recording, or of all together.
#[derive(Serialize)]
pub(super) struct Score {
    /// Words of both sides together.
    pub words: usize,
    /// The part of them that does not match; `None` where the texts are too long and repetitive to find it.
    pub mismatch: Option<f64>,
    /// Without case and punctuation.
    pub wer: Rate,
    /// `None` where the texts are too long and too different to find it in time.
    pub cer: Option<Rate>,
    /// As written.
    pub wer_raw: Rate,
    pub cer_raw: Option<Rate>,
    /// Where both sides have tokens.
    pub tokens: Option<Tokens>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Rate {
    pub rate: f64,
    pub substitutions: usize,
    pub insertions: usize,
    pub deletions: usize,
    /// Words or characters of the left side.
    pub reference: usize,
}

impl From<Errors> for Rate {
    fn from(errors: Errors) -> Self {
        let Errors { substitutions, insertions, deletions, reference } = errors;
        Self { rate: errors.rate(), substitutions, insertions, deletions, reference }
    }
}

impl From<Rate> for Errors {
    fn from(rate: Rate) -> Self {
        let Rate { substitutions, insertions, deletions, reference, .. } = rate;
        Self { substitutions, insertions, deletions, reference }
    }
}

/// Tokens compared one by one: each is 80 ms of the recording.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Tokens {
    /// Of the longer side.
    pub count: usize,
    /// That have the same id on both sides.
    pub equal: usize,
    /// How far log-probabilities are apart where ids are equal; `None` where none are.
    pub max_drift: Option<f64>,
    pub mean_drift: Option<f64>,
    /// Where the first that differs lies in the recording.
    pub first_difference_s: Option<f64>,
}

/// Where two texts part.
#[derive(Serialize)]
pub(super) struct Divergence {
    /// In the recording, to about a word; of texts without times it is not known.
    pub at_s: Option<f64>,
    /// The word that the left side has there, if it has one, and the right.
    pub left: Option<String>,
    pub right: Option<String>,
}

impl Score {
    pub(super) fn of([left, right]: &[Transcript; 2]) -> Self {
        let (a, b) = (left.text.as_str(), right.text.as_str());
        let (plain_a, plain_b) = (normalise(a), normalise(b));
        Self {
            words: a.split_whitespace().count() + b.split_whitespace().count(),
            mismatch: mismatch_ratio(a, b),
            wer: word_errors(&plain_a, &plain_b).into(),
            cer: char_errors(&plain_a, &plain_b).map(Rate::from),
            wer_raw: word_errors(a, b).into(),
            cer_raw: char_errors(a, b).map(Rate::from),
            tokens: left.tokens.as_ref().zip(right.tokens.as_ref()).map(|(a, b)| Tokens::of(a, b)),
        }
    }

    /// Of all recordings: the rates of the added counts, not means of rates.
    pub(super) fn total<'a>(scores: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let words: usize = scores.clone().map(|score| score.words).sum();
        let mismatched: Option<f64> = scores.clone().map(|score| Some(score.mismatch? * score.words as f64)).sum();
        let sum =
            |of: fn(&Self) -> Rate| Rate::from(scores.clone().map(|score| Errors::from(of(score))).sum::<Errors>());
        let sum_of_known = |of: fn(&Self) -> Option<Rate>| {
            let all: Option<Errors> = scores.clone().map(|score| of(score).map(Errors::from)).sum();
            all.map(Rate::from)
        };
        Self {
            words,
            mismatch: mismatched.map(|mismatched| mismatched / words.max(1) as f64),
            wer: sum(|score| score.wer),
            cer: sum_of_known(|score| score.cer),
            wer_raw: sum(|score| score.wer_raw),
            cer_raw: sum_of_known(|score| score.cer_raw),
            tokens: scores.map(|score| score.tokens).collect::<Option<Vec<_>>>().map(|all| Tokens::total(&all)),
        }
    }
}

impl Tokens {
    fn of(left: &[TokenRecord], right: &[TokenRecord]) -> Self {
        let same = |(a, b): &(&TokenRecord, &TokenRecord)| a.id == b.id;
        let pairs = left.iter().zip(right).filter(same);
        let drifts: Vec<f64> = pairs.map(|(a, b)| f64::from(a.logprob - b.logprob).abs()).collect();
        let first = first_difference(left, right);
        Self {
            count: left.len().max(right.len()),
            equal: drifts.len(),
            max_drift: drifts.iter().copied().reduce(f64::max),
            mean_drift: mean(drifts.iter().sum(), drifts.len()),
            first_difference_s: first.map(|token| token as f64 * f64::from(TOKEN_MS) / 1e3),
        }
    }

    /// The first difference is that of a recording, and all recordings have none.
    fn total(all: &[Self]) -> Self {
        let equal = all.iter().map(|tokens| tokens.equal).sum::<usize>();
        let drift = all.iter().filter_map(|tokens| Some(tokens.mean_drift? * tokens.equal as f64)).sum();
        Self {
            count: all.iter().map(|tokens| tokens.count).sum(),
            equal,
            max_drift: all.iter().filter_map(|tokens| tokens.max_drift).reduce(f64::max),
            mean_drift: mean(drift, equal),
            first_difference_s: None,
        }
    }
}

fn mean(sum: f64, count: usize) -> Option<f64> {
    (count > 0).then(|| sum / count as f64)
}

/// The first token that differs, or that only one side has.
pub(crate) fn first_difference(left: &[TokenRecord], right: &[TokenRecord]) -> Option<usize> {
    let end = (left.len() != right.len()).then_some(left.len().min(right.len()));
    left.iter().zip(right).position(|(a, b)| a.id != b.id).or(end)
}

impl Divergence {
    /// Of two texts that are not equal word by word.
    pub(super) fn of([left, right]: &[Transcript; 2]) -> Option<Self> {
        let edits = align(&left.text, &right.text);
        let first = edits.iter().position(|edit| !matches!(edit, Edit::Equal(_)))?;
        let before: usize =
            edits[..first].iter().map(|edit| if let Edit::Equal(word) = edit { letters(word) } else { 0 }).sum();
        let (a, b) = match edits[first] {
            Edit::Equal(word) => (Some(word), Some(word)),
            Edit::Substitute { reference, hypothesis } => (Some(reference), Some(hypothesis)),
            Edit::Insert(word) => (None, Some(word)),
            Edit::Delete(word) => (Some(word), None),
        };
        let at_left = a.and_then(|_| end_of(&left.words, before));
        let at_right = || b.and_then(|_| end_of(&right.words, before));
        // A reference knows no times: then it is after the word before.
        let after = || before.checked_sub(1).and_then(|before| end_of(&right.words, before));
        let at_s = at_left.or_else(at_right).or_else(after);
        Some(Self { at_s, left: a.map(str::to_owned), right: b.map(str::to_owned) })
    }
}

/// When the word ends that holds the letter after so many.
fn end_of(words: &[Word], letters_before: usize) -> Option<f64> {
    let mut letters_so_far = 0;
    let holds = |word: &&Word| {
        letters_so_far += letters(&word.text);
        letters_so_far > letters_before
    };
    words.iter().find(holds).map(|word| word.end_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of half a second, and a token for each 80 ms of them.
    fn transcript(text: &str) -> Transcript {
        let word = |(text, i): (&str, u32)| Word {
            text: text.to_owned(),
            start_s: f64::from(i) * 0.5,
            end_s: f64::from(i + 1) * 0.5,
            logprob: -0.5,
            alternatives: Vec::new(),
            after_space: i > 0,
        };
        let words: Vec<Word> = text.split_whitespace().zip(0..).map(word).collect();
        let tokens = words.iter().map(|word| TokenRecord { id: word.text.len() as u32, logprob: -0.5 }).collect();
        Transcript { text: text.to_owned(), words, tokens: Some(tokens) }
    }

    fn divergence(left: &str, right: &str) -> Option<(Option<f64>, Option<String>, Option<String>)> {
        Divergence::of(&[transcript(left), transcript(right)]).map(|d| (d.at_s, d.left, d.right))
    }

    #[test]
    fn equal_transcripts_differ_nowhere() {
        let same = [transcript("One, two."), transcript("One, two.")];
        let score = Score::of(&same);
        assert_eq!((score.mismatch, score.wer.rate, score.cer_raw.unwrap().rate), (Some(0.0), 0.0, 0.0));
        assert!(
            score.tokens.is_some_and(|t| t.equal == 2 && t.max_drift == Some(0.0) && t.first_difference_s.is_none())
        );
        assert!(Divergence::of(&same).is_none());
    }

    #[test]
    fn case_and_punctuation_count_only_as_written() {
        let score = Score::of(&[transcript("One, two."), transcript("one two")]);
        assert_eq!((score.wer.rate, score.cer.unwrap().rate), (0.0, 0.0));
        assert_eq!(
            (score.wer_raw.rate, score.cer_raw.unwrap().substitutions, score.cer_raw.unwrap().deletions),
            (1.0, 1, 2)
        );
        assert_eq!(score.mismatch, Some(1.0));
    }

    #[test]
    fn texts_part_at_a_word_with_its_time() {
        let some = |word: &str| Some(word.to_owned());
        assert_eq!(divergence("a b c", "a x c"), Some((Some(1.0), some("b"), some("x"))));
        assert_eq!(divergence("a b c", "a b"), Some((Some(1.5), some("c"), None)));
        assert_eq!(divergence("a b", "a b c"), Some((Some(1.5), None, some("c"))));
        // A reference has no times: the word is missing after the one before.
        let reference = Transcript { text: "a b c".to_owned(), ..Transcript::default() };
        let missing = Divergence::of(&[reference, transcript("a b")]).unwrap();
        assert_eq!((missing.at_s, missing.right), (Some(1.0), None));
    }

    #[test]
    fn tokens_are_compared_in_their_places() {
        let token = |id, logprob| TokenRecord { id, logprob };
        let left = [token(1, -0.5), token(2, -0.25), token(3, -1.0)];
        let right = [token(1, -0.5), token(9, -0.25), token(3, -1.5), token(4, 0.0)];
        let tokens = Tokens::of(&left, &right);
        assert_eq!((tokens.count, tokens.equal, tokens.first_difference_s), (4, 2, Some(0.08)));
        assert_eq!((tokens.max_drift, tokens.mean_drift), (Some(0.5), Some(0.25)));
        assert_eq!(Tokens::of(&left, &left[..2]).first_difference_s, Some(0.16));
    }

    #[test]
    fn without_an_equal_token_there_is_no_drift() {
        let token = |id| TokenRecord { id, logprob: -0.5 };
        for (left, right) in [(&[token(1), token(2)][..], &[token(2), token(1)][..]), (&[], &[]), (&[token(1)], &[])] {
            let tokens = Tokens::of(left, right);
            assert_eq!((tokens.equal, tokens.max_drift, tokens.mean_drift), (0, None, None));
        }
        let all = [Tokens::of(&[], &[]), Tokens::of(&[token(1)], &[token(1)])];
        assert_eq!(Tokens::total(&all).mean_drift, Some(0.0));
        assert_eq!(Tokens::total(&all[..1]).max_drift, None);
    }

    #[test]
    fn texts_without_a_word_are_equal() {
        let score = Score::total([Score::of(&[transcript(""), transcript("")])].iter());
        assert_eq!((score.words, score.mismatch, score.wer.rate), (0, Some(0.0), 0.0));
    }

    #[test]
    fn the_whole_weighs_recordings_by_their_words() {
        let scores =
            [Score::of(&[transcript("a b c"), transcript("a b c")]), Score::of(&[transcript("d"), transcript("e")])];
        let total = Score::total(scores.iter());
        assert_eq!((total.words, total.mismatch, total.wer.rate), (8, Some(0.25), 0.25));
        let tokens = total.tokens.unwrap();
        assert_eq!((tokens.count, tokens.equal), (4, 4));
    }
}
