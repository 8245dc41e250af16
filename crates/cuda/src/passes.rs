//! The two passes as sequences of launches, each recorded once for every row-count bucket. All that changes from pass to pass is in the
//! table that the host uploads before.

use voxtral_model::{MAX_DECODE_ROWS, ModelConfig, TransformerConfig};

use crate::driver::{DriverError, Stream};
use crate::kernels::{Attention, Kernels, Mode, Product, RowWork, STREAM_ROWS, TILE_OUTPUTS};
use crate::scratch::{Scratch, StackScratch};
use crate::table::{Counts, Cut};
use crate::weights::{Layer, Matrix, Places};

type Result<T> = std::result::Result<T, DriverError>;

/// Rows of a decode pass that share a recording.
pub const DECODE_BUCKETS: [usize; 4] = [STREAM_ROWS[0], STREAM_ROWS[1], 64, MAX_DECODE_ROWS];

/// Most tokens of an encode pass: enough tiles for every processor of a large GPU. A stream's ring holds so many beyond its window.
pub const MAX_ENCODE_TOKENS: usize = 256;

/// Tokens of an encode pass that share a recording.
pub const ENCODE_BUCKETS: [usize; 7] = [2, 8, 16, 32, 64, 128, MAX_ENCODE_TOKENS];

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
    frequencies: u64,
    table: u64,
    rows: u64,
    items: u64,
    cut: Cut,
    conditioned: bool,
    max_rows: usize,
}

impl Passes<'_> {
    /// Log-mel frames to audio embeddings.
    pub fn encode(&self, max_tokens: usize) -> Result<()> {
        let (c, s, w, enc) = (self.config, self.scratch, self.weights, &self.config.encoder);
        let (table, layout) = (s.tables[0], &s.layouts[0]);
        let (rows, spans) = (table + layout.rows as u64, table + layout.spans as u64);
        let max_rows = max_tokens * c.downsample;
        let max_frames = max_tokens * c.frames_per_token();
        let bins = c.audio.mel_bins as u32;
        let dim = enc.dim as u32;

        let gather = RowWork { rows: spans, counts: table, ..RowWork::default() };
        let frames = RowWork { input: s.mel, out: s.gathered[0], dim: bins, ld: w.conv[0].k, ..gather };
        self.kernels.gather_mel(self.stream, frames, max_frames)?;
        let conv0 = Product {
            x: s.gathered[0],
            out: s.columns,
            ldo: dim,
            count: count(table, Count::Frames),
            ..Product::default()
        };
        self.product(&w.conv[0], Mode::Gelu, conv0, max_frames)?;
        let columns = RowWork { input: s.columns, out: s.gathered[1], dim, ld: w.conv[1].k, ..gather };
        self.kernels.gather_columns(self.stream, columns, max_rows)?;
        let conv1 =
            Product { x: s.gathered[1], out: s.stem, ldo: dim, count: count(table, Count::Rows), ..Product::default() };
        self.product(&w.conv[1], Mode::GeluF32, conv1, max_rows)?;

        let stack = Stack {
            config: enc,
            scratch: &s.encoder,
            frequencies: w.frequencies[0],
            table,
            rows,
            items: table + layout.items as u64,
            cut: Cut::new(enc, max_rows),
            conditioned: false,
            max_rows,
        };
        let norm = self.layers(&stack, &w.encoder, s.stem)?;
        let norm = RowWork { out: s.joined, weight: w.encoder_norm, ld: w.adapter[0].k, ..norm };
        self.kernels.add_rms_norm(self.stream, RowWork { group: c.downsample as u32, ..norm }, max_rows)?;
        let tokens = count(table, Count::Tokens);
        let adapter0 =
            Product { x: s.joined, out: s.adapted, ldo: w.adapter[1].k, count: tokens, ..Product::default() };
        self.product(&w.adapter[0], Mode::Gelu, adapter0, max_tokens)?;
        let token_rows = table + layout.tokens as u64;
        let adapter1 = Product { x: s.adapted, rows: token_rows, count: tokens, ..Product::default() };
        self.product(&w.adapter[1], Mode::Audio, adapter1, max_tokens)
    }

    /// Ids and audio embeddings to predictions.
    pub fn decode(&self, max_rows: usize) -> Result<()> {
        let (s, w, dec) = (self.scratch, self.weights, &self.config.decoder);
        let (table, layout) = (s.tables[1], &s.layouts[1]);
        let rows = table + layout.rows as u64;
        let stack = Stack {
            config: dec,
            scratch: &s.decoder,
            frequencies: w.frequencies[1],
            table,
            rows,
            items: table + layout.items as u64,
            cut: Cut::new(dec, max_rows),
            conditioned: true,
            max_rows,
        };
        let dim = dec.dim as u32;
        let (k, weight, out) = (w.embedding.k, w.embedding.w, s.decoder.x);
        self.kernels.embed(
            self.stream,
            RowWork { weight, out, rows, counts: table, dim, k, ..RowWork::default() },
            max_rows,
        )?;
        let norm = self.layers(&stack, &w.decoder, s.decoder.x)?;
        let norm = RowWork { weight: w.decoder_norm, ..norm };
        self.kernels.add_rms_norm(self.stream, norm, max_rows)?;
        let tiles = w.embedding.n.div_ceil(TILE_OUTPUTS as u32);
        self.head(Mode::Head, s.best, tiles, max_rows)?;
        let best = RowWork { input: s.best, out: s.predictions, counts: table, dim: tiles, ..RowWork::default() };
        self.kernels.best_of_row(self.stream, best, max_rows)
    }

    /// The head product over the last decode pass's rows.
    pub fn head(&self, mode: Mode, out: u64, ldo: u32, max_rows: usize) -> Result<()> {
        let s = self.scratch;
        let p = Product { x: s.decoder.normed, out, ldo, count: count(s.tables[1], Count::Rows), ..Product::default() };
        self.product(&self.weights.embedding, mode, p, max_rows)
    }

    /// All layers of a stack; the first reads the residual stream from `input`. What is left to add to it and to normalise is returned.
    fn layers(&self, stack: &Stack<'_>, layers: &[Layer], input: u64) -> Result<RowWork> {
        let (c, s, max) = (stack.config, stack.scratch, stack.max_rows);
        let dim = c.dim as u32;
        let (rows, counts) = (stack.rows, stack.table);
        let turns = RowWork {
            weight: stack.frequencies,
            out: s.turns,
            rows,
            counts,
            dim: c.head_dim as u32,
            ..RowWork::default()
        };
        self.kernels.rope_turns(self.stream, turns, max)?;
        let base = Product { rows, turns: s.turns, count: count(counts, Count::Rows), ..Product::default() };
        let sums = Product { out: s.sums, ldo: dim, part_stride: s.part_stride, ..base };
        let mut norm = RowWork { input, ..stack.norm() };
        for (layer, w) in (0..).zip(layers) {
            self.kernels.add_rms_norm(self.stream, RowWork { weight: w.attention_norm, ..norm }, max)?;
            let (q_dim, kv_dim, head_dim) = (c.q_dim() as u32, c.kv_dim() as u32, c.head_dim as u32);
            let qkv = Product { x: s.normed, out: s.q, ldo: s.ld_q, layer, q_dim, kv_dim, head_dim, ..base };
            self.product(&w.qkv, Mode::Qkv, qkv, max)?;
            self.kernels.attention(self.stream, self.attention(stack, layer), stack.cut)?;
            self.product(&w.wo, Mode::Store, Product { x: s.attended, ..sums }, max)?;
            let ada = if stack.conditioned { rows } else { 0 };
            norm.parts = w.wo.parts;
            let ffn_norm = RowWork { weight: w.ffn_norm, rows: ada, layer, ..norm };
            self.kernels.add_rms_norm(self.stream, ffn_norm, max)?;
            let gate_up = Product { x: s.normed, out: s.hidden, ldo: s.ld_ffn, ..base };
            self.product(&w.gate_up, Mode::SiluMul, gate_up, max)?;
            self.product(&w.down, Mode::Store, Product { x: s.hidden, ..sums }, max)?;
            norm = RowWork { input: s.x, parts: w.down.parts, ..norm };
        }
        Ok(norm)
    }

    fn product(&self, m: &Matrix, mode: Mode, p: Product, max_rows: usize) -> Result<()> {
        let Matrix { w, bias, n, k, parts, slices } = *m;
        let p = Product { w, bias, n, k, parts, slices, mode: mode as u32, ..p };
        self.kernels.product(self.stream, p, max_rows)
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
            scale: std::f32::consts::LOG2_E / (c.head_dim as f32).sqrt(),
            ..Attention::default()
        }
    }
}

impl Stack<'_> {
    /// A norm of this stack without its weight and input, nothing to add yet.
    fn norm(&self) -> RowWork {
        let (c, s) = (self.config, self.scratch);
        RowWork {
            out: s.normed,
            counts: self.table,
            sums: s.sums,
            x: s.x,
            part_stride: s.part_stride,
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
fn count(table: u64, which: Count) -> u64 {
    let offset = match which {
        Count::Rows => std::mem::offset_of!(Counts, rows),
        Count::Frames => std::mem::offset_of!(Counts, frames),
        Count::Tokens => std::mem::offset_of!(Counts, tokens),
    };
    table + offset as u64
}
