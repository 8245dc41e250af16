//! Keys and values of one stream in one stack, as rings that hold the window and the longest span.

use voxtral_model::TransformerConfig;

use crate::kernels::{BLOCK, Head};

/// Rings of all layers of a stack. Position p is in slot `p % slots` of each.
pub(crate) struct KvCache {
    layers: Vec<Layer>,
    slots: usize,
    kv_heads: usize,
    head_dim: usize,
    value_stride: usize,
    window: usize,
}

struct Layer {
    /// `[kv_heads, slots / BLOCK, head_dim, BLOCK]`
    keys: Box<[f32]>,
    /// `[kv_heads, slots, value_stride]`
    values: Box<[f32]>,
}

impl KvCache {
    /// For spans of up to `span` positions. Memory that was never written to costs nothing: the system hands out zeroed pages as they
    /// are touched. Fails with the bytes that it does not even promise.
    pub(crate) fn new(config: &TransformerConfig, span: usize) -> Result<Self, usize> {
        let (slots, value_stride) = Self::slots_and_stride(config, span);
        let layer = |_| {
            let keys = zeros(config.kv_heads * slots * config.head_dim)?;
            Ok::<_, usize>(Layer { keys, values: zeros(config.kv_heads * slots * value_stride)? })
        };
        Ok(Self {
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            slots,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            value_stride,
            window: config.window,
        })
    }

    /// Bytes that so many positions take.
    pub(crate) fn bytes(config: &TransformerConfig, span: usize, positions: usize) -> usize {
        let (slots, value_stride) = Self::slots_and_stride(config, span);
        let slots = slots.min(positions.div_ceil(BLOCK).saturating_mul(BLOCK));
        config.layers * config.kv_heads * slots * (config.head_dim + value_stride) * size_of::<f32>()
    }

    fn slots_and_stride(config: &TransformerConfig, span: usize) -> (usize, usize) {
        ((config.window + span).next_multiple_of(BLOCK), config.head_dim.next_multiple_of(BLOCK))
    }

    /// Writes the keys and values of one position, `[kv_heads * head_dim]` each.
    pub(crate) fn put(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let (slot, d) = (position % self.slots, self.head_dim);
        let layer = &mut self.layers[layer];
        for h in 0..self.kv_heads {
            let block = (h * self.slots / BLOCK + slot / BLOCK) * d * BLOCK;
            for (i, &key) in keys[h * d..][..d].iter().enumerate() {
                layer.keys[block + i * BLOCK + slot % BLOCK] = key;
            }
            layer.values[(h * self.slots + slot) * self.value_stride..][..d].copy_from_slice(&values[h * d..][..d]);
        }
    }

    /// One head of a layer.
    pub(crate) fn head(&self, layer: usize, head: usize) -> Head<'_> {
        let (keys, values) = (self.slots * self.head_dim, self.slots * self.value_stride);
        Head {
            keys: &self.layers[layer].keys[head * keys..][..keys],
            values: &self.layers[layer].values[head * values..][..values],
            slots: self.slots,
            head_dim: self.head_dim,
            value_stride: self.value_stride,
            window: self.window,
        }
    }

    /// Copies what a query up to `back` positions before `position`, or later, can see of the positions before `position`.
    pub(crate) fn copy_from(&mut self, other: &Self, position: usize, back: usize) {
        let d = self.head_dim;
        let (mut keys, mut values) = (vec![0.0; self.kv_heads * d], vec![0.0; self.kv_heads * d]);
        for layer in 0..self.layers.len() {
            for p in position.saturating_sub(self.window + back)..position {
                for h in 0..self.kv_heads {
                    let (head, slot) = (other.head(layer, h), p % other.slots);
                    let block = &head.keys[slot / BLOCK * d * BLOCK..][..d * BLOCK];
                    for i in 0..d {
                        keys[h * d + i] = block[i * BLOCK + slot % BLOCK];
                    }
                    values[h * d..][..d].copy_from_slice(&head.values[slot * head.value_stride..][..d]);
                }
                self.put(layer, p, &keys, &values);
            }
        }
    }
}

/// So many zeros, or how many bytes are not to be had.
pub(crate) fn zeros(len: usize) -> Result<Box<[f32]>, usize> {
    bytemuck::allocation::try_zeroed_slice_box(len).map_err(|()| len.saturating_mul(size_of::<f32>()))
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
            let cache = KvCache::new(&config(), span).unwrap();
            let values: usize = cache.layers.iter().map(|layer| layer.keys.len() + layer.values.len()).sum();
            assert_eq!(KvCache::bytes(&config(), span, 100_000), values * 4, "{span}");
            assert!(KvCache::bytes(&config(), span, 7) < values * 4, "{span}");
        }
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        assert_eq!(zeros(usize::MAX / 8).unwrap_err(), usize::MAX / 8 * 4);
    }

    #[test]
    fn a_copy_into_a_ring_of_another_size_sees_the_same() {
        let config = config();
        let [mut from, mut to] = [4, 100].map(|span| KvCache::new(&config, span).unwrap());
        for p in 0..70 {
            let row: Vec<f32> = (0..6).map(|i| (p * 10 + i) as f32).collect();
            from.put(0, p, &row, &row);
        }
        to.copy_from(&from, 70, 0);
        for p in 50..70 {
            let slot = p % to.slots;
            for h in 0..2 {
                let head = to.head(0, h);
                for i in 0..3 {
                    let want = (p * 10 + h * 3 + i) as f32;
                    assert_eq!(head.keys[(slot / BLOCK * 3 + i) * BLOCK + slot % BLOCK], want);
                    assert_eq!(head.values[slot * head.value_stride + i], want);
                }
            }
        }
    }
}
