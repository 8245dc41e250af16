//! The model on the processor: a [`Backend`] over weights as they are stored, with vectors of whatever width the processor has.
//!
//! ```text
//! encode: mel ─Stem─ positions ─Stack─ ─adapter─ audio ring          decode: E[id] + audio ─Stack─ ─E─ argmax
//!                                  └─KvCache                                            └─KvCache
//! ```
//! Every number depends only on its own row's history, in a fixed order of operations: how positions are cut into calls, how many
//! streams share one, and how many threads there are, do not change a bit.

mod kernels;
mod kv;
mod linear;
mod parallel;
mod stack;
mod stem;

use std::collections::BTreeMap;

use voxtral_model::{
    AUDIO_WINDOW, Backend, BackendError, BackendInfo, DecodeSpan, Delay, EncodeSpan, MAX_DECODE_ROWS, Model,
    ModelConfig, Prediction, Stage, StreamId, Tensor, TensorData, Weights, ada_scales, gelu,
};

pub use kernels::Isa;
use kernels::argmax_logprob;
use kv::KvCache;
use linear::{Arithmetic, Linear};
use stack::{Span, Stack};
use stem::{Carry, Stem};

/// Most tokens of an encode call: a file's first words wait for so many.
const MAX_ENCODE_TOKENS: usize = 64;

/// What activations are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The fastest that transcribes as well: bf16 dot products where processor and weights have them.
    #[default]
    Auto,
    /// Single precision throughout, on the weights as stored: the reference.
    F32,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// Threads; 0 means one for each processor.
    pub threads: usize,
    /// What activations are computed in.
    pub precision: Precision,
    /// Instructions to use.
    pub isa: Isa,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self { threads: 0, precision: Precision::Auto, isa: Isa::detect() }
    }
}

/// The model on the processor.
pub struct CpuBackend {
    model: Network,
    pool: rayon::ThreadPool,
    device: String,
    streams: BTreeMap<StreamId, Stream>,
    opened: u64,
    last: Last,
}

/// The weights in place.
struct Network {
    config: ModelConfig,
    weights: Weights,
    arithmetic: Arithmetic,
    stem: Stem,
    encoder: Stack,
    adapter: [Linear; 2],
    decoder: Stack,
    head: Linear,
}

/// One speaker.
struct Stream {
    ada: Vec<Vec<f32>>,
    carry: Carry,
    encoder: KvCache,
    decoder: KvCache,
    /// `[AUDIO_WINDOW, dec_dim]`; token t is in row t % AUDIO_WINDOW.
    audio: Vec<f32>,
    /// Tokens of audio heard.
    encoded: usize,
    /// Positions decoded, and the furthest that ever were.
    decoded: usize,
    furthest: usize,
}

/// What the last calls left, for `inspect`.
#[derive(Default)]
struct Last {
    stem: Vec<f32>,
    encoder: Vec<f32>,
    adapter: Vec<f32>,
    logits: Vec<f32>,
}

impl CpuBackend {
    /// Memory that a stream of `positions` tokens comes to take, bytes; the weights are mapped, and come to it as they are stored.
    pub fn stream_bytes(config: &ModelConfig, positions: usize) -> u64 {
        let (encoder, decoder) = stream_rings(config, positions);
        let audio = AUDIO_WINDOW * config.decoder.dim * size_of::<f32>();
        let rings = [(&config.encoder, encoder), (&config.decoder, decoder)];
        let rings: usize =
            rings.into_iter().map(|(stack, (span, positions))| KvCache::bytes(stack, span, positions)).sum();
        (rings + audio) as u64
    }

    /// Puts a model in place. Copies nothing but norms and biases.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn new(model: &Model, options: CpuOptions) -> Result<Self, BackendError> {
        let Model { config, weights, .. } = model;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("voxtral-cpu-{i}"))
            .build()
            .map_err(|e| BackendError::Device { device: "cpu".into(), what: format!("cannot start threads: {e}") })?;
        let bf16 = options.precision == Precision::Auto && options.isa.has_bf16_dot();
        let device = format!("{}, {} threads, {}", processor_name(), pool.current_num_threads(), options.isa.name());
        tracing::debug!(device, bf16, "cpu backend");
        let linear = |l: &voxtral_model::Linear| Linear::new(&l.weight, l.bias.as_ref());
        let network = Network {
            config: config.clone(),
            weights: weights.clone(),
            arithmetic: Arithmetic { isa: options.isa, bf16 },
            stem: Stem::new(config, weights),
            encoder: Stack::new(&config.encoder, &weights.encoder, &weights.encoder_norm),
            adapter: [linear(&weights.adapter[0]), linear(&weights.adapter[1])],
            decoder: Stack::new(&config.decoder, &weights.decoder, &weights.decoder_norm),
            head: Linear::new(&weights.embedding, None),
        };
        Ok(Self { model: network, pool, device, streams: BTreeMap::new(), opened: 0, last: Last::default() })
    }

    fn add(&mut self, stream: Stream) -> StreamId {
        self.opened += 1;
        let id = StreamId(self.opened);
        self.streams.insert(id, stream);
        id
    }

    /// Takes the streams of a batch out of their places, in the batch's order.
    fn take(&mut self, ids: impl Iterator<Item = StreamId>) -> Result<Vec<(StreamId, Stream)>, BackendError> {
        let mut taken = Vec::new();
        for id in ids {
            match self.streams.remove(&id) {
                Some(stream) => taken.push((id, stream)),
                None => {
                    self.streams.extend(taken);
                    return Err(BackendError::Contract(format!(
                        "stream {} is not open, or has two spans in a call",
                        id.0
                    )));
                }
            }
        }
        Ok(taken)
    }
}

impl Backend for CpuBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo { backend: "cpu", device: self.device.clone(), device_bytes: 0, encode_tokens: MAX_ENCODE_TOKENS }
    }

    fn open(&mut self, delay: Delay, positions: usize) -> Result<StreamId, BackendError> {
        let ada = ada_scales(&self.model.config, &self.model.weights, delay);
        let stream = self.model.new_stream(ada, positions);
        Ok(self.add(stream))
    }

    fn fork(&mut self, of: StreamId, positions: usize) -> Result<StreamId, BackendError> {
        let Some(of) = self.streams.get(&of) else {
            return Err(BackendError::Contract(format!("stream {} is not open", of.0)));
        };
        let mut stream = self.model.new_stream(of.ada.clone(), positions);
        stream.carry = of.carry.clone();
        stream.encoder.copy_from(&of.encoder, of.encoded * self.model.config.downsample);
        stream.decoder.copy_from(&of.decoder, of.decoded);
        stream.audio.clone_from(&of.audio);
        (stream.encoded, stream.decoded, stream.furthest) = (of.encoded, of.decoded, of.decoded);
        Ok(self.add(stream))
    }

    fn close(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
        let token = self.model.config.frames_per_token() * self.model.config.audio.mel_bins;
        if let Some(span) = batch.iter().find(|s| s.mel.is_empty() || s.mel.len() % token != 0) {
            let what = format!("{} mel values are not whole tokens of {token}", span.mel.len());
            return Err(BackendError::Contract(what));
        }
        let tokens: usize = batch.iter().map(|s| s.mel.len() / token).sum();
        if tokens > MAX_ENCODE_TOKENS {
            return Err(BackendError::Contract(format!("{tokens} tokens in one encode, at most {MAX_ENCODE_TOKENS}")));
        }
        let mut streams = self.take(batch.iter().map(|s| s.stream))?;
        self.pool.install(|| self.model.encode(batch, &mut streams, &mut self.last));
        self.streams.extend(streams);
        Ok(())
    }

    fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError> {
        let rows: usize = batch.iter().map(|s| s.ids.len()).sum();
        if rows > MAX_DECODE_ROWS {
            return Err(BackendError::Contract(format!("{rows} rows in one decode, at most {MAX_DECODE_ROWS}")));
        }
        let mut streams = self.take(batch.iter().map(|s| s.stream))?;
        let checked = batch.iter().zip(&streams).try_for_each(|(span, (_, stream))| self.model.check(span, stream));
        if checked.is_ok() {
            self.pool.install(|| self.model.decode(batch, &mut streams, &mut self.last, out));
        }
        self.streams.extend(streams);
        checked.map_err(BackendError::Contract)
    }

    fn inspect(&mut self, stage: Stage) -> Result<Vec<f32>, BackendError> {
        let values = match stage {
            Stage::ConvStem => &self.last.stem,
            Stage::Encoder => &self.last.encoder,
            Stage::Adapter => &self.last.adapter,
            Stage::Logits => &self.last.logits,
        };
        if values.is_empty() {
            return Err(BackendError::Contract(format!("no call has left anything at {stage:?}")));
        }
        Ok(values.clone())
    }
}

impl Network {
    fn new_stream(&self, ada: Vec<Vec<f32>>, positions: usize) -> Stream {
        let config = &self.config;
        let (encoder, decoder) = stream_rings(config, positions);
        Stream {
            ada,
            carry: self.stem.silence(),
            encoder: KvCache::new(&config.encoder, encoder.0, encoder.1),
            decoder: KvCache::new(&config.decoder, decoder.0, decoder.1),
            audio: vec![0.0; AUDIO_WINDOW * config.decoder.dim],
            encoded: 0,
            decoded: 0,
            furthest: 0,
        }
    }

    fn encode(&self, batch: &[EncodeSpan<'_>], streams: &mut [(StreamId, Stream)], last: &mut Last) {
        let config = &self.config;
        let mut stem: Vec<_> = batch.iter().zip(&mut *streams).map(|(b, (_, s))| (b.mel, &mut s.carry)).collect();
        let x = self.stem.forward(self.arithmetic, &mut stem);
        last.stem.clone_from(&x);

        let mut row = 0;
        let mut spans = Vec::new();
        for (span, (_, stream)) in batch.iter().zip(&mut *streams) {
            let rows = span.mel.len() / config.audio.mel_bins / ModelConfig::CONV_STRIDE;
            let position = stream.encoded * config.downsample;
            spans.push(Span { row, rows, position, cache: &mut stream.encoder, ada: None });
            row += rows;
        }
        let y = self.encoder.forward(self.arithmetic, x, &mut spans);
        let tokens: Vec<usize> = spans.iter().map(|span| span.rows / config.downsample).collect();

        // `downsample` consecutive positions are one row of the adapter's input as they lie.
        let mut hidden = self.adapter[0].apply(self.arithmetic, &self.arithmetic.input(&y));
        hidden.iter_mut().for_each(|v| *v = gelu(*v));
        let audio = self.adapter[1].apply(self.arithmetic, &self.arithmetic.input(&hidden));
        let mut embeddings = audio.chunks_exact(config.decoder.dim);
        for (tokens, (_, stream)) in tokens.into_iter().zip(&mut *streams) {
            for embedding in embeddings.by_ref().take(tokens) {
                stream.audio_mut(stream.encoded, config.decoder.dim).copy_from_slice(embedding);
                stream.encoded += 1;
            }
        }
        last.encoder = y;
        last.adapter = audio;
    }

    /// Whether a span may be decoded.
    fn check(&self, span: &DecodeSpan<'_>, stream: &Stream) -> Result<(), String> {
        if span.ids.is_empty() || span.position > stream.decoded {
            return Err(format!(
                "{} ids at {} do not follow the {} decoded",
                span.ids.len(),
                span.position,
                stream.decoded
            ));
        }
        let (first, end) = (span.position, span.position + span.ids.len());
        if end > stream.encoded || first + AUDIO_WINDOW < stream.encoded {
            return Err(format!("positions {first}..{end} are not among the audio kept, up to {}", stream.encoded));
        }
        if first + MAX_DECODE_ROWS < stream.furthest {
            return Err(format!("position {first} is too far behind {}, the furthest decoded", stream.furthest));
        }
        match span.ids.iter().find(|&&id| id as usize >= self.config.vocab) {
            Some(id) => Err(format!("token {id} is not one of {}", self.config.vocab)),
            None => Ok(()),
        }
    }

    fn decode(
        &self,
        batch: &[DecodeSpan<'_>],
        streams: &mut [(StreamId, Stream)],
        last: &mut Last,
        out: &mut Vec<Prediction>,
    ) {
        let dim = self.config.decoder.dim;
        let mut x = Vec::new();
        let mut spans = Vec::new();
        for (span, (_, stream)) in batch.iter().zip(&mut *streams) {
            let row = x.len() / dim;
            for (position, &id) in (span.position..).zip(span.ids) {
                let at = x.len();
                x.extend_from_slice(stream.audio_mut(position, dim));
                add_row(&mut x[at..], &self.weights.embedding, id as usize);
            }
            stream.decoded = span.position + span.ids.len();
            stream.furthest = stream.furthest.max(stream.decoded);
            let (position, rows) = (span.position, span.ids.len());
            spans.push(Span { row, rows, position, cache: &mut stream.decoder, ada: Some(&stream.ada) });
        }
        let y = self.decoder.forward(self.arithmetic, x, &mut spans);
        last.logits = self.head.apply(self.arithmetic, &self.arithmetic.input(&y));
        let predictions = last.logits.chunks_exact(self.config.vocab).map(|logits| {
            let (id, logprob) = argmax_logprob(self.arithmetic.isa, logits);
            Prediction { id: id as u32, logprob }
        });
        out.clear();
        out.extend(predictions);
    }
}

impl Stream {
    fn audio_mut(&mut self, token: usize, dim: usize) -> &mut [f32] {
        &mut self.audio[token % AUDIO_WINDOW * dim..][..dim]
    }
}

/// Longest span and number of positions, in the encoder and in the decoder, of a stream of `positions` tokens.
fn stream_rings(config: &ModelConfig, positions: usize) -> ((usize, usize), (usize, usize)) {
    let encoder = (MAX_ENCODE_TOKENS * config.downsample, positions.saturating_mul(config.downsample));
    (encoder, (MAX_DECODE_ROWS, positions))
}

/// `x += matrix[row, :]`.
fn add_row(x: &mut [f32], matrix: &Tensor, row: usize) {
    let range = row * x.len()..(row + 1) * x.len();
    match matrix.data() {
        TensorData::Bf16(data) => x.iter_mut().zip(&data[range]).for_each(|(x, v)| *x += v.to_f32()),
        TensorData::F16(data) => x.iter_mut().zip(&data[range]).for_each(|(x, v)| *x += v.to_f32()),
        TensorData::F32(data) => x.iter_mut().zip(&data[range]).for_each(|(x, v)| *x += v),
    }
}

/// What the system calls the processor.
pub fn processor_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}
