//! The tiny model against what an independent implementation computes in single precision.
//!
//! Its activations are in the hundreds of roundings from there: transformers itself, run in bf16, is off by up to 1.0 in the logits
//! (whose standard deviation is 5) and agrees in 96 to 99 % of the ids.

use voxtral_model::testing::{array, cases, golden, ids};
use voxtral_model::{Backend, DecodeSpan, Delay, EncodeSpan, MAX_DECODE_ROWS, Model, Stage};

use crate::Check;
use crate::gpu::Gpu;
use crate::model::backend;

pub const CHECKS: &[Check] = &[("goldens: logits and ids", goldens)];

/// What bf16 may cost a logit.
const ROUNDING: f32 = 1.5;

fn goldens(_: &Gpu) -> Result<(), String> {
    for (layout, case) in ["tiny", "tiny_hf"].into_iter().flat_map(|l| cases().into_iter().map(move |c| (l, c))) {
        let path = golden(layout).ok_or("no goldens: run this from the project's folder")?;
        let model = Model::open(&path).map_err(|e| e.to_string())?;
        check(&model, layout, case).map_err(|what| format!("{layout} {case}: {what}"))?;
    }
    Ok(())
}

fn check(model: &Model, layout: &str, case: &str) -> Result<(), String> {
    let words = |e| format!("{e}");
    let tokens: u32 = case.split_once("_d").and_then(|(_, d)| d.parse().ok()).ok_or("a case without a delay")?;
    let mut backend = backend(model);
    let most = backend.info().encode_tokens;
    let stream = backend.open(Delay::from_ms(tokens * 80).map_err(|e| e.to_string())?, most).map_err(words)?;
    backend.grow(stream, usize::MAX).map_err(words)?;
    let (shape, values) = array(&format!("{case}_logmel"));
    let mel: Vec<f32> = (0..values.len()).map(|i| values[i % shape[0] * shape[1] + i / shape[0]]).collect();
    for mel in mel.chunks(most * model.config.frames_per_token() * shape[0]) {
        backend.encode(&[EncodeSpan { stream, mel }]).map_err(words)?;
    }
    let (mut logits, mut got) = (Vec::new(), Vec::new());
    for (i, ids) in ids(&format!("{case}_teacher_ids")).chunks(MAX_DECODE_ROWS / 4).enumerate() {
        let position = i * (MAX_DECODE_ROWS / 4);
        let mut predictions = Vec::new();
        backend.decode(&[DecodeSpan { stream, position, ids, runners_up: None }], &mut predictions).map_err(words)?;
        logits.extend(backend.inspect(Stage::Logits).map_err(words)?);
        got.extend(predictions);
    }
    let want = array(&format!("{case}_logits")).1;
    let off = logits
        .iter()
        .zip(&want)
        .map(|(g, w)| (g - w).abs())
        .fold(0.0, |m: f32, d| if d.is_nan() { d } else { m.max(d) });
    let mut agree = 0;
    for (row, prediction) in want.chunks_exact(model.config.vocab).zip(&got) {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let behind = best - row[prediction.id as usize];
        agree += usize::from(behind == 0.0);
        if behind > 2.0 * ROUNDING {
            return Err(format!("id {} lies {behind} behind the best", prediction.id));
        }
    }
    println!("        {layout} {case}: logits off by {off:.3}, {agree} of {} ids agree", got.len());
    let holds = off <= ROUNDING && logits.len() == want.len() && agree * 20 >= got.len() * 19;
    holds.then_some(()).ok_or_else(|| format!("logits off by {off}, {agree} of {} ids agree", got.len()))
}
