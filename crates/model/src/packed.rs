//! Matrices as kernels read them: packed in advance, mapped, and never expanded in memory. `docs/quantised.md` has the layout for other
//! programs; the code here is its reference.
//!
//! A matrix `[n, k]` is cut into **panels** of [`LANES`] outputs, and a panel into **blocks** of [`BLOCK`] inputs. In a block, the
//! weights that one vector instruction multiplies lie side by side for all outputs of the panel, so that no sum runs across lanes.
//! Where n or k end within a panel or block, what fills it up is finite and meets no output or a zero.

mod describe;
mod encode;
mod plan;

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::{Storage, Tensor};

pub(crate) use describe::{Described, Description};
pub use encode::Deviation;
use encode::pack;
pub(crate) use encode::{Packer, Rows, Stored};
pub use plan::{Part, Plan};

/// Outputs of a panel.
pub const LANES: usize = 16;
/// Inputs of a block.
pub const BLOCK: usize = 32;
/// Version of the layout that this program writes and reads.
pub(crate) const VERSION: u64 = 1;
/// What begins here is aligned for the widest vectors, where the file is mapped.
pub(crate) const ALIGN: usize = 64;
/// What is added to a weight of 8 and of 4 bits, so that it is stored without a sign.
pub const INT8_ZERO: i32 = 128;
/// As [`INT8_ZERO`].
pub const INT4_ZERO: i32 = 8;

/// How a packed matrix stores its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// bfloat16: two inputs of each output side by side.
    Bf16,
    /// bfloat16 without loss in 12 bits: sign, 7 bits of mantissa, and the exponent as one of 16 in a table. Exponents that are not in
    /// the table are in a list.
    Bf12,
    /// 8 bits and a scale for each group of inputs of an output.
    Int8(Group),
    /// 4 bits and a scale for each group of inputs of an output.
    Int4(Group),
}

/// How many inputs of an output share a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Group {
    /// 32
    #[default]
    Of32 = 32,
    /// 64
    Of64 = 64,
    /// 128
    Of128 = 128,
}

impl Group {
    /// The group of so many inputs, if there is one.
    pub fn of(inputs: u64) -> Option<Self> {
        [Self::Of32, Self::Of64, Self::Of128].into_iter().find(|group| *group as u64 == inputs)
    }
}

impl Encoding {
    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Bf12 => "bf12",
            Self::Int8(_) => "int8",
            Self::Int4(_) => "int4",
        }
    }

    pub(crate) fn named(name: &str, group: Option<u64>) -> Option<Self> {
        let group = group.map_or(Some(Group::default()), Group::of)?;
        [Self::Bf16, Self::Bf12, Self::Int8(group), Self::Int4(group)].into_iter().find(|e| e.name() == name)
    }

    /// How many inputs share a scale, where weights have scales.
    pub fn group(self) -> Option<usize> {
        match self {
            Self::Bf16 | Self::Bf12 => None,
            Self::Int8(group) | Self::Int4(group) => Some(group as usize),
        }
    }

    /// Bytes of a block's weights.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Bf16 => BLOCK * LANES * 2,
            Self::Bf12 => BLOCK * LANES * 3 / 2,
            Self::Int8(_) => BLOCK * LANES,
            Self::Int4(_) => BLOCK * LANES / 2,
        }
    }

    fn scale_bytes(self, k: usize) -> usize {
        self.group().map_or(0, |group| (k.div_ceil(group) * LANES * size_of::<f16>()).next_multiple_of(ALIGN))
    }

    fn panel_bytes(self, k: usize) -> usize {
        self.scale_bytes(k) + k.div_ceil(BLOCK) * self.block_bytes()
    }

    fn table_bytes(self) -> usize {
        if self == Self::Bf12 { ALIGN } else { 0 }
    }

    /// Bytes of a matrix `[n, k]` with so many exponents outside its table.
    fn bytes(self, n: usize, k: usize, escapes: usize) -> usize {
        let panels = n.div_ceil(LANES);
        let lists = if self == Self::Bf12 { (panels + 1 + escapes) * size_of::<u32>() } else { 0 };
        self.table_bytes() + panels * self.panel_bytes(k) + lists.next_multiple_of(ALIGN)
    }
}

/// A packed matrix: a view that keeps the storage alive; cloning it copies no weights.
#[derive(Clone)]
pub struct Packed {
    storage: Arc<Storage>,
    bytes: Range<usize>,
    encoding: Encoding,
    shape: Vec<usize>,
}

/// [`LANES`] outputs of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// `[groups, LANES]`, f16, filled up to 64 bytes; empty where weights have no scales.
    pub scales: &'a [u8],
    /// `[blocks]` of [`Encoding::block_bytes`].
    pub blocks: &'a [u8],
    /// The exponents of the table, for 12 bits.
    pub table: &'a [u8],
    /// Weights whose exponent is not in the table, ascending: see [`Escape`].
    pub escapes: &'a [[u8; 4]],
}

/// A weight of a panel whose exponent is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escape {
    /// Its input.
    pub k: usize,
    /// Its output within the panel.
    pub lane: usize,
    /// Its exponent.
    pub exponent: u8,
}

impl Escape {
    /// Inputs that an escape can name.
    const MOST_INPUTS: usize = 1 << 20;

    fn place(self) -> usize {
        self.k * LANES + self.lane
    }

    /// As it is stored: its place, `k · LANES + lane`, in the upper 24 bits, the exponent in the lower 8.
    fn stored(self) -> [u8; 4] {
        ((self.place() as u32) << 8 | u32::from(self.exponent)).to_le_bytes()
    }

    /// The escape that is stored like this.
    pub fn read(stored: [u8; 4]) -> Self {
        let word = u32::from_le_bytes(stored);
        let place = (word >> 8) as usize;
        Self { k: place / LANES, lane: place % LANES, exponent: word as u8 }
    }
}

impl Packed {
    /// A view of `bytes` of `storage`, which must lie inside it.
    ///
    /// # Errors
    /// What is wrong with the bytes. That no weight is infinite is not looked at: see [`Packed::is_finite`].
    pub(crate) fn new(
        storage: Arc<Storage>,
        bytes: Range<usize>,
        encoding: Encoding,
        shape: Vec<usize>,
    ) -> Result<Self, &'static str> {
        let packed = Self { storage, bytes, encoding, shape };
        packed.check().map(|()| packed)
    }

    fn check(&self) -> Result<(), &'static str> {
        let (n, k) = (self.n(), self.k());
        if n == 0 || k == 0 {
            return Err("it has no weights");
        }
        let overflow = n.checked_next_multiple_of(LANES).zip(k.checked_next_multiple_of(BLOCK));
        if overflow.and_then(|(n, k)| n.checked_mul(k)?.checked_mul(8)).is_none() || k > Escape::MOST_INPUTS {
            return Err("its shape is too large");
        }
        let fixed = self.encoding.bytes(n, k, 0);
        let has = self.bytes.len();
        if has < fixed || self.encoding != Encoding::Bf12 && has != fixed {
            return Err("it has not as many bytes as its shape asks for");
        }
        if self.encoding != Encoding::Bf12 {
            return Ok(());
        }
        let starts = self.starts();
        let escapes = starts.last().map_or(0, |&end| end as usize);
        if starts[0] != 0 || !starts.is_sorted() || escapes > n * k {
            return Err("its list of exponents is damaged");
        }
        if has != self.encoding.bytes(n, k, escapes) {
            return Err("it has not as many bytes as its shape asks for");
        }
        let whole = (0..self.panels()).all(|panel| {
            let escapes = self.panel(panel).escapes;
            escapes.is_sorted_by(|&a, &b| Escape::read(a).place() < Escape::read(b).place())
                && escapes.last().is_none_or(|&last| Escape::read(last).k < k)
        });
        if whole { Ok(()) } else { Err("its list of exponents is damaged") }
    }

    /// A tensor, packed in memory of our own; none where that encoding cannot hold it.
    pub fn of(tensor: &Tensor, encoding: Encoding) -> Option<Self> {
        pack(encoding, tensor.shape(), tensor.dtype(), tensor)
    }

    /// Over bytes of our own.
    pub(crate) fn owned(bytes: &[u8], encoding: Encoding, shape: Vec<usize>) -> Self {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self { storage: Arc::new(Storage::Owned(words)), bytes: 0..bytes.len(), encoding, shape }
    }

    /// How its weights are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Outermost dimension first; all but the first together are inputs.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// All bytes: the table of exponents for 12 bits, the panels, the lists of escapes for 12 bits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.bytes.clone()]
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Panels.
    pub fn panels(&self) -> usize {
        self.n().div_ceil(LANES)
    }

    fn lists(&self) -> &[[u8; 4]] {
        let panels = self.encoding.table_bytes() + self.panels() * self.encoding.panel_bytes(self.k());
        self.as_bytes()[panels..].as_chunks().0
    }

    /// Where the escapes of each panel begin, and where the last end.
    fn starts(&self) -> Vec<u32> {
        self.lists()[..=self.panels()].iter().map(|&start| u32::from_le_bytes(start)).collect()
    }

    /// The `index`-th panel.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn panel(&self, index: usize) -> Panel<'_> {
        assert!(index < self.panels(), "panel {index} of {}", self.panels());
        let (encoding, k) = (self.encoding, self.k());
        let (table, panels) = self.as_bytes().split_at(encoding.table_bytes());
        let panel = &panels[index * encoding.panel_bytes(k)..][..encoding.panel_bytes(k)];
        let (scales, blocks) = panel.split_at(encoding.scale_bytes(k));
        let escapes: &[[u8; 4]] = if encoding == Encoding::Bf12 {
            let lists = self.lists();
            let at = |i: usize| u32::from_le_bytes(lists[i]) as usize + self.panels() + 1;
            &lists[at(index)..at(index + 1)]
        } else {
            &[]
        };
        Panel { scales, blocks, table, escapes }
    }

    /// Whether no weight is infinite or not a number.
    pub(crate) fn is_finite(&self) -> bool {
        const INFINITE: u8 = 0xFF;
        let finite_halves = |bytes: &[u8], mask: u16| {
            let (halves, _) = bytes.as_chunks::<2>();
            !halves.iter().fold(false, |bad, &v| bad | (u16::from_le_bytes(v) & mask == mask))
        };
        match self.encoding {
            Encoding::Bf16 => self.as_bytes().par_chunks(4 << 20).all(|bytes| finite_halves(bytes, 0x7F80)),
            Encoding::Bf12 => {
                let table = &self.as_bytes()[..LANES];
                let panels = || (0..self.panels()).flat_map(|panel| self.panel(panel).escapes);
                !table.contains(&INFINITE) && panels().all(|&escape| Escape::read(escape).exponent != INFINITE)
            }
            Encoding::Int8(_) | Encoding::Int4(_) => {
                (0..self.panels()).into_par_iter().all(|panel| finite_halves(self.panel(panel).scales, 0x7C00))
            }
        }
    }

    /// Widens a block of a panel at once: `[BLOCK, LANES]`, inputs by outputs.
    #[inline(always)]
    pub fn unpack(&self, panel: &Panel<'_>, block: usize, out: &mut [[f32; LANES]; BLOCK]) {
        let bytes = &panel.blocks[block * self.encoding.block_bytes()..][..self.encoding.block_bytes()];
        match self.encoding {
            Encoding::Bf16 => {
                for (pair, words) in out.chunks_exact_mut(2).zip(bytes.as_chunks::<{ LANES * 4 }>().0) {
                    for (lane, word) in words.as_chunks::<4>().0.iter().enumerate() {
                        let word = u32::from_le_bytes(*word);
                        pair[0][lane] = f32::from_bits(word << 16);
                        pair[1][lane] = f32::from_bits(word & 0xFFFF_0000);
                    }
                }
            }
            Encoding::Bf12 => {
                for (four, bytes) in out.chunks_exact_mut(4).zip(bytes.as_chunks::<{ LANES * 6 }>().0) {
                    let (low, codes) = bytes.split_at(LANES * 4);
                    for (i, code) in codes.iter().enumerate() {
                        let (k, lane) = (i % 2, i / 2);
                        four[k][lane] = joined(low[i], panel.table[usize::from(code & 15)]);
                        four[k + 2][lane] = joined(low[i + 2 * LANES], panel.table[usize::from(code >> 4)]);
                    }
                }
                for escape in escapes_of(panel.escapes, block) {
                    let value = &mut out[escape.k % BLOCK][escape.lane];
                    *value = f32::from_bits(value.to_bits() & 0x807F_0000 | u32::from(escape.exponent) << 23);
                }
            }
            Encoding::Int8(group) => {
                let scales = scales_of(panel, block * BLOCK / group as usize);
                for (four, bytes) in out.chunks_exact_mut(4).zip(bytes.as_chunks::<{ LANES * 4 }>().0) {
                    for (i, &byte) in bytes.iter().enumerate() {
                        four[i % 4][i / 4] = (i32::from(byte) - INT8_ZERO) as f32 * scales[i / 4];
                    }
                }
            }
            Encoding::Int4(group) => {
                let scales = scales_of(panel, block * BLOCK / group as usize);
                let (first, second) = out.split_at_mut(BLOCK / 2);
                let fours = first.chunks_exact_mut(4).zip(second.chunks_exact_mut(4));
                for ((low, high), bytes) in fours.zip(bytes.as_chunks::<{ LANES * 4 }>().0) {
                    for (i, &byte) in bytes.iter().enumerate() {
                        low[i % 4][i / 4] = (i32::from(byte & 15) - INT4_ZERO) as f32 * scales[i / 4];
                        high[i % 4][i / 4] = (i32::from(byte >> 4) - INT4_ZERO) as f32 * scales[i / 4];
                    }
                }
            }
        }
    }

    /// The weight of an output of a panel for input `k`: what the layout means.
    fn weight(&self, panel: &Panel<'_>, lane: usize, k: usize) -> f32 {
        let scaled = |group: Group, code: i32| code as f32 * scale(panel, k / group as usize, lane);
        // Four inputs of an output lie side by side.
        let quad = lane * 4 + k % 4;
        match self.encoding {
            Encoding::Bf16 => {
                let at = (k / 2 * LANES + lane) * 4 + k % 2 * 2;
                bf16::from_le_bytes([panel.blocks[at], panel.blocks[at + 1]]).to_f32()
            }
            Encoding::Bf12 => {
                let (four, pair) = (&panel.blocks[k / 4 * LANES * 6..][..LANES * 6], k % 4 / 2);
                let at = lane * 2 + k % 2;
                let code = four[LANES * 4 + at] >> (4 * pair) & 15;
                let listed = panel.escapes.binary_search_by_key(&(k * LANES + lane), |&e| Escape::read(e).place());
                let exponent = match listed {
                    Ok(i) => Escape::read(panel.escapes[i]).exponent,
                    Err(_) => panel.table[usize::from(code)],
                };
                joined(four[pair * LANES * 2 + at], exponent)
            }
            Encoding::Int8(group) => scaled(group, i32::from(panel.blocks[k / 4 * LANES * 4 + quad]) - INT8_ZERO),
            Encoding::Int4(group) => {
                let (block, four) = (k / BLOCK, k % BLOCK / 4);
                let byte = panel.blocks[block * BLOCK * LANES / 2 + four % 4 * LANES * 4 + quad];
                scaled(group, i32::from(byte >> (4 * (four / 4)) & 15) - INT4_ZERO)
            }
        }
    }

    /// The weights of one output.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let panel = self.panel(row / LANES);
        out.iter_mut().enumerate().for_each(|(k, out)| *out = self.weight(&panel, row % LANES, k));
    }
}

fn scale(panel: &Panel<'_>, group: usize, lane: usize) -> f32 {
    f16::from_le_bytes(panel.scales.as_chunks::<2>().0[group * LANES + lane]).to_f32()
}

/// Scales of a group, one for each output of the panel.
fn scales_of(panel: &Panel<'_>, group: usize) -> [f32; LANES] {
    std::array::from_fn(|lane| scale(panel, group, lane))
}

/// The escapes of one block.
pub fn escapes_of(escapes: &[[u8; 4]], block: usize) -> impl Iterator<Item = Escape> + '_ {
    let first = escapes.partition_point(|&escape| Escape::read(escape).k < block * BLOCK);
    escapes[first..].iter().map(|&escape| Escape::read(escape)).take_while(move |escape| escape.k < (block + 1) * BLOCK)
}

/// The number with this sign and mantissa, `s mmmmmmm`, and this exponent.
fn joined(low: u8, exponent: u8) -> f32 {
    bf16::from_bits(u16::from(low & 0x80) << 8 | u16::from(exponent) << 7 | u16::from(low & 0x7F)).to_f32()
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({:?} {:?})", self.encoding, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_block_at_once_is_its_weights_one_by_one(n in 1usize..40, k in 1usize..300, seed: u64) {
            let mut word = seed;
            let values: Vec<f32> = (0..n * k).map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Every tenth thousandth of another magnitude.
                let value = (word >> 40) as f32 / 1e7 - 0.8;
                if word >> 20 & 0x1FFF == 0 { value * 1e-20 } else { value }
            }).collect();
            let tensor = Tensor::from_f32_as_bf16(&values, &[n, k]);
            let groups = [Group::Of32, Group::Of64, Group::Of128];
            let scaled = groups.into_iter().flat_map(|group| [Encoding::Int8(group), Encoding::Int4(group)]);
            for encoding in scaled.chain([Encoding::Bf16, Encoding::Bf12]) {
                let Some(packed) = Packed::of(&tensor, encoding) else { continue };
                let mut row = vec![0.0; k];
                for i in 0..n {
                    packed.row(i, &mut row);
                    for (block, values) in row.chunks(BLOCK).enumerate() {
                        let mut lanes = [[f32::NAN; LANES]; BLOCK];
                        packed.unpack(&packed.panel(i / LANES), block, &mut lanes);
                        for (value, lanes) in values.iter().zip(&lanes) {
                            prop_assert_eq!(value.to_bits(), lanes[i % LANES].to_bits(), "{:?} {} {}", encoding, i, block);
                        }
                    }
                }
            }
        }
    }
}
