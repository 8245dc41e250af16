//! Packed weights on their way to the device: the same codes, in the fragments that the kernels read (kernels/encoding.cuh).
//!
//! Codes of 8 and 4 bits stay as they are; their scales are rounded to bf16. 12 bits have an exponent in 4: here these count up from the
//! lowest, which the kernels find without a table. Weights with other exponents lie at the head of their panel. A matrix with more of them
//! in a panel than there is room for goes to the device as bf16, and so does one whose parts are packed in different ways.

use std::thread;

use half::{bf16, f16};
use voxtral_model::{BLOCK, Encoding, Escape, LANES, Packed, Panel, Weight};

use crate::kernels::Format;

/// Weights without an exponent that the head of a panel holds.
const HEAD: usize = 256;
/// Exponents that a code of 4 bits tells apart, beside the 0 of those that it does not.
const CODES: u8 = 15;

/// Packed matrices that make one of the device's: one above the other, or their outputs in turn.
#[derive(Clone, Debug)]
pub struct Joined {
    parts: Vec<Packed>,
    in_turn: bool,
    format: Format,
    parameter: u32,
    n: usize,
    k: usize,
}

impl Joined {
    /// Of weights that are packed alike, if they can be taken as they are.
    pub fn new(weights: &[&Weight], in_turn: bool) -> Option<Self> {
        let packed = |weight: &&Weight| match weight {
            Weight::Packed(packed) => Some(packed.clone()),
            Weight::Dense(_) => None,
        };
        let parts: Vec<Packed> = weights.iter().map(packed).collect::<Option<_>>()?;
        let encoding = parts.first()?.encoding();
        let alike = |part: &Packed| part.encoding() == encoding && part.n().is_multiple_of(LANES);
        if parts.len() > 1 && !parts.iter().all(alike) {
            return None;
        }
        let (format, parameter) = match encoding {
            Encoding::Bf16 => (Format::Bf16, 0),
            Encoding::Bf12 => (Format::Bf12, lowest(&parts)?),
            Encoding::Int8(group) => (Format::Int8, (group as u32 / BLOCK as u32).ilog2()),
            Encoding::Int4(group) => (Format::Int4, (group as u32 / BLOCK as u32).ilog2()),
        };
        let (n, k) = (parts.iter().map(Packed::n).sum(), parts[0].k());
        Some(Self { parts, in_turn, format, parameter, n, k })
    }

    /// How it lies on the device.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// What the kernels must know to decode it (kernels/encoding.cuh).
    pub fn parameter(&self) -> u32 {
        self.parameter
    }

    /// Bytes of a panel before its fragments.
    pub fn head_bytes(&self) -> usize {
        match self.format {
            Format::Bf16 => 0,
            Format::Bf12 => HEAD * 2,
            Format::Int8 | Format::Int4 => self.k.div_ceil(BLOCK << self.parameter) * LANES * 2,
        }
    }

    /// Bytes of a panel of 16 outputs.
    pub fn panel_bytes(&self) -> usize {
        self.head_bytes() + self.k.div_ceil(BLOCK) * self.format.fragment_bytes()
    }

    /// Where an output comes from: which part, and which of its outputs.
    fn source(&self, output: usize) -> Option<(usize, usize)> {
        if self.in_turn {
            return (output < self.n).then_some((output % self.parts.len(), output / self.parts.len()));
        }
        let mut output = output;
        for (part, packed) in self.parts.iter().enumerate() {
            if output < packed.n() {
                return Some((part, output));
            }
            output -= packed.n();
        }
        None
    }

    /// Writes a panel as it lies on the device.
    pub fn panel(&self, index: usize, out: &mut [u8]) {
        // The panels that its outputs come from, and for each output which of these, and the lane there.
        let mut panels: Vec<(usize, usize, &Packed, Panel<'_>)> = Vec::new();
        let mut outputs = [(0, 0); LANES];
        for (o, place) in outputs.iter_mut().enumerate() {
            // What fills up the last panel is any output: nobody looks at it.
            let Some((part, output)) = self.source(index * LANES + o).or_else(|| self.source(index * LANES)) else {
                continue;
            };
            let key = (part, output / LANES);
            let at = panels.iter().position(|&(part, panel, ..)| (part, panel) == key).unwrap_or_else(|| {
                panels.push((key.0, key.1, &self.parts[part], self.parts[part].panel(key.1)));
                panels.len() - 1
            });
            *place = (at, output % LANES);
        }
        let panels: Vec<(&Packed, Panel<'_>)> =
            panels.into_iter().map(|(_, _, packed, panel)| (packed, panel)).collect();
        let (head, fragments) = out.split_at_mut(self.head_bytes());
        let fragments = fragments.chunks_exact_mut(self.format.fragment_bytes()).enumerate();
        match self.format {
            Format::Bf16 => fragments.for_each(|(block, out)| bf16_fragment(&panels, &outputs, block, out)),
            Format::Bf12 => {
                let mut listed = Vec::new();
                for (block, out) in fragments {
                    let inputs = (self.k - block * BLOCK).min(BLOCK);
                    bf12_fragment(&panels, &outputs, (block, inputs), self.parameter, &mut listed, out);
                }
                for (out, bits) in head.as_chunks_mut().0.iter_mut().zip(&listed) {
                    *out = bits.to_le_bytes();
                }
            }
            Format::Int8 | Format::Int4 => {
                for (group, out) in head.chunks_exact_mut(LANES * 2).enumerate() {
                    for (o, &(at, lane)) in outputs.iter().enumerate() {
                        let scales = panels[at].1.scales.as_chunks().0;
                        let scale = f16::from_le_bytes(scales[group * LANES + lane]).to_f32();
                        let to = (o % 8 * 2 + o / 8) * 2;
                        out[to..to + 2].copy_from_slice(&bf16::from_f32(scale).to_le_bytes());
                    }
                }
                let fill = if self.format == Format::Int8 { int8_fragment } else { int4_fragment };
                fragments.for_each(|(block, out)| fill(&panels, &outputs, block, out));
            }
        }
    }
}

type Panels<'a> = [(&'a Packed, Panel<'a>)];
type Outputs = [(usize, usize); LANES];

/// Four bytes of an output in a line of a block.
fn word(panels: &Panels<'_>, (at, lane): (usize, usize), block: usize, line: usize) -> [u8; 4] {
    let (packed, panel) = &panels[at];
    let block = &panel.blocks[block * packed.encoding().block_bytes()..];
    block[(line * LANES + lane) * 4..].first_chunk().copied().unwrap_or_default()
}

/// Two inputs of an output are a word; a lane has, in each half, two of output g and two of output g + 8.
fn bf16_fragment(panels: &Panels<'_>, outputs: &Outputs, block: usize, out: &mut [u8]) {
    let (words, _) = out.as_chunks_mut::<4>();
    for (i, out) in words.iter_mut().enumerate() {
        let (half, lane, register) = (i / 128, i % 128 / 4, i % 4);
        let pair = lane % 4 * 4 + half * 2 + register / 2;
        *out = word(panels, outputs[lane / 4 + register % 2 * 8], block, pair);
    }
}

/// Four inputs of an output are a word; a lane has two of output g and two of output g + 8.
fn int8_fragment(panels: &Panels<'_>, outputs: &Outputs, block: usize, out: &mut [u8]) {
    let (words, _) = out.as_chunks_mut::<4>();
    for (i, out) in words.iter_mut().enumerate() {
        let (lane, register) = (i / 4, i % 4);
        *out = word(panels, outputs[lane / 4 + register / 2 * 8], block, lane % 4 * 2 + register % 2);
    }
}

/// Four inputs of an output are half of each byte of a word. A lane has a word of output g and one of output g + 8: inputs 0, 2, 4 and 6
/// in its lower half, 1, 3, 5 and 7 in its upper half.
fn int4_fragment(panels: &Panels<'_>, outputs: &Outputs, block: usize, out: &mut [u8]) {
    let (words, _) = out.as_chunks_mut::<4>();
    for (i, out) in words.iter_mut().enumerate() {
        let (lane, output) = (i / 2, outputs[i / 2 / 4 + i % 2 * 8]);
        let four = |line: usize| {
            let codes = u32::from_le_bytes(word(panels, output, block, line)) >> (lane % 4 / 2 * 4) & 0x0F0F_0F0F;
            let turned = codes & 0x0F00_000F | codes >> 8 & 0x0F00 | (codes & 0x0F00) << 8;
            (turned | turned >> 4) & 0x00FF_00FF
        };
        let line = lane % 2 * 2;
        *out = (four(line) | four(line + 1) << 8).to_le_bytes();
    }
}

/// A lane has four words and two of codes. A word has two signs and mantissas of output g where bf16 has them, and two of output g + 8 in
/// the bits between, with their bytes swapped. Weights whose exponent has no code are appended to `listed`. What is behind the last input
/// is finite.
fn bf12_fragment(
    panels: &Panels<'_>,
    outputs: &Outputs,
    (block, inputs): (usize, usize),
    lowest: u32,
    listed: &mut Vec<u16>,
    out: &mut [u8],
) {
    let mut blocks = vec![[[0.0; LANES]; BLOCK]; panels.len()];
    for ((packed, panel), block_out) in panels.iter().zip(&mut blocks) {
        packed.unpack(panel, block, block_out);
    }
    // Sign and mantissa where bf16 has them, and the code.
    let mut encode = |output: usize, k: usize| -> (u32, u32) {
        let (at, lane) = outputs[output];
        if k >= inputs {
            return (0, 1);
        }
        let bits = (blocks[at][k][lane].to_bits() >> 16) as u16;
        let code = u32::from(bits >> 7 & 0xFF).wrapping_sub(lowest);
        if (1..=u32::from(CODES)).contains(&code) {
            return (u32::from(bits & 0x807F), code);
        }
        let place = listed.iter().position(|&b| b == bits).unwrap_or_else(|| {
            listed.push(bits);
            listed.len() - 1
        });
        ((place as u32 & 0x80) << 8 | place as u32 & 0x7F, 0)
    };
    let (wide, narrow) = out.split_at_mut(LANES * BLOCK);
    let lanes = wide.as_chunks_mut::<16>().0.iter_mut().zip(narrow.as_chunks_mut::<8>().0);
    for (lane, (wide, narrow)) in lanes.enumerate() {
        let mut codes = [0u32; 2];
        for (i, out) in wide.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let mut word = 0;
            for (r, codes) in codes.iter_mut().enumerate() {
                for odd in 0..2 {
                    let (low, code) = encode(lane / 4 + 8 * r, lane % 4 * 8 + 2 * i + odd);
                    let low = if r == 0 { low } else { low >> 8 | (low & 0xFF) << 8 };
                    word |= low << (16 * odd);
                    *codes |= code << (4 * i + 16 * odd);
                }
            }
            *out = word.to_le_bytes();
        }
        for (out, codes) in narrow.as_chunks_mut::<4>().0.iter_mut().zip(codes) {
            *out = codes.to_le_bytes();
        }
    }
}

/// The exponent below the lowest that has a code: the one that leaves the fewest weights without. None if a panel has more of these than
/// its head holds.
fn lowest(parts: &[Packed]) -> Option<u32> {
    let counted: Vec<(&[u8], Vec<Counts>)> = parts.iter().map(|part| (part.panel(0).table, count(part))).collect();
    let without = |counts: &Counts, table: &[u8], lowest: u8| -> usize {
        let has_code = |exponent: u8| (1..=CODES).contains(&exponent.wrapping_sub(lowest));
        let coded = counts.codes.iter().zip(table).filter(|&(_, &exponent)| !has_code(exponent));
        let escaped = counts.escapes.iter().filter(|&&escape| !has_code(Escape::read(escape).exponent));
        coded.map(|(count, _)| count).sum::<usize>() + escaped.count()
    };
    let all = |lowest: u8| -> usize {
        counted.iter().flat_map(|(table, panels)| panels.iter().map(|counts| without(counts, table, lowest))).sum()
    };
    let highest = counted.iter().flat_map(|(table, _)| &table[..LANES]);
    let lowest = highest.map(|exponent| exponent.saturating_sub(CODES)).min_by_key(|&lowest| all(lowest))?;
    // A panel of the device has outputs of one panel of each part at the most.
    let most = |(table, panels): &(&[u8], Vec<Counts>)| panels.iter().map(|c| without(c, table, lowest)).max();
    (counted.iter().filter_map(most).sum::<usize>() <= HEAD).then_some(lowest.into())
}

/// How often the weights of a panel have each code, and its escapes. An escape is counted as a code too, that of nothing.
struct Counts<'a> {
    codes: [usize; LANES],
    escapes: &'a [[u8; 4]],
}

/// Of all panels.
fn count(part: &Packed) -> Vec<Counts<'_>> {
    let of_panel = |index: usize| {
        let panel = part.panel(index);
        let (mut bytes, mut codes) = ([0u32; 256], [0; LANES]);
        let lanes = (part.n() - index * LANES).min(LANES);
        for (i, piece) in panel.blocks.as_chunks::<{ LANES * 6 }>().0.iter().enumerate() {
            let piece = &piece[LANES * 4..];
            if lanes == LANES && 4 * i + 4 <= part.k() {
                piece.iter().for_each(|&byte| bytes[usize::from(byte)] += 1);
                continue;
            }
            // What fills up the panel and the block is no weight.
            for (at, &byte) in piece[..2 * lanes].iter().enumerate() {
                for (input, code) in [(4 * i + at % 2, byte & 15), (4 * i + at % 2 + 2, byte >> 4)] {
                    codes[usize::from(code)] += usize::from(input < part.k());
                }
            }
        }
        for (byte, &count) in bytes.iter().enumerate() {
            codes[byte & 15] += count as usize;
            codes[byte >> 4] += count as usize;
        }
        Counts { codes, escapes: panel.escapes }
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(8);
    let share = part.panels().div_ceil(threads);
    let mut counts: Vec<Option<Counts<'_>>> = Vec::new();
    counts.resize_with(part.panels(), || None);
    thread::scope(|scope| {
        for (i, counts) in counts.chunks_mut(share).enumerate() {
            let of_panel = &of_panel;
            scope.spawn(move || {
                counts.iter_mut().enumerate().for_each(|(j, counts)| *counts = Some(of_panel(i * share + j)));
            });
        }
    });
    counts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use voxtral_model::{Group, Tensor};

    /// What the kernels make of a panel: `[LANES][k]`; the twin of `decode` in kernels/encoding.cuh.
    fn decode(joined: &Joined, panel: &[u8]) -> Vec<Vec<f32>> {
        let bits = |bits: u16| bf16::from_bits(bits).to_f32();
        let half = |at: usize| u16::from_le_bytes([panel[at], panel[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let mut out = vec![vec![f32::NAN; joined.k.next_multiple_of(BLOCK)]; LANES];
        for (o, out) in out.iter_mut().enumerate() {
            for (k, out) in out.iter_mut().enumerate() {
                let (lane, row, i) = (o % 8 * 4 + k % BLOCK / 8, o / 8, k % 8);
                let fragment = joined.head_bytes() + k / BLOCK * joined.format.fragment_bytes();
                let scale = || bits(half((((k / BLOCK) >> joined.parameter) * LANES + o % 8 * 2 + row) * 2));
                let scaled = |code: i32| bf16::from_f32(code as f32 * scale()).to_f32();
                let four = |at: usize| word(at) >> (i / 2 * 4 + i % 2 * 16) & 15;
                *out = match joined.format {
                    Format::Bf16 => {
                        bits(half(fragment + i / 4 * 512 + lane * 16 + (i % 4 / 2 * 2 + row) * 4 + i % 2 * 2))
                    }
                    Format::Int8 => scaled(i32::from(panel[fragment + lane * 16 + row * 8 + i]) - 128),
                    Format::Int4 => scaled(four(fragment + lane * 8 + row * 4) as i32 - 8),
                    Format::Bf12 => {
                        let low = half(fragment + lane * 16 + i / 2 * 4 + i % 2 * 2);
                        let low = if row == 0 { low } else { low.swap_bytes() } & 0x807F;
                        match four(fragment + 512 + lane * 8 + row * 4) {
                            0 => bits(half(usize::from(low >> 8 & 0x80 | low & 0x7F) * 2)),
                            code => bits(low | ((code + joined.parameter) << 7) as u16),
                        }
                    }
                };
            }
        }
        out
    }

    /// Values of any exponent now and then, and zeros.
    fn weight(n: usize, k: usize, seed: u64, encoding: Encoding) -> Weight {
        let mut word = seed;
        let values: Vec<f32> = (0..n * k)
            .map(|i| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let value = ((word >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.2;
                if i % 1999 == 7 { value * [0.0, 1e-20, 1e4][i / 1999 % 3] } else { value }
            })
            .collect();
        Weight::Packed(Packed::of(&Tensor::from_f32_as_bf16(&values, &[n, k]), encoding).expect("it can be packed"))
    }

    fn encodings() -> impl Iterator<Item = Encoding> {
        let scaled = [Group::Of32, Group::Of64, Group::Of128].into_iter();
        scaled.flat_map(|group| [Encoding::Int8(group), Encoding::Int4(group)]).chain([Encoding::Bf16, Encoding::Bf12])
    }

    /// The weight that the device has of an output: as packed, its scale rounded to bf16, and rounded once more.
    fn on_device(weight: &Weight, output: usize) -> Vec<f32> {
        let Weight::Packed(packed) = weight else { panic!("dense") };
        let mut row = vec![0.0; packed.k()];
        weight.row(output, &mut row);
        let Some(group) = packed.encoding().group() else { return row };
        let scales = packed.panel(output / LANES).scales.as_chunks::<2>().0;
        let rounded = |(k, v): (usize, f32)| {
            let scale = f16::from_le_bytes(scales[k / group * LANES + output % LANES]).to_f32();
            let code = if scale == 0.0 { 0.0 } else { (v / scale).round() };
            bf16::from_f32(code * bf16::from_f32(scale).to_f32()).to_f32()
        };
        row.into_iter().enumerate().map(rounded).collect()
    }

    fn check(parts: &[Weight], in_turn: bool, source: impl Fn(usize) -> (usize, usize)) {
        let joined = Joined::new(&parts.iter().collect::<Vec<_>>(), in_turn).expect("packed alike");
        let (n, k) = (joined.n(), joined.k);
        for index in 0..n.div_ceil(LANES) {
            let mut panel = vec![0xFF; joined.panel_bytes()];
            joined.panel(index, &mut panel);
            let got = decode(&joined, &panel);
            for (output, got) in (index * LANES..n).zip(&got) {
                let (part, row) = source(output);
                let want = on_device(&parts[part], row);
                assert!(got[k..].iter().all(|v| v.is_finite()));
                for (k, (got, want)) in got.iter().zip(&want).enumerate() {
                    assert_eq!(
                        got.to_bits() << 1,
                        want.to_bits() << 1,
                        "{:?}, output {output}, input {k}",
                        joined.format
                    );
                    assert!(got == want, "sign");
                }
            }
        }
    }

    #[test]
    fn a_panel_is_decoded_to_what_was_packed() {
        for encoding in encodings() {
            for (n, k) in [(16, 512), (40, 270), (3, 96), (48, 4001)] {
                check(&[weight(n, k, (n * k) as u64, encoding)], false, |output| (0, output));
            }
        }
    }

    #[test]
    fn parts_are_stacked_or_taken_in_turn() {
        for encoding in encodings() {
            let parts = [weight(32, 320, 1, encoding), weight(16, 320, 2, encoding)];
            check(&parts, false, |output| if output < 32 { (0, output) } else { (1, output - 32) });
            let parts = [weight(48, 320, 3, encoding), weight(48, 320, 4, encoding)];
            check(&parts, true, |output| (output % 2, output / 2));
        }
    }

    #[test]
    fn what_cannot_be_joined_is_not() {
        let (bf12, int8) = (Encoding::Bf12, Encoding::Int8(Group::Of32));
        let [a, b] = [weight(32, 320, 1, bf12), weight(32, 320, 2, int8)];
        assert!(Joined::new(&[&a, &b], false).is_none());
        assert!(Joined::new(&[&a, &a], false).is_some());
        assert!(Joined::new(&[&weight(24, 320, 1, int8), &weight(24, 320, 1, int8)], false).is_none());
        // Half of the second panel is zeros, which is an exponent of the table, but far from the others.
        let values: Vec<f32> = (0..32 * 320).map(|i| if i > 24 * 320 { 0.0 } else { 1.0 + i as f32 / 1e5 }).collect();
        let zeros = Packed::of(&Tensor::from_f32_as_bf16(&values, &[32, 320]), bf12).expect("two exponents");
        assert!(Joined::new(&[&Weight::Packed(zeros)], false).is_none());
    }
}
