//! Whether every weight is finite. One value that is not turns every later output into NaN, and all text into nothing.
//!
//! This reads every byte once, on all cores, and so also brings the file into memory.

use rayon::prelude::*;

use super::{DType, Entry};
use crate::Weight;
use crate::packed::Stored;

const CHUNK_BYTES: usize = 4 << 20;

/// The first of `entries` that holds an infinity or a NaN.
pub(super) fn first_bad(entries: &[Entry]) -> Option<&Entry> {
    let mut chunks: Vec<(&Entry, DType, &[u8])> = Vec::new();
    let mut packed = Vec::new();
    for entry in entries {
        match entry.stored {
            Stored::Dense(dtype) => {
                chunks.extend(entry.content().chunks(CHUNK_BYTES).map(|chunk| (entry, dtype, chunk)));
            }
            Stored::Packed(_) => packed.push(entry),
        }
    }
    let bad = chunks.into_par_iter().find_first(|(_, dtype, chunk)| !all_finite(chunk, *dtype));
    let infinite = |entry: &&&Entry| matches!(entry.weight(&entry.shape), Ok(Weight::Packed(w)) if !w.is_finite());
    bad.map(|(entry, ..)| entry).or_else(|| packed.iter().find(infinite).copied())
}

/// An exponent of all ones is what infinities and NaNs have in common. Folded without an early end, so that it vectorises; bytes
/// are read as bytes because nothing in a file promises alignment.
fn all_finite(bytes: &[u8], dtype: DType) -> bool {
    let halves = |mask: u16| {
        let (values, _) = bytes.as_chunks::<2>();
        values.iter().fold(false, |bad, &v| bad | (u16::from_le_bytes(v) & mask == mask))
    };
    let bad = match dtype {
        DType::Bf16 => halves(0x7F80),
        DType::F16 => halves(0x7C00),
        DType::F32 => {
            let (values, _) = bytes.as_chunks::<4>();
            values.iter().fold(false, |bad, &v| bad | (u32::from_le_bytes(v) & 0x7F80_0000 == 0x7F80_0000))
        }
    };
    !bad
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn finds_one_bad_value_anywhere_in_any_type() {
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            for place in [0, 1, 15, 16, 998, 999] {
                let mut values = [-1.0f32; 1000];
                values[0] = f32::from(f16::MAX);
                let narrow = |values: &[f32]| {
                    let b: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
                    let h: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
                    let f: Vec<u8> = values.iter().flat_map(|&v| v.to_le_bytes()).collect();
                    [(b, DType::Bf16), (h, DType::F16), (f, DType::F32)]
                };
                assert!(narrow(&values).iter().all(|(bytes, dtype)| all_finite(bytes, *dtype)));
                values[place] = bad;
                assert!(narrow(&values).iter().all(|(bytes, dtype)| !all_finite(bytes, *dtype)), "{bad} at {place}");
            }
        }
    }
}
