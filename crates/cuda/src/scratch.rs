//! What a pass writes on its way, allocated once: one buffer for every intermediate result, each of its own width, so that the zeros
//! that pad a row to whole chunks stay zeros.

use std::sync::Arc;

use voxtral_model::{MAX_DECODE_ROWS, ModelConfig, RUNNERS_UP, TransformerConfig};

use crate::cut::Cut;
use crate::driver::{Address, Buffer, Device, DriverError, Region, Stream, Upload};
use crate::limits::{CHUNK, DECODE_BUCKETS, ENCODE_BUCKETS, LOGIT_ROWS, MAX_ENCODE_TOKENS, MAX_SPLITS, TILE_OUTPUTS};
use crate::per_pass::PerPass;
use crate::table::Layout;

/// Addresses of one stack's intermediate results, and the padded widths of the bf16 ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct StackScratch {
    /// f32 `[rows, dim]`, the residual stream.
    pub x: Address,
    /// f32 `[splits][rows, dim]`, what the next norm adds to it.
    pub sums: Address,
    /// Elements between two splits of `sums`.
    pub split_stride: u32,
    /// bf16 `[rows, ld_dim]`, after a norm.
    pub normed: Address,
    /// bf16 `[rows, ld_q]`
    pub q: Address,
    /// bf16 `[rows, ld_q]`, what attention makes of `q`.
    pub attended: Address,
    /// bf16 `[rows, ld_ffn]`
    pub hidden: Address,
    /// f32 pairs `[rows, head_dim / 2]`, cosines and sines of the positions
    pub rope: Address,
    /// Padded width.
    pub ld_dim: u32,
    /// Padded width.
    pub ld_q: u32,
    /// Padded width.
    pub ld_ffn: u32,
}

/// Everything that is not weights and not a stream's.
#[derive(Debug)]
pub struct Scratch {
    /// The encoder's.
    pub encoder: StackScratch,
    /// The decoder's.
    pub decoder: StackScratch,
    /// f32 `[frames, bins]`
    pub mel: Address,
    /// Inputs of the convolutions, bf16 `[frames, 3 bins]`, `[positions, 3 enc_dim]`.
    pub gathered: [Address; 2],
    /// First convolution, bf16 `[frames, enc_dim]`.
    pub columns: Address,
    /// Second convolution, f32 `[positions, enc_dim]`.
    pub stem: Address,
    /// Last norm of the encoder, bf16 `[tokens, downsample * enc_dim]`, padded.
    pub joined: Address,
    /// Between the adapter's products, bf16 `[tokens, dec_dim]`, padded.
    pub adapted: Address,
    /// Partial results of attention.
    pub partial: Address,
    /// Their maxima and sums.
    pub norms: Address,
    /// Head product, 16 bytes per row and tile of ids.
    pub best: Address,
    /// (id, log-probability) of each row.
    pub predictions: Address,
    /// f32 `[LOGIT_ROWS, vocab]`, for runners-up.
    pub logits: Address,
    /// u32, the number of their rows: always [`LOGIT_ROWS`].
    pub logit_rows: Address,
    /// (id, log-probability) of each row's runners-up.
    pub runners_up: Address,
    /// The tables that are uploaded before a pass.
    pub tables: PerPass<Address>,
    /// How the tables lie.
    pub layouts: PerPass<Layout>,
    buffer: Buffer,
}

fn padded(width: usize) -> usize {
    width.next_multiple_of(CHUNK)
}

/// Hands out addresses one after the other.
struct Carver {
    base: Address,
    bytes: usize,
}

impl Carver {
    fn take(&mut self, bytes: usize) -> Address {
        let at = self.base + self.bytes;
        self.bytes += bytes.next_multiple_of(256);
        at
    }

    fn stack(&mut self, c: &TransformerConfig, rows: usize) -> StackScratch {
        let (dim, q, ffn) = (padded(c.dim), padded(c.q_dim()), padded(c.ffn_dim));
        StackScratch {
            x: self.take(rows * c.dim * 4),
            sums: self.take(MAX_SPLITS * rows * c.dim * 4),
            split_stride: (rows * c.dim) as u32,
            normed: self.take(rows * dim * 2),
            q: self.take(rows * q * 2),
            attended: self.take(rows * q * 2),
            hidden: self.take(rows * ffn * 2),
            rope: self.take(rows * c.head_dim * 4),
            ld_dim: dim as u32,
            ld_q: q as u32,
            ld_ffn: ffn as u32,
        }
    }
}

impl Scratch {
    fn carve(c: &ModelConfig, base: Address) -> (Carver, impl FnOnce(Buffer) -> Self) {
        // Products read up to a multiple of eight rows.
        const { assert!(MAX_DECODE_ROWS.is_multiple_of(8) && MAX_ENCODE_TOKENS.is_multiple_of(8)) };
        let (rows, tokens) = (MAX_DECODE_ROWS, MAX_ENCODE_TOKENS);
        let (enc, dec) = (&c.encoder, &c.decoder);
        let positions = tokens * c.downsample;
        let frames = tokens * c.frames_per_token();
        // Most items of a pass; no more than the partial results of its rows.
        let most = |c, rows: usize| rows * Cut::new(c, rows).partials();
        let encoded = ENCODE_BUCKETS.iter().map(|tokens| tokens * c.downsample);
        let items = PerPass {
            encode: encoded.map(|rows| most(enc, rows)).max().unwrap_or(0),
            decode: DECODE_BUCKETS.iter().map(|&rows| most(dec, rows)).max().unwrap_or(0),
        };
        let layouts = PerPass {
            encode: Layout::new(positions, tokens, items.encode),
            decode: Layout::new(rows, 0, items.decode),
        };
        let mut a = Carver { base, bytes: 0 };
        let encoder = a.stack(enc, positions);
        let decoder = a.stack(dec, rows);
        let mel = a.take(frames * c.audio.mel_bins * 4);
        let gathered = [a.take(frames * padded(3 * c.audio.mel_bins) * 2), a.take(positions * padded(3 * enc.dim) * 2)];
        let columns = a.take(frames * enc.dim * 2);
        let stem = a.take(positions * enc.dim * 4);
        let joined = a.take(tokens * padded(c.downsample * enc.dim) * 2);
        let adapted = a.take(tokens * padded(dec.dim) * 2);
        let partial = a.take((items.encode * enc.q_dim()).max(items.decode * dec.q_dim()) * 4);
        let norms = a.take((items.encode * enc.heads).max(items.decode * dec.heads) * 8);
        let best = a.take(rows * c.vocab.div_ceil(TILE_OUTPUTS) * 16);
        let predictions = a.take(rows * 8);
        // Products read and write whole chunks of rows.
        const { assert!(MAX_DECODE_ROWS.is_multiple_of(LOGIT_ROWS)) };
        let logits = a.take(LOGIT_ROWS * c.vocab * 4);
        let logit_rows = a.take(4);
        let runners_up = a.take(rows * RUNNERS_UP * 8);
        let tables = PerPass { encode: a.take(layouts.encode.bytes), decode: a.take(layouts.decode.bytes) };
        let finish = move |buffer| Self {
            encoder,
            decoder,
            mel,
            gathered,
            columns,
            stem,
            joined,
            adapted,
            partial,
            norms,
            best,
            predictions,
            logits,
            logit_rows,
            runners_up,
            tables,
            layouts,
            buffer,
        };
        (a, finish)
    }

    /// Device memory that it takes.
    pub fn bytes_for(config: &ModelConfig) -> usize {
        Self::carve(config, Address::NONE).0.bytes
    }

    /// Allocates it, filled with zeros but for `logit_rows`.
    pub fn new(config: &ModelConfig, device: &Arc<Device>, stream: &Stream) -> Result<Self, DriverError> {
        let buffer = Buffer::new(device, Self::bytes_for(config))?;
        stream.zero(buffer.all())?;
        let scratch = Self::carve(config, buffer.address()).1(buffer);
        let rows = (LOGIT_ROWS as u32).to_le_bytes();
        let mut upload = Upload::new(device, rows.len())?;
        upload.fill()?[..rows.len()].copy_from_slice(&rows);
        upload.send(stream, scratch.region(scratch.logit_rows, rows.len()))?;
        stream.wait()?;
        Ok(scratch)
    }

    /// All of it.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// `bytes` of it from an address on.
    pub fn region(&self, address: Address, bytes: usize) -> Region<'_> {
        self.buffer.region(address.offset_from(self.buffer.address()), bytes)
    }
}
