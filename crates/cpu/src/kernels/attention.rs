//! Windowed causal attention of some queries over one key-value head of one stream.
//!
//! ```text
//! s_j = q · k_j / √d        for positions j with  t − window < j ≤ t
//! o   = Σ_j softmax(s)_j v_j
//! ```
//! Keys lie transposed in blocks of 16 positions, so that the scores of a block are d multiply-adds of whole vectors and need no sum
//! across lanes. All order is by absolute position: where the ring wraps, and which queries share a tile, cannot change a bit.

use std::cell::RefCell;

use half::bf16;

use super::elementwise::exp;
use super::vector::{Element, Vector};
use super::{Isa, dispatch};
use crate::parallel::SharedColumns;

/// Positions of a block of transposed keys; rings are whole blocks.
pub(crate) const BLOCK: usize = 16;
/// Queries that share each load of a key or a value.
const TILE: usize = 4;

/// One key-value head of a stream's ring.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a, E> {
    /// `[slots / BLOCK, head_dim, BLOCK]`
    pub keys: &'a [E],
    /// `[slots, value_stride]`
    pub values: &'a [E],
    /// Positions in the ring; position p is in slot p % slots.
    pub slots: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// `head_dim` rounded up to whole blocks, filled with zeros.
    pub value_stride: usize,
    /// Positions that a query sees, its own included.
    pub window: usize,
}

/// One head of one row: where its query lies and its output goes, in matrices of the same shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub row: usize,
    /// First column of the head.
    pub column: usize,
    pub position: usize,
}

/// A head in f32 or bf16.
pub(crate) enum Heads<'a> {
    F32(Head<'a, f32>),
    Bf16(Head<'a, bf16>),
}

impl<E> Head<'_, E> {
    fn first(&self, query: &Query) -> usize {
        (query.position + 1).saturating_sub(self.window)
    }
}

/// `out[query] = attention(q[query])` for all `queries`; `q` and `out` are `[rows, heads * head_dim]`.
///
/// The ring must hold every position that the queries see.
///
/// # Safety
/// No other thread writes the same heads of the same rows of `out`.
///
/// # Panics
/// When a query lies outside the matrices, or the ring is smaller than its shape says.
pub(crate) unsafe fn attend(isa: Isa, head: &Heads<'_>, q: &[f32], queries: &[Query], out: &SharedColumns<'_>) {
    match head {
        Heads::F32(head) => attend_head(isa, head, q, queries, out),
        Heads::Bf16(head) => attend_head(isa, head, q, queries, out),
    }
}

fn attend_head<E: Element>(isa: Isa, head: &Head<'_, E>, q: &[f32], queries: &[Query], out: &SharedColumns<'_>) {
    assert!(head.slots.is_multiple_of(BLOCK) && head.value_stride.is_multiple_of(BLOCK));
    assert!(head.keys.len() == head.slots * head.head_dim && head.values.len() == head.slots * head.value_stride);
    assert!(head.head_dim <= head.value_stride && q.len() == out.rows() * out.columns());
    assert!(queries.iter().all(|x| x.row < out.rows() && x.column + head.head_dim <= out.columns()));
    thread_local! {
        static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCORES.with_borrow_mut(|scores| {
        for tile in queries.chunks(TILE) {
            dispatch!(isa, [E: Element] attend_tile(head: &Head<'_, E>, q: &[f32], tile: &[Query], out: &SharedColumns<'_>, scores: &mut Vec<f32>));
        }
    });
}

/// Up to `TILE` queries at once.
#[inline(always)]
unsafe fn attend_tile<V: Vector, E: Element>(
    head: &Head<'_, E>,
    q: &[f32],
    tile: &[Query],
    out: &SharedColumns<'_>,
    scores: &mut Vec<f32>,
) {
    let first = tile.iter().map(|query| head.first(query)).min().unwrap_or(0);
    let last = tile.iter().map(|query| query.position).max().unwrap_or(0);
    // Blocks that any query sees. The scores of query i are scores[i * stride..], starting at position `origin`.
    let origin = first / BLOCK * BLOCK;
    let blocks = (last - origin) / BLOCK + 1;
    let stride = blocks * BLOCK;
    scores.clear();
    scores.resize(TILE * stride, 0.0);

    let heads: [&[f32]; TILE] = std::array::from_fn(|i| {
        let query = tile[i.min(tile.len() - 1)];
        &q[query.row * out.columns() + query.column..][..head.head_dim]
    });
    for b in 0..blocks {
        let block = (origin / BLOCK + b) % (head.slots / BLOCK);
        let keys = &head.keys[block * head.head_dim * BLOCK..][..head.head_dim * BLOCK];
        // SAFETY: the caller's promise about V; the slices hold what is read and written.
        unsafe { score_block::<V, E>(keys, &heads, &mut scores[b * BLOCK..], stride) };
    }
    let scale = 1.0 / (head.head_dim as f32).sqrt();
    for (query, scores) in tile.iter().zip(scores.chunks_exact_mut(stride)) {
        softmax(scores, scale, head.first(query) - origin..query.position + 1 - origin);
    }
    // SAFETY: the caller's promises about V and about `out`.
    unsafe { weigh_values::<V, E>(head, tile, origin, first..last + 1, scores, stride, out) };
}

/// `scores[i * stride..][..BLOCK] = q_i · keys` for the tile's queries.
#[inline(always)]
unsafe fn score_block<V: Vector, E: Element>(keys: &[E], queries: &[&[f32]; TILE], scores: &mut [f32], stride: usize) {
    assert!(scores.len() >= (TILE - 1) * stride + BLOCK);
    for lane in (0..BLOCK).step_by(V::LANES) {
        // SAFETY: `lane + LANES` is at most BLOCK, the length of each row of keys and of each query's part of scores.
        unsafe {
            let mut sums = [V::splat(0.0); TILE];
            for (d, row) in keys.chunks_exact(BLOCK).enumerate() {
                let k: V = E::load(row.as_ptr().add(lane));
                for i in 0..TILE {
                    sums[i] = k.mul_add(V::splat(*queries[i].get_unchecked(d)), sums[i]);
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                sum.store(scores.as_mut_ptr().add(i * stride + lane));
            }
        }
    }
}

/// Scores to weights: softmax over `seen`, zero elsewhere.
#[inline(always)]
fn softmax(scores: &mut [f32], scale: f32, seen: std::ops::Range<usize>) {
    scores[..seen.start].fill(0.0);
    scores[seen.end..].fill(0.0);
    let origin = seen.start / BLOCK * BLOCK;
    let larger = |max: f32, score: f32| if max > score { max } else { score };
    let (whole, rest) = scores[seen.clone()].as_chunks::<BLOCK>();
    let mut lanes = [f32::NEG_INFINITY; BLOCK];
    for block in whole {
        for lane in 0..BLOCK {
            lanes[lane] = larger(lanes[lane], block[lane]);
        }
    }
    let max = rest.iter().copied().chain(lanes).fold(f32::NEG_INFINITY, larger);
    for score in &mut scores[seen.clone()] {
        *score = exp((*score - max) * scale);
    }
    // Lane by lane from a block's border, so that the order is one of positions.
    let end = seen.end.next_multiple_of(BLOCK).min(scores.len());
    let mut lanes = [0.0f32; BLOCK];
    for block in scores[origin..end].chunks_exact(BLOCK) {
        for (lane, weight) in lanes.iter_mut().zip(block) {
            *lane += weight;
        }
    }
    let norm = 1.0 / lanes.iter().sum::<f32>();
    for weight in &mut scores[seen] {
        *weight *= norm;
    }
}

/// `out_i = Σ_j weights_i[j] · v_j` over the positions `seen` by any query of the tile.
#[inline(always)]
unsafe fn weigh_values<V: Vector, E: Element>(
    head: &Head<'_, E>,
    tile: &[Query],
    origin: usize,
    seen: std::ops::Range<usize>,
    weights: &[f32],
    stride: usize,
    out: &SharedColumns<'_>,
) {
    /// Vectors of a value that are summed together; with TILE queries their sums fill the registers.
    const WIDE: usize = 2;
    let mut column = 0;
    while column < head.value_stride {
        let wide = WIDE.min((head.value_stride - column) / V::LANES);
        // SAFETY: value rows are value_stride long and column + wide * LANES does not pass it; weights has TILE rows of stride, and
        // seen lies within a row counted from origin.
        let sums = unsafe {
            if wide == WIDE {
                weigh::<V, E, WIDE>(head, column, origin, seen.clone(), weights, stride)
            } else {
                let [one] = weigh::<V, E, 1>(head, column, origin, seen.clone(), weights, stride);
                [one, [V::splat(0.0); TILE]]
            }
        };
        for (w, sums) in sums.iter().enumerate().take(wide) {
            let at = column + w * V::LANES;
            for (query, sum) in tile.iter().zip(sums) {
                let mut lanes = [0.0f32; BLOCK];
                // SAFETY: LANES is at most BLOCK; (row, column + at..) is this head of this row, in bounds by `attend`'s
                // assertions and this thread's alone.
                unsafe {
                    sum.store(lanes.as_mut_ptr());
                    let len = V::LANES.min(head.head_dim.saturating_sub(at));
                    if len > 0 {
                        std::ptr::copy_nonoverlapping(lanes.as_ptr(), out.cell(query.row, query.column + at), len);
                    }
                }
            }
        }
        column += wide * V::LANES;
    }
}

#[inline(always)]
unsafe fn weigh<V: Vector, E: Element, const WIDE: usize>(
    head: &Head<'_, E>,
    column: usize,
    origin: usize,
    seen: std::ops::Range<usize>,
    weights: &[f32],
    stride: usize,
) -> [[V; TILE]; WIDE] {
    // SAFETY: as promised by the caller, `weigh_values`.
    unsafe {
        let mut sums = [[V::splat(0.0); TILE]; WIDE];
        let mut slot = seen.start % head.slots;
        for j in seen {
            let value = head.values.as_ptr().add(slot * head.value_stride + column);
            let weight: [V; TILE] = std::array::from_fn(|i| V::splat(*weights.get_unchecked(i * stride + j - origin)));
            for (w, sums) in sums.iter_mut().enumerate() {
                let v: V = E::load(value.add(w * V::LANES));
                for i in 0..TILE {
                    sums[i] = v.mul_add(weight[i], sums[i]);
                }
            }
            slot += 1;
            if slot == head.slots {
                slot = 0;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    use super::*;

    /// Keys and values of `n` positions, `[n, head_dim]`.
    struct Case {
        keys: Vec<f32>,
        values: Vec<f32>,
        head_dim: usize,
    }

    impl Case {
        fn new(rng: &mut SmallRng, n: usize, head_dim: usize) -> Self {
            let mut values = || (0..n * head_dim).map(|_| rng.random_range(-1.0..1.0)).collect();
            Self { keys: values(), values: values(), head_dim }
        }

        /// The newest positions as a ring of `slots` holds them.
        fn ring(&self, slots: usize) -> (Vec<f32>, Vec<f32>, usize) {
            let (d, stride) = (self.head_dim, self.head_dim.next_multiple_of(BLOCK));
            let mut keys = vec![0.0; slots * d];
            let mut values = vec![0.0; slots * stride];
            for p in 0..self.keys.len() / d {
                let slot = p % slots;
                for i in 0..d {
                    keys[(slot / BLOCK * d + i) * BLOCK + slot % BLOCK] = self.keys[p * d + i];
                }
                values[slot * stride..][..d].copy_from_slice(&self.values[p * d..][..d]);
            }
            (keys, values, stride)
        }

        /// The scalar twin, in f64, without a ring.
        fn twin(&self, q: &[f32], position: usize, window: usize) -> Vec<f64> {
            let d = self.head_dim;
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            let seen = (position + 1).saturating_sub(window)..position + 1;
            let weights: Vec<f64> =
                seen.clone().map(|j| (dot(q, &self.keys[j * d..][..d]) / (d as f64).sqrt()).exp()).collect();
            let norm: f64 = weights.iter().sum();
            let value =
                |i: usize| seen.clone().zip(&weights).map(|(j, w)| w * f64::from(self.values[j * d + i])).sum::<f64>();
            (0..d).map(|i| value(i) / norm).collect()
        }
    }

    proptest! {
        #[test]
        fn equals_its_twin_wherever_the_ring_wraps(
            n in 1usize..200, window in 1usize..90, head_dim in 1usize..70, rows in 1usize..9, seed: u64,
        ) {
            let rows = rows.min(n);
            let mut rng = SmallRng::seed_from_u64(seed);
            let case = Case::new(&mut rng, n, head_dim);
            let q: Vec<f32> = (0..rows * head_dim).map(|_| rng.random_range(-3.0..3.0)).collect();
            let queries: Vec<Query> = (0..rows).map(|row| Query { row, column: 0, position: n - rows + row }).collect();
            let small = (window + rows - 1).next_multiple_of(BLOCK);
            for isa in Isa::available() {
                let mut results = Vec::new();
                for slots in [small, small + 3 * BLOCK, n.next_multiple_of(BLOCK).max(small)] {
                    let (keys, values, value_stride) = case.ring(slots);
                    let head = Heads::F32(Head { keys: &keys, values: &values, slots, head_dim, value_stride, window });
                    let mut together = vec![f32::NAN; q.len()];
                    let out = SharedColumns::new(&mut together, head_dim);
                    // SAFETY: there is no other thread, here and below.
                    unsafe { attend(isa, &head, &q, &queries, &out) };
                    let mut alone = vec![f32::NAN; q.len()];
                    for query in &queries {
                        let out = SharedColumns::new(&mut alone, head_dim);
                        // SAFETY: as above.
                        unsafe { attend(isa, &head, &q, &[*query], &out) };
                    }
                    prop_assert_eq!(&together, &alone, "{} slots {}", isa.name(), slots);
                    results.push(together);
                }
                prop_assert!(results.windows(2).all(|r| r[0] == r[1]), "{} depends on the ring", isa.name());
                // In bf16 the same as of the same numbers in f32.
                let (keys, values, value_stride) = case.ring(small);
                let halves = |numbers: &[f32]| numbers.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>();
                let wide = |numbers: &[bf16]| numbers.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
                let (keys, values) = (halves(&keys), halves(&values));
                let (wide_keys, wide_values) = (wide(&keys), wide(&values));
                let (slots, keys, values) = (small, &keys[..], &values[..]);
                let heads = [
                    Heads::Bf16(Head { keys, values, slots, head_dim, value_stride, window }),
                    Heads::F32(Head { keys: &wide_keys, values: &wide_values, slots, head_dim, value_stride, window }),
                ];
                let [half, full] = heads.map(|head| {
                    let mut outputs = vec![f32::NAN; q.len()];
                    // SAFETY: as above.
                    unsafe { attend(isa, &head, &q, &queries, &SharedColumns::new(&mut outputs, head_dim)) };
                    outputs
                });
                prop_assert_eq!(half, full, "{}", isa.name());
                for (query, got) in queries.iter().zip(results[0].chunks(head_dim)) {
                    let want = case.twin(&q[query.row * head_dim..][..head_dim], query.position, window);
                    for (g, w) in got.iter().zip(&want) {
                        prop_assert!((f64::from(*g) - w).abs() < 1e-5, "{}: {} for {}", isa.name(), g, w);
                    }
                }
            }
        }
    }
}
