//! [`CudaBackend`]: streams, tables and the recorded passes behind the model's `Backend`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use voxtral_model::{
    Backend, BackendError, BackendInfo, DecodeSpan, Delay, EncodeSpan, LIVE_SPAN, Ledger, MAX_DECODE_ROWS, Model,
    ModelConfig, Prediction, RUNNERS_UP, RunnerUp, Stage, StreamId, TOKEN_MS, Weights, ada_scales,
};

use crate::device::{DeviceReport, copy_rate, device_error, open_device, out_of_memory, supported};
use crate::driver::{Buffer, Device, Download, DriverError, Region, Stream, TYPICAL_GRANULARITY, Upload};
use crate::images::{IMAGES, Image};
use crate::kernels::{Kernels, Mode};
use crate::limits::{LOGIT_ROWS, MAX_ENCODE_TOKENS, RESERVE};
use crate::passes::{Passes, Recorded};
use crate::per_pass::PerPass;
use crate::scratch::Scratch;
use crate::streams::{Shape, State};
use crate::table::{Row, Table};
use crate::weights::{DeviceWeights, Plan};

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct CudaOptions {
    /// Which GPU, in the driver's order (`CUDA_VISIBLE_DEVICES` applies).
    pub device: usize,
    /// Let the driver compile the kernels from PTX even where compiled ones fit: the way that GPUs to come take, for tests of it.
    pub force_ptx: bool,
}

/// The model on one NVIDIA GPU.
///
/// Everything stays on the device; a pass is one upload of a table, one recorded graph and one read of ids and log-probabilities.
/// Dropping it frees all device memory.
#[derive(Debug)]
pub struct CudaBackend {
    config: ModelConfig,
    host: Weights,
    delays: HashMap<Delay, Arc<Buffer>>,
    ledger: Ledger,
    streams: BTreeMap<StreamId, State>,
    recorded: PerPass<Vec<Recorded>>,
    table: Table,
    uploads: PerPass<Upload>,
    mel: Upload,
    predictions: Download,
    runners_up: Download,
    encoded: Vec<(StreamId, Range<usize>)>,
    decoded_rows: usize,
    scratch: Scratch,
    weights: DeviceWeights,
    kernels: Kernels,
    stream: Stream,
    device: Arc<Device>,
}

/// Where a model's weights will lie, if the kernels can run it.
fn plan(model: &Model) -> Result<Plan, BackendError> {
    let Model { config, weights, .. } = model;
    supported(config).and_then(|()| Plan::new(config, weights)).map_err(BackendError::Unsupported)
}

/// Device memory that a model takes without streams.
fn fixed_bytes(config: &ModelConfig, plan: &Plan) -> usize {
    plan.bytes() + Scratch::bytes_for(config) + Kernels::SCRATCH_BYTES
}

/// What must be free for `fixed` bytes, a live stream of `positions` with the scales of its delay, and the driver.
fn with_stream(config: &ModelConfig, fixed: usize, positions: usize) -> u64 {
    let scales = config.decoder.layers * config.decoder.dim * size_of::<f32>();
    let stream = Shape::new(config, LIVE_SPAN).bytes(positions, TYPICAL_GRANULARITY);
    (fixed + stream + scales) as u64 + RESERVE
}

/// Refuses what needs more memory than is free.
fn fits(device: &str, needed: u64, free: u64) -> Result<(), BackendError> {
    if needed > free { Err(out_of_memory(device, needed, free)) } else { Ok(()) }
}

impl CudaBackend {
    /// What the kernels in the program were compiled for: `sm_*` for a generation of GPUs, `compute_*` for what a driver compiles.
    pub fn images() -> impl Iterator<Item = &'static str> {
        IMAGES.iter().map(|image| image.name)
    }

    /// Loads the driver's library, which everything else does when it has to.
    ///
    /// # Errors
    /// Why there is none.
    pub fn load_driver() -> Result<(), DriverError> {
        crate::driver::load()
    }

    /// Looks at a GPU without putting anything on it.
    ///
    /// # Errors
    /// Why there is none that can be used.
    pub fn probe(device: usize) -> Result<DeviceReport, BackendError> {
        DeviceReport::of(device)
    }

    /// How fast a GPU's memory is: bytes a second that a copy within it reads and writes, the median of a few. Takes 512 MiB meanwhile.
    ///
    /// # Errors
    /// When there is no such GPU, it has no memory for that, or the driver fails.
    pub fn copy_rate(device: usize) -> Result<f64, BackendError> {
        copy_rate(device)
    }

    /// Positions of the shortest stream that is worth a model's loading: a minute of audio.
    pub const LEAST_POSITIONS: usize = 60_000 / TOKEN_MS as usize;

    /// Device memory that must be free for a model and its first stream, of `positions`; what the driver keeps for itself is part of it.
    ///
    /// # Errors
    /// When the weights do not fit the configuration or the kernels.
    pub fn needs(model: &Model, positions: usize) -> Result<u64, BackendError> {
        Ok(with_stream(&model.config, fixed_bytes(&model.config, &plan(model)?), positions))
    }

    /// Puts a model on a GPU: checks that it and a stream of [`Self::LEAST_POSITIONS`] fit before the first byte moves, uploads it
    /// (`progress(done, total)` in bytes), records the passes.
    ///
    /// # Errors
    /// When there is no such GPU, the model does not fit it with such a stream, or the driver fails.
    pub fn new(model: &Model, options: &CudaOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Self, BackendError> {
        let Model { config, weights, .. } = model;
        let (device, image) = open_device(options.device, options.force_ptx)?;
        let plan = plan(model)?;
        let begun = Instant::now();
        let name = device.name.clone();
        let fail = |e: DriverError| device_error(&device, &e);
        let (free, _) = device.memory().map_err(fail)?;
        let fixed = fixed_bytes(config, &plan);
        fits(&name, with_stream(config, fixed, Self::LEAST_POSITIONS), free)?;
        let backend = Self::load(config, weights, &device, image, plan, progress).map_err(fail)?;
        let (major, minor) = device.capability;
        tracing::info!(
            "{name}: compute capability {major}.{minor}, driver of CUDA {}, kernels {}, {} MB on the device, ready in {} ms",
            device.cuda_version,
            image.name,
            fixed / 1_000_000,
            begun.elapsed().as_millis()
        );
        Ok(backend)
    }

    fn load(
        config: &ModelConfig,
        weights: &Weights,
        device: &Arc<Device>,
        image: Image,
        plan: Plan,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, DriverError> {
        let stream = Stream::new(device)?;
        let kernels = Kernels::load(device, image, true)?;
        let scratch = Scratch::new(config, device, &stream)?;
        let mel_bytes = MAX_ENCODE_TOKENS * config.frames_per_token() * config.audio.mel_bins * 4;
        let begun = Instant::now();
        let device_weights = plan.upload(device, &stream, progress)?;
        tracing::debug!("weights uploaded in {} ms", begun.elapsed().as_millis());
        let begun = Instant::now();
        let passes =
            Passes { config, weights: &device_weights.places, scratch: &scratch, kernels: &kernels, stream: &stream };
        let recorded = passes.record()?;
        tracing::debug!("passes recorded in {} ms", begun.elapsed().as_millis());
        let upload = |bytes| Upload::new(device, bytes);
        let uploads =
            PerPass { encode: upload(scratch.layouts.encode.bytes)?, decode: upload(scratch.layouts.decode.bytes)? };
        Ok(Self {
            config: config.clone(),
            host: weights.clone(),
            delays: HashMap::new(),
            ledger: Ledger::new(config, MAX_ENCODE_TOKENS),
            streams: BTreeMap::new(),
            recorded,
            table: Table::default(),
            uploads,
            mel: upload(mel_bytes)?,
            predictions: Download::new(device, MAX_DECODE_ROWS * 8)?,
            runners_up: Download::new(device, MAX_DECODE_ROWS * RUNNERS_UP * 8)?,
            encoded: Vec::new(),
            decoded_rows: 0,
            scratch,
            weights: device_weights,
            kernels,
            stream,
            device: device.clone(),
        })
    }

    fn passes(&self) -> Passes<'_> {
        let Self { config, scratch, kernels, stream, .. } = self;
        Passes { config, weights: &self.weights.places, scratch, kernels, stream }
    }

    fn error(&self, error: DriverError) -> BackendError {
        device_error(&self.device, &error)
    }

    /// The scales of a delay, computed once.
    fn ada(&mut self, delay: Delay) -> Result<Arc<Buffer>, BackendError> {
        if let Some(ada) = self.delays.get(&delay) {
            return Ok(ada.clone());
        }
        let scales = ada_scales(&self.config, &self.host, delay).concat();
        let ada = self.upload_now(bytemuck::cast_slice(&scales)).map_err(|e| self.error(e))?;
        self.delays.insert(delay, ada.clone());
        Ok(ada)
    }

    fn upload_now(&self, bytes: &[u8]) -> Result<Arc<Buffer>, DriverError> {
        let buffer = Buffer::new(&self.device, bytes.len())?;
        let mut upload = Upload::new(&self.device, bytes.len())?;
        upload.fill()?[..bytes.len()].copy_from_slice(bytes);
        upload.send(&self.stream, buffer.all())?;
        self.stream.wait()?;
        Ok(Arc::new(buffer))
    }

    /// Memory for `tokens` in all, if as much is free.
    fn grow_state(&self, state: &mut State, tokens: usize) -> Result<(), BackendError> {
        let more = state.bytes_for(tokens).saturating_sub(state.bytes());
        if more == 0 {
            return Ok(());
        }
        let (free, _) = self.device.memory().map_err(|e| self.error(e))?;
        fits(&self.device.name, more as u64 + RESERVE, free)?;
        state.grow(tokens, &self.stream).map_err(|e| self.error(e))
    }

    /// A stream that has memory for `tokens`.
    fn new_state(&self, span: usize, tokens: usize, ada: Arc<Buffer>) -> Result<State, BackendError> {
        let shape = Shape::new(&self.config, span);
        let mut state = State::new(shape, &self.device, ada).map_err(|e| self.error(e))?;
        self.grow_state(&mut state, tokens)?;
        Ok(state)
    }

    fn run_encode(&mut self, batch: &[EncodeSpan<'_>], tokens: &[Range<usize>]) -> Result<(), DriverError> {
        let (d, fpt, bins) = (self.config.downsample, self.config.frames_per_token(), self.config.audio.mel_bins);
        let total: usize = tokens.iter().map(Range::len).sum();
        let Recorded { cut, graph } = Recorded::for_rows(&mut self.recorded.encode, total * d);
        self.table.clear();
        self.encoded.clear();
        let mel = self.mel.fill()?;
        let mut frames = 0;
        for (span, tokens) in batch.iter().zip(tokens) {
            let state = &self.streams[&span.stream];
            mel[frames * bins * 4..][..span.mel.len() * 4].copy_from_slice(bytemuck::cast_slice(span.mel));
            self.table.spans.push(state.span(frames, tokens.len() * fpt));
            frames += tokens.len() * fpt;
            self.table.push(state.encoder_rows(tokens.clone()), *cut);
            self.table.tokens.extend(tokens.clone().map(|t| state.token_row(t)));
            self.encoded.push((span.stream, tokens.clone()));
        }
        let s = &self.scratch;
        self.mel.send(&self.stream, s.region(s.mel, frames * bins * 4))?;
        let bytes = self.table.write(&s.layouts.encode, self.uploads.encode.fill()?);
        self.uploads.encode.send(&self.stream, s.region(s.tables.encode, bytes))?;
        // SAFETY: the table was filled with the recording's cut, and names streams that live and have memory for these tokens; weights
        // and scratch memory live as long as the backend, which waits before it drops them.
        unsafe { self.stream.replay(graph)? };
        self.stream.wait()
    }

    fn run_decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), DriverError> {
        let rows: usize = batch.iter().map(|span| span.ids.len()).sum();
        let Recorded { cut, graph } = Recorded::for_rows(&mut self.recorded.decode, rows);
        self.table.clear();
        self.decoded_rows = 0;
        for span in batch {
            let state = &self.streams[&span.stream];
            let row = |(position, &id)| Row {
                runners_up: span.runners_up.unwrap_or(Row::UNASKED),
                ..state.decoder_row(position, id)
            };
            let rows = (span.position..).zip(span.ids).map(row);
            self.table.push(rows, *cut);
        }
        let s = &self.scratch;
        let bytes = self.table.write(&s.layouts.decode, self.uploads.decode.fill()?);
        self.uploads.decode.send(&self.stream, s.region(s.tables.decode, bytes))?;
        // SAFETY: as of an encode pass.
        unsafe { self.stream.replay(graph)? };
        let words = self.predictions.fetch(&self.stream, s.region(s.predictions, rows * 8))?;
        let words: &[[u32; 2]] = bytemuck::cast_slice(words);
        let prediction =
            |&[id, bits]: &[u32; 2]| Prediction { id, logprob: f32::from_bits(bits), runners_up: [None; RUNNERS_UP] };
        out.extend(words.iter().map(prediction));
        self.decoded_rows = rows;
        if batch.iter().any(|span| span.runners_up.is_some()) { self.find_runners_up(out) } else { Ok(()) }
    }

    /// Adds the runners-up of the last decode pass's rows to their predictions.
    fn find_runners_up(&mut self, predictions: &mut [Prediction]) -> Result<(), DriverError> {
        let asks = |row: &Row| row.runners_up != Row::UNASKED;
        let passes = self.passes();
        for (first, rows) in (0..).step_by(LOGIT_ROWS).zip(self.table.rows.chunks(LOGIT_ROWS)) {
            if rows.iter().any(asks) {
                // SAFETY: these are rows of the last table, whose pass is done: its predictions have been fetched. Weights and scratch
                // memory live as long as the backend, which waits before it drops them.
                unsafe { passes.runners_up(first, rows.len())? };
            }
        }
        let s = &self.scratch;
        let words = self.runners_up.fetch(&self.stream, s.region(s.runners_up, predictions.len() * RUNNERS_UP * 8))?;
        let words: &[[[u32; 2]; RUNNERS_UP]] = bytemuck::cast_slice(words);
        let found =
            |[id, bits]: [u32; 2]| (id != Row::UNASKED).then_some(RunnerUp { id, logprob: f32::from_bits(bits) });
        for ((prediction, row), words) in predictions.iter_mut().zip(&self.table.rows).zip(words) {
            if asks(row) {
                prediction.runners_up = words.map(found);
            }
        }
        Ok(())
    }

    fn read<T: bytemuck::Pod>(&self, from: Region<'_>) -> Result<Vec<T>, DriverError> {
        let mut download = Download::new(&self.device, from.bytes())?;
        Ok(bytemuck::cast_slice(download.fetch(&self.stream, from)?).to_vec())
    }

    fn run_inspect(&self, stage: Stage) -> Result<Vec<f32>, DriverError> {
        let (c, s) = (&self.config, &self.scratch);
        let tokens: usize = self.encoded.iter().map(|(_, tokens)| tokens.len()).sum();
        match stage {
            Stage::ConvStem => self.read(s.region(s.stem, tokens * c.downsample * c.encoder.dim * 4)),
            Stage::Encoder => {
                let (width, ld) = (c.downsample * c.encoder.dim, self.weights.places.adapter[0].k as usize);
                let bits: Vec<u16> = self.read(s.region(s.joined, tokens * ld * 2))?;
                let rows = bits.chunks(ld).flat_map(|row| &row[..width]);
                Ok(rows.map(|&b| half::bf16::from_bits(b).to_f32()).collect())
            }
            Stage::Adapter => {
                let mut all = Vec::new();
                for (stream, tokens) in &self.encoded {
                    let Some(state) = self.streams.get(stream) else { continue };
                    for token in tokens.clone() {
                        all.extend(self.read::<f32>(state.audio_of(token))?);
                    }
                }
                Ok(all)
            }
            Stage::Logits => {
                let bytes = self.decoded_rows * c.vocab * 4;
                let logits = Buffer::new(&self.device, bytes)?;
                // SAFETY: `logits` has so many rows, as the last table has; it is dropped after it was read.
                unsafe { self.passes().head(Mode::Store, logits.address(), c.vocab as u32, self.decoded_rows)? };
                self.read(logits.all())
            }
        }
    }
}

impl Backend for CudaBackend {
    fn info(&self) -> BackendInfo {
        let streams: usize = self.streams.values().map(State::bytes).sum();
        let delays: usize = self.delays.values().map(|ada| ada.bytes()).sum();
        let fixed = self.weights.bytes() + self.scratch.buffer().bytes() + Kernels::SCRATCH_BYTES;
        let device_bytes = (fixed + streams + delays) as u64;
        BackendInfo {
            backend: "cuda",
            device: self.device.name.clone(),
            device_bytes,
            encode_tokens: MAX_ENCODE_TOKENS,
        }
    }

    fn stream_bytes(&self, span: usize, tokens: usize) -> u64 {
        Shape::new(&self.config, span).bytes_on(&self.device, tokens) as u64
    }

    fn free_bytes(&self) -> Result<u64, BackendError> {
        self.device.bind().map_err(|e| self.error(e))?;
        let (free, _) = self.device.memory().map_err(|e| self.error(e))?;
        Ok(free.saturating_sub(RESERVE))
    }

    fn open(&mut self, delay: Delay, span: usize) -> Result<StreamId, BackendError> {
        let entry = self.ledger.open(span)?;
        self.device.bind().map_err(|e| self.error(e))?;
        let ada = self.ada(delay)?;
        let state = self.new_state(span, entry.capacity, ada)?;
        let id = self.ledger.add(entry);
        self.streams.insert(id, state);
        Ok(id)
    }

    fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId, BackendError> {
        let entry = self.ledger.fork(of, span)?;
        self.device.bind().map_err(|e| self.error(e))?;
        let parent = &self.streams[&of];
        let state = self.new_state(span, entry.capacity, parent.ada.clone())?;
        let copied = state.copy_from(parent, entry.encoded, entry.decoded, &self.stream);
        copied.and_then(|()| self.stream.wait()).map_err(|e| self.error(e))?;
        let id = self.ledger.add(entry);
        self.streams.insert(id, state);
        Ok(id)
    }

    fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<(), BackendError> {
        self.ledger.get(stream)?;
        self.device.bind().map_err(|e| self.error(e))?;
        if let Some(mut state) = self.streams.remove(&stream) {
            let grown = self.grow_state(&mut state, tokens);
            self.streams.insert(stream, state);
            grown?;
        }
        self.ledger.grown(stream, tokens);
        Ok(())
    }

    fn close(&mut self, stream: StreamId) {
        // A context that cannot be made current cannot free either; the next call says so.
        let _ = self.device.bind();
        self.ledger.close(stream);
        self.streams.remove(&stream);
    }

    fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
        let tokens = self.ledger.begin_encode(batch)?;
        if !batch.is_empty() {
            self.device.bind().map_err(|e| self.error(e))?;
            self.run_encode(batch, &tokens).map_err(|e| self.error(e))?;
        }
        self.ledger.end_encode(batch);
        Ok(())
    }

    fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError> {
        out.clear();
        self.ledger.begin_decode(batch)?;
        if !batch.is_empty() {
            self.device.bind().map_err(|e| self.error(e))?;
            self.run_decode(batch, out).map_err(|e| self.error(e))?;
        }
        self.ledger.end_decode(batch);
        Ok(())
    }

    fn inspect(&mut self, stage: Stage) -> Result<Vec<f32>, BackendError> {
        let made = match stage {
            Stage::Logits => self.decoded_rows > 0,
            _ => !self.encoded.is_empty(),
        };
        if !made {
            return Err(BackendError::Contract(format!("{stage:?}: no such call was made")));
        }
        self.device.bind().map_err(|e| self.error(e))?;
        self.run_inspect(stage).map_err(|e| self.error(e))
    }
}

impl Drop for CudaBackend {
    fn drop(&mut self) {
        // Work in flight uses what is about to be freed. Errors have been reported by the call that met them.
        let _ = self.device.bind();
        let _ = self.stream.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_the_weights_but_for_no_minute_of_audio_is_refused() {
        let model = voxtral_digits::model();
        let fixed = fixed_bytes(&model.config, &plan(&model).unwrap());
        let least = CudaBackend::needs(&model, CudaBackend::LEAST_POSITIONS).unwrap();
        let minute = Shape::new(&model.config, LIVE_SPAN).bytes(750, TYPICAL_GRANULARITY);
        assert!(least > (fixed + minute) as u64 + RESERVE, "{least} bytes");
        assert!(least <= CudaBackend::needs(&model, usize::MAX).unwrap());
        assert!(fits("a GPU", least, least).is_ok());
        let refused = fits("a GPU", least, least - 1).unwrap_err();
        assert!(matches!(&refused, BackendError::OutOfMemory { device, .. } if device == "a GPU"), "{refused}");
    }
}
