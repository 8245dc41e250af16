//! The one interface between the model's arithmetic and everything above it.

use crate::Delay;

/// Most rows (positions of all spans together) of one [`Backend::decode`] call.
pub const MAX_DECODE_ROWS: usize = 128;

/// Most runners-up of a prediction.
pub const RUNNERS_UP: usize = 2;

/// Audio embeddings that a stream keeps: the newest so many tokens can be decoded, older ones are overwritten.
pub const AUDIO_WINDOW: usize = 512;

/// Most tokens of a live stream's encode spans. The encoder's KV cache holds so many beyond its window, so that more would cost memory in
/// every stream, and live audio comes one token at a time; four are enough to catch up with.
pub const LIVE_SPAN: usize = 4;

/// A stream of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Audio of one stream to encode.
#[derive(Clone, Copy, Debug)]
pub struct EncodeSpan<'a> {
    /// Whose audio it is.
    pub stream: StreamId,
    /// Log-mel frames, `[frames, mel_bins]`; frames are a multiple of [`frames_per_token`](crate::ModelConfig::frames_per_token)
    /// and follow those of the stream's span before.
    pub mel: &'a [f32],
}

/// Consecutive positions of one stream to decode.
#[derive(Clone, Copy, Debug)]
pub struct DecodeSpan<'a> {
    /// Whose positions they are.
    pub stream: StreamId,
    /// The first position. At most the number of positions decoded so far: a position may be decoded again, with another id, and
    /// then everything after it counts as not yet decoded. At most [`MAX_DECODE_ROWS`] before the furthest ever decoded: the KV
    /// cache holds no more beyond its window.
    pub position: usize,
    /// Input ids, one a position. The audio of all these positions has been encoded and is among the newest [`AUDIO_WINDOW`].
    pub ids: &'a [u32],
    /// The lowest id that may be a runner-up, below the vocabulary's size, where runners-up are wanted. Where they are not, they cost
    /// nothing.
    pub runners_up: Option<u32>,
}

/// What the model makes of one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The most probable id, the lowest of those that tie.
    pub id: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The most probable of the other ids from [`DecodeSpan::runners_up`] on, the best first, the lower of those that tie first; none
    /// where the span does not ask.
    pub runners_up: [Option<RunnerUp>; RUNNERS_UP],
}

/// An id that the model gave less to than to the one that it predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunnerUp {
    /// The id.
    pub id: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

/// Intermediate results, for tests and for comparing backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Of the last `encode`: after both convolutions, `[positions, enc_dim]`.
    ConvStem,
    /// Of the last `encode`: after the last norm of the encoder, `[positions, enc_dim]`.
    Encoder,
    /// Of the last `encode`: audio embeddings, `[tokens, dec_dim]`.
    Adapter,
    /// Of the last `decode`: `[rows, vocab]`.
    Logits,
}

/// What a backend runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// "cpu" or "cuda".
    pub backend: &'static str,
    /// The device's own name.
    pub device: String,
    /// Device memory in use for weights, streams and scratch; 0 where the device is the host.
    pub device_bytes: u64,
    /// Most tokens of audio (of all spans together) of one [`Backend::encode`] call: as many as the device is faster with.
    pub encode_tokens: usize,
}

/// Why a backend could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackendError {
    /// Weights, or a stream's state, do not fit.
    #[error("not enough memory on {device}: {needed} MB are needed, {free} MB are free")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Megabytes (10^6 bytes) asked for.
        needed: u64,
        /// Megabytes that were free.
        free: u64,
    },
    /// The device or its driver reported an error.
    #[error("{device}: {what}")]
    Device {
        /// The device's name.
        device: String,
        /// What was attempted, and the driver's words.
        what: String,
    },
    /// The caller broke the contract of [`Backend`].
    #[error("{0}")]
    Contract(String),
    /// The backend cannot run this model.
    #[error("{0}")]
    Unsupported(String),
}

/// A model on a device: weights shared by any number of streams.
///
/// A stream is the state of one input and stays on the device: what the convolutions carry over, the KV caches of encoder and decoder,
/// the newest audio embeddings. It takes memory as it is [grown](Self::grow), until the attention windows are full.
///
/// Calls run to completion. A call that breaks the contract is refused with [`BackendError::Contract`] and changes nothing
/// ([`Ledger`](crate::Ledger) checks that for all backends alike). A call that fails otherwise leaves the streams it named unusable but
/// for [`Backend::close`], and all others as they were.
///
/// What a row comes to depends neither on the other rows of its call nor on how positions are cut into calls.
pub trait Backend: Send {
    /// What it runs on and how much of it is taken.
    fn info(&self) -> BackendInfo;

    /// Device memory, in bytes, that a stream of such encode spans takes once it has memory for `tokens`; 0 where the device is the host.
    fn stream_bytes(&self, span: usize, tokens: usize) -> u64;

    /// Device memory, in bytes, that streams may still take; `u64::MAX` where the device is the host.
    ///
    /// # Errors
    /// When the device fails.
    fn free_bytes(&self) -> Result<u64, BackendError>;

    /// A new stream that has heard nothing and has memory for nothing, to be decoded at `delay`. None of its encode spans will be longer
    /// than `span` tokens, which is at least 1 and at most [`BackendInfo::encode_tokens`].
    ///
    /// # Errors
    /// When there is no memory for it.
    fn open(&mut self, delay: Delay, span: usize) -> Result<StreamId, BackendError>;

    /// A new stream that has heard and decoded what `of` has, and has memory for that, with encode spans of at most `span` tokens.
    ///
    /// # Errors
    /// When there is no memory for it, or `of` is not open.
    fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId, BackendError>;

    /// Raises a stream's capacity to `tokens` tokens of audio in all. One that has as much stays as it is, and so does one for which
    /// there is no memory: it can go on as far as its capacity reaches.
    ///
    /// # Errors
    /// When there is no memory for it.
    fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<(), BackendError>;

    /// Frees a stream's memory. The id is never used again; closing it twice does nothing.
    fn close(&mut self, stream: StreamId);

    /// Turns log-mel frames into audio embeddings, which stay in their streams. At most [`BackendInfo::encode_tokens`] in all and one
    /// span a stream, no longer than what the stream was opened for and within its capacity.
    ///
    /// # Errors
    /// When the device fails or a span breaks the contract.
    fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError>;

    /// Decodes positions and replaces the contents of `out` by one prediction a row, in the order of the spans. At most
    /// [`MAX_DECODE_ROWS`] in all and one span a stream.
    ///
    /// # Errors
    /// When the device fails or a span breaks the contract.
    fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError>;

    /// What the last call left at `stage`. Slow; for tests.
    ///
    /// # Errors
    /// When the device fails or no such call was made.
    fn inspect(&mut self, stage: Stage) -> Result<Vec<f32>, BackendError>;
}
