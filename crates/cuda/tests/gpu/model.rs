//! The whole model: against a plain one, and against what `Backend` promises.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::Rng;
use voxtral_cpu::{CpuBackend, CpuOptions, Precision};
use voxtral_cuda::{CudaBackend, CudaOptions};
use voxtral_model::conformance::{self, Terms};
use voxtral_model::{
    Backend, BackendError, DecodeSpan, Delay, EncodeSpan, Encoding, Group, Model, ModelConfig, Plan, Prediction, Stage,
    StreamId,
};

use crate::Check;
use crate::gpu::{Gpu, force_ptx, rng};
use crate::reference;

pub const CHECKS: &[Check] = &[
    ("model: every stage of digits as in plain f32", digits),
    ("model: every stage of odd shapes as in plain f32", odd_shapes),
    ("model: two layers of the released widths as on the CPU", released_widths),
    ("model: conformance", conforms),
    ("model: the same bits again and again", again),
    ("model: packed weights: conformance", packed_conforms),
    ("model: packed weights: as on the CPU", packed_as_on_the_cpu),
    ("model: packed weights: 12 bits are bf16", lossless),
];

pub fn backend(model: &Model) -> CudaBackend {
    let options = CudaOptions { force_ptx: force_ptx(), ..CudaOptions::default() };
    CudaBackend::new(model, &options, &mut |_, _| ()).expect("the model fits")
}

/// A stream of such encode spans that has memory for `tokens`.
pub fn open(backend: &mut dyn Backend, span: usize, tokens: usize) -> Result<StreamId, BackendError> {
    let stream = backend.open(delay(), span)?;
    backend.grow(stream, tokens)?;
    Ok(stream)
}

pub fn worst(what: &str, got: &[f32], want: &[Vec<f32>], allowed: f32) -> Result<(), String> {
    let want = want.concat();
    let size = (want.iter().map(|w| w * w).sum::<f32>() / want.len() as f32).sqrt();
    let off = got
        .iter()
        .zip(&want)
        .map(|(g, w)| (g - w).abs())
        .fold(0.0, |m, d: f32| if d.is_nan() { f32::NAN } else { d.max(m) });
    println!("        {what}: largest difference {off:.4}, values of {size:.3}");
    let holds = got.len() == want.len() && off <= allowed * size;
    holds
        .then_some(())
        .ok_or_else(|| format!("{what}: off by {off}, values of {size}, {} of {}", got.len(), want.len()))
}

pub fn delay() -> Delay {
    Delay::from_ms(480).expect("a known delay")
}

/// Log-mel frames of so many tokens, of no sound in particular.
pub fn mel(config: &ModelConfig, tokens: usize, rng: &mut impl Rng) -> Vec<f32> {
    let len = config.frames_per_token() * config.audio.mel_bins;
    (0..tokens * len).map(|_| rng.random_range(-0.7..1.5)).collect()
}

/// Tokens, half of them the one that stands for "nothing yet".
pub fn ids(config: &ModelConfig, count: usize, rng: &mut impl Rng) -> Vec<u32> {
    let id = |_| if rng.random_bool(0.5) { 32 } else { rng.random_range(0..config.vocab as u32) };
    (0..count).map(id).collect()
}

/// What logits say of the ids that were predicted.
pub fn logprobs<'a>(predictions: &[Prediction], logits: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let of = |(p, row): (&Prediction, &[f32])| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row[p.id as usize] - max - row.iter().map(|v| (v - max).exp()).sum::<f32>().ln()
    };
    predictions.iter().zip(logits).map(of).collect()
}

pub fn predicted(predictions: &[Prediction]) -> Vec<f32> {
    predictions.iter().map(|p| p.logprob).collect()
}

/// Decodes all of `ids` in calls of so many positions, again and again: predictions and logits.
fn decode(
    backend: &mut dyn Backend,
    stream: StreamId,
    ids: &[u32],
    spans: &[usize],
) -> Result<(Vec<Prediction>, Vec<f32>), BackendError> {
    let (mut all, mut logits, mut predictions) = (Vec::new(), Vec::new(), Vec::new());
    for span in spans.iter().cycle() {
        let position = all.len();
        let ids = &ids[position..(position + span).min(ids.len())];
        if ids.is_empty() {
            break;
        }
        backend.decode(&[DecodeSpan { stream, position, ids, runners_up: None }], &mut predictions)?;
        logits.extend(backend.inspect(Stage::Logits)?);
        all.append(&mut predictions);
    }
    Ok((all, logits))
}

/// bf16 activations: a rounding of 2^-9 at each of the dozens of places that a value passes.
fn parity(model: &Model, tokens: usize, allowed: f32) -> Result<(), String> {
    let c = &model.config;
    let rng = &mut rng(17);
    let (mel, ids) = (mel(c, tokens, rng), ids(c, tokens, rng));
    let len = mel.len() / tokens;
    let want = reference::run(model, delay(), &mel, &ids);
    let mut backend = backend(model);
    let words = |e| format!("{e}");
    let stream = open(&mut backend, 37, tokens).map_err(words)?;
    let mut stages = [Vec::new(), Vec::new(), Vec::new()];
    for chunk in mel.chunks(37 * len) {
        backend.encode(&[EncodeSpan { stream, mel: chunk }]).map_err(words)?;
        for (all, stage) in stages.iter_mut().zip([Stage::ConvStem, Stage::Encoder, Stage::Adapter]) {
            all.extend(backend.inspect(stage).map_err(words)?);
        }
    }
    let (all, logits) = decode(&mut backend, stream, &ids, &[39, 1, 1, 32, 1, 7, 100]).map_err(words)?;
    let [stem, encoder, adapter] = stages;
    worst("conv stem", &stem, &want.stem, allowed)?;
    worst("encoder", &encoder, &want.encoder, allowed)?;
    worst("adapter", &adapter, &want.adapter, allowed)?;
    let logprobs = logprobs(&all, want.logits.iter().map(Vec::as_slice));
    worst("log-probabilities", &predicted(&all), &[logprobs], allowed)?;
    worst("logits", &logits, &want.logits, allowed)
}

fn digits(_: &Gpu) -> Result<(), String> {
    parity(&voxtral_digits::model(), 150, 0.3)
}

fn odd_shapes(_: &Gpu) -> Result<(), String> {
    let shapes = [(3, 3, 16, 48, 80), (6, 2, 48, 80, 112), (8, 1, 112, 160, 272)];
    for (i, (heads, kv_heads, head_dim, dim, ffn_dim)) in shapes.into_iter().enumerate() {
        let mut config = ModelConfig { vocab: 1296, ada_dim: 16, ..ModelConfig::released() };
        for (c, window) in [(&mut config.encoder, 50), (&mut config.decoder, 40)] {
            (c.heads, c.kv_heads, c.head_dim, c.dim, c.ffn_dim) = (heads, kv_heads, head_dim, dim, ffn_dim);
            (c.layers, c.window) = (2, window);
        }
        let model = Model::synthetic(&config, i as u64).map_err(|e| e.to_string())?;
        parity(&model, 150, 0.3)?;
    }
    Ok(())
}

/// Grids, tiles and shared memory of the real sizes, in every recorded pass; little memory.
pub fn released(layers: usize) -> Result<Model, String> {
    let mut config = ModelConfig::released();
    (config.encoder.layers, config.decoder.layers) = (layers, layers);
    Model::synthetic(&config, 5).map_err(|e| e.to_string())
}

/// The largest of 18 million differences is far out: with 2^-9 at a time, 6 to 8 % of the size of the values were seen.
fn released_widths(_: &Gpu) -> Result<(), String> {
    const TOKENS: usize = 140;
    let model = released(2)?;
    let rng = &mut rng(18);
    let (mel, ids) = (mel(&model.config, TOKENS, rng), ids(&model.config, TOKENS, rng));
    let len = mel.len() / TOKENS;
    let outcome = |backend: &mut dyn Backend| -> Result<_, BackendError> {
        let stream = open(backend, 60, TOKENS)?;
        let (mut adapter, mut logits) = (Vec::new(), Vec::new());
        for (token, count) in [(0, 1), (1, 3), (4, 36), (40, 60), (100, 40)] {
            backend.encode(&[EncodeSpan { stream, mel: &mel[token * len..][..count * len] }])?;
            adapter.extend(backend.inspect(Stage::Adapter)?);
        }
        let (mut all, mut predictions) = (Vec::new(), Vec::new());
        for (position, count) in [(0, 7), (7, 1), (8, 32), (40, 100)] {
            backend.decode(
                &[DecodeSpan { stream, position, ids: &ids[position..][..count], runners_up: None }],
                &mut predictions,
            )?;
            logits.extend(backend.inspect(Stage::Logits)?);
            all.append(&mut predictions);
        }
        Ok((adapter, logits, all))
    };
    let words = |e: BackendError| e.to_string();
    let (adapter, logits, predictions) = outcome(&mut backend(&model)).map_err(words)?;
    let plain = CpuOptions { precision: Precision::F32, ..CpuOptions::default() };
    let (want_adapter, want_logits, _) = outcome(&mut CpuBackend::new(&model, plain).map_err(words)?).map_err(words)?;
    let logprobs = logprobs(&predictions, want_logits.chunks_exact(model.config.vocab));
    worst("adapter", &adapter, &[want_adapter], 0.15)?;
    worst("log-probabilities", &predicted(&predictions), &[logprobs], 0.15)?;
    worst("logits", &logits, &[want_logits], 0.15)
}

/// The same audio in calls of 1 to 100 tokens, again and again, bit for bit: a race shows itself now and then.
fn again(_: &Gpu) -> Result<(), String> {
    for (model, rounds) in [(voxtral_digits::model(), 20), (released(1)?, 4)] {
        // More than a window and the longest span, where that is not 11 minutes: rings wrap.
        const TOKENS: usize = 300;
        let rng = &mut rng(19);
        let (mel, ids) = (mel(&model.config, TOKENS, rng), ids(&model.config, TOKENS, rng));
        let len = mel.len() / TOKENS;
        let mut backend = backend(&model);
        let mut round = |most: usize| -> Result<_, String> {
            let words = |e: BackendError| e.to_string();
            let stream = open(&mut backend, most, TOKENS).map_err(words)?;
            let (mut embeddings, mut all, mut predictions) = (Vec::new(), Vec::new(), Vec::new());
            for (mel, ids) in mel.chunks(most * len).zip(ids.chunks(most)) {
                backend.encode(&[EncodeSpan { stream, mel }]).map_err(words)?;
                embeddings.extend(backend.inspect(Stage::Adapter).map_err(words)?.into_iter().map(f32::to_bits));
                backend
                    .decode(&[DecodeSpan { stream, position: all.len(), ids, runners_up: None }], &mut predictions)
                    .map_err(words)?;
                all.extend(predictions.iter().map(|p| (p.id, p.logprob.to_bits())));
            }
            backend.close(stream);
            Ok((embeddings, all))
        };
        let first = round(1)?;
        for (n, most) in (0..rounds).flat_map(|n| [1, 2, 8, 32, 100].map(|most| (n, most))) {
            let (embeddings, all) = round(most)?;
            if embeddings != first.0 {
                let at = embeddings.iter().zip(&first.0).position(|(a, b)| a != b);
                let token = at.map(|at| at / model.config.decoder.dim);
                return Err(format!("round {n}, {most} tokens a call: token {token:?} came to another embedding"));
            }
            if all != first.1 {
                let at = all.iter().zip(&first.1).position(|(a, b)| a != b);
                return Err(format!("round {n}, {most} rows a call: position {at:?} came to something else"));
            }
        }
    }
    Ok(())
}

fn conforms(_: &Gpu) -> Result<(), String> {
    let terms = Terms { head_dims: &[16, 48, 64, 128], ..Terms::EXACT };
    let make = |model: &Model| -> Box<dyn Backend> { Box::new(backend(model)) };
    catch_unwind(AssertUnwindSafe(|| conformance::run(&make, &terms)))
        .map_err(|what| what.downcast_ref::<String>().cloned().unwrap_or_else(|| "a property does not hold".to_owned()))
}

const INT8: Encoding = Encoding::Int8(Group::Of32);
const INT4: Encoding = Encoding::Int4(Group::Of32);

fn packed_conforms(_: &Gpu) -> Result<(), String> {
    for encoding in [Encoding::Bf12, INT8, INT4, Encoding::Int4(Group::Of128)] {
        let terms = Terms { head_dims: &[16, 48, 64, 128], ..Terms::EXACT };
        let make = |model: &Model| -> Box<dyn Backend> { Box::new(backend(&model.packed(&Plan::all(encoding)))) };
        catch_unwind(AssertUnwindSafe(|| conformance::run(&make, &terms))).map_err(|what| {
            let what = what.downcast_ref::<String>().map_or("a property does not hold", String::as_str);
            format!("{encoding:?}: {what}")
        })?;
    }
    Ok(())
}

/// What a backend makes of some audio and ids: predictions and logits.
fn outcome(backend: &mut dyn Backend, model: &Model, tokens: usize) -> Result<(Vec<Prediction>, Vec<f32>), String> {
    let words = |e: BackendError| e.to_string();
    let rng = &mut rng(23);
    let (mel, ids) = (mel(&model.config, tokens, rng), ids(&model.config, tokens, rng));
    let stream = open(backend, 60, tokens).map_err(words)?;
    let len = mel.len() / tokens;
    for mel in mel.chunks(60 * len) {
        backend.encode(&[EncodeSpan { stream, mel }]).map_err(words)?;
    }
    decode(backend, stream, &ids, &[1, 7, 32, 39]).map_err(words)
}

/// The CPU rounds activations to 8 bits, or not at all, a GPU to bf16.
fn packed_as_on_the_cpu(_: &Gpu) -> Result<(), String> {
    const TOKENS: usize = 150;
    for encoding in [INT8, INT4, Encoding::Bf12] {
        for (name, model) in [("digits", voxtral_digits::model()), ("two layers of the released widths", released(2)?)]
        {
            let model = model.packed(&Plan::all(encoding));
            let (_, logits) = outcome(&mut backend(&model), &model, TOKENS)?;
            for precision in [Precision::Auto, Precision::F32] {
                let options = CpuOptions { precision, ..CpuOptions::default() };
                let mut cpu = CpuBackend::new(&model, options).map_err(|e| e.to_string())?;
                let (_, want) = outcome(&mut cpu, &model, TOKENS)?;
                println!("        {encoding:?}, {name}, CPU in {precision:?}:");
                worst("logits", &logits, &[want], 0.3)?;
            }
        }
    }
    Ok(())
}

fn lossless(_: &Gpu) -> Result<(), String> {
    for model in [voxtral_digits::model(), released(1)?] {
        let packed = model.packed(&Plan::all(Encoding::Bf12));
        let (mut plain, mut small) = (backend(&model), backend(&packed));
        let (bf16, twelve) = (plain.info().device_bytes, small.info().device_bytes);
        println!("        {bf16} bytes on the device, {twelve} with 12 bits");
        let (want, got) = (outcome(&mut plain, &model, 150)?, outcome(&mut small, &packed, 150)?);
        if got.0 != want.0 || got.1.iter().zip(&want.1).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return Err("other bits than bf16 gives".to_owned());
        }
        if twelve >= bf16 {
            return Err("no memory saved".to_owned());
        }
    }
    Ok(())
}
