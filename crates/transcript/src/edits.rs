//! The fewest edits between two sequences, exactly, in time that long ones allow.
//!
//! Hirschberg's algorithm: where does a best path cross the middle of `a`? Then each half by itself. It needs memory
//! for two rows where a full table of an hour of words would be 100 MB. The rows of long sequences are computed 64
//! cells at a time, with the bit vectors of Myers (1999) and Hyyrö (2003), and know edits only. Short ones, where
//! most of the choice between equally good paths lies, are computed cell by cell and prefer few substitutions.

use std::iter::repeat_n;

/// One step from `a` to `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Both have the same.
    Equal,
    Substitute,
    /// Only `b` has it.
    Insert,
    /// Only `a` has it.
    Delete,
}

/// Tables of more cells are computed in bit vectors.
const FEW_CELLS: usize = 1 << 20;

/// The fewest edits that make `b` of `a`, in order. Both are numbers from 0 up without gaps: memory is by the largest.
pub(crate) fn steps(a: &[u32], b: &[u32]) -> Vec<Step> {
    let symbols = a.iter().chain(b).max().map_or(0, |&largest| largest as usize + 1);
    let mut finder = Finder::new(symbols);
    finder.find(a, b);
    finder.steps
}

/// How many symbols both begin with, and how many of the rest both end with.
pub(crate) fn common_ends(a: &[u32], b: &[u32]) -> (usize, usize) {
    let same = |(x, y): &(&u32, &u32)| x == y;
    let before = a.iter().zip(b).take_while(same).count();
    let after = a[before..].iter().rev().zip(b[before..].iter().rev()).take_while(same).count();
    (before, after)
}

struct Finder {
    /// In which rows of the strip at hand each symbol stands, and last one that stands nowhere; zero between strips.
    places: Vec<[u64; LANES]>,
    steps: Vec<Step>,
}

impl Finder {
    fn new(symbols: usize) -> Self {
        Self { places: vec![[0; LANES]; symbols + 1], steps: Vec::new() }
    }

    fn find(&mut self, a: &[u32], b: &[u32]) {
        // What both begin or end with belongs to a best path.
        let (before, after) = common_ends(a, b);
        self.steps.extend(repeat_n(Step::Equal, before));
        self.find_between(&a[before..a.len() - after], &b[before..b.len() - after]);
        self.steps.extend(repeat_n(Step::Equal, after));
    }

    fn find_between(&mut self, a: &[u32], b: &[u32]) {
        match a {
            [] => self.steps.extend(repeat_n(Step::Insert, b.len())),
            _ if b.is_empty() => self.steps.extend(repeat_n(Step::Delete, a.len())),
            [only] => {
                let found = b.iter().position(|y| y == only);
                let before = found.unwrap_or(0);
                self.steps.extend(repeat_n(Step::Insert, before));
                self.steps.push(if found.is_some() { Step::Equal } else { Step::Substitute });
                self.steps.extend(repeat_n(Step::Insert, b.len() - before - 1));
            }
            _ => {
                let (head, tail) = a.split_at(a.len() / 2);
                let (forward, backward) = if a.len().saturating_mul(b.len()) <= FEW_CELLS {
                    (costs(head.iter(), b.iter()), costs(tail.iter().rev(), b.iter().rev()))
                } else {
                    (self.edits(head.iter(), b.iter()), self.edits(tail.iter().rev(), b.iter().rev()))
                };
                let cut = (0..=b.len()).min_by_key(|&j| forward[j] + backward[b.len() - j]).unwrap_or(0);
                self.find(head, &b[..cut]);
                self.find(tail, &b[cut..]);
            }
        }
    }
}

/// An edit adds one to the upper half of a cost, a substitution also to the lower: the smallest cost has the fewest
/// edits and among those the fewest substitutions.
const EDIT: u64 = 1 << 32;
const SUBSTITUTION: u64 = EDIT + 1;

/// The costs of making each beginning of `b`, from the empty one to the whole, of all of `a`.
fn costs<'a>(a: impl Iterator<Item = &'a u32>, b: impl Iterator<Item = &'a u32>) -> Vec<u64> {
    let b: Vec<u32> = b.copied().collect();
    let mut row: Vec<u64> = (0..=b.len() as u64).map(|j| j * EDIT).collect();
    for x in a {
        let mut diagonal = row[0];
        let mut left = row[0] + EDIT;
        row[0] = left;
        for (cost, y) in row[1..].iter_mut().zip(&b) {
            let both = diagonal + SUBSTITUTION * u64::from(x != y);
            diagonal = *cost;
            left = both.min(diagonal + EDIT).min(left + EDIT);
            *cost = left;
        }
    }
    row
}

/// Bit vectors that are computed side by side, each one column behind the one above: the steps of one column wait for
/// each other, those of different columns do not.
const LANES: usize = 4;
const BITS: usize = u64::BITS as usize;

/// How a column of 64 cells differs from cell to cell downwards, and what comes out of it at the bottom.
///
/// Neighbours in the table differ by -1, 0 or 1, so a bit for "one more" and a bit for "one less" tell all.
#[derive(Clone, Copy)]
struct Lane {
    more: u64,
    less: u64,
    /// The difference to the next column at the bottom, to the lane below.
    out: [u64; 2],
}

impl Lane {
    /// The column of the empty beginning of `b`: each cell has one deletion more than that above.
    const FIRST: Self = Self { more: u64::MAX, less: 0, out: [0, 0] };

    /// To the next column: `equal` are the rows whose symbol is that of the column, `more_in` and `less_in` the
    /// difference to the last column above, one of them 1 or neither. Returns the differences in all rows.
    fn advance(&mut self, equal: u64, [more_in, less_in]: [u64; 2]) -> [u64; 2] {
        let vertical = equal | self.less;
        let equal = equal | less_in;
        let horizontal = ((equal & self.more).wrapping_add(self.more) ^ self.more) | equal;
        let more = self.less | !(horizontal | self.more);
        let less = self.more & horizontal;
        self.out = [more >> (BITS - 1), less >> (BITS - 1)];
        let (more_above, less_above) = ((more << 1) | more_in, (less << 1) | less_in);
        self.more = less_above | !(vertical | more_above);
        self.less = more_above & vertical;
        [more, less]
    }
}

impl Finder {
    /// As [`costs`], in edits.
    fn edits<'a>(&mut self, a: impl Iterator<Item = &'a u32>, b: impl Iterator<Item = &'a u32>) -> Vec<u64> {
        let a: Vec<u32> = a.copied().collect();
        // Lanes that have not begun or are through see a symbol that is nowhere: it leaves the first column as it is.
        let nowhere = repeat_n(self.places.len() as u32 - 1, LANES - 1);
        let columns: Vec<u32> = nowhere.clone().chain(b.copied()).chain(nowhere).collect();
        // Between the empty beginning of `a` and each beginning of `b`: one insertion more than the one before.
        let mut differences = vec![[1, 0]; columns.len() - 2 * (LANES - 1)];
        for strip in a.chunks(LANES * BITS) {
            self.pass(strip, &columns, &mut differences);
        }
        let mut cost = a.len() as u64;
        let after = differences.into_iter().map(|[more, less]| {
            cost = cost + more - less;
            cost
        });
        std::iter::once(a.len() as u64).chain(after).collect()
    }

    /// Takes the differences between columns from above a strip of rows to its last row.
    fn pass(&mut self, strip: &[u32], columns: &[u32], differences: &mut [[u64; 2]]) {
        for (row, &symbol) in strip.iter().enumerate() {
            self.places[symbol as usize][row / BITS] |= 1 << (row % BITS);
        }
        let (last_lane, last_bit) = ((strip.len() - 1) / BITS, (strip.len() - 1) % BITS);
        let mut lanes = [Lane::FIRST; LANES];
        for (time, symbols) in columns.windows(LANES).enumerate() {
            let mut above = differences.get(time).copied().unwrap_or([0, 0]);
            let mut rows = [[0, 0]; LANES];
            for lane in 0..LANES {
                let below = lanes[lane].out;
                rows[lane] = lanes[lane].advance(self.places[symbols[LANES - 1 - lane] as usize][lane], above);
                above = below;
            }
            if let Some(difference) = time.checked_sub(last_lane).and_then(|column| differences.get_mut(column)) {
                *difference = rows[last_lane].map(|row| row >> last_bit & 1);
            }
        }
        for &symbol in strip {
            self.places[symbol as usize] = [0; LANES];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reproducible numbers below `below`.
    fn random(count: usize, below: u64, mut state: u64) -> Vec<u32> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % below) as u32
        };
        (0..count).map(|_| next()).collect()
    }

    fn of_costs(a: &[u32], b: &[u32]) -> Vec<u64> {
        costs(a.iter(), b.iter()).into_iter().map(|cost| cost / EDIT).collect()
    }

    fn of_bits(a: &[u32], b: &[u32], symbols: usize) -> Vec<u64> {
        let mut finder = Finder::new(symbols);
        let edits = finder.edits(a.iter(), b.iter());
        assert!(finder.places.iter().all(|places| *places == [0; LANES]));
        edits
    }

    #[test]
    fn bit_vectors_count_what_cells_count_at_ragged_sizes() {
        for (rows, seed) in [0, 1, 63, 64, 65, 128, 191, 255, 256, 257, 320, 600].into_iter().zip(1..) {
            for columns in [0, 1, 2, 3, 64, 300] {
                let (a, b) = (random(rows, 4, seed), random(columns, 4, seed + 100));
                assert_eq!(of_bits(&a, &b, 4), of_costs(&a, &b), "{rows} rows, {columns} columns");
            }
        }
    }

    proptest! {
        #[test]
        fn bit_vectors_count_what_cells_count(
            a in prop::collection::vec(0..3u32, 0..400),
            b in prop::collection::vec(0..3u32, 0..400),
        ) {
            prop_assert_eq!(of_bits(&a, &b, 3), of_costs(&a, &b));
        }
    }

    /// Beyond [`FEW_CELLS`] on both sides of it.
    #[test]
    fn long_sequences_get_the_fewest_edits() {
        for (rows, columns, symbols) in [(3000, 2500, 3), (1500, 4000, 50), (2, 700_000, 3), (700_000, 2, 3)] {
            let (a, b) = (random(rows, symbols, 1), random(columns, symbols, 2));
            let steps = steps(&a, &b);
            let (mut i, mut j, mut edits) = (0, 0, 0);
            for step in steps {
                let (of_a, of_b) = match step {
                    Step::Equal | Step::Substitute => (1, 1),
                    Step::Insert => (0, 1),
                    Step::Delete => (1, 0),
                };
                if of_a == 1 && of_b == 1 {
                    assert_eq!(step == Step::Equal, a[i] == b[j], "{rows} by {columns}: {i}, {j}");
                }
                edits += u64::from(step != Step::Equal);
                (i, j) = (i + of_a, j + of_b);
            }
            assert_eq!((i, j), (rows, columns));
            assert_eq!(Some(&edits), of_costs(&a, &b).last(), "{rows} by {columns}");
        }
    }
}
