//! How far a transcript is from a reference: error rates and the edits between them.
//!
//! Texts are compared as they are. For the usual, kinder rates compare [`normalise`]d texts. The rate of a corpus is
//! the rate of the added [`Errors`], not the mean of rates.

use crate::edits::{Step, common_ends, steps};
pub use crate::similarity::mismatch_ratio;
use std::collections::HashMap;
use std::hash::Hash;
use std::iter::Sum;
use std::ops::AddAssign;

/// Substitutions, insertions and deletions: the fewest edits that make the hypothesis of the reference. Of the ways to
/// reach that number it is one with few substitutions: with the fewest, where both texts have less than a thousand
/// words or characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Words or characters that stand for another.
    pub substitutions: usize,
    /// Words or characters that only the hypothesis has.
    pub insertions: usize,
    /// Words or characters that only the reference has.
    pub deletions: usize,
    /// The length of the reference.
    pub reference: usize,
}

impl Errors {
    /// All edits.
    pub fn total(&self) -> usize {
        self.substitutions + self.insertions + self.deletions
    }

    /// Edits per word or character of the reference; above 1 if there are more edits than that. An empty reference
    /// counts as one word, so that text out of nothing is an error and the rate is finite.
    pub fn rate(&self) -> f64 {
        self.total() as f64 / self.reference.max(1) as f64
    }
}

/// Accumulates over a corpus.
impl AddAssign for Errors {
    fn add_assign(&mut self, other: Self) {
        self.substitutions += other.substitutions;
        self.insertions += other.insertions;
        self.deletions += other.deletions;
        self.reference += other.reference;
    }
}

/// Of a whole corpus.
impl Sum for Errors {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, errors| {
            sum += errors;
            sum
        })
    }
}

/// Errors in words, which white space separates: their [`rate`](Errors::rate) is the word error rate.
pub fn word_errors(reference: &str, hypothesis: &str) -> Errors {
    let [a, b] = word_ids([reference, hypothesis]);
    errors(&a, &b)
}

/// Pairs of characters beyond which errors in characters are given up: some seconds of work, two texts of three hours of speech.
const MOST_CHAR_PAIRS: usize = 20_000_000_000;

/// Errors in characters, where any white space counts as one space and none at the ends: the character error rate.
///
/// Takes time in proportion to the product of the lengths, but for what both texts begin and end with. `None` where that would be
/// more than some seconds, as with texts of hours that differ from the start to the end.
pub fn char_errors(reference: &str, hypothesis: &str) -> Option<Errors> {
    char_errors_within(reference, hypothesis, MOST_CHAR_PAIRS)
}

fn char_errors_within(reference: &str, hypothesis: &str, most_pairs: usize) -> Option<Errors> {
    let [a, b] = [reference, hypothesis].map(squeeze);
    let [a, b] = ids([a.chars(), b.chars()]);
    let (before, after) = common_ends(&a, &b);
    let [rest_a, rest_b] = [&a, &b].map(|text| text.len() - before - after);
    (rest_a.saturating_mul(rest_b) <= most_pairs).then(|| errors(&a, &b))
}

/// Lower case, no punctuation, single spaces. Dashes and slashes separate words, all other punctuation vanishes
/// ("don't" is "dont"). Letters, marks and numerals of all scripts stay as they are.
pub fn normalise(text: &str) -> String {
    let separated = text.replace(|c| matches!(c, '-' | '/' | '\u{2010}'..='\u{2015}' | '\u{2212}'), " ");
    squeeze(&separated.replace(is_punctuation, "").to_lowercase())
}

/// ASCII punctuation and that of the scripts the model writes; the standard library knows no classes beyond ASCII.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
        || matches!(c,
            '¡' | '§' | '«' | '¶' | '·' | '»' | '¿'      // Latin-1
            | '\u{37e}' | '\u{387}'                      // Greek
            | '\u{60c}' | '\u{61b}' | '\u{61f}' | '\u{66a}'..='\u{66d}' | '\u{6d4}' // Arabic
            | '\u{964}' | '\u{965}'                      // Indic
            | '\u{2016}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{2e00}'..='\u{2e7f}' // general
            | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{30fb}' // CJK
            | '\u{fe30}'..='\u{fe6b}' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' // wide forms
            | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One step from reference to hypothesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    /// Both have this word.
    Equal(&'a str),
    /// The hypothesis has another word.
    Substitute {
        /// The word of the reference.
        reference: &'a str,
        /// The word of the hypothesis.
        hypothesis: &'a str,
    },
    /// Only the hypothesis has this word.
    Insert(&'a str),
    /// Only the reference has this word.
    Delete(&'a str),
}

/// The edits behind [`word_errors`], in order, for texts side by side.
pub fn align<'a>(reference: &'a str, hypothesis: &'a str) -> Vec<Edit<'a>> {
    let [a, b] = word_ids([reference, hypothesis]);
    let (mut left, mut right) = (reference.split_whitespace(), hypothesis.split_whitespace());
    let edit = |step| {
        Some(match step {
            Step::Equal => (Edit::Equal(left.next()?), right.next()?).0,
            Step::Substitute => Edit::Substitute { reference: left.next()?, hypothesis: right.next()? },
            Step::Insert => Edit::Insert(right.next()?),
            Step::Delete => Edit::Delete(left.next()?),
        })
    };
    steps(&a, &b).into_iter().filter_map(edit).collect()
}

fn errors(a: &[u32], b: &[u32]) -> Errors {
    let mut errors = Errors { reference: a.len(), ..Errors::default() };
    for step in steps(a, b) {
        match step {
            Step::Equal => {}
            Step::Substitute => errors.substitutions += 1,
            Step::Insert => errors.insertions += 1,
            Step::Delete => errors.deletions += 1,
        }
    }
    errors
}

/// The words of two texts as numbers.
pub(crate) fn word_ids(texts: [&str; 2]) -> [Vec<u32>; 2] {
    ids(texts.map(str::split_whitespace))
}

/// Numbers from 0 up, without gaps, equal ones for what is equal.
fn ids<T: Eq + Hash>(texts: [impl Iterator<Item = T>; 2]) -> [Vec<u32>; 2] {
    let mut ids = HashMap::new();
    texts.map(|text| {
        let id = |item| {
            let next = ids.len() as u32;
            *ids.entry(item).or_insert(next)
        };
        text.map(id).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(errors: Errors) -> [usize; 4] {
        [errors.substitutions, errors.insertions, errors.deletions, errors.reference]
    }

    #[test]
    fn the_three_kinds_of_errors() {
        assert_eq!(counts(word_errors("a b c d", "a x c d e")), [1, 1, 0, 4]);
        assert_eq!(counts(word_errors("a b c d", " b  c\nd ")), [0, 0, 1, 4]);
        assert_eq!(counts(char_errors("kitten", "sitting").unwrap()), [2, 1, 0, 6]);
        assert_eq!(counts(char_errors("a  b ", "a b").unwrap()), [0, 0, 0, 3]);
        // Two edits either way; the way with one substitution and one more equal word is better to look at.
        assert_eq!(counts(word_errors("a b c", "b x c")), [0, 1, 1, 3]);
    }

    #[test]
    fn characters_that_would_take_too_long_are_given_up() {
        // Three and two characters are left between what both begin and end with.
        let [a, b] = ["the cat sat", "the dg sat"];
        assert_eq!(char_errors_within(a, b, 5), None);
        assert_eq!(char_errors_within(a, b, 6).map(|errors| errors.total()), Some(3));
        assert!(char_errors_within(a, a, 0).is_some());
    }

    #[test]
    fn rates_add_up_over_a_corpus_and_stay_finite() {
        let mut corpus = word_errors("a b c d e f g h", "a b c d e f g h");
        corpus += word_errors("x y", "z");
        assert_eq!((corpus.total(), corpus.rate()), (2, 0.2));
        assert_eq!(word_errors("", "").rate(), 0.0);
        assert_eq!(word_errors("", "a b").rate(), 2.0);
    }

    #[test]
    fn normalised_texts_have_letters_and_single_spaces() {
        let text = " “Don’t,” he said—it's WELL-known:  3.5 % ¿Sí? 你好。 नमस्ते। Émile\n";
        assert_eq!(normalise(text), "dont he said its well known 35 sí 你好 नमस्ते émile");
    }

    #[test]
    fn alignment_side_by_side() {
        let edits = align("the cat sat on the mat", "a cat sat the big mat");
        let substitute = Edit::Substitute { reference: "the", hypothesis: "a" };
        let rest =
            [Edit::Equal("cat"), Edit::Equal("sat"), Edit::Delete("on"), Edit::Equal("the"), Edit::Insert("big")];
        assert_eq!(edits, [&[substitute], &rest[..], &[Edit::Equal("mat")]].concat());
    }

    /// Few words, so that they meet again.
    fn words() -> impl Strategy<Value = String> {
        "([abcd] ){0,12}"
    }

    proptest! {
        #[test]
        fn errors_are_a_metric(a in words(), b in words(), c in words()) {
            let distance = |x: &str, y: &str| word_errors(x, y).total();
            prop_assert_eq!(distance(&a, &a), 0);
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
        }

        #[test]
        fn edits_spell_both_texts_and_are_as_many_as_counted(a in words(), b in words()) {
            let (mut left, mut right, mut found) = (vec![], vec![], Errors::default());
            for edit in align(&a, &b) {
                match edit {
                    Edit::Equal(word) => { left.push(word); right.push(word); }
                    Edit::Substitute { reference, hypothesis } => {
                        prop_assert_ne!(reference, hypothesis);
                        left.push(reference);
                        right.push(hypothesis);
                        found.substitutions += 1;
                    }
                    Edit::Insert(word) => { right.push(word); found.insertions += 1; }
                    Edit::Delete(word) => { left.push(word); found.deletions += 1; }
                }
            }
            found.reference = left.len();
            prop_assert_eq!(left.join(" "), a.trim());
            prop_assert_eq!(right.join(" "), b.trim());
            prop_assert_eq!(found, word_errors(&a, &b));
        }

        #[test]
        fn normalising_twice_changes_nothing(text in any::<String>()) {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once);
        }
    }
}
