//! Weights on the device: where each lies, and how they get there.
//!
//! Products read bf16 matrices in fragments of 16 rows by 32 columns, each 1 KB, the fragments of 16 rows one after the other: what a
//! warp reads at once is then contiguous. Rows are padded with zeros to a multiple of 32 columns, matrices to a multiple of 128 rows
//! (the released model needs no padding); checkpoints in F16 or F32 are rounded to bf16 on the way. Packed matrices stay packed, in
//! smaller fragments (`packed`), where all that makes one of the device's is packed alike. What a product wants beside each
//! other is put beside each other here: q, k and v above one another, gate and up row by row in turn, the taps of a convolution outside
//! its channels.

use std::sync::Arc;

use half::bf16;
use voxtral_model::{LayerWeights, Linear, ModelConfig, Rope, Tensor, TensorData, TransformerConfig, Weight, Weights};

use crate::cut::{slices, splits};
use crate::driver::{Address, Buffer, Device, DriverError, Stream, Upload};
use crate::kernels::{Format, Product};
use crate::limits::{CHUNK, TILE_OUTPUTS};
use crate::packed::Joined;

const ALIGN: usize = 256;
const STAGES: usize = 4;
const STAGE_BYTES: usize = 32 << 20;

/// A product's matrix on the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matrix {
    /// `[n, k]`
    pub w: Address,
    /// f32 `[n]`, or none
    pub bias: Address,
    /// Outputs.
    pub n: u32,
    /// Inputs, rounded up to a [`CHUNK`].
    pub k: u32,
    /// How k is cut over blocks.
    pub splits: u32,
    /// How each split is cut over warps.
    pub slices: u32,
    /// How the weights lie.
    pub format: Format,
    /// Bytes of 16 outputs.
    pub stride: u32,
    /// Of these before the first fragment.
    pub head: u32,
    /// What decodes them (kernels/encoding.cuh).
    pub parameter: u32,
}

impl Matrix {
    /// A product with it, of nothing yet.
    pub fn product(&self) -> Product {
        let Self { w, bias, n, k, splits, slices, format, stride, head, parameter } = *self;
        let encoding = format as u32;
        Product { w, bias, n, k, splits, slices, encoding, stride, head, parameter, ..Product::default() }
    }

    /// For a product whose splits `add_rms_norm` adds.
    fn split(self) -> Self {
        let (n, k) = (self.n as usize, self.k as usize);
        let splits = splits(n, k);
        Self { splits: splits as u32, slices: slices(n, k, splits) as u32, ..self }
    }
}

/// A transformer layer on the device.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// f32 `[dim]`
    pub attention_norm: Address,
    /// Queries, keys, values.
    pub qkv: Matrix,
    /// Attention's output.
    pub wo: Matrix,
    /// f32 `[dim]`
    pub ffn_norm: Address,
    /// Gate and up in turn.
    pub gate_up: Matrix,
    /// Back to the residual stream.
    pub down: Matrix,
}

/// A stack of transformer layers on the device.
#[derive(Clone, Debug)]
pub struct Stack {
    /// First to last.
    pub layers: Vec<Layer>,
    /// f32 `[dim]`, of the norm after the last layer.
    pub norm: Address,
    /// f32 `[head_dim / 2]`, the frequencies of the rotary embedding.
    pub frequencies: Address,
}

/// Where everything lies; addresses count from the buffer's start until `at` has placed them.
#[derive(Clone, Debug)]
pub struct Places {
    /// Convolutions as products over three frames, first and second.
    pub conv: [Matrix; 2],
    /// Encoder.
    pub encoder: Stack,
    /// The products of the adapter, first and second.
    pub adapter: [Matrix; 2],
    /// Embedding and head.
    pub embedding: Matrix,
    /// Decoder.
    pub decoder: Stack,
}

/// Where the rows of a matrix come from.
enum Source {
    /// One matrix above the other.
    Stacked(Vec<Weight>),
    /// Rows of two matrices in turn.
    InTurn(Weight, Weight),
    /// Either, packed.
    Packed(Joined),
    /// `[out][in][3]` read as `[out][3][in]`.
    Taps(Tensor),
    /// Numbers of our own.
    Values(Vec<f32>),
}

/// Rows of a fragment; its columns are a [`CHUNK`].
const GROUP: usize = 16;

/// Where in a fragment the elements 2 `pair` and 2 `pair` + 1 of a row lie, in pairs: twin of `weight_at` in kernels/common.cuh.
fn pair_at(row: usize, pair: usize) -> usize {
    let (lane, half, register) = (row % 8 * 4 + pair / 4, pair % 4 / 2, pair % 2 * 2 + row / 8);
    half * 128 + lane * 4 + register
}

/// One thing to put on the device, in groups of rows that are contiguous there.
struct Job {
    offset: usize,
    rows: usize,
    groups: usize,
    group_bytes: usize,
    source: Source,
}

/// The plan of an upload: what goes where and how much memory it takes, before the first byte moves.
pub struct Plan {
    jobs: Vec<Job>,
    bytes: usize,
    places: Places,
}

impl Plan {
    /// For all of `weights`.
    ///
    /// # Errors
    /// A sentence about a tensor whose shape is not what `config` says.
    pub fn new(config: &ModelConfig, weights: &Weights) -> Result<Self, String> {
        // Offset 0 is kept free: it would be no address.
        let mut b = Builder { jobs: Vec::new(), bytes: ALIGN };
        let (enc, dec) = (&config.encoder, &config.decoder);
        let [conv0, conv1] = &weights.conv;
        let [adapter0, adapter1] = &weights.adapter;
        let conv = [b.taps(conv0, enc.dim, config.audio.mel_bins)?, b.taps(conv1, enc.dim, enc.dim)?];
        let encoder = b.stack(enc, &weights.encoder, &weights.encoder_norm)?;
        let joined = config.downsample * enc.dim;
        let adapter = [b.stacked(&[(adapter0, dec.dim)], joined)?, b.stacked(&[(adapter1, dec.dim)], dec.dim)?];
        let embedding = Linear { weight: weights.embedding.clone(), bias: None };
        // The head picks the best of a tile's outputs in one block, which must have all of k.
        let embedding = Matrix { slices: 1, ..b.stacked(&[(&embedding, config.vocab)], dec.dim)? };
        let decoder = b.stack(dec, &weights.decoder, &weights.decoder_norm)?;
        let places = Places { conv, encoder, adapter, embedding, decoder };
        Ok(Self { jobs: b.jobs, bytes: b.bytes, places })
    }

    /// Device memory that the weights take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Uploads everything: a few threads read the checkpoint into page-locked memory while the copies before run.
    pub fn upload(
        self,
        device: &Arc<Device>,
        stream: &Stream,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<DeviceWeights, DriverError> {
        let buffer = Buffer::new(device, self.bytes)?;
        stream.zero(buffer.all())?;
        let mut stages = Vec::new();
        for _ in 0..STAGES {
            stages.push(Upload::new(device, STAGE_BYTES)?);
        }
        let (mut done, mut next) = (0, 0);
        for job in &self.jobs {
            let at_once = (STAGE_BYTES / job.group_bytes).max(1);
            for first in (0..job.groups).step_by(at_once) {
                let bytes = at_once.min(job.groups - first) * job.group_bytes;
                let stage = &mut stages[next % STAGES];
                next += 1;
                job.fill_in_parallel(first, &mut stage.fill()?[..bytes]);
                stage.send(stream, buffer.region(job.offset + first * job.group_bytes, bytes))?;
                done += bytes;
                progress(done as u64, self.bytes as u64);
            }
        }
        stream.wait()?;
        progress(self.bytes as u64, self.bytes as u64);
        let places = self.places.at(buffer.address());
        Ok(DeviceWeights { places, buffer })
    }
}

/// Weights on the device.
#[derive(Debug)]
pub struct DeviceWeights {
    /// Where they are.
    pub places: Places,
    buffer: Buffer,
}

impl DeviceWeights {
    /// Device memory that they take.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes()
    }
}

impl Places {
    fn at(mut self, base: Address) -> Self {
        let place = |address: &mut Address| {
            if !address.is_none() {
                *address = base + address.offset_from(Address::NONE);
            }
        };
        let matrix = |m: &mut Matrix| [&mut m.w, &mut m.bias].into_iter().for_each(place);
        self.conv.iter_mut().chain(&mut self.adapter).chain([&mut self.embedding]).for_each(matrix);
        for stack in [&mut self.encoder, &mut self.decoder] {
            for layer in &mut stack.layers {
                [&mut layer.qkv, &mut layer.wo, &mut layer.gate_up, &mut layer.down].into_iter().for_each(matrix);
                [&mut layer.attention_norm, &mut layer.ffn_norm].into_iter().for_each(place);
            }
            [&mut stack.norm, &mut stack.frequencies].into_iter().for_each(place);
        }
        self
    }
}

struct Builder {
    jobs: Vec<Job>,
    bytes: usize,
}

impl Builder {
    fn place(&mut self, bytes: usize, job: Job) -> Address {
        let offset = self.bytes;
        self.bytes += bytes.next_multiple_of(ALIGN);
        self.jobs.push(Job { offset, ..job });
        Address::NONE + offset
    }

    fn values(&mut self, values: Vec<f32>) -> Address {
        let bytes = values.len() * 4;
        self.place(bytes, Job { offset: 0, rows: 1, groups: 1, group_bytes: bytes, source: Source::Values(values) })
    }

    fn vector(&mut self, tensor: &Tensor, len: usize) -> Result<Address, String> {
        expect(tensor, &[len])?;
        Ok(self.values(tensor.to_f32()))
    }

    fn matrix(&mut self, n: usize, k: usize, bias: Option<Vec<f32>>, source: Source) -> Matrix {
        let k = k.next_multiple_of(CHUNK);
        let (format, group_bytes, head, parameter) = match &source {
            Source::Packed(joined) => (joined.format(), joined.panel_bytes(), joined.head_bytes(), joined.parameter()),
            _ => (Format::Bf16, GROUP * k * 2, 0, 0),
        };
        let job = Job { offset: 0, rows: n, groups: n.div_ceil(GROUP), group_bytes, source };
        let w = self.place(n.next_multiple_of(TILE_OUTPUTS) / GROUP * group_bytes, job);
        let bias = bias.map_or(Address::NONE, |bias| self.values(bias));
        let (stride, head) = (group_bytes as u32, head as u32);
        let slices = slices(n, k, 1) as u32;
        Matrix { w, bias, n: n as u32, k: k as u32, splits: 1, slices, format, stride, head, parameter }
    }

    fn stacked(&mut self, linears: &[(&Linear, usize)], k: usize) -> Result<Matrix, String> {
        let mut bias = Vec::new();
        for (linear, n) in linears {
            expect_shape(linear.weight.shape(), &[*n, k])?;
            bias.extend(bias_of(linear, *n)?.unwrap_or_else(|| vec![0.0; *n]));
        }
        let bias = linears.iter().any(|(linear, _)| linear.bias.is_some()).then_some(bias);
        let weights: Vec<&Weight> = linears.iter().map(|(linear, _)| &linear.weight).collect();
        let source = Joined::new(&weights, false)
            .map_or_else(|| Source::Stacked(weights.into_iter().cloned().collect()), Source::Packed);
        Ok(self.matrix(linears.iter().map(|(_, n)| n).sum(), k, bias, source))
    }

    fn taps(&mut self, conv: &Linear, n: usize, channels: usize) -> Result<Matrix, String> {
        let Weight::Dense(weight) = &conv.weight else {
            return Err("the convolutions are packed".to_owned());
        };
        expect(weight, &[n, channels, ModelConfig::CONV_KERNEL])?;
        let bias = bias_of(conv, n)?;
        Ok(self.matrix(n, channels * ModelConfig::CONV_KERNEL, bias, Source::Taps(weight.clone())))
    }

    fn stack(&mut self, c: &TransformerConfig, layers: &[LayerWeights], norm: &Tensor) -> Result<Stack, String> {
        let layers = layers.iter().map(|l| self.layer(c, l)).collect::<Result<_, _>>()?;
        let norm = self.vector(norm, c.dim)?;
        let frequencies = self.values(Rope::new(c.head_dim, c.rope_theta).frequencies().to_vec());
        Ok(Stack { layers, norm, frequencies })
    }

    fn layer(&mut self, c: &TransformerConfig, l: &LayerWeights) -> Result<Layer, String> {
        let (gate, up) = (&l.gate.weight, &l.up.weight);
        expect_shape(gate.shape(), &[c.ffn_dim, c.dim])?;
        expect_shape(up.shape(), &[c.ffn_dim, c.dim])?;
        let gate_up =
            Joined::new(&[gate, up], true).map_or_else(|| Source::InTurn(gate.clone(), up.clone()), Source::Packed);
        Ok(Layer {
            attention_norm: self.vector(&l.attention_norm, c.dim)?,
            qkv: self.stacked(&[(&l.wq, c.q_dim()), (&l.wk, c.kv_dim()), (&l.wv, c.kv_dim())], c.dim)?,
            wo: self.stacked(&[(&l.wo, c.dim)], c.q_dim())?.split(),
            ffn_norm: self.vector(&l.ffn_norm, c.dim)?,
            gate_up: self.matrix(2 * c.ffn_dim, c.dim, None, gate_up),
            down: self.stacked(&[(&l.down, c.dim)], c.ffn_dim)?.split(),
        })
    }
}

fn expect(tensor: &Tensor, shape: &[usize]) -> Result<(), String> {
    expect_shape(tensor.shape(), shape)
}

fn expect_shape(is: &[usize], shape: &[usize]) -> Result<(), String> {
    if is == shape {
        return Ok(());
    }
    Err(format!("a weight has shape {is:?}, the configuration says {shape:?}"))
}

fn bias_of(linear: &Linear, n: usize) -> Result<Option<Vec<f32>>, String> {
    let bias = linear.bias.as_ref();
    bias.map(|bias| expect(bias, &[n]).map(|()| bias.to_f32())).transpose()
}

impl Job {
    fn fill_in_parallel(&self, first: usize, out: &mut [u8]) {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(8);
        let groups = (out.len() / self.group_bytes).div_ceil(threads);
        if out.len() < 1 << 20 {
            return self.fill(first, out);
        }
        std::thread::scope(|scope| {
            for (i, part) in out.chunks_mut(groups * self.group_bytes).enumerate() {
                scope.spawn(move || self.fill(first + i * groups, part));
            }
        });
    }

    /// Writes groups from `first` on, padding included.
    fn fill(&self, first: usize, out: &mut [u8]) {
        if let Source::Values(values) = &self.source {
            return out.copy_from_slice(bytemuck::cast_slice(values));
        }
        if let Source::Packed(joined) = &self.source {
            let panels = out.chunks_exact_mut(self.group_bytes).enumerate();
            return panels.for_each(|(i, out)| joined.panel(first + i, out));
        }
        let mut row = vec![bf16::ZERO; self.group_bytes / (GROUP * 2)];
        for (i, out) in out.chunks_mut(self.group_bytes).enumerate() {
            let out: &mut [bf16] = bytemuck::cast_slice_mut(out);
            for r in 0..GROUP {
                let whole = self.row((first + i) * GROUP + r, &mut row);
                let whole: &[[bf16; 2]] = bytemuck::cast_slice(whole.unwrap_or(&row));
                for (chunk, from) in whole.chunks_exact(CHUNK / 2).enumerate() {
                    let out: &mut [[bf16; 2]] =
                        bytemuck::cast_slice_mut(&mut out[chunk * GROUP * CHUNK..][..GROUP * CHUNK]);
                    for (pair, &from) in from.iter().enumerate() {
                        out[pair_at(r, pair)] = from;
                    }
                }
            }
        }
    }

    /// A row of the matrix: as it lies in the checkpoint, or else written to `out`.
    fn row(&self, row: usize, out: &mut [bf16]) -> Option<&[bf16]> {
        let (weight, row) = match &self.source {
            _ if row >= self.rows => {
                out.fill(bf16::ZERO);
                return None;
            }
            Source::Values(_) | Source::Packed(_) => return None,
            Source::Taps(tensor) => {
                copy_taps(tensor, row, out);
                return None;
            }
            Source::InTurn(even, odd) => (if row.is_multiple_of(2) { even } else { odd }, row / 2),
            Source::Stacked(weights) => {
                let mut row = row;
                let mut above = weights.iter();
                let weight = above.find(|weight| {
                    let here = row < weight.n();
                    row -= if here { 0 } else { weight.n() };
                    here
                })?;
                (weight, row)
            }
        };
        let tensor = match weight {
            Weight::Dense(tensor) => tensor,
            Weight::Packed(packed) => {
                // Packed otherwise than what it is put together with.
                let mut values = vec![0.0; packed.k()];
                weight.row(row, &mut values);
                out.fill(bf16::ZERO);
                out.iter_mut().zip(values).for_each(|(out, v)| *out = bf16::from_f32(v));
                return None;
            }
        };
        let width = tensor.shape()[1];
        let range = row * width..(row + 1) * width;
        if let TensorData::Bf16(all) = tensor.data()
            && width == out.len()
        {
            return Some(&all[range]);
        }
        out.fill(bf16::ZERO);
        elements(tensor, range, |i, v| out[i] = v);
        None
    }
}

/// Elements `range` of a tensor as bf16, through `put(index within the range, element)`.
fn elements(tensor: &Tensor, range: std::ops::Range<usize>, mut put: impl FnMut(usize, bf16)) {
    match tensor.data() {
        TensorData::Bf16(d) => d[range].iter().enumerate().for_each(|(i, &v)| put(i, v)),
        TensorData::F16(d) => d[range].iter().enumerate().for_each(|(i, v)| put(i, bf16::from_f32(v.to_f32()))),
        TensorData::F32(d) => d[range].iter().enumerate().for_each(|(i, &v)| put(i, bf16::from_f32(v))),
    }
}

fn copy_taps(tensor: &Tensor, row: usize, out: &mut [bf16]) {
    let (channels, taps) = (tensor.shape()[1], tensor.shape()[2]);
    out.fill(bf16::ZERO);
    let put = |i: usize, v| out[i % taps * channels + i / taps] = v;
    elements(tensor, row * channels * taps..(row + 1) * channels * taps, put);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a job as a product sees them.
    fn read(job: &Job) -> Vec<f32> {
        let mut words = vec![u64::MAX; job.groups * job.group_bytes / 8];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        job.fill(0, bytes);
        let all: Vec<f32> = bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        let width = job.group_bytes / (GROUP * 2);
        let at = |row: usize, k: usize| {
            let in_lane = (row % 8 * 4 + k % 32 / 8) * 8 + k % 4 / 2 * 4 + row % 16 / 8 * 2 + k % 2;
            row / 16 * 16 * width + k / 32 * 512 + k % 8 / 4 * 256 + in_lane
        };
        (0..job.rows * width).map(|i| all[at(i / width, i % width)]).collect()
    }

    fn tensor(rows: usize, width: usize, first: usize) -> Tensor {
        let values: Vec<f32> = (0..rows * width).map(|i| (first + i) as f32).collect();
        Tensor::from_f32(&values, &[rows, width])
    }

    #[test]
    fn rows_are_stacked_or_taken_in_turn_and_padded() {
        let mut b = Builder { jobs: Vec::new(), bytes: 0 };
        let linear = |rows, first| Linear { weight: Weight::Dense(tensor(rows, 2, first)), bias: None };
        let m = b.stacked(&[(&linear(2, 0), 2), (&linear(1, 10), 1)], 2).unwrap();
        assert_eq!((m.n, m.k, b.bytes), (3, 32, 128 * 64));
        let rows = read(&b.jobs[0]);
        assert_eq!([&rows[0..3], &rows[32..35], &rows[64..67]], [&[0., 1., 0.], &[2., 3., 0.], &[10., 11., 0.]]);
        b.matrix(4, 2, None, Source::InTurn(Weight::Dense(tensor(2, 2, 0)), Weight::Dense(tensor(2, 2, 10))));
        let rows = read(&b.jobs[1]);
        assert_eq!([rows[0], rows[32], rows[64], rows[96]], [0., 10., 2., 12.]);
    }

    #[test]
    fn wide_rows_are_cut_into_fragments() {
        let mut b = Builder { jobs: Vec::new(), bytes: 0 };
        let values: Vec<f32> = (0..20 * 40).map(|i| (i % 251) as f32).collect();
        let linear = Linear { weight: Weight::Dense(Tensor::from_f32_as_bf16(&values, &[20, 40])), bias: None };
        b.stacked(&[(&linear, 20)], 40).unwrap();
        let rows = read(&b.jobs[0]);
        assert!(
            (0..20).all(|r| rows[r * 64..][..40] == values[r * 40..][..40] && rows[r * 64 + 40..][..24] == [0.0; 24])
        );
    }

    #[test]
    fn taps_move_outside_the_channels() {
        let values: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let conv = Linear { weight: Weight::Dense(Tensor::from_f32_as_bf16(&values, &[1, 2, 3])), bias: None };
        let mut b = Builder { jobs: Vec::new(), bytes: 0 };
        b.taps(&conv, 1, 2).unwrap();
        assert_eq!(&read(&b.jobs[0])[..7], &[0., 3., 1., 4., 2., 5., 0.]);
    }

    #[test]
    fn a_wrong_shape_is_named() {
        let mut b = Builder { jobs: Vec::new(), bytes: 0 };
        let error = b.vector(&Tensor::from_f32(&[1.0], &[1]), 2).unwrap_err();
        assert_eq!(error, "a weight has shape [1], the configuration says [2]");
    }
}
