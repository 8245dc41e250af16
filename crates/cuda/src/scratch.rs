//! What a pass writes on its way, allocated once: one buffer for every intermediate result, each of its own width, so that the zeros
//! that pad a row to whole chunks stay zeros.

use std::sync::Arc;

use voxtral_model::{MAX_DECODE_ROWS, ModelConfig, TransformerConfig};

use crate::driver::{Buffer, Device, DriverError, Stream};
use crate::kernels::{CHUNK, MAX_PARTS, TILE_OUTPUTS};
use crate::passes::{DECODE_BUCKETS, ENCODE_BUCKETS, MAX_ENCODE_TOKENS};
use crate::table::{Cut, Layout};

/// Addresses of one stack's intermediate results, and the padded widths of the bf16 ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct StackScratch {
    /// f32 `[rows, dim]`, the residual stream.
    pub x: u64,
    /// f32 `[parts][rows, dim]`, what the next norm adds to it.
    pub sums: u64,
    /// Elements between two parts of `sums`.
    pub part_stride: u32,
    /// bf16 `[rows, ld_dim]`, after a norm.
    pub normed: u64,
    /// bf16 `[rows, ld_q]`
    pub q: u64,
    /// bf16 `[rows, ld_q]`, what attention makes of `q`.
    pub attended: u64,
    /// bf16 `[rows, ld_ffn]`
    pub hidden: u64,
    /// f32 pairs `[rows, head_dim / 2]`
    pub turns: u64,
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
    pub mel: u64,
    /// Inputs of the convolutions, bf16 `[frames, 3 bins]`, `[positions, 3 enc_dim]`.
    pub gathered: [u64; 2],
    /// First convolution, bf16 `[frames, enc_dim]`.
    pub columns: u64,
    /// Second convolution, f32 `[positions, enc_dim]`.
    pub stem: u64,
    /// Last norm of the encoder, bf16 `[tokens, downsample * enc_dim]`, padded.
    pub joined: u64,
    /// Between the adapter's products, bf16 `[tokens, dec_dim]`, padded.
    pub adapted: u64,
    /// Partial results of attention.
    pub partial: u64,
    /// Their maxima and sums.
    pub norms: u64,
    /// Head product, 16 bytes per row and tile of ids.
    pub best: u64,
    /// (id, log-probability) of each row.
    pub predictions: u64,
    /// The tables of an encode and of a decode pass.
    pub tables: [u64; 2],
    /// How the tables lie.
    pub layouts: [Layout; 2],
    buffer: Buffer,
}

fn padded(width: usize) -> usize {
    width.next_multiple_of(CHUNK)
}

/// Hands out offsets, then addresses.
struct Carver {
    bytes: usize,
}

impl Carver {
    fn take(&mut self, bytes: usize) -> u64 {
        let at = self.bytes;
        self.bytes += bytes.next_multiple_of(256);
        at as u64
    }

    fn stack(&mut self, c: &TransformerConfig, rows: usize) -> StackScratch {
        let (dim, q, ffn) = (padded(c.dim), padded(c.q_dim()), padded(c.ffn_dim));
        StackScratch {
            x: self.take(rows * c.dim * 4),
            sums: self.take(MAX_PARTS * rows * c.dim * 4),
            part_stride: (rows * c.dim) as u32,
            normed: self.take(rows * dim * 2),
            q: self.take(rows * q * 2),
            attended: self.take(rows * q * 2),
            hidden: self.take(rows * ffn * 2),
            turns: self.take(rows * c.head_dim * 4),
            ld_dim: dim as u32,
            ld_q: q as u32,
            ld_ffn: ffn as u32,
        }
    }
}

impl Scratch {
    fn carve(c: &ModelConfig, base: u64) -> (Carver, impl FnOnce(Buffer) -> Self) {
        // Products read up to a multiple of eight rows.
        const { assert!(MAX_DECODE_ROWS.is_multiple_of(8) && MAX_ENCODE_TOKENS.is_multiple_of(8)) };
        let (rows, tokens) = (MAX_DECODE_ROWS, MAX_ENCODE_TOKENS);
        let (enc, dec) = (&c.encoder, &c.decoder);
        let positions = tokens * c.downsample;
        let frames = tokens * c.frames_per_token();
        // Most items of a pass; no more than the partial results of its rows.
        let most = |c, rows: usize| rows * Cut::new(c, rows).partials();
        let encoded = ENCODE_BUCKETS.iter().map(|tokens| tokens * c.downsample);
        let items = [
            encoded.map(|rows| most(enc, rows)).max().unwrap_or(0),
            DECODE_BUCKETS.iter().map(|&rows| most(dec, rows)).max().unwrap_or(0),
        ];
        let layouts = [Layout::new(positions, tokens, items[0]), Layout::new(rows, 0, items[1])];
        let mut a = Carver { bytes: base as usize };
        let encoder = a.stack(enc, positions);
        let decoder = a.stack(dec, rows);
        let mel = a.take(frames * c.audio.mel_bins * 4);
        let gathered = [a.take(frames * padded(3 * c.audio.mel_bins) * 2), a.take(positions * padded(3 * enc.dim) * 2)];
        let columns = a.take(frames * enc.dim * 2);
        let stem = a.take(positions * enc.dim * 4);
        let joined = a.take(tokens * padded(c.downsample * enc.dim) * 2);
        let adapted = a.take(tokens * padded(dec.dim) * 2);
        let partial = a.take((items[0] * enc.q_dim()).max(items[1] * dec.q_dim()) * 4);
        let norms = a.take((items[0] * enc.heads).max(items[1] * dec.heads) * 8);
        let best = a.take(rows * c.vocab.div_ceil(TILE_OUTPUTS) * 16);
        let predictions = a.take(rows * 8);
        let tables = layouts.map(|layout| a.take(layout.bytes));
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
            tables,
            layouts,
            buffer,
        };
        (a, finish)
    }

    /// Device memory that it takes.
    pub fn bytes_for(config: &ModelConfig) -> usize {
        Self::carve(config, 0).0.bytes
    }

    /// Allocates it, filled with zeros.
    pub fn new(config: &ModelConfig, device: &Arc<Device>, stream: &Stream) -> Result<Self, DriverError> {
        let buffer = Buffer::new(device, Self::bytes_for(config))?;
        stream.zero(&buffer)?;
        Ok(Self::carve(config, buffer.address()).1(buffer))
    }

    /// All of it.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Where an address lies in the buffer.
    pub fn offset(&self, address: u64) -> usize {
        (address - self.buffer.address()) as usize
    }
}
