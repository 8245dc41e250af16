//! Memory: what streams take as they grow, what becomes of them when there is none left, and that growing changes no bit.

use std::ops::Range;

use voxtral_cpu::{CpuBackend, CpuOptions, Precision};
use voxtral_cuda::driver::{Buffer, DriverError, Growable};
use voxtral_cuda::{CudaBackend, CudaOptions};
use voxtral_model::{
    Backend, BackendError, DecodeSpan, EncodeSpan, Model, ModelConfig, Prediction, RUNNERS_UP, Stage, StreamId,
};

use crate::Check;
use crate::gpu::{Gpu, rng};
use crate::model::{backend, delay, ids, logprobs, mel, open, predicted, released, worst};

pub const CHECKS: &[Check] = &[
    ("memory: a range grows where it is", range),
    ("memory: the same bits in a stream that grows as in one that has grown", growing),
    ("memory: rings that grow and wrap, against the CPU", wrapping),
    ("memory: a stream takes what it was said to take", told),
    ("memory: it takes no more than what was announced", announced),
    ("memory: a thousand streams leave nothing behind", no_leak),
    ("memory: with none left a stream does not grow, and goes on", exhausted),
    ("memory: what does not fit is refused before it is tried", too_large),
];

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn holds(condition: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what()) }
}

/// Takes all device memory that is free, but for less than `least` bytes.
fn take_all(gpu: &Gpu, least: usize) -> Vec<Buffer> {
    let mut taken = Vec::new();
    let mut bytes = 1 << 38;
    while bytes >= least {
        match Buffer::new(&gpu.device, bytes) {
            Ok(buffer) => taken.push(buffer),
            Err(_) => bytes /= 2,
        }
    }
    taken
}

fn range(gpu: &Gpu) -> Result<(), String> {
    let unit = gpu.device.granularity();
    let mapped = gpu.device.maps_memory();
    println!("        units of {unit} bytes, {}", if mapped { "mapped as it grows" } else { "all at once" });
    grows(gpu, mapped, Growable::reserve(&gpu.device, 40 * unit).map_err(words)?)?;
    grows(gpu, false, Growable::plain(&gpu.device, 40 * unit))
}

/// A range of 40 units grows to 17, finds nothing, and goes on.
fn grows(gpu: &Gpu, mapped: bool, mut range: Growable) -> Result<(), String> {
    let unit = gpu.device.granularity();
    let before = gpu.free()?;
    let ones = gpu.put(&vec![1u8; unit]);
    let has = |range: &Growable, units: usize| {
        let want = if mapped { units } else { 40 } * unit;
        holds(range.bytes() == want, || format!("{} bytes for {units} units", range.bytes()))
    };
    range.grow(1, &gpu.stream).map_err(words)?;
    has(&range, 1)?;
    let base = range.address();
    gpu.stream.copy(range.region(0, unit), ones.all()).map_err(words)?;
    for units in [2, 2, 5, 17] {
        range.grow(units * unit, &gpu.stream).map_err(words)?;
        has(&range, units)?;
    }
    let read = |range: &Growable| -> Result<Vec<u8>, String> {
        let copy = Buffer::new(&gpu.device, 17 * unit).map_err(words)?;
        gpu.stream.copy(copy.all(), range.region(0, 17 * unit)).map_err(words)?;
        Ok(gpu.get(&copy, 17 * unit))
    };
    let right = |all: &[u8]| all[..unit].iter().all(|&b| b == 1) && all[unit..].iter().all(|&b| b == 0);
    let kept = |range: &Growable| -> Result<(), String> {
        holds(range.address() == base && right(&read(range)?), || {
            "what was there changed, or what is new is not 0".into()
        })
    };
    kept(&range)?;
    if mapped {
        let taken = take_all(gpu, unit / 2);
        let refused = range.grow(40 * unit, &gpu.stream);
        drop(taken);
        let short = matches!(refused, Err(DriverError::OutOfMemory { bytes, .. }) if bytes == (23 * unit) as u64);
        holds(short, || format!("{refused:?}"))?;
        has(&range, 17)?;
        kept(&range)?;
    }
    range.grow(40 * unit, &gpu.stream).map_err(words)?;
    has(&range, 40)?;
    kept(&range)?;
    drop((range, ones));
    let after = gpu.free()?;
    // The driver may have kept less for itself since it was short of memory.
    holds(after >= before, || format!("{before} bytes were free, {after} are"))
}

/// What a stream comes to, bit for bit.
#[derive(Default, PartialEq)]
struct Outcome {
    embeddings: Vec<u32>,
    predictions: Vec<(u32, u32)>,
}

impl Outcome {
    fn same(&self, what: &str, other: &Self) -> Result<(), String> {
        holds(self == other, || {
            let position = self.predictions.iter().zip(&other.predictions).position(|(a, b)| a != b);
            let embeddings = if self.embeddings == other.embeddings { "the same" } else { "other" };
            format!("{what}: {embeddings} embeddings, another prediction at position {position:?}")
        })
    }
}

fn bits(predictions: &[Prediction]) -> impl Iterator<Item = (u32, u32)> {
    predictions.iter().map(|p| (p.id, p.logprob.to_bits()))
}

/// Sound and ids of a test.
struct Script {
    mel: Vec<f32>,
    ids: Vec<u32>,
    /// Mel values of a token.
    token: usize,
}

impl Script {
    fn new(config: &ModelConfig, tokens: usize) -> Self {
        let rng = &mut rng(21);
        let (mel, ids) = (mel(config, tokens, rng), ids(config, tokens, rng));
        Self { token: mel.len() / tokens, mel, ids }
    }

    /// Encodes and decodes some tokens, `most` at a time, growing by as many first if asked.
    fn go_on(
        &self,
        backend: &mut dyn Backend,
        stream: StreamId,
        tokens: Range<usize>,
        most: usize,
        grow: bool,
        outcome: &mut Outcome,
    ) -> Result<(), BackendError> {
        let mut predictions = Vec::new();
        for first in tokens.clone().step_by(most) {
            let last = (first + most).min(tokens.end);
            if grow {
                backend.grow(stream, last)?;
            }
            backend.encode(&[EncodeSpan { stream, mel: &self.mel[first * self.token..last * self.token] }])?;
            outcome.embeddings.extend(backend.inspect(Stage::Adapter)?.into_iter().map(f32::to_bits));
            let span = DecodeSpan { stream, position: first, ids: &self.ids[first..last], runners_up: None };
            backend.decode(&[span], &mut predictions)?;
            outcome.predictions.extend(bits(&predictions));
        }
        Ok(())
    }
}

fn growing(_: &Gpu) -> Result<(), String> {
    const TOKENS: usize = 300;
    for model in [voxtral_digits::model(), released(1)?] {
        let script = Script::new(&model.config, TOKENS);
        let mut backend = backend(&model);
        let mut run = |span: usize, most: usize, grow: bool| -> Result<Outcome, String> {
            let mut outcome = Outcome::default();
            let stream = open(&mut backend, span, if grow { 0 } else { TOKENS }).map_err(words)?;
            script.go_on(&mut backend, stream, 0..TOKENS, most, grow, &mut outcome).map_err(words)?;
            backend.close(stream);
            Ok(outcome)
        };
        let want = run(256, 4, false)?;
        for (span, most) in [(4, 4), (1, 1), (7, 7), (256, 4), (33, 33), (100, 100)] {
            run(span, most, true)?.same(&format!("{most} tokens at a time, spans of {span}"), &want)?;
        }
    }
    Ok(())
}

/// Layers of the released widths whose windows are short, so that all rings wrap.
fn short_windows() -> Result<Model, String> {
    let mut config = ModelConfig { vocab: 1296, ..ModelConfig::released() };
    (config.encoder.layers, config.decoder.layers) = (2, 2);
    (config.encoder.window, config.decoder.window) = (100, 90);
    Model::synthetic(&config, 6).map_err(|e| e.to_string())
}

fn wrapping(_: &Gpu) -> Result<(), String> {
    const TOKENS: usize = 400;
    let model = short_windows()?;
    let script = Script::new(&model.config, TOKENS);
    let mut cuda = backend(&model);
    let mut want = Outcome::default();
    let stream = open(&mut cuda, 64, TOKENS).map_err(words)?;
    script.go_on(&mut cuda, stream, 0..TOKENS, 50, false, &mut want).map_err(words)?;
    cuda.close(stream);
    for (span, most) in [(1, 1), (4, 4), (40, 40)] {
        let mut outcome = Outcome::default();
        let stream = open(&mut cuda, span, 0).map_err(words)?;
        script.go_on(&mut cuda, stream, 0..TOKENS, most, true, &mut outcome).map_err(words)?;
        outcome.same(&format!("spans of {span}"), &want)?;
        // A fork has all that its original had: it decodes again as far back as that may, and goes on alone.
        let again = TOKENS - 128;
        let decode = |cuda: &mut CudaBackend, stream| -> Result<Vec<(u32, u32)>, String> {
            let mut predictions = Vec::new();
            let span = DecodeSpan { stream, position: again, ids: &script.ids[again..], runners_up: None };
            cuda.decode(&[span], &mut predictions).map_err(words)?;
            Ok(bits(&predictions).collect())
        };
        for fork_span in [1, 4, 64] {
            let fork = cuda.fork(stream, fork_span).map_err(words)?;
            let what = format!("a fork for spans of {fork_span} of a stream for spans of {span}");
            holds(decode(&mut cuda, fork)? == want.predictions[again..], || format!("{what}: other predictions"))?;
            cuda.close(fork);
        }
        holds(decode(&mut cuda, stream)? == want.predictions[again..], || "decoded again: other predictions".into())?;
        cuda.close(stream);
    }
    let forked = forked_half_way(&mut cuda, &script, TOKENS)?;
    forked.same("forked half way, with other spans", &want)?;

    let plain = CpuOptions { precision: Precision::F32, ..CpuOptions::default() };
    let mut cpu = CpuBackend::new(&model, plain).map_err(words)?;
    let stream = open(&mut cpu, 50, TOKENS).map_err(words)?;
    let (mut adapter, mut logits, mut predictions) = (Vec::new(), Vec::new(), Vec::new());
    for first in (0..TOKENS).step_by(50) {
        let mel = &script.mel[first * script.token..][..50 * script.token];
        cpu.encode(&[EncodeSpan { stream, mel }]).map_err(words)?;
        adapter.extend(cpu.inspect(Stage::Adapter).map_err(words)?);
        let span = DecodeSpan { stream, position: first, ids: &script.ids[first..][..50], runners_up: None };
        cpu.decode(&[span], &mut predictions).map_err(words)?;
        logits.extend(cpu.inspect(Stage::Logits).map_err(words)?);
    }
    let embeddings: Vec<f32> = want.embeddings.iter().map(|&b| f32::from_bits(b)).collect();
    let told = |&(id, b): &(u32, u32)| Prediction { id, logprob: f32::from_bits(b), runners_up: [None; RUNNERS_UP] };
    let predictions: Vec<Prediction> = want.predictions.iter().map(told).collect();
    let logprobs = logprobs(&predictions, logits.chunks_exact(model.config.vocab));
    worst("adapter", &embeddings, &[adapter], 0.2)?;
    worst("log-probabilities", &predicted(&predictions), &[logprobs], 0.2)
}

/// A stream whose second half is its fork's, whose encoder ring has another length.
fn forked_half_way(cuda: &mut CudaBackend, script: &Script, tokens: usize) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    // No multiple of a block of slots.
    let half = tokens / 2 + 13;
    let stream = open(cuda, 3, 0).map_err(words)?;
    script.go_on(cuda, stream, 0..half, 3, true, &mut outcome).map_err(words)?;
    let fork = cuda.fork(stream, 9).map_err(words)?;
    cuda.close(stream);
    script.go_on(cuda, fork, half..tokens, 9, true, &mut outcome).map_err(words)?;
    cuda.close(fork);
    Ok(outcome)
}

fn told(gpu: &Gpu) -> Result<(), String> {
    let unit = gpu.device.granularity() as u64;
    let mut backend = backend(&released(2)?);
    // The scales of the delay.
    let first = backend.open(delay(), 4).map_err(words)?;
    for (span, tokens) in
        [(4, 0), (4, 31), (4, 156), (256, 156), (4, 781), (4, 3781), (4, usize::MAX), (256, usize::MAX)]
    {
        let (free, counted) = (gpu.free()?, backend.info().device_bytes);
        let stream = open(&mut backend, span, tokens).map_err(words)?;
        let told = backend.stream_bytes(span, tokens);
        let (taken, counted) = (free.saturating_sub(gpu.free()?), backend.info().device_bytes - counted);
        println!("        spans of {span}, {tokens} tokens: {told} bytes told, {counted} counted, {taken} taken");
        holds(told == counted && told.abs_diff(taken) <= unit, || {
            format!("{told} told, {counted} counted, {taken} taken")
        })?;
        backend.close(stream);
        holds(gpu.free()? == free, || format!("{free} bytes were free, {} are", gpu.free().unwrap_or(0)))?;
    }
    let left = backend.free_bytes().map_err(words)?;
    holds(left < gpu.free()?, || format!("{left} bytes for streams, {} free", gpu.free().unwrap_or(0)))?;
    backend.close(first);
    Ok(())
}

fn announced(gpu: &Gpu) -> Result<(), String> {
    let model = voxtral_digits::model();
    let before = gpu.free()?;
    let mut backend = backend(&model);
    for positions in [CudaBackend::LEAST_POSITIONS, usize::MAX] {
        let needs = CudaBackend::needs(&model, positions).map_err(words)?;
        let stream = open(&mut backend, 4, positions).map_err(words)?;
        let (taken, info) = (before.saturating_sub(gpu.free()?), backend.info().device_bytes);
        println!("        {positions} positions: {needs} bytes announced, {info} counted, {taken} taken");
        // The rest is for the driver.
        holds(info <= needs && taken <= needs, || {
            format!("{positions} positions: {needs} bytes announced, {info} counted, {taken} taken")
        })?;
        backend.close(stream);
    }
    Ok(())
}

fn no_leak(gpu: &Gpu) -> Result<(), String> {
    let model = voxtral_digits::model();
    let mut backend = backend(&model);
    let mel = vec![0.5; 4 * model.config.frames_per_token() * model.config.audio.mel_bins];
    let round = |backend: &mut CudaBackend, i: usize| -> Result<Vec<Prediction>, String> {
        let mut predictions = Vec::new();
        let stream = open(backend, 4 + i % 3, 4).map_err(words)?;
        backend.encode(&[EncodeSpan { stream, mel: &mel }]).map_err(words)?;
        backend.grow(stream, 10 + i % 7 * 100).map_err(words)?;
        backend
            .decode(&[DecodeSpan { stream, position: 0, ids: &[1, 32, 32], runners_up: None }], &mut predictions)
            .map_err(words)?;
        let fork = backend.fork(stream, 4).map_err(words)?;
        backend.grow(fork, 600).map_err(words)?;
        backend.close(stream);
        backend.close(fork);
        Ok(predictions)
    };
    let first = round(&mut backend, 6)?;
    let (before, info) = (gpu.free()?, backend.info());
    for i in 0..1000 {
        // Recorded passes know no stream's memory, which is another each time.
        holds(round(&mut backend, i)? == first, || format!("stream {i} came to something else"))?;
    }
    let after = gpu.free()?;
    holds(before == after && info == backend.info(), || format!("{before} bytes were free, {after} are"))
}

fn exhausted(gpu: &Gpu) -> Result<(), String> {
    const TOKENS: usize = 60;
    let model = released(2)?;
    let script = Script::new(&model.config, TOKENS);
    let mut backend = backend(&model);
    let [mut want, mut one, mut other] = [(); 3].map(|()| Outcome::default());
    let stream = open(&mut backend, 4, TOKENS).map_err(words)?;
    script.go_on(&mut backend, stream, 0..TOKENS, 4, false, &mut want).map_err(words)?;
    backend.close(stream);

    let [a, b] = [open(&mut backend, 4, 40), open(&mut backend, 4, 40)];
    let (a, b) = (a.map_err(words)?, b.map_err(words)?);
    script.go_on(&mut backend, a, 0..20, 4, false, &mut one).map_err(words)?;
    script.go_on(&mut backend, b, 0..20, 4, false, &mut other).map_err(words)?;
    // What is left is enough for half a window at first, then for next to nothing.
    let left = (backend.stream_bytes(4, usize::MAX) / 2) as usize;
    let first = Buffer::new(&gpu.device, backend.free_bytes().map_err(words)? as usize - left).map_err(words)?;
    let refused = |grown: Result<(), BackendError>| match grown {
        Err(BackendError::OutOfMemory { needed, free, .. }) if needed >= free => Ok(()),
        other => Err(format!("{other:?}")),
    };
    let info = backend.info();
    refused(backend.grow(a, usize::MAX))?;
    let rest = take_all(gpu, 16 << 20);
    refused(backend.grow(a, 5000))?;
    refused(backend.fork(a, 4).map(|_| ()))?;
    holds(info == backend.info(), || format!("{info:?} before, {:?} after", backend.info()))?;
    // Both go on as far as they have memory, and no further.
    script.go_on(&mut backend, a, 20..40, 4, false, &mut one).map_err(words)?;
    script.go_on(&mut backend, b, 20..40, 4, false, &mut other).map_err(words)?;
    let beyond = script.go_on(&mut backend, a, 40..44, 4, false, &mut one);
    holds(matches!(beyond, Err(BackendError::Contract(_))), || format!("{beyond:?}"))?;
    drop((first, rest));
    script.go_on(&mut backend, a, 40..TOKENS, 4, true, &mut one).map_err(words)?;
    script.go_on(&mut backend, b, 40..TOKENS, 4, true, &mut other).map_err(words)?;
    one.same("the stream that did not grow", &want)?;
    other.same("its neighbour", &want)
}

fn too_large(gpu: &Gpu) -> Result<(), String> {
    let model = voxtral_digits::model();
    let taken = take_all(gpu, 8 << 20);
    let before = gpu.free()?;
    let refused = CudaBackend::new(&model, &CudaOptions::default(), &mut |_, _| ()).err();
    let after = gpu.free()?;
    drop(taken);
    match refused {
        Some(BackendError::OutOfMemory { needed, free, .. }) if needed > free && before == after => Ok(()),
        other => Err(format!("{other:?}; {before} bytes were free, {after} are")),
    }
}
