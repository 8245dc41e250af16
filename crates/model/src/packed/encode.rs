//! Packing: matrices from anywhere, panel by panel, on all cores.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{BLOCK, Encoding, Escape, INT4_ZERO, INT8_ZERO, LANES, Packed};
use crate::tensor::DType;
use crate::threads::on_all_cores;

/// Values that come from somewhere, row-major.
pub(crate) trait Rows: Sync {
    /// Values `start..`, in single precision. `start` is a multiple of 4.
    fn read(&self, start: usize, out: &mut [f32]);
}

/// How a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Dense(DType),
    Packed(Encoding),
}

/// How far packed weights are from those they were made of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    /// Sum of the squares of the differences.
    pub squares: f64,
    /// Sum of the squares of the weights.
    pub of: f64,
}

impl Deviation {
    /// Root of the mean square of the differences, where that of the weights is 1.
    pub fn relative(self) -> f64 {
        if self.squares == 0.0 { 0.0 } else { (self.squares / self.of).sqrt() }
    }
}

impl std::ops::Add for Deviation {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { squares: self.squares + other.squares, of: self.of + other.of }
    }
}

/// Exponents that are not in the table may be so many of all: one of this many. Then a matrix stays bf16 as it is.
const RARE: usize = 256;
/// Bytes of panels that are made at a time.
const BATCH_BYTES: usize = 16 << 20;

/// Everything that is known of a packed matrix before its weights are packed.
#[derive(Clone, Debug)]
pub(crate) struct Packer {
    encoding: Encoding,
    n: usize,
    k: usize,
    table: [u8; 16],
    escapes: usize,
}

impl Packer {
    /// For a matrix `[n, k]`. Looks at all values where its size depends on them. None where that encoding cannot hold the values:
    /// bf16 and 12 bits, where they are no bf16, and 12 bits where they have too many exponents.
    pub(crate) fn new(encoding: Encoding, n: usize, k: usize, dtype: DType, rows: &dyn Rows) -> Option<Self> {
        let mut packer = Self { encoding, n, k, table: [0; 16], escapes: 0 };
        let whole = matches!(encoding, Encoding::Bf16 | Encoding::Bf12);
        if whole && dtype != DType::Bf16 || k > Escape::MOST_INPUTS {
            return None;
        }
        if encoding == Encoding::Bf12 {
            let counts = exponents(n * k, rows);
            packer.table = frequent(&counts);
            let outside = (0..=255u8).filter(|exponent| !packer.table.contains(exponent));
            packer.escapes = outside.map(|exponent| counts[usize::from(exponent)]).sum();
            if packer.escapes > n * k / RARE {
                return None;
            }
        }
        Some(packer)
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Bytes of the packed matrix.
    pub(crate) fn bytes(&self) -> usize {
        self.encoding.bytes(self.n, self.k, self.escapes)
    }

    /// Packs `rows`, `[n, k]`, and gives the bytes to `write` as they are made.
    pub(crate) fn write<E>(
        &self,
        rows: &dyn Rows,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Deviation, E> {
        let panels = self.n.div_ceil(LANES);
        let panel_bytes = self.encoding.panel_bytes(self.k);
        if self.encoding == Encoding::Bf12 {
            let mut table = [0; super::ALIGN];
            table[..LANES].copy_from_slice(&self.table);
            write(&table)?;
        }
        let at_once = (BATCH_BYTES / panel_bytes).clamp(1, panels);
        let mut buffer = vec![0; at_once * panel_bytes];
        let (mut starts, mut escapes) = (vec![0u32], Vec::new());
        let mut deviation = Deviation::default();
        for first in (0..panels).step_by(at_once) {
            let buffer = &mut buffer[..at_once.min(panels - first) * panel_bytes];
            let made: Vec<_> = on_all_cores(|| {
                let panels = buffer.par_chunks_exact_mut(panel_bytes).enumerate();
                panels
                    .map_init(Scratch::default, |scratch, (i, out)| self.panel(rows, first + i, scratch, out))
                    .collect()
            });
            write(buffer)?;
            for (panel_deviation, panel_escapes) in made {
                deviation = deviation + panel_deviation;
                escapes.extend(panel_escapes);
                starts.push(escapes.len() as u32);
            }
        }
        if self.encoding == Encoding::Bf12 {
            debug_assert_eq!(escapes.len(), self.escapes);
            let mut lists: Vec<u8> = starts.iter().flat_map(|start| start.to_le_bytes()).collect();
            lists.extend(escapes.into_iter().flat_map(Escape::stored));
            lists.resize(lists.len().next_multiple_of(super::ALIGN), 0);
            write(&lists)?;
        }
        Ok(deviation)
    }

    fn panel(&self, rows: &dyn Rows, index: usize, scratch: &mut Scratch, out: &mut [u8]) -> (Deviation, Vec<Escape>) {
        let (k, first) = (self.k, index * LANES);
        let lanes = LANES.min(self.n - first);
        scratch.rows.resize(lanes * k, 0.0);
        rows.read(first * k, &mut scratch.rows);
        let inputs = &mut scratch.inputs;
        inputs.clear();
        inputs.resize(k.next_multiple_of(BLOCK), [0.0; LANES]);
        for (lane, row) in scratch.rows.chunks_exact(k).enumerate() {
            inputs.iter_mut().zip(row).for_each(|(input, &value)| input[lane] = value);
        }
        let (scales, blocks) = out.split_at_mut(self.encoding.scale_bytes(k));
        scales.fill(0);
        match self.encoding {
            Encoding::Bf16 => {
                for (pair, words) in inputs.chunks_exact(2).zip(blocks.chunks_exact_mut(LANES * 4)) {
                    for (lane, word) in words.chunks_exact_mut(4).enumerate() {
                        word[..2].copy_from_slice(&bf16::from_f32(pair[0][lane]).to_le_bytes());
                        word[2..].copy_from_slice(&bf16::from_f32(pair[1][lane]).to_le_bytes());
                    }
                }
                (Deviation::default(), Vec::new())
            }
            Encoding::Bf12 => (Deviation::default(), self.panel_bf12(inputs, lanes, blocks)),
            Encoding::Int8(group) => {
                let deviation = quantised::<INT8_ZERO>(inputs, group as usize, scales, |k, lane, code| {
                    blocks[k / 4 * LANES * 4 + lane * 4 + k % 4] = code;
                });
                (deviation, Vec::new())
            }
            Encoding::Int4(group) => {
                blocks.fill(0);
                let deviation = quantised::<INT4_ZERO>(inputs, group as usize, scales, |k, lane, code| {
                    // The first half of a block is in the low four bits, the second in the high ones.
                    let (block, four) = (k / BLOCK, k % BLOCK / 4);
                    let byte = block * BLOCK * LANES / 2 + four % 4 * LANES * 4 + lane * 4 + k % 4;
                    blocks[byte] |= code << (4 * (four / 4));
                });
                (deviation, Vec::new())
            }
        }
    }

    fn panel_bf12(&self, inputs: &[[f32; LANES]], lanes: usize, blocks: &mut [u8]) -> Vec<Escape> {
        let mut codes = [None; 256];
        for (code, &exponent) in self.table.iter().enumerate().rev() {
            codes[usize::from(exponent)] = Some(code as u8);
        }
        let mut escapes = Vec::new();
        blocks.fill(0);
        for (k, input) in inputs.iter().enumerate().take(self.k) {
            let four = &mut blocks[k / 4 * LANES * 6..][..LANES * 6];
            let high = k % 4 / 2;
            for (lane, value) in input[..lanes].iter().enumerate() {
                let bits = bf16::from_f32(*value).to_bits();
                let at = lane * 2 + k % 2;
                four[high * LANES * 2 + at] = (bits >> 8 & 0x80 | bits & 0x7F) as u8;
                let exponent = (bits >> 7) as u8;
                match codes[usize::from(exponent)] {
                    Some(code) => four[LANES * 4 + at] |= code << (4 * high),
                    None => escapes.push(Escape { k, lane, exponent }),
                }
            }
        }
        escapes
    }
}

#[derive(Default)]
struct Scratch {
    /// `[LANES, k]`
    rows: Vec<f32>,
    /// `[k, LANES]`
    inputs: Vec<[f32; LANES]>,
}

/// A matrix in memory of our own, where this encoding can hold it.
pub(crate) fn pack(encoding: Encoding, shape: &[usize], dtype: DType, rows: &dyn Rows) -> Option<Packed> {
    let (n, k) = (shape[0], shape[1..].iter().product());
    let packer = Packer::new(encoding, n, k, dtype, rows)?;
    let mut bytes = Vec::with_capacity(packer.bytes());
    let written: Result<_, std::convert::Infallible> = packer.write(rows, |some| {
        bytes.extend_from_slice(some);
        Ok(())
    });
    let Ok(_) = written;
    Some(Packed::owned(&bytes, encoding, shape.to_vec()))
}

/// How often each exponent of bf16 is there.
fn exponents(len: usize, rows: &dyn Rows) -> [usize; 256] {
    const AT_ONCE: usize = 1 << 16;
    let count = |start: usize| {
        let mut values = vec![0.0; AT_ONCE.min(len - start)];
        rows.read(start, &mut values);
        let mut counts = [0; 256];
        values.iter().for_each(|value| counts[(value.to_bits() >> 23 & 0xFF) as usize] += 1);
        counts
    };
    let sum = |a: [usize; 256], b: [usize; 256]| std::array::from_fn(|i| a[i] + b[i]);
    let pieces = len.div_ceil(AT_ONCE);
    on_all_cores(|| (0..pieces).into_par_iter().map(|i| count(i * AT_ONCE)).reduce(|| [0; 256], sum))
}

/// The 16 exponents that are there most often, ascending; 0 where there are fewer.
fn frequent(counts: &[usize; 256]) -> [u8; 16] {
    let mut there: Vec<u8> = (0..=255).filter(|&e| counts[usize::from(e)] > 0).collect();
    there.sort_by_key(|&e| std::cmp::Reverse(counts[usize::from(e)]));
    there.resize(16, 0);
    there.sort();
    std::array::from_fn(|i| there[i])
}

/// Finds a scale for each group of each output of a panel, and gives each weight's code to `put` with its input and output.
fn quantised<const ZERO: i32>(
    inputs: &[[f32; LANES]],
    group: usize,
    scales: &mut [u8],
    mut put: impl FnMut(usize, usize, u8),
) -> Deviation {
    let mut deviation = Deviation::default();
    let scales = scales.chunks_exact_mut(LANES * size_of::<f16>());
    for (g, (inputs, scales)) in inputs.chunks(group).zip(scales).enumerate() {
        let scale = best_scales::<ZERO>(inputs);
        for (stored, scale) in scales.chunks_exact_mut(2).zip(scale) {
            stored.copy_from_slice(&scale.to_le_bytes());
        }
        let scale = scale.map(f16::to_f32);
        let inverse = scale.map(inverse);
        let mut squares = [[0.0f32; LANES]; 2];
        for (i, input) in inputs.iter().enumerate() {
            let codes: [f32; LANES] = std::array::from_fn(|lane| rounded::<ZERO>(input[lane] * inverse[lane]));
            for lane in 0..LANES {
                squares[0][lane] += (input[lane] - codes[lane] * scale[lane]).powi(2);
                squares[1][lane] += input[lane].powi(2);
                put(g * group + i, lane, (codes[lane] as i32 + ZERO) as u8);
            }
        }
        let [differences, weights] = squares.map(|lanes| lanes.into_iter().map(f64::from).sum());
        deviation = deviation + Deviation { squares: differences, of: weights };
    }
    deviation
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// To the nearest code, from `-ZERO` to `ZERO - 1`.
#[inline(always)]
fn rounded<const ZERO: i32>(x: f32) -> f32 {
    // Added and taken away again, this rounds to an integer, on any CPU and for many lanes at once.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-(ZERO as f32)).min((ZERO - 1) as f32);
    x + ROUND - ROUND
}

/// The scale of each output of a group, `[inputs, LANES]`, that leaves the least squares. The largest weight, of either sign, comes to
/// the end of the codes' range, or somewhat past it, and is cut there: with few bits that costs less than coarser steps for all others.
fn best_scales<const ZERO: i32>(inputs: &[[f32; LANES]]) -> [f16; LANES] {
    let mut largest = [0.0f32; LANES];
    for input in inputs {
        for (largest, &value) in largest.iter_mut().zip(input) {
            *largest = if value.abs() > largest.abs() { value } else { *largest };
        }
    }
    // With 8 bits there is nothing to gain, and a range that is the same on both sides.
    if ZERO == INT8_ZERO {
        return largest.map(|value| representable(value.abs() / (ZERO - 1) as f32));
    }
    let mut best = largest.map(|value| value / -(ZERO as f32));
    let mut most = [f32::NEG_INFINITY; LANES];
    for step in CUTS {
        // Codes by which the range is longer than that of the codes.
        let inverse: [f32; LANES] =
            std::array::from_fn(|lane| inverse(largest[lane]) * (-(ZERO as f32) + step as f32 * 0.125));
        let (mut products, mut squares) = ([0.0f32; LANES], [0.0f32; LANES]);
        for input in inputs {
            for lane in 0..LANES {
                let code = rounded::<ZERO>(input[lane] * inverse[lane]);
                products[lane] += code * input[lane];
                squares[lane] += code * code;
            }
        }
        for lane in 0..LANES {
            // Given the codes, this scale leaves the least squares, and they are less by this much than the weights' own.
            let scale = products[lane] * self::inverse(squares[lane]);
            if products[lane] * scale > most[lane] {
                (most[lane], best[lane]) = (products[lane] * scale, scale);
            }
        }
    }
    best.map(representable)
}

/// Ends of the range that are tried, in eighths of a code short of its end (positive) or past it.
const CUTS: std::ops::RangeInclusive<i32> = -8..=8;

/// As f16; one that is too large to be one is the largest, and one that would be 0 though it is not the smallest.
fn representable(scale: f32) -> f16 {
    let limit = f16::MAX.to_f32();
    match f16::from_f32(scale.clamp(-limit, limit)) {
        zero if zero == f16::ZERO && scale != 0.0 => {
            f16::from_f32(f16::MIN_POSITIVE_SUBNORMAL.to_f32().copysign(scale))
        }
        stored => stored,
    }
}
