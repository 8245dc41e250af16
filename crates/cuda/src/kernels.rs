//! The kernels by name, and one launcher for each, which asserts the kernel's contract.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::driver::{Buffer, Device, DriverError, Function, Module, Stream};
use crate::images::Image;
use crate::table::{Cut, KEY_CHUNK, MAX_GROUP, queries};

type Result<T> = std::result::Result<T, DriverError>;

/// Every kernel that this module launches.
pub const KERNELS: [&str; 28] = [
    "product_8",
    "product_32",
    "product_tile",
    "product_sum",
    "attention_16",
    "attention_32",
    "attention_48",
    "attention_64",
    "attention_80",
    "attention_96",
    "attention_112",
    "attention_128",
    "attention_few_16",
    "attention_few_32",
    "attention_few_48",
    "attention_few_64",
    "attention_few_80",
    "attention_few_96",
    "attention_few_112",
    "attention_few_128",
    "attention_combine",
    "attention_combine_few",
    "add_rms_norm",
    "rope_turns",
    "embed",
    "gather_mel",
    "gather_columns",
    "best_of_row",
];

/// What becomes of a product (kernels/epilogue.cuh).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// f32, each part by itself.
    Store = 0,
    /// bf16 `silu(even) * odd`.
    SiluMul = 1,
    /// bf16 GELU.
    Gelu = 2,
    /// f32 GELU.
    GeluF32 = 3,
    /// f32 into the token's audio slot.
    Audio = 4,
    /// Queries turned to bf16, keys and values into the ring.
    Qkv = 5,
    /// Best output of each [`TILE_OUTPUTS`].
    Head = 6,
}

/// Widest head of attention.
pub const MAX_HEAD_DIM: usize = 128;

/// Widest row that `add_rms_norm` holds.
pub const MAX_DIM: usize = 4096;

/// Columns of k that a product takes at once; weights and what they meet are padded to it.
pub const CHUNK: usize = 32;

/// Outputs of a tile of `product_tile`, to which weights are padded, and of which the head leaves the best.
pub const TILE_OUTPUTS: usize = 128;

/// Parameters of the product kernels; see kernels/epilogue.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct Product {
    pub w: u64,
    pub x: u64,
    pub bias: u64,
    pub out: u64,
    pub rows: u64,
    pub turns: u64,
    pub count: u64,
    pub partial: u64,
    pub n: u32,
    pub k: u32,
    pub parts: u32,
    pub part_stride: u32,
    pub slices: u32,
    pub mode: u32,
    pub ldo: u32,
    pub layer: u32,
    pub q_dim: u32,
    pub kv_dim: u32,
    pub head_dim: u32,
    pub unused: u32,
}

/// Parameters of the attention kernels; see kernels/attention.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct Attention {
    pub q: u64,
    pub out: u64,
    pub partial: u64,
    pub norms: u64,
    pub rows: u64,
    pub items: u64,
    pub counts: u64,
    pub ldq: u32,
    pub ldo: u32,
    pub group: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub window: u32,
    pub layer: u32,
    pub scale: f32,
    /// The launcher's.
    pub share: u32,
    pub unused: u32,
}

/// Parameters of the row kernels; see kernels/rows.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct RowWork {
    pub input: u64,
    pub out: u64,
    pub weight: u64,
    pub rows: u64,
    pub counts: u64,
    pub sums: u64,
    pub x: u64,
    pub parts: u32,
    pub part_stride: u32,
    pub dim: u32,
    pub ld: u32,
    pub layer: u32,
    pub group: u32,
    pub eps: f32,
    pub k: u32,
}

/// The most parts of k that [`parts`] gives.
pub const MAX_PARTS: usize = 2;

/// The most slices of a part, the warps of a block.
const MAX_SLICES: usize = 8;

/// Into how many parts of k, for different blocks, a product is cut whose result `add_rms_norm` adds to the residual stream: few outputs
/// need the parallelism. Only the weight's shape decides, here and in [`slices`], so that a row's sums never depend on its company.
pub fn parts(n: usize, k: usize) -> usize {
    let wanted = if (2048..4096).contains(&n) { MAX_PARTS } else { 1 };
    at_most(wanted, k.div_ceil(CHUNK))
}

/// Into how many slices, for the warps of a block, each of `parts` parts of k is cut.
pub fn slices(n: usize, k: usize, parts: usize) -> usize {
    let wanted = match n {
        65536.. => 1,
        _ if k < 2048 => 4,
        _ => MAX_SLICES,
    };
    at_most(wanted, k.div_ceil(CHUNK) / parts)
}

/// `wanted`, a power of two, or a smaller one.
fn at_most(wanted: usize, chunks: usize) -> usize {
    wanted.min(1 << chunks.ilog2())
}

/// The most rows of each streaming product kernel.
pub const STREAM_ROWS: [usize; 2] = [8, 32];

/// Their warps, the outputs of each, and so the outputs of a tile where a part of k is in one slice (as kernels/product_stream.cuh).
const STREAM_WARPS: u32 = 8;
const STREAM_WIDTH: u32 = 48;
const STREAM_OUTPUTS: u32 = STREAM_WARPS * STREAM_WIDTH;

/// Shared memory of the streaming kernel for so many rows (kernels/product_stream.cuh): for each warp a ring of chunks, weights and rows,
/// and the sums of the rows that leave at once.
fn stream_bytes(rows: usize, roomy: bool) -> u32 {
    let outputs = STREAM_WIDTH as usize;
    let few = STREAM_ROWS[0];
    let (chunks, turn) = if roomy { (4, rows) } else { (if rows == few { 3 } else { 2 }, few) };
    STREAM_WARPS * (chunks * (outputs + rows) * CHUNK * 2 + turn * (outputs + 4) * 4) as u32
}

/// Rows of a tile of `product_tile`, and shared memory of its three stages of two chunks.
const TILE_ROWS: usize = 64;
const TILE_BYTES: u32 = (3 * 2 * CHUNK * 2 * (TILE_ROWS + TILE_OUTPUTS)) as u32;

/// A product of no more tiles than this is cut into its slices, a block each: so few would leave much of a large GPU idle.
const SLICED_TILES: usize = 128;

/// Blocks of an attention kernel on a processor, at the most; each walks over what there is to do.
fn attention_blocks(head_dim: u32, few: bool) -> u32 {
    match head_dim {
        _ if few => 4,
        ..=64 => 3,
        _ => 2,
    }
}

/// Shared memory of `attention_<head_dim>` or `attention_few_<head_dim>`: keys, values and queries; for few rows also the weights and
/// maxima that four warps exchange.
fn attention_bytes(head_dim: usize, few: bool) -> u32 {
    let (stages, told) = if few { (1, queries(few) * ((KEY_CHUNK + 8) * 2 + 4 * 4)) } else { (2, 0) };
    ((2 * stages * KEY_CHUNK + queries(few)) * (head_dim + 8) * 2 + told) as u32
}

/// Loaded kernels.
#[derive(Debug)]
pub struct Kernels {
    streams: [Function; STREAM_ROWS.len()],
    tile: Function,
    sum: Function,
    partial: Buffer,
    attention: [Vec<Function>; 2],
    combine: [Function; 2],
    add_rms_norm: Function,
    rope_turns: Function,
    embed: Function,
    gather_mel: Function,
    gather_columns: Function,
    best_of_row: Function,
    processors: u32,
    overlap: bool,
}

impl Kernels {
    /// Device memory for the sums of single slices.
    pub const SCRATCH_BYTES: usize = SLICED_TILES * MAX_SLICES * TILE_ROWS * TILE_OUTPUTS * 4;

    /// Loads `image`; `overlap` launches each kernel before its predecessor has ended, where the image can.
    pub fn load(device: &Arc<Device>, image: Image, overlap: bool) -> Result<Self> {
        let module = Module::load(device, image.bytes)?;
        let plain = |name: &str| module.function(name, 0);
        let product = |rows: usize| module.function(&format!("product_{rows}"), stream_bytes(rows, image.is_roomy()));
        let attention = |name: &str, few: bool| -> Result<Vec<Function>> {
            let load = |width: usize| module.function(&format!("{name}_{width}"), attention_bytes(width, few));
            (16..=MAX_HEAD_DIM).step_by(16).map(load).collect()
        };
        Ok(Self {
            streams: [product(STREAM_ROWS[0])?, product(STREAM_ROWS[1])?],
            tile: module.function("product_tile", TILE_BYTES)?,
            sum: plain("product_sum")?,
            partial: Buffer::new(device, Self::SCRATCH_BYTES)?,
            attention: [attention("attention", false)?, attention("attention_few", true)?],
            combine: [plain("attention_combine")?, plain("attention_combine_few")?],
            add_rms_norm: plain("add_rms_norm")?,
            rope_turns: plain("rope_turns")?,
            embed: plain("embed")?,
            gather_mel: plain("gather_mel")?,
            gather_columns: plain("gather_columns")?,
            best_of_row: plain("best_of_row")?,
            processors: device.processors,
            overlap: overlap && image.can_overlap(),
        })
    }

    fn launch<P: Pod>(&self, stream: &Stream, f: &Function, grid: (u32, u32), threads: u32, p: &P) -> Result<()> {
        // SAFETY: each launcher below pairs a kernel with its own parameter struct, whose layout is that of the kernel's (asserted by
        // the kernel tests, which read every field back through results); the addresses in it come from buffers that the backend
        // allocated for the sizes in it and drops only after the stream is idle.
        unsafe { stream.launch(f, grid, threads, p, self.overlap) }
    }

    /// `out = w x`, up to `max_rows` rows (as many as `count` says at run time).
    pub fn product(&self, stream: &Stream, p: Product, max_rows: usize) -> Result<()> {
        let chunks = p.k / CHUNK as u32;
        assert!(p.k == chunks * CHUNK as u32 && p.n.is_multiple_of(2));
        assert!(p.slices.is_power_of_two() && p.slices <= MAX_SLICES as u32 && p.parts > 0);
        assert!(p.parts * p.slices <= chunks && (p.mode != Mode::Head as u32 || p.slices == 1));
        assert!(p.parts == 1 || p.mode == Mode::Store as u32);
        let Some(which) = STREAM_ROWS.iter().position(|rows| max_rows <= *rows) else {
            return self.tiles(stream, p, max_rows);
        };
        let tiles = p.n.div_ceil(STREAM_OUTPUTS / p.slices);
        // A block for each processor, or so many fewer that all have the same number of tiles.
        let turns = (tiles * p.parts).div_ceil(self.processors);
        self.launch(stream, &self.streams[which], (tiles.div_ceil(turns), p.parts), 32 * STREAM_WARPS, &p)
    }

    /// A product of more rows than the streaming kernels take.
    fn tiles(&self, stream: &Stream, p: Product, max_rows: usize) -> Result<()> {
        let (rows, outputs) = (max_rows.div_ceil(TILE_ROWS), (p.n as usize).div_ceil(TILE_OUTPUTS));
        let runs = p.parts as usize * outputs;
        let sliced = p.slices > 1 && rows * runs <= SLICED_TILES;
        let (partial, slices) = if sliced { (self.partial.address(), p.slices) } else { (0, 1) };
        let p = Product { partial, ..p };
        self.launch(stream, &self.tile, (rows as u32, runs as u32 * slices), 128, &p)?;
        if sliced {
            self.launch(stream, &self.sum, (max_rows.div_ceil(8) as u32, runs as u32), 256, &p)?;
        }
        Ok(())
    }

    /// Attention over the items of a table that was filled with the same `cut`.
    pub fn attention(&self, stream: &Stream, p: Attention, cut: Cut) -> Result<()> {
        assert!(p.head_dim.is_multiple_of(16) && p.head_dim as usize <= MAX_HEAD_DIM);
        assert!(p.group as usize == cut.group && cut.group <= MAX_GROUP && p.window as usize == cut.window);
        assert!(p.ldq.is_multiple_of(8) && p.window > 0 && p.scale > 0.0);
        let (few, heads) = (cut.few(), p.kv_heads * p.group);
        let p = Attention { share: 65536u32.div_ceil(p.group), ..p };
        let blocks = (attention_blocks(p.head_dim, few) * self.processors).div_ceil(p.kv_heads);
        let f = &self.attention[usize::from(few)][p.head_dim as usize / 16 - 1];
        self.launch(stream, f, (p.kv_heads, blocks), 128, &p)?;
        let rows = cut.max_rows as u32;
        if few {
            self.launch(stream, &self.combine[1], (heads, rows), 512, &p)
        } else {
            self.launch(stream, &self.combine[0], ((heads * p.head_dim).div_ceil(1024), rows), 256, &p)
        }
    }

    /// `x = input + sums`, `out = norm(x) * weight (* ada)`.
    pub fn add_rms_norm(&self, stream: &Stream, p: RowWork, max_rows: usize) -> Result<()> {
        assert!(p.dim.is_multiple_of(16) && p.dim as usize <= MAX_DIM && p.group > 0 && p.parts as usize <= MAX_PARTS);
        self.launch(stream, &self.add_rms_norm, (max_rows as u32, 1), 512, &p)
    }

    /// Cosines and sines of the rows' positions.
    pub fn rope_turns(&self, stream: &Stream, p: RowWork, max_rows: usize) -> Result<()> {
        assert!(p.dim.is_multiple_of(2));
        self.launch(stream, &self.rope_turns, (max_rows as u32, 1), 64, &p)
    }

    /// Text and audio embeddings added.
    pub fn embed(&self, stream: &Stream, p: RowWork, max_rows: usize) -> Result<()> {
        assert!(p.dim.is_multiple_of(16));
        self.launch(stream, &self.embed, (max_rows as u32, 1), 256, &p)
    }

    /// Inputs of the first convolution.
    pub fn gather_mel(&self, stream: &Stream, p: RowWork, max_frames: usize) -> Result<()> {
        assert!(p.ld >= 3 * p.dim);
        self.launch(stream, &self.gather_mel, (max_frames as u32, 1), 128, &p)
    }

    /// Inputs of the second convolution.
    pub fn gather_columns(&self, stream: &Stream, p: RowWork, max_positions: usize) -> Result<()> {
        assert!(p.ld >= 3 * p.dim && p.dim.is_multiple_of(2));
        self.launch(stream, &self.gather_columns, (max_positions as u32, 1), 256, &p)
    }

    /// The best of each row from the head product's `Best` entries.
    pub fn best_of_row(&self, stream: &Stream, p: RowWork, max_rows: usize) -> Result<()> {
        self.launch(stream, &self.best_of_row, (max_rows as u32, 1), 256, &p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_follow_the_shape_alone() {
        assert_eq!(slices(131072, 3072, 1), 1);
        assert_eq!((parts(6144, 3072), slices(6144, 3072, 1)), (1, 8));
        assert_eq!((parts(3072, 9216), slices(3072, 9216, 2)), (2, 8));
        assert_eq!((parts(1280, 2048), slices(1280, 2048, 1)), (1, 8));
        assert_eq!((parts(2048, 16), slices(2048, 16, 1)), (1, 1));
        assert_eq!((slices(10240, 1280, 1), slices(64, 80, 1), slices(64, 80, 2)), (4, 2, 1));
    }

    #[test]
    fn a_block_fits_its_shared_memory() {
        let smallest = 99 * 1024; // compute capability 8.6, 8.9 and 12.0
        // What kernels/product_stream.cuh asserts of itself.
        assert_eq!(STREAM_ROWS.map(|rows| stream_bytes(rows, false)), [99328, 95232]);
        assert_eq!(STREAM_ROWS.map(|rows| stream_bytes(rows, true)), [128000, 217088]);
        assert!(STREAM_ROWS.into_iter().all(|rows| stream_bytes(rows, false) <= smallest));
        assert!(STREAM_ROWS.into_iter().all(|rows| stream_bytes(rows, true) <= 227 * 1024));
        assert!(stream_bytes(STREAM_ROWS[0], true) > 114 * 1024, "two products would share a processor");
        // What kernels/attention.cuh asserts of itself.
        assert_eq!([true, false].map(|few| attention_bytes(MAX_HEAD_DIM, few)), [41728, 87040]);
        assert!(attention_bytes(MAX_HEAD_DIM, false) <= smallest - 1024 && TILE_BYTES <= smallest - 1024);
    }
}
