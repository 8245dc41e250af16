//! Keys and values of one stream in one stack, as rings that hold the window and the longest span.

use bytemuck::Zeroable;
use half::bf16;
use voxtral_model::TransformerConfig;

use crate::kernels::{BLOCK, Element, Head, Heads};
use crate::parallel::Team;

/// Rings of all layers of a stack. Position p is in slot `p % slots` of each.
pub(crate) struct KvCache {
    layers: Layers,
    shape: Shape,
}

/// In what keys and values are kept: bf16 is half of what attention reads.
enum Layers {
    F32(Vec<Layer<f32>>),
    Bf16(Vec<Layer<bf16>>),
}

#[derive(Clone, Copy)]
struct Shape {
    slots: usize,
    kv_heads: usize,
    head_dim: usize,
    value_stride: usize,
    window: usize,
}

struct Layer<E> {
    /// `[kv_heads, slots / BLOCK, head_dim, BLOCK]`
    keys: Box<[E]>,
    /// `[kv_heads, slots, value_stride]`
    values: Box<[E]>,
}

impl KvCache {
    /// For spans of up to `span` positions, in f32 where that is `exact`ly asked for. Memory that was never written to costs nothing: the
    /// system hands out zeroed pages as they are touched. Fails with the bytes that it does not even promise.
    pub(crate) fn new(config: &TransformerConfig, span: usize, exact: bool) -> Result<Self, usize> {
        let shape = Shape::new(config, span);
        let layers = if exact {
            Layers::F32((0..config.layers).map(|_| Layer::new(&shape)).collect::<Result<_, _>>()?)
        } else {
            Layers::Bf16((0..config.layers).map(|_| Layer::new(&shape)).collect::<Result<_, _>>()?)
        };
        Ok(Self { layers, shape })
    }

    /// Bytes that so many positions take in bf16.
    pub(crate) fn bytes(config: &TransformerConfig, span: usize, positions: usize) -> usize {
        let Shape { slots, kv_heads, head_dim, value_stride, .. } = Shape::new(config, span);
        let slots = slots.min(positions.div_ceil(BLOCK).saturating_mul(BLOCK));
        config.layers * kv_heads * slots * (head_dim + value_stride) * size_of::<bf16>()
    }

    /// Writes the keys and values of positions from `position` on, `[positions, kv_heads * head_dim]` each.
    pub(crate) fn put(&mut self, team: &Team, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        match &mut self.layers {
            Layers::F32(layers) => layers[layer].put(team, &self.shape, position, keys, values),
            Layers::Bf16(layers) => layers[layer].put(team, &self.shape, position, keys, values),
        }
    }

    /// One head of a layer.
    pub(crate) fn head(&self, layer: usize, head: usize) -> Heads<'_> {
        match &self.layers {
            Layers::F32(layers) => Heads::F32(layers[layer].head(&self.shape, head)),
            Layers::Bf16(layers) => Heads::Bf16(layers[layer].head(&self.shape, head)),
        }
    }

    /// Copies what a query up to `back` positions before `position`, or later, can see of the positions before `position`, from a cache of
    /// the same kind.
    pub(crate) fn copy_from(&mut self, team: &Team, other: &Self, position: usize, back: usize) {
        let positions = position.saturating_sub(self.shape.window + back)..position;
        let (to, from) = (self.shape, other.shape);
        let copy = |layers: usize| layers * positions.len() * from.kv_heads * from.head_dim;
        match (&mut self.layers, &other.layers) {
            (Layers::F32(layers), Layers::F32(others)) => team.each_row(layers, 1, copy(others.len()), |i, layer| {
                layer[0].copy_from(&to, &others[i], &from, positions.clone());
            }),
            (Layers::Bf16(layers), Layers::Bf16(others)) => team.each_row(layers, 1, copy(others.len()), |i, layer| {
                layer[0].copy_from(&to, &others[i], &from, positions.clone());
            }),
            _ => unreachable!("a backend has caches of one kind"),
        }
    }
}

impl Shape {
    fn new(config: &TransformerConfig, span: usize) -> Self {
        Self {
            slots: (config.window + span).next_multiple_of(BLOCK),
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            value_stride: config.head_dim.next_multiple_of(BLOCK),
            window: config.window,
        }
    }

    /// Where the block of keys that has `position` begins.
    fn block(&self, head: usize, position: usize) -> usize {
        (head * self.slots + position % self.slots) / BLOCK * self.head_dim * BLOCK
    }

    /// Where the value of `position` begins.
    fn value(&self, head: usize, position: usize) -> usize {
        (head * self.slots + position % self.slots) * self.value_stride
    }
}

impl<E: Element + Zeroable + Send> Layer<E> {
    fn new(shape: &Shape) -> Result<Self, usize> {
        let positions = shape.kv_heads * shape.slots;
        Ok(Self { keys: zeros(positions * shape.head_dim)?, values: zeros(positions * shape.value_stride)? })
    }

    fn put(&mut self, team: &Team, shape: &Shape, position: usize, keys: &[f32], values: &[f32]) {
        let &Shape { slots, kv_heads, head_dim: d, value_stride, .. } = shape;
        let rows = |all: usize| position..position + all / (kv_heads * d);
        team.each_row(&mut self.keys, slots * d, keys.len(), |h, ring| {
            for (position, keys) in rows(keys.len()).zip(keys.chunks_exact(kv_heads * d)) {
                let block = &mut ring[shape.block(0, position)..][..d * BLOCK];
                for (lanes, &key) in block.chunks_exact_mut(BLOCK).zip(&keys[h * d..]) {
                    lanes[position % BLOCK] = E::from_f32(key);
                }
            }
        });
        team.each_row(&mut self.values, slots * value_stride, values.len(), |h, ring| {
            for (position, values) in rows(values.len()).zip(values.chunks_exact(kv_heads * d)) {
                let slot = &mut ring[shape.value(0, position)..][..d];
                slot.iter_mut().zip(&values[h * d..]).for_each(|(slot, &value)| *slot = E::from_f32(value));
            }
        });
    }

    fn head(&self, shape: &Shape, head: usize) -> Head<'_, E> {
        let &Shape { slots, head_dim, value_stride, window, .. } = shape;
        let (keys, values) = (slots * head_dim, slots * value_stride);
        Head {
            keys: &self.keys[head * keys..][..keys],
            values: &self.values[head * values..][..values],
            slots,
            head_dim,
            value_stride,
            window,
        }
    }

    /// Of a ring that may have another size, block by block: rings are whole blocks.
    fn copy_from(&mut self, to: &Shape, other: &Self, from: &Shape, positions: std::ops::Range<usize>) {
        let d = to.head_dim;
        let mut first = positions.start;
        while first < positions.end {
            let end = positions.end.min((first / BLOCK + 1) * BLOCK);
            let lanes = first % BLOCK..first % BLOCK + (end - first);
            for h in 0..to.kv_heads {
                let keys = &mut self.keys[to.block(h, first)..][..d * BLOCK];
                let others = &other.keys[from.block(h, first)..][..d * BLOCK];
                if lanes.len() == BLOCK {
                    keys.copy_from_slice(others);
                } else {
                    for (keys, others) in keys.chunks_exact_mut(BLOCK).zip(others.chunks_exact(BLOCK)) {
                        keys[lanes.clone()].copy_from_slice(&others[lanes.clone()]);
                    }
                }
                let values = lanes.len() * to.value_stride;
                self.values[to.value(h, first)..][..values]
                    .copy_from_slice(&other.values[from.value(h, first)..][..values]);
            }
            first = end;
        }
    }
}

/// So many zeros, or how many bytes are not to be had.
pub(crate) fn zeros<E: Zeroable>(len: usize) -> Result<Box<[E]>, usize> {
    bytemuck::allocation::try_zeroed_slice_box(len).map_err(|()| len.saturating_mul(size_of::<E>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TransformerConfig {
        TransformerConfig {
            dim: 1,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            head_dim: 3,
            ffn_dim: 1,
            window: 20,
            rope_theta: 1e4,
            norm_eps: 1e-5,
        }
    }

    #[test]
    fn a_full_cache_takes_the_bytes_that_were_told() {
        for span in [4, 100] {
            let Layers::Bf16(layers) = KvCache::new(&config(), span, false).unwrap().layers else { panic!("bf16") };
            let values: usize = layers.iter().map(|layer| layer.keys.len() + layer.values.len()).sum();
            assert_eq!(KvCache::bytes(&config(), span, 100_000), values * 2, "{span}");
            assert!(KvCache::bytes(&config(), span, 7) < values * 2, "{span}");
        }
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        assert_eq!(zeros::<f32>(usize::MAX / 8).unwrap_err(), usize::MAX / 8 * 4);
    }

    /// Whether a cache has what was put there, which bf16 holds exactly.
    fn assert_has(cache: &KvCache, positions: std::ops::Range<usize>) {
        for (p, h) in positions.flat_map(|p| [0, 1].map(|h| (p, h))) {
            let (keys, values, slots, stride) = match cache.head(0, h) {
                Heads::F32(head) => (head.keys.to_vec(), head.values.to_vec(), head.slots, head.value_stride),
                Heads::Bf16(head) => {
                    let wide = |numbers: &[bf16]| numbers.iter().map(|v| v.to_f32()).collect();
                    (wide(head.keys), wide(head.values), head.slots, head.value_stride)
                }
            };
            let slot = p % slots;
            for i in 0..3 {
                let want = (p % 100 + h * 3 + i) as f32;
                assert_eq!(keys[(slot / BLOCK * 3 + i) * BLOCK + slot % BLOCK], want, "key {i} of position {p}");
                assert_eq!(values[slot * stride + i], want, "value {i} of position {p}");
            }
        }
    }

    #[test]
    fn a_copy_into_a_ring_of_another_size_sees_the_same() {
        let team = Team::new(2).unwrap();
        for (exact, [from, to]) in [true, false].into_iter().flat_map(|exact| [(exact, [4, 100]), (exact, [100, 4])]) {
            for end in [3, 16, 70, 131] {
                let [mut from, mut to] = [from, to].map(|span| KvCache::new(&config(), span, exact).unwrap());
                for p in 0..end {
                    let row: Vec<f32> = (0..6).map(|i| (p % 100 + i) as f32).collect();
                    from.put(&team, 0, p, &row, &row);
                }
                to.copy_from(&team, &from, end, 0);
                assert_has(&to, end.saturating_sub(20)..end);
            }
        }
    }
}
