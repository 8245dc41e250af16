//! Ratcliff–Obershelp similarity, the measure of voxtral.c's accuracy script.

use crate::score::word_ids;
use std::ops::Range;

/// The part of two texts that does not match: 0 for equal texts, 1 for texts without a common word.
///
/// The texts are put into lower case and split at white space; punctuation counts. The longest common run of words is
/// matched, then the longest on either side of it, and so on. With M words matched of T in both texts together this
/// is 1 − 2 M / T: in Python `1 - difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()`.
///
/// Fast for texts that resemble each other; slow, as Python is, where long stretches repeat one word in one text only.
pub fn mismatch_ratio(reference: &str, hypothesis: &str) -> f64 {
    let [a, b] = [reference, hypothesis].map(str::to_lowercase);
    let [a, b] = word_ids([&a, &b]);
    if a.is_empty() && b.is_empty() {
        return 0.0;
    }
    1.0 - 2.0 * matching_words(&a, &b) as f64 / (a.len() + b.len()) as f64
}

fn matching_words(a: &[u32], b: &[u32]) -> usize {
    let words = a.iter().chain(b).max().map_or(0, |&id| id as usize + 1);
    let mut places = vec![Vec::new(); words];
    for (j, &word) in b.iter().enumerate() {
        places[word as usize].push(j);
    }
    let mut finder = Finder { a, places, above: vec![0; b.len() + 1], row: vec![0; b.len() + 1] };
    let mut matched = 0;
    let mut open = vec![(0..a.len(), 0..b.len())];
    while let Some((in_a, in_b)) = open.pop() {
        let (i, j, len) = finder.longest_match(in_a.clone(), in_b.clone());
        if len > 0 {
            matched += len;
            open.push((in_a.start..i, in_b.start..j));
            open.push((i + len..in_a.end, j + len..in_b.end));
        }
    }
    matched
}

struct Finder<'a> {
    a: &'a [u32],
    /// Where each word stands in b, ascending.
    places: Vec<Vec<usize>>,
    /// `row[j + 1]` is the length of the match that ends at `a[i]` and `b[j]`; `above` is the row of `a[i - 1]`. Both
    /// are zero between searches, and only the places of a word are ever touched.
    above: Vec<usize>,
    row: Vec<usize>,
}

impl Finder<'_> {
    /// `(i, j, len)` of the longest common run within the two ranges; of several the first in a, then in b.
    fn longest_match(&mut self, in_a: Range<usize>, in_b: Range<usize>) -> (usize, usize, usize) {
        let within = |places: &'_ [usize]| {
            places.partition_point(|&j| j < in_b.start)..places.partition_point(|&j| j < in_b.end)
        };
        let mut best = (in_a.start, in_b.start, 0);
        let mut touched: &[usize] = &[];
        for i in in_a {
            let places = &self.places[self.a[i] as usize];
            let places = &places[within(places)];
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
        best
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
            assert!((mismatch_ratio(a, b) - (1.0 - ratio)).abs() < 1e-12, "{line}");
            cases += 1;
        }
        assert_eq!(cases, 80);
    }

    #[test]
    fn case_and_spacing_do_not_count_but_punctuation_does() {
        assert_eq!(mismatch_ratio(" Hello,  World\n", "hello, world"), 0.0);
        assert_eq!(mismatch_ratio("hello, world", "hello world"), 0.5);
        assert_eq!(mismatch_ratio("a", ""), 1.0);
        assert_eq!(mismatch_ratio("", ""), 0.0);
    }
}
