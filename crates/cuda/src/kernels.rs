//! The kernels by name, and one launcher for each, which asserts the kernel's contract.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::cut::Cut;
use crate::driver::{Address, Buffer, Device, DriverError, Function, Module, Stream};
use crate::images::Image;
use crate::limits::{
    CHUNK, KEY_CHUNK, MAX_DIM, MAX_GROUP, MAX_HEAD_DIM, MAX_SLICES, MAX_SPLITS, STREAM_ROWS, TILE_OUTPUTS, TILE_ROWS,
    queries,
};

type Result<T> = std::result::Result<T, DriverError>;

/// Every kernel that this module launches.
pub const KERNELS: [&str; 38] = [
    "product_8_bf16",
    "product_8_bf12",
    "product_8_int8",
    "product_8_int4",
    "product_32_bf16",
    "product_32_bf12",
    "product_32_int8",
    "product_32_int4",
    "product_tile_bf16",
    "product_tile_bf12",
    "product_tile_int8",
    "product_tile_int4",
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
    "rope_table",
    "embed",
    "gather_mel",
    "gather_columns",
    "best_of_row",
    "runners_up",
];

/// What becomes of a product (kernels/epilogue.cuh).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// f32, each split by itself.
    Store = 0,
    /// bf16 `silu(even) * odd`.
    SiluMul = 1,
    /// bf16 GELU.
    Gelu = 2,
    /// f32 GELU.
    GeluF32 = 3,
    /// f32 into the token's audio slot.
    Audio = 4,
    /// Queries and keys rotated; queries to bf16, keys and values into the ring.
    Qkv = 5,
    /// Best output of each [`TILE_OUTPUTS`].
    Head = 6,
}

/// How the weights of a product lie on the device (kernels/encoding.cuh).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Format {
    /// As they are.
    #[default]
    Bf16 = 0,
    /// bf16 without loss in 12 bits.
    Bf12 = 1,
    /// 8 bits and scales.
    Int8 = 2,
    /// 4 bits and scales.
    Int4 = 3,
}

impl Format {
    /// In the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Bf16, Self::Bf12, Self::Int8, Self::Int4];

    /// Bytes of 16 outputs by 32 inputs.
    pub fn fragment_bytes(self) -> usize {
        [1024, 768, 512, 256][self as usize]
    }

    /// Its name in those of kernels.
    fn name(self) -> &'static str {
        ["bf16", "bf12", "int8", "int4"][self as usize]
    }

    fn scaled(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4)
    }
}

/// Parameters of the product kernels and of `embed`; see kernels/epilogue.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct Product {
    pub w: Address,
    pub x: Address,
    pub bias: Address,
    pub out: Address,
    pub rows: Address,
    pub rope: Address,
    pub count: Address,
    pub partial: Address,
    pub n: u32,
    pub k: u32,
    pub splits: u32,
    pub split_stride: u32,
    pub slices: u32,
    pub mode: u32,
    pub ldo: u32,
    pub layer: u32,
    pub q_dim: u32,
    pub kv_dim: u32,
    pub head_dim: u32,
    pub layers: u32,
    pub encoding: u32,
    pub stride: u32,
    pub head: u32,
    pub parameter: u32,
}

/// Parameters of the attention kernels; see kernels/attention.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct Attention {
    pub q: Address,
    pub out: Address,
    pub partial: Address,
    pub norms: Address,
    pub rows: Address,
    pub items: Address,
    pub counts: Address,
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
    pub layers: u32,
}

/// Parameters of the row kernels; see kernels/rows.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct RowWork {
    pub input: Address,
    pub out: Address,
    pub weight: Address,
    pub rows: Address,
    pub counts: Address,
    pub sums: Address,
    pub x: Address,
    pub spans: Address,
    pub splits: u32,
    pub split_stride: u32,
    pub dim: u32,
    pub ld: u32,
    pub layer: u32,
    pub group: u32,
    pub eps: f32,
    pub unused: u32,
}

/// The warps of a streaming product kernel, the outputs of each, and so the outputs of a tile where a split of k is in one slice (as
/// kernels/product_stream.cuh).
const STREAM_WARPS: u32 = 8;
const STREAM_WIDTH: u32 = 48;
const STREAM_OUTPUTS: u32 = STREAM_WARPS * STREAM_WIDTH;

/// Shared memory of the streaming kernel for so many rows (kernels/product_stream.cuh): for each warp a ring of steps, weights and rows,
/// and the sums of the rows that leave at once.
fn stream_bytes(format: Format, rows: usize, large_shared: bool) -> u32 {
    const CHUNKS: [[[usize; 4]; 2]; 2] = [[[3, 3, 4, 6], [2, 2, 2, 3]], [[4, 5, 6, 10], [4, 5, 5, 6]]];
    let (outputs, few) = (STREAM_WIDTH as usize, STREAM_ROWS[0]);
    let chunks = CHUNKS[usize::from(large_shared)][usize::from(rows > few)][format as usize];
    let of_step = if format == Format::Int4 && chunks.is_multiple_of(2) { 2 } else { 1 };
    let round = if large_shared { rows } else { few };
    let scales = if format.scaled() { (outputs / 16 * 32 * of_step).next_multiple_of(128) } else { 0 };
    let step = of_step * (outputs / 16 * format.fragment_bytes() + rows * CHUNK * 2) + scales;
    STREAM_WARPS * (chunks / of_step * step + round * (outputs + 4) * 4) as u32
}

/// Shared memory of `product_tile`: three stages of two chunks.
fn tile_bytes(format: Format) -> u32 {
    let scales = if format.scaled() { 32 } else { 0 };
    (3 * 2 * (TILE_OUTPUTS / 16 * (format.fragment_bytes() + scales) + TILE_ROWS * CHUNK * 2)) as u32
}

/// A product of no more tiles than this is cut into its slices, a block each: so few would leave much of a large GPU idle.
const SLICED_TILES: usize = 128;

/// Blocks of an attention kernel on an SM, at the most; each walks over what there is to do.
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
    products: Vec<ProductKernels>,
    sum: Function,
    partial: Buffer,
    attention: AttentionKernels,
    attention_few: AttentionKernels,
    add_rms_norm: Function,
    rope_table: Function,
    embed: Function,
    gather_mel: Function,
    gather_columns: Function,
    best_of_row: Function,
    runners_up: Function,
    sms: u32,
    overlap: bool,
}

/// The products of a format.
#[derive(Debug)]
struct ProductKernels {
    /// One for each of [`STREAM_ROWS`].
    streams: [Function; STREAM_ROWS.len()],
    tile: Function,
}

/// Attention over many rows, or over a few.
#[derive(Debug)]
struct AttentionKernels {
    /// One for each width of heads, multiples of 16.
    attend: Vec<Function>,
    combine: Function,
}

impl Kernels {
    /// Device memory for the sums of single slices.
    pub const SCRATCH_BYTES: usize = SLICED_TILES * MAX_SLICES * TILE_ROWS * TILE_OUTPUTS * 4;

    /// Loads `image`; `overlap` launches each kernel before its predecessor has ended, where the image can.
    pub fn load(device: &Arc<Device>, image: Image, overlap: bool) -> Result<Self> {
        let module = Module::load(device, image.bytes)?;
        let plain = |name: &str| module.function(name, 0);
        let large_shared = image.has_large_shared();
        let products = |format: Format| -> Result<ProductKernels> {
            let name = format.name();
            let stream = |rows: usize| {
                module.function(&format!("product_{rows}_{name}"), stream_bytes(format, rows, large_shared))
            };
            let streams = [stream(STREAM_ROWS[0])?, stream(STREAM_ROWS[1])?];
            Ok(ProductKernels { streams, tile: module.function(&format!("product_tile_{name}"), tile_bytes(format))? })
        };
        let attention = |name: &str, combine: &str, few: bool| -> Result<AttentionKernels> {
            let load = |width: usize| module.function(&format!("{name}_{width}"), attention_bytes(width, few));
            let attend = (16..=MAX_HEAD_DIM).step_by(16).map(load).collect::<Result<_>>()?;
            Ok(AttentionKernels { attend, combine: plain(combine)? })
        };
        Ok(Self {
            products: Format::ALL.into_iter().map(products).collect::<Result<_>>()?,
            sum: plain("product_sum")?,
            partial: Buffer::new(device, Self::SCRATCH_BYTES)?,
            attention: attention("attention", "attention_combine", false)?,
            attention_few: attention("attention_few", "attention_combine_few", true)?,
            add_rms_norm: plain("add_rms_norm")?,
            rope_table: plain("rope_table")?,
            embed: plain("embed")?,
            gather_mel: plain("gather_mel")?,
            gather_columns: plain("gather_columns")?,
            best_of_row: plain("best_of_row")?,
            runners_up: plain("runners_up")?,
            sms: device.sms,
            overlap: overlap && image.can_overlap(),
        })
    }

    /// # Safety
    /// `p` is what `f` takes, and the addresses in it lead to live memory as the kernel's contract says, until the work is done.
    unsafe fn launch<P: Pod>(
        &self,
        stream: &Stream,
        f: &Function,
        grid: (u32, u32),
        threads: u32,
        p: &P,
    ) -> Result<()> {
        // SAFETY: the caller vouches for it.
        unsafe { stream.launch(f, grid, threads, p, self.overlap) }
    }

    /// `out = w x`, up to `max_rows` rows (as many as `count` says when it runs).
    ///
    /// # Safety
    /// The addresses lead to live device memory as large as kernels/epilogue.cuh says of `Product`, or are none where it says so, until
    /// the work is done; so do those in the rows they lead to. `count` holds no more than `max_rows` then.
    pub unsafe fn product(&self, stream: &Stream, p: Product, max_rows: usize) -> Result<()> {
        let chunks = p.k / CHUNK as u32;
        assert!(p.k == chunks * CHUNK as u32 && p.n.is_multiple_of(2));
        assert!(p.slices.is_power_of_two() && p.slices <= MAX_SLICES as u32 && p.splits > 0);
        assert!(p.splits * p.slices <= chunks && (p.mode != Mode::Head as u32 || p.slices == 1));
        assert!(p.splits == 1 || p.mode == Mode::Store as u32);
        assert!(p.mode != Mode::Qkv as u32 || p.layer < p.layers);
        assert!(p.stride.is_multiple_of(16) && p.head.is_multiple_of(16) && p.stride > p.head);
        let Some(which) = STREAM_ROWS.iter().position(|rows| max_rows <= *rows) else {
            // SAFETY: the caller vouches for it.
            return unsafe { self.tiles(stream, p, max_rows) };
        };
        let tiles = p.n.div_ceil(STREAM_OUTPUTS / p.slices);
        // A block for each SM, or so many fewer that all have the same number of tiles.
        let rounds = (tiles * p.splits).div_ceil(self.sms);
        let grid = (tiles.div_ceil(rounds), p.splits);
        // SAFETY: the kernel takes a `Product`; the caller vouches for the addresses.
        unsafe { self.launch(stream, &self.products[p.encoding as usize].streams[which], grid, 32 * STREAM_WARPS, &p) }
    }

    /// A product of more rows than the streaming kernels take.
    ///
    /// # Safety
    /// As [`Kernels::product`].
    unsafe fn tiles(&self, stream: &Stream, p: Product, max_rows: usize) -> Result<()> {
        let (rows, outputs) = (max_rows.div_ceil(TILE_ROWS), (p.n as usize).div_ceil(TILE_OUTPUTS));
        let runs = p.splits as usize * outputs;
        let sliced = p.slices > 1 && rows * runs <= SLICED_TILES;
        let (partial, slices) = if sliced { (self.partial.address(), p.slices) } else { (Address::NONE, 1) };
        let p = Product { partial, ..p };
        // SAFETY: the kernels take a `Product`; the caller vouches for the addresses, and `partial` has a tile for each slice of up to
        // SLICED_TILES tiles.
        unsafe {
            self.launch(
                stream,
                &self.products[p.encoding as usize].tile,
                (rows as u32, runs as u32 * slices),
                128,
                &p,
            )?;
            if sliced {
                self.launch(stream, &self.sum, (max_rows.div_ceil(8) as u32, runs as u32), 256, &p)?;
            }
        }
        Ok(())
    }

    /// Attention over the items of a table that was filled with the same `cut`.
    ///
    /// # Safety
    /// The addresses lead to live device memory as large as kernels/attention.cuh says of `Attention`, until the work is done; so do the
    /// rings of the items they lead to, with memory for every chunk of keys that begins at or before a row's position.
    pub unsafe fn attention(&self, stream: &Stream, p: Attention, cut: Cut) -> Result<()> {
        assert!(p.head_dim.is_multiple_of(16) && p.head_dim as usize <= MAX_HEAD_DIM);
        assert!(p.group as usize == cut.group && cut.group <= MAX_GROUP && p.window as usize == cut.window);
        assert!(p.ldq.is_multiple_of(8) && p.window > 0 && p.scale > 0.0 && p.layer < p.layers);
        let (few, heads) = (cut.few(), p.kv_heads * p.group);
        let p = Attention { share: 65536u32.div_ceil(p.group), ..p };
        let blocks = (attention_blocks(p.head_dim, few) * self.sms).div_ceil(p.kv_heads);
        let kernels = if few { &self.attention_few } else { &self.attention };
        let attend = &kernels.attend[p.head_dim as usize / 16 - 1];
        let rows = cut.max_rows as u32;
        let (grid, threads) =
            if few { ((heads, rows), 512) } else { (((heads * p.head_dim).div_ceil(1024), rows), 256) };
        // SAFETY: the kernels take an `Attention`; the caller vouches for the addresses.
        unsafe {
            self.launch(stream, attend, (p.kv_heads, blocks), 128, &p)?;
            self.launch(stream, &kernels.combine, grid, threads, &p)
        }
    }

    /// `x = input + sums`, `out = norm(x) * weight (* ada)`.
    ///
    /// # Safety
    /// The addresses lead to live device memory as large as the kernel's contract in kernels/rows.cuh says, or are none where it says
    /// so, until the work is done; so do those in the rows they lead to. The counts are no more than the launch's maximum then.
    pub unsafe fn add_rms_norm(&self, stream: &Stream, p: RowWork, max_rows: usize) -> Result<()> {
        assert!(p.dim.is_multiple_of(16) && p.dim as usize <= MAX_DIM && p.group > 0);
        assert!(p.splits as usize <= MAX_SPLITS);
        // SAFETY: the kernel takes a `RowWork`; the caller vouches for the addresses.
        unsafe { self.launch(stream, &self.add_rms_norm, (max_rows as u32, 1), 512, &p) }
    }

    /// Cosines and sines of the rows' positions.
    ///
    /// # Safety
    /// As [`Kernels::add_rms_norm`].
    pub unsafe fn rope_table(&self, stream: &Stream, p: RowWork, max_rows: usize) -> Result<()> {
        assert!(p.dim.is_multiple_of(2));
        // SAFETY: as above.
        unsafe { self.launch(stream, &self.rope_table, (max_rows as u32, 1), 64, &p) }
    }

    /// Text and audio embeddings added, `ldo` elements a row.
    ///
    /// # Safety
    /// As [`Kernels::product`]; the ids of the rows are below `n`.
    pub unsafe fn embed(&self, stream: &Stream, p: Product, max_rows: usize) -> Result<()> {
        assert!(p.ldo.is_multiple_of(8) && p.ldo <= p.k && p.stride > p.head);
        // SAFETY: the kernel takes a `Product`; the caller vouches for the addresses.
        unsafe { self.launch(stream, &self.embed, (max_rows as u32, 1), 256, &p) }
    }

    /// Inputs of the first convolution.
    ///
    /// # Safety
    /// As [`Kernels::add_rms_norm`].
    pub unsafe fn gather_mel(&self, stream: &Stream, p: RowWork, max_frames: usize) -> Result<()> {
        assert!(p.ld >= 3 * p.dim);
        // SAFETY: as above.
        unsafe { self.launch(stream, &self.gather_mel, (max_frames as u32, 1), 128, &p) }
    }

    /// Inputs of the second convolution.
    ///
    /// # Safety
    /// As [`Kernels::add_rms_norm`].
    pub unsafe fn gather_columns(&self, stream: &Stream, p: RowWork, max_positions: usize) -> Result<()> {
        assert!(p.ld >= 3 * p.dim && p.dim.is_multiple_of(2));
        // SAFETY: as above.
        unsafe { self.launch(stream, &self.gather_columns, (max_positions as u32, 1), 256, &p) }
    }

    /// The best of each row from the head product's `Best` entries.
    ///
    /// # Safety
    /// As [`Kernels::add_rms_norm`].
    pub unsafe fn best_of_row(&self, stream: &Stream, p: RowWork, max_rows: usize) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.launch(stream, &self.best_of_row, (max_rows as u32, 1), 256, &p) }
    }

    /// The runners-up of the rows that ask for them, at least one of exactly `rows`, from their logits and predictions.
    ///
    /// # Safety
    /// As [`Kernels::add_rms_norm`]; the predictions are ids below `dim`.
    pub unsafe fn runners_up(&self, stream: &Stream, p: RowWork, rows: usize) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.launch(stream, &self.runners_up, (rows as u32, 1), 512, &p) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of a struct of the kernels and where they lie.
    fn fields(source: &str, name: &str) -> Vec<(String, usize)> {
        let body = source.split_once(&format!("struct {name} {{")).unwrap().1.split_once("};").unwrap().0;
        let mut at = 0;
        let mut all = Vec::new();
        for line in body.lines().filter_map(|line| line.split_once(';')).map(|(declaration, _)| declaration.trim()) {
            let (kind, names) = line.split_once(' ').unwrap();
            let size = match kind {
                "u64" => 8,
                "u32" | "float" => 4,
                other => panic!("{other}"),
            };
            for name in names.split(", ") {
                assert!(usize::is_multiple_of(at, size), "{name} is padded");
                all.push((name.to_owned(), at));
                at += size;
            }
        }
        all.push(("size".to_owned(), at));
        all
    }

    macro_rules! twin {
        ($source:literal, $name:ident { $($field:ident),* }) => {
            let ours = vec![
                $((stringify!($field).to_owned(), std::mem::offset_of!($name, $field)),)*
                ("size".to_owned(), size_of::<$name>()),
            ];
            assert_eq!(fields(include_str!(concat!("../kernels/", $source)), stringify!($name)), ours);
        };
    }

    #[test]
    fn structs_lie_as_the_kernels_have_them() {
        use crate::table::{Counts, Item, Row, Span};
        twin!(
            "epilogue.cuh",
            Product {
                w,
                x,
                bias,
                out,
                rows,
                rope,
                count,
                partial,
                n,
                k,
                splits,
                split_stride,
                slices,
                mode,
                ldo,
                layer,
                q_dim,
                kv_dim,
                head_dim,
                layers,
                encoding,
                stride,
                head,
                parameter
            }
        );
        twin!(
            "attention.cuh",
            Attention {
                q,
                out,
                partial,
                norms,
                rows,
                items,
                counts,
                ldq,
                ldo,
                group,
                kv_heads,
                head_dim,
                window,
                layer,
                scale,
                share,
                layers
            }
        );
        twin!(
            "rows.cuh",
            RowWork {
                input,
                out,
                weight,
                rows,
                counts,
                sums,
                x,
                spans,
                splits,
                split_stride,
                dim,
                ld,
                layer,
                group,
                eps,
                unused
            }
        );
        twin!(
            "common.cuh",
            Row { kv, audio, ada, ring, position, id, partial, partials, run, skip, slot, runners_up, unused }
        );
        twin!("common.cuh", Item { kv, row, rows, position, key0, key1, slot, ring, fresh, partial, partials });
        twin!("common.cuh", Span { mel_carry, column_carry, frame, frames });
        twin!("common.cuh", Counts { rows, items, frames, tokens });
    }

    #[test]
    fn rings_are_cut_into_blocks_as_the_kernels_have_them() {
        assert!(
            include_str!("../kernels/common.cuh").contains(&format!("SLOT_BLOCK = {};", crate::limits::SLOT_BLOCK))
        );
        assert!(include_str!("../kernels/attention.cuh").contains("CHUNK = 2 * SLOT_BLOCK;"));
    }

    #[test]
    fn the_kernel_finds_as_many_runners_up_as_are_promised() {
        let source = include_str!("../kernels/rows.cuh");
        assert!(source.contains(&format!("RUNNERS_UP = {};", voxtral_model::RUNNERS_UP)));
    }

    #[test]
    fn a_block_fits_its_shared_memory() {
        let smallest = 99 * 1024; // compute capability 8.6, 8.9 and 12.0
        let source = include_str!("../kernels/product_stream.cuh");
        assert!(source.contains("{{{3, 3, 4, 6}, {2, 2, 2, 3}}, {{4, 5, 6, 10}, {4, 5, 5, 6}}}"), "as stream_bytes");
        for format in Format::ALL {
            assert!(STREAM_ROWS.into_iter().all(|rows| stream_bytes(format, rows, false) <= smallest - 1024));
            assert!(STREAM_ROWS.into_iter().all(|rows| stream_bytes(format, rows, true) <= 227 * 1024));
            assert!(stream_bytes(format, STREAM_ROWS[0], true) > 114 * 1024, "two products would share an SM");
            // The outputs of a tile leave through the memory that its weights came to.
            assert!(tile_bytes(format) <= smallest - 1024 && tile_bytes(format) as usize >= TILE_ROWS * 132 * 4);
        }
        let bf16 = Format::Bf16;
        assert_eq!(STREAM_ROWS.map(|rows| stream_bytes(bf16, rows, false)), [99328, 95232]);
        assert_eq!(STREAM_ROWS.map(|rows| stream_bytes(bf16, rows, true)), [128000, 217088]);
        assert_eq!(tile_bytes(bf16), 73728);
        // What kernels/attention.cuh asserts of itself.
        assert_eq!([true, false].map(|few| attention_bytes(MAX_HEAD_DIM, few)), [41728, 87040]);
        assert!(attention_bytes(MAX_HEAD_DIM, false) <= smallest - 1024);
    }
}
