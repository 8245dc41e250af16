//! The model on the CPU: a [`Backend`] over weights as they are stored, with vectors of whatever width the CPU has.
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
use std::iter;
use std::ops::Range;

use voxtral_model::{
    AUDIO_WINDOW, Backend, BackendError, BackendInfo, DecodeSpan, Delay, EncodeSpan, Ledger, MAX_DECODE_ROWS, Model,
    ModelConfig, Prediction, RUNNERS_UP, RunnerUp, Stage, StreamId, Weights, ada_scales, gelu,
};

pub use kernels::Isa;
use kernels::{argmax_logprob, largest_but};
use kv::KvCache;
use linear::{Arithmetic, Linear};
use parallel::Team;
use stack::{Scratch, Span, Stack};
use stem::{Carry, Stem};

/// Most tokens of an encode call: a file's first words wait for so many.
const MAX_ENCODE_TOKENS: usize = 64;

/// What activations are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The fastest that transcribes as well: activations are rounded to bf16 where the weights are and the CPU has bf16 dot
    /// products, and to 8 bits where the weights have 8 or 4.
    #[default]
    Auto,
    /// Single precision throughout, on the weights as stored: the reference.
    F32,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// Threads; 0 means one for each core that the process may use.
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

/// The model on the CPU.
pub struct CpuBackend {
    model: Network,
    isa: Isa,
    exact: bool,
    team: Team,
    scratch: Scratch,
    device: String,
    ledger: Ledger,
    streams: BTreeMap<StreamId, Stream>,
    last: Last,
}

/// The weights in place.
struct Network {
    config: ModelConfig,
    weights: Weights,
    stem: Stem,
    encoder: Stack,
    adapter: [Linear; 2],
    decoder: Stack,
    head: Linear,
}

/// The state of one stream. Its memory is as large as it may come to be, and the system gives a page of it when that is first touched.
struct Stream {
    ada: Vec<Vec<f32>>,
    carry: Carry,
    encoder: KvCache,
    decoder: KvCache,
    /// `[AUDIO_WINDOW, dec_dim]`; token t is in row t % AUDIO_WINDOW.
    audio: Box<[f32]>,
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
    /// Memory that a stream comes to take when it has heard `tokens` tokens, bytes; with [`Precision::F32`] twice as much. The weights are
    /// mapped, and come to it as they are stored.
    pub fn stream_memory(config: &ModelConfig, tokens: usize) -> u64 {
        let audio = AUDIO_WINDOW.min(tokens) * config.decoder.dim * size_of::<f32>();
        let encoder = KvCache::bytes(
            &config.encoder,
            MAX_ENCODE_TOKENS * config.downsample,
            tokens.saturating_mul(config.downsample),
        );
        let decoder = KvCache::bytes(&config.decoder, MAX_DECODE_ROWS, tokens);
        (encoder + decoder + audio) as u64
    }

    /// Puts a model in place. Copies nothing but norms and biases.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn new(model: &Model, options: CpuOptions) -> Result<Self, BackendError> {
        let Model { config, weights, .. } = model;
        let team = Team::new(options.threads)
            .map_err(|e| BackendError::Device { device: "cpu".into(), what: format!("cannot start threads: {e}") })?;
        let (isa, exact) = (options.isa, options.precision == Precision::F32);
        let device = format!("{}, {} threads, {}", cpu_name(), team.threads(), isa.name());
        tracing::debug!(device, exact, "cpu backend");
        let linear = |l: &voxtral_model::Linear| Linear::new(&l.weight, l.bias.as_ref());
        let network = Network {
            config: config.clone(),
            weights: weights.clone(),
            stem: Stem::new(config, weights),
            encoder: Stack::new(&config.encoder, &weights.encoder, &weights.encoder_norm),
            adapter: [linear(&weights.adapter[0]), linear(&weights.adapter[1])],
            decoder: Stack::new(&config.decoder, &weights.decoder, &weights.decoder_norm),
            head: Linear::new(&weights.embedding, None),
        };
        let ledger = Ledger::new(config, MAX_ENCODE_TOKENS);
        let (scratch, last) = (Scratch::default(), Last::default());
        Ok(Self { model: network, isa, exact, team, scratch, device, ledger, streams: BTreeMap::new(), last })
    }

    fn new_stream(&self, ada: Vec<Vec<f32>>, span: usize) -> Result<Stream, BackendError> {
        let stream = self.model.new_stream(ada, span, self.exact);
        stream.map_err(|bytes| BackendError::OutOfMemory {
            device: "cpu".into(),
            needed: (bytes as u64).div_ceil(1_000_000),
            free: 0,
        })
    }

    /// Takes the streams of a checked batch out of their places, in the batch's order.
    fn take(&mut self, ids: impl Iterator<Item = StreamId>) -> Vec<(StreamId, Stream)> {
        ids.filter_map(|id| Some((id, self.streams.remove(&id)?))).collect()
    }
}

impl Backend for CpuBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo { backend: "cpu", device: self.device.clone(), device_bytes: 0, encode_tokens: MAX_ENCODE_TOKENS }
    }

    fn stream_bytes(&self, _: usize, _: usize) -> u64 {
        0
    }

    fn free_bytes(&self) -> Result<u64, BackendError> {
        Ok(u64::MAX)
    }

    fn open(&mut self, delay: Delay, span: usize) -> Result<StreamId, BackendError> {
        let entry = self.ledger.open(span)?;
        let ada = ada_scales(&self.model.config, &self.model.weights, delay);
        let stream = self.new_stream(ada, span)?;
        let id = self.ledger.add(entry);
        self.streams.insert(id, stream);
        Ok(id)
    }

    fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId, BackendError> {
        let entry = self.ledger.fork(of, span)?;
        let (of, dim) = (&self.streams[&of], self.model.config.decoder.dim);
        let mut stream = self.new_stream(of.ada.clone(), span)?;
        stream.carry = of.carry.clone();
        stream.encoder.copy_from(&self.team, &of.encoder, entry.encoded * self.model.config.downsample, 0);
        stream.decoder.copy_from(&self.team, &of.decoder, entry.decoded, MAX_DECODE_ROWS);
        // What was never written to takes no memory, and is not touched here.
        let heard = entry.encoded.min(AUDIO_WINDOW) * dim;
        stream.audio[..heard].copy_from_slice(&of.audio[..heard]);
        let id = self.ledger.add(entry);
        self.streams.insert(id, stream);
        Ok(id)
    }

    fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<(), BackendError> {
        self.ledger.get(stream)?;
        self.ledger.grown(stream, tokens);
        Ok(())
    }

    fn close(&mut self, stream: StreamId) {
        self.ledger.close(stream);
        self.streams.remove(&stream);
    }

    fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
        let tokens = self.ledger.begin_encode(batch)?;
        if !batch.is_empty() {
            let mut streams = self.take(batch.iter().map(|span| span.stream));
            let arithmetic = Arithmetic { isa: self.isa, exact: self.exact, team: &self.team };
            self.model.encode(arithmetic, batch, &tokens, &mut streams, &mut self.scratch, &mut self.last);
            self.streams.extend(streams);
        }
        self.ledger.end_encode(batch);
        Ok(())
    }

    fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError> {
        out.clear();
        self.ledger.begin_decode(batch)?;
        if !batch.is_empty() {
            let mut streams = self.take(batch.iter().map(|span| span.stream));
            let arithmetic = Arithmetic { isa: self.isa, exact: self.exact, team: &self.team };
            self.model.decode(arithmetic, batch, &mut streams, &mut self.scratch, &mut self.last, out);
            self.streams.extend(streams);
        }
        self.ledger.end_decode(batch);
        Ok(())
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
    /// Fails with the bytes that could not be had.
    fn new_stream(&self, ada: Vec<Vec<f32>>, span: usize, exact: bool) -> Result<Stream, usize> {
        let config = &self.config;
        Ok(Stream {
            ada,
            carry: self.stem.silence(),
            encoder: KvCache::new(&config.encoder, span * config.downsample, exact)?,
            decoder: KvCache::new(&config.decoder, MAX_DECODE_ROWS, exact)?,
            audio: kv::zeros(AUDIO_WINDOW * config.decoder.dim)?,
        })
    }

    /// `tokens` are those of each span's stream.
    fn encode(
        &self,
        arithmetic: Arithmetic<'_>,
        batch: &[EncodeSpan<'_>],
        tokens: &[Range<usize>],
        streams: &mut [(StreamId, Stream)],
        scratch: &mut Scratch,
        last: &mut Last,
    ) {
        let config = &self.config;
        let mut stem: Vec<_> = batch.iter().zip(&mut *streams).map(|(b, (_, s))| (b.mel, &mut s.carry)).collect();
        self.stem.forward(arithmetic, &mut stem, &mut scratch.normed, &mut last.stem);
        last.encoder.clone_from(&last.stem);

        let mut row = 0;
        let mut spans = Vec::new();
        for (tokens, (_, stream)) in tokens.iter().zip(&mut *streams) {
            let rows = tokens.len() * config.downsample;
            let position = tokens.start * config.downsample;
            spans.push(Span { row, rows, position, cache: &mut stream.encoder, ada: None });
            row += rows;
        }
        self.encoder.forward(arithmetic, &mut last.encoder, &mut spans, scratch);

        // `downsample` consecutive positions are one row of the adapter's input as they lie.
        let normed = &mut scratch.normed;
        last.encoder.copy_from_slice(normed.values());
        self.adapter[0].apply(arithmetic, normed, &mut last.adapter);
        let hidden = normed.begin(last.adapter.len());
        hidden.iter_mut().zip(&last.adapter).for_each(|(hidden, v)| *hidden = gelu(*v));
        self.adapter[1].apply(arithmetic, normed, &mut last.adapter);
        let mut embeddings = last.adapter.chunks_exact(config.decoder.dim);
        for (tokens, (_, stream)) in tokens.iter().zip(&mut *streams) {
            for (token, embedding) in tokens.clone().zip(&mut embeddings) {
                stream.audio_mut(token, config.decoder.dim).copy_from_slice(embedding);
            }
        }
    }

    /// Appends a prediction for each row to `out`.
    fn decode(
        &self,
        arithmetic: Arithmetic<'_>,
        batch: &[DecodeSpan<'_>],
        streams: &mut [(StreamId, Stream)],
        scratch: &mut Scratch,
        last: &mut Last,
        out: &mut Vec<Prediction>,
    ) {
        let dim = self.config.decoder.dim;
        let mut x = Vec::new();
        let mut embedding = vec![0.0; dim];
        let mut spans = Vec::new();
        for (span, (_, stream)) in batch.iter().zip(&mut *streams) {
            let row = x.len() / dim;
            for (position, &id) in (span.position..).zip(span.ids) {
                let at = x.len();
                x.extend_from_slice(stream.audio_mut(position, dim));
                self.weights.embedding.row(id as usize, &mut embedding);
                x[at..].iter_mut().zip(&embedding).for_each(|(x, v)| *x += v);
            }
            let (position, rows) = (span.position, span.ids.len());
            spans.push(Span { row, rows, position, cache: &mut stream.decoder, ada: Some(&stream.ada) });
        }
        self.decoder.forward(arithmetic, &mut x, &mut spans, scratch);
        self.head.apply(arithmetic, &mut scratch.normed, &mut last.logits);
        let asks = batch.iter().flat_map(|span| iter::repeat_n(span.runners_up, span.ids.len()));
        let rows = last.logits.chunks_exact(self.config.vocab).zip(asks);
        out.extend(rows.map(|(logits, runners_up)| predict(arithmetic.isa, logits, runners_up)));
    }
}

impl Stream {
    fn audio_mut(&mut self, token: usize, dim: usize) -> &mut [f32] {
        &mut self.audio[token % AUDIO_WINDOW * dim..][..dim]
    }
}

/// What a row of logits comes to, with runners-up from that id on where they are asked for.
fn predict(isa: Isa, logits: &[f32], runners_up: Option<u32>) -> Prediction {
    let (id, logprob) = argmax_logprob(isa, logits);
    let mut prediction = Prediction { id: id as u32, logprob, runners_up: [None; RUNNERS_UP] };
    let Some(from) = runners_up else { return prediction };
    let mut taken = vec![id];
    for runner_up in &mut prediction.runners_up {
        let Some(other) = largest_but(logits, from as usize, &taken) else { break };
        *runner_up = Some(RunnerUp { id: other as u32, logprob: logprob + (logits[other] - logits[id]) });
        taken.push(other);
    }
    prediction
}

/// The CPU's name, as it says itself, or as Linux tells it.
pub fn cpu_name() -> String {
    #[cfg(target_arch = "x86_64")]
    if let Some(name) = brand() {
        return name;
    }
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

/// What an x86 CPU calls itself: three answers of 16 letters, ended by a zero.
#[cfg(target_arch = "x86_64")]
fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;

    const LETTERS: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;
    if __cpuid(0x8000_0000).eax < *LETTERS.end() {
        return None;
    }
    let letters = LETTERS.flat_map(|leaf| {
        let answer = __cpuid(leaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx].map(u32::to_le_bytes).concat()
    });
    let letters: Vec<u8> = letters.take_while(|&letter| letter != 0).collect();
    Some(String::from_utf8_lossy(&letters).trim().to_owned()).filter(|name| !name.is_empty())
}
