//! The two passes as sequences of launches, each recorded once for every row-count bucket. All that changes from pass to pass is in the
//! table that the host uploads before.

use voxtral_model::{ModelConfig, RUNNERS_UP, TransformerConfig};

use crate::cut::Cut;
use crate::driver::{Address, DriverError, Graph, Stream};
use crate::kernels::{Attention, Kernels, Mode, Product, RowWork};
use crate::limits::{DECODE_BUCKETS, ENCODE_BUCKETS, LOGIT_ROWS, TILE_OUTPUTS};
use crate::per_pass::PerPass;
use crate::scratch::{Scratch, StackScratch};
use crate::table::{Counts, Row};
use crate::weights::{self, Matrix, Places};

type Result<T> = std::result::Result<T, DriverError>;

/// A pass of up to so many rows, and how attention was cut for it: a table for it must be filled with the same cut.
#[derive(Debug)]
pub struct Recorded {
    /// Its `max_rows` are the most rows of the pass.
    pub cut: Cut,
    /// The launches.
    pub graph: Graph,
}

impl Recorded {
    /// The smallest of some recordings, which are in order of size, that takes so many rows.
    ///
    /// # Panics
    /// When none does.
    pub fn for_rows(all: &mut [Self], rows: usize) -> &mut Self {
        let found = all.iter_mut().find(|recorded| rows <= recorded.cut.max_rows);
        found.unwrap_or_else(|| panic!("{rows} rows are more than any recorded pass takes"))
    }
}

/// What the passes are made of.
#[derive(Clone, Copy)]
pub struct Passes<'a> {
    /// Dimensions.
    pub config: &'a ModelConfig,
    /// Weights.
    pub weights: &'a Places,
    /// Intermediate results.
    pub scratch: &'a Scratch,
    /// Launchers.
    pub kernels: &'a Kernels,
    /// Where the launches go.
    pub stream: &'a Stream,
}

/// One stack's part of a pass.
struct Stack<'a> {
    config: &'a TransformerConfig,
    scratch: &'a StackScratch,
    weights: &'a weights::Stack,
    table: Address,
    rows: Address,
    items: Address,
    cut: Cut,
    conditioned: bool,
}

impl Passes<'_> {
    /// Records every pass once, smallest first.
    pub fn record(&self) -> Result<PerPass<Vec<Recorded>>> {
        // SAFETY: nothing runs here; who replays a recording vouches for the table.
        let encode = |tokens: &usize| unsafe {
            let cut = Cut::new(&self.config.encoder, tokens * self.config.downsample);
            Ok(Recorded { cut, graph: self.stream.record(|| self.encode(*tokens, cut))? })
        };
        // SAFETY: as above.
        let decode = |rows: &usize| unsafe {
            let cut = Cut::new(&self.config.decoder, *rows);
            Ok(Recorded { cut, graph: self.stream.record(|| self.decode(cut))? })
        };
        Ok(PerPass {
            encode: ENCODE_BUCKETS.iter().map(encode).collect::<Result<_>>()?,
            decode: DECODE_BUCKETS.iter().map(decode).collect::<Result<_>>()?,
        })
    }

    /// Log-mel frames to audio embeddings.
    ///
    /// # Safety
    /// When the launches run, the table in the scratch memory holds no more tokens than `max_tokens`, was filled with the same `cut`, and
    /// leads to live streams that have memory for their positions; weights and scratch memory live until they are done.
    unsafe fn encode(&self, max_tokens: usize, cut: Cut) -> Result<()> {
        let (c, s, w, enc) = (self.config, self.scratch, self.weights, &self.config.encoder);
        let (table, layout) = (s.tables.encode, &s.layouts.encode);
        let max_rows = cut.max_rows;
        let max_frames = max_tokens * c.frames_per_token();
        let (bins, dim) = (c.audio.mel_bins as u32, enc.dim as u32);

        let gather = RowWork { spans: table + layout.spans, counts: table, ..RowWork::default() };
        let frames = RowWork { input: s.mel, out: s.gathered[0], dim: bins, ld: w.conv[0].k, ..gather };
        let columns = RowWork { input: s.columns, out: s.gathered[1], dim, ld: w.conv[1].k, ..gather };
        let (frame_count, row_count) = (count(table, Count::Frames), count(table, Count::Rows));
        let conv0 = Product { x: s.gathered[0], out: s.columns, ldo: dim, count: frame_count, ..Product::default() };
        let conv1 = Product { x: s.gathered[1], out: s.stem, ldo: dim, count: row_count, ..Product::default() };
        let stack = Stack {
            config: enc,
            scratch: &s.encoder,
            weights: &w.encoder,
            table,
            rows: table + layout.rows,
            items: table + layout.items,
            cut,
            conditioned: false,
        };
        let tokens = count(table, Count::Tokens);
        let adapter0 =
            Product { x: s.joined, out: s.adapted, ldo: w.adapter[1].k, count: tokens, ..Product::default() };
        let adapter1 = Product { x: s.adapted, rows: table + layout.tokens, count: tokens, ..Product::default() };
        // SAFETY: weights and scratch memory hold what their structs say of each address, for as many rows as any pass has; for the rest
        // the caller vouches.
        unsafe {
            self.kernels.gather_mel(self.stream, frames, max_frames)?;
            self.product(&w.conv[0], Mode::Gelu, conv0, max_frames)?;
            self.kernels.gather_columns(self.stream, columns, max_rows)?;
            self.product(&w.conv[1], Mode::GeluF32, conv1, max_rows)?;
            let norm = self.layers(&stack, s.stem)?;
            let norm = RowWork { out: s.joined, ld: w.adapter[0].k, group: c.downsample as u32, ..norm };
            self.kernels.add_rms_norm(self.stream, norm, max_rows)?;
            self.product(&w.adapter[0], Mode::Gelu, adapter0, max_tokens)?;
            self.product(&w.adapter[1], Mode::Audio, adapter1, max_tokens)
        }
    }

    /// Ids and audio embeddings to predictions.
    ///
    /// # Safety
    /// As of an encode pass, with no more rows than the cut's.
    unsafe fn decode(&self, cut: Cut) -> Result<()> {
        let (s, w, dec) = (self.scratch, self.weights, &self.config.decoder);
        let (table, layout) = (s.tables.decode, &s.layouts.decode);
        let (rows, max_rows) = (table + layout.rows, cut.max_rows);
        let stack = Stack {
            config: dec,
            scratch: &s.decoder,
            weights: &w.decoder,
            table,
            rows,
            items: table + layout.items,
            cut,
            conditioned: true,
        };
        let dim = dec.dim as u32;
        let (out, count) = (s.decoder.x, count(table, Count::Rows));
        let embed = Product { out, rows, count, ldo: dim, ..w.embedding.product() };
        let tiles = w.embedding.n.div_ceil(TILE_OUTPUTS as u32);
        let best = RowWork { input: s.best, out: s.predictions, counts: table, dim: tiles, ..RowWork::default() };
        // SAFETY: as of an encode pass.
        unsafe {
            self.kernels.embed(self.stream, embed, max_rows)?;
            let norm = self.layers(&stack, s.decoder.x)?;
            self.kernels.add_rms_norm(self.stream, norm, max_rows)?;
            self.head(Mode::Head, s.best, tiles, max_rows)?;
            self.kernels.best_of_row(self.stream, best, max_rows)
        }
    }

    /// The head product over the last decode pass's rows.
    ///
    /// # Safety
    /// `out` leads to live memory for `max_rows` rows of `ldo`, as large as the mode wants, until the work is done; the table in the
    /// scratch memory holds no more rows then.
    pub unsafe fn head(&self, mode: Mode, out: Address, ldo: u32, max_rows: usize) -> Result<()> {
        let s = self.scratch;
        let count = count(s.tables.decode, Count::Rows);
        let p = Product { x: s.decoder.normed, out, ldo, count, ..Product::default() };
        // SAFETY: as of a pass.
        unsafe { self.product(&self.weights.embedding, mode, p, max_rows) }
    }

    /// The runners-up of `rows` rows of the last decode pass from `first` on, of which at least one asks; their logits are computed again,
    /// because a pass keeps none.
    ///
    /// # Safety
    /// The last decode pass had these rows, and `first` is a multiple of [`LOGIT_ROWS`], which `rows` does not exceed; its work is done.
    pub unsafe fn runners_up(&self, first: usize, rows: usize) -> Result<()> {
        let s = self.scratch;
        let vocab = self.weights.embedding.n;
        let normed = s.decoder.normed + first * s.decoder.ld_dim as usize * size_of::<u16>();
        // Rows beyond the last are computed from what an earlier pass has left there, and nobody looks at them.
        let head = Product { x: normed, out: s.logits, ldo: vocab, count: s.logit_rows, ..Product::default() };
        let find = RowWork {
            input: s.logits,
            weight: s.predictions + first * 8,
            out: s.runners_up + first * RUNNERS_UP * 8,
            rows: s.tables.decode + s.layouts.decode.rows + first * size_of::<Row>(),
            dim: vocab,
            ..RowWork::default()
        };
        // SAFETY: as of a pass; the scratch memory has LOGIT_ROWS rows from `first` on, and logits for as many.
        unsafe {
            self.product(&self.weights.embedding, Mode::Store, head, LOGIT_ROWS)?;
            self.kernels.runners_up(self.stream, find, rows)
        }
    }

    /// All layers of a stack; the first reads the residual stream from `input`. What is left to add to it and to normalise is returned.
    ///
    /// # Safety
    /// As of a pass.
    unsafe fn layers(&self, stack: &Stack<'_>, input: Address) -> Result<RowWork> {
        let (c, s, max, layers) = (stack.config, stack.scratch, stack.cut.max_rows, stack.layers());
        let dim = c.dim as u32;
        let (rows, counts) = (stack.rows, stack.table);
        let (weight, head_dim) = (stack.weights.frequencies, c.head_dim as u32);
        let rope = RowWork { weight, out: s.rope, rows, counts, dim: head_dim, ..RowWork::default() };
        // SAFETY: as of a pass.
        unsafe { self.kernels.rope_table(self.stream, rope, max)? };
        let base = Product { rows, rope: s.rope, count: count(counts, Count::Rows), layers, ..Product::default() };
        let sums = Product { out: s.sums, ldo: dim, split_stride: s.split_stride, ..base };
        let (q_dim, kv_dim) = (c.q_dim() as u32, c.kv_dim() as u32);
        let ada = if stack.conditioned { rows } else { Address::NONE };
        let mut norm = RowWork { input, ..stack.norm() };
        for (layer, w) in (0..).zip(&stack.weights.layers) {
            let attention_norm = RowWork { weight: w.attention_norm, ..norm };
            let qkv = Product { x: s.normed, out: s.q, ldo: s.ld_q, layer, q_dim, kv_dim, head_dim, ..base };
            norm.splits = w.wo.splits;
            let ffn_norm = RowWork { weight: w.ffn_norm, rows: ada, layer, ..norm };
            let gate_up = Product { x: s.normed, out: s.hidden, ldo: s.ld_ffn, ..base };
            // SAFETY: as of a pass.
            unsafe {
                self.kernels.add_rms_norm(self.stream, attention_norm, max)?;
                self.product(&w.qkv, Mode::Qkv, qkv, max)?;
                self.kernels.attention(self.stream, self.attention(stack, layer), stack.cut)?;
                self.product(&w.wo, Mode::Store, Product { x: s.attended, ..sums }, max)?;
                self.kernels.add_rms_norm(self.stream, ffn_norm, max)?;
                self.product(&w.gate_up, Mode::SiluMul, gate_up, max)?;
                self.product(&w.down, Mode::Store, Product { x: s.hidden, ..sums }, max)?;
            }
            norm = RowWork { input: s.x, splits: w.down.splits, ..norm };
        }
        Ok(RowWork { weight: stack.weights.norm, ..norm })
    }

    /// # Safety
    /// As [`Kernels::product`].
    unsafe fn product(&self, m: &Matrix, mode: Mode, p: Product, max_rows: usize) -> Result<()> {
        let Product { w, bias, n, k, splits, slices, encoding, stride, head, parameter, .. } = m.product();
        let weights = Product { w, bias, n, k, splits, slices, encoding, stride, head, parameter, ..p };
        let p = Product { mode: mode as u32, ..weights };
        // SAFETY: the caller vouches for it.
        unsafe { self.kernels.product(self.stream, p, max_rows) }
    }

    fn attention(&self, stack: &Stack<'_>, layer: u32) -> Attention {
        let (c, s) = (stack.config, stack.scratch);
        Attention {
            q: s.q,
            out: s.attended,
            partial: self.scratch.partial,
            norms: self.scratch.norms,
            rows: stack.rows,
            items: stack.items,
            counts: stack.table,
            ldq: s.ld_q,
            ldo: s.ld_q,
            group: (c.heads / c.kv_heads) as u32,
            kv_heads: c.kv_heads as u32,
            head_dim: c.head_dim as u32,
            window: c.window as u32,
            layer,
            layers: stack.layers(),
            scale: std::f32::consts::LOG2_E / (c.head_dim as f32).sqrt(),
            ..Attention::default()
        }
    }
}

impl Stack<'_> {
    fn layers(&self) -> u32 {
        self.weights.layers.len() as u32
    }

    /// A norm of this stack without its weight and input, nothing to add yet.
    fn norm(&self) -> RowWork {
        let (c, s) = (self.config, self.scratch);
        RowWork {
            out: s.normed,
            counts: self.table,
            sums: s.sums,
            x: s.x,
            split_stride: s.split_stride,
            dim: c.dim as u32,
            ld: s.ld_dim,
            group: 1,
            eps: c.norm_eps,
            ..RowWork::default()
        }
    }
}

enum Count {
    Rows,
    Frames,
    Tokens,
}

/// Where a table holds one of its counts.
fn count(table: Address, which: Count) -> Address {
    let at = match which {
        Count::Rows => std::mem::offset_of!(Counts, rows),
        Count::Frames => std::mem::offset_of!(Counts, frames),
        Count::Tokens => std::mem::offset_of!(Counts, tokens),
    };
    table + at
}
