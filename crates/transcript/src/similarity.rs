//! Ratcliff–Obershelp similarity, the measure of voxtral.c's accuracy script.

use crate::score::word_ids;
use std::ops::Range;

/// The part of two texts that does not match: 0 for equal texts, 1 for texts without a common word.
///
/// The texts are put into lower case and split at white space; punctuation counts. The longest common run of words is
/// matched, then the longest on either side of it, and so on. With M words matched of T in both texts together this
/// is 1 − 2 M / T: in Python `1 - difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()`.
///
/// Fast for texts that resemble each other and for any natural ones. Where long stretches of both repeat a few words,
/// each text in its own way, this takes time by the cube of their lengths: what takes more than some seconds is given
/// up, and `None`.
pub fn mismatch_ratio(reference: &str, hypothesis: &str) -> Option<f64> {
    let [a, b] = [reference, hypothesis].map(str::to_lowercase);
    let [a, b] = word_ids([&a, &b]);
    if a.is_empty() && b.is_empty() {
        return Some(0.0);
    }
    let matching = matching_words(&a, &b, MOST_PAIRS)?;
    Some(1.0 - 2.0 * matching as f64 / (a.len() + b.len()) as f64)
}

/// Pairs of equal words that are looked at, those that one search after the other looks at again included. Two texts of
/// 30 000 words, ten different ones in no order, have 200 million.
const MOST_PAIRS: u64 = 4_000_000_000;

/// `None` where there are more pairs to look at than `most_pairs`.
fn matching_words(a: &[u32], b: &[u32], most_pairs: u64) -> Option<usize> {
    let words = a.iter().chain(b).max().map_or(0, |&id| id as usize + 1);
    let mut places = vec![Vec::new(); words];
    for (j, &word) in b.iter().enumerate() {
        places[word as usize].push(j);
    }
    let (above, row) = (vec![0; b.len() + 1], vec![0; b.len() + 1]);
    let mut finder = Finder { a, places, above, row, pairs_left: most_pairs };
    let mut matched = 0;
    let mut open = vec![(0..a.len(), 0..b.len())];
    while let Some((in_a, in_b)) = open.pop() {
        let (i, j, len) = finder.longest_match(in_a.clone(), in_b.clone())?;
        if len > 0 {
            matched += len;
            open.push((in_a.start..i, in_b.start..j));
            open.push((i + len..in_a.end, j + len..in_b.end));
        }
    }
    Some(matched)
}

struct Finder<'a> {
    a: &'a [u32],
    /// Where each word stands in b, ascending.
    places: Vec<Vec<usize>>,
    /// `row[j + 1]` is the length of the match that ends at `a[i]` and `b[j]`; `above` is the row of `a[i - 1]`. Both
    /// are zero between searches, and only the places of a word are ever touched.
    above: Vec<usize>,
    row: Vec<usize>,
    /// That may still be looked at.
    pairs_left: u64,
}

impl Finder<'_> {
    /// `(i, j, len)` of the longest common run within the two ranges; of several the first in a, then in b.
    /// `None` where that takes more pairs than are left.
    fn longest_match(&mut self, in_a: Range<usize>, in_b: Range<usize>) -> Option<(usize, usize, usize)> {
        let within = |places: &'_ [usize]| {
            places.partition_point(|&j| j < in_b.start)..places.partition_point(|&j| j < in_b.end)
        };
        let mut best = (in_a.start, in_b.start, 0);
        let mut touched: &[usize] = &[];
        for i in in_a {
            let places = &self.places[self.a[i] as usize];
            let places = &places[within(places)];
            // A word that is nowhere takes its time, too.
            self.pairs_left = self.pairs_left.checked_sub(1 + places.len() as u64)?;
            for &j in places {
                let len = self.above[j] + 1;
                self.row[j + 1] = len;
                if len > best.2 {
                    best = (i + 1 - len, j + 1 - len, len);
                }
            }
            touched.iter().for_each(|&j| self.above[j + 1] = 0);
            std::mem::swap(&mut self.above, &mut self.row);
            touched = places;
        }
        touched.iter().for_each(|&j| self.above[j + 1] = 0);
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_difflib() {
        let table = include_str!("../tests/difflib.tsv");
        let mut cases = 0;
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<_> = line.split('\t').collect();
            let [a, b, ratio] = fields[..] else { panic!("three fields: {line}") };
            let ratio: f64 = ratio.parse().unwrap();
            assert!((mismatch_ratio(a, b).unwrap() - (1.0 - ratio)).abs() < 1e-12, "{line}");
            cases += 1;
        }
        assert_eq!(cases, 80);
    }

    #[test]
    fn case_and_spacing_do_not_count_but_punctuation_does() {
        assert_eq!(mismatch_ratio(" Hello,  World\n", "hello, world"), Some(0.0));
        assert_eq!(mismatch_ratio("hello, world", "hello world"), Some(0.5));
        assert_eq!(mismatch_ratio("a", ""), Some(1.0));
        assert_eq!(mismatch_ratio("", ""), Some(0.0));
    }

    #[test]
    fn what_would_take_hours_is_given_up() {
        // Each match is one word, at the left end of what is left.
        let (same, alternating) = ("x ".repeat(30_000), "x y ".repeat(15_000));
        assert_eq!(mismatch_ratio(&same, &alternating), None);
        // The first search alone looks at 10 words and 50 pairs.
        let [a, b] = word_ids([&same[..20], &alternating[..20]]);
        assert_eq!((matching_words(&a, &b, 59), matching_words(&a, &b, 1000)), (None, Some(5)));
    }
}
