//! The whole model in plain f32, without caches, as the specification's formulas read: what the backend is compared with.

use voxtral_model::{LayerWeights, Linear, Model, Rope, TransformerConfig, ada_scales, gelu};

use voxtral_model::Delay;

/// A matrix with its bias.
struct Matrix {
    w: Vec<f32>,
    bias: Vec<f32>,
}

impl Matrix {
    fn new(linear: &Linear) -> Self {
        let n = linear.weight.shape()[0];
        let bias = linear.bias.as_ref().map_or_else(|| vec![0.0; n], |b| b.to_f32());
        Self { w: linear.weight.to_f32(), bias }
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        self.w.chunks(x.len()).zip(&self.bias).map(|(row, b)| dot(row) + b).collect()
    }
}

fn norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mean = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    x.iter().zip(weight).map(|(v, w)| v * scale * w).collect()
}

fn rotate(heads: &mut [f32], rope: &Rope, head_dim: usize, position: usize) {
    for head in heads.chunks_mut(head_dim) {
        for (pair, (c, s)) in head.chunks_mut(2).zip(rope.cos_sin(position)) {
            (pair[0], pair[1]) = (pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s);
        }
    }
}

fn layer(c: &TransformerConfig, l: &LayerWeights, ada: Option<&[f32]>, xs: &mut [Vec<f32>]) {
    let matrix = Matrix::new;
    let (wq, wk, wv, wo) = (matrix(&l.wq), matrix(&l.wk), matrix(&l.wv), matrix(&l.wo));
    let (gate, up, down) = (matrix(&l.gate), matrix(&l.up), matrix(&l.down));
    let (attention_norm, ffn_norm) = (l.attention_norm.to_f32(), l.ffn_norm.to_f32());
    let rope = Rope::new(c.head_dim, c.rope_theta);
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for (position, x) in xs.iter_mut().enumerate() {
        let u = norm(x, &attention_norm, c.norm_eps);
        let (mut q, mut k) = (wq.apply(&u), wk.apply(&u));
        rotate(&mut q, &rope, c.head_dim, position);
        rotate(&mut k, &rope, c.head_dim, position);
        keys.push(k);
        values.push(wv.apply(&u));
        let mut attended = Vec::new();
        for (head, q) in q.chunks(c.head_dim).enumerate() {
            let at = head / (c.heads / c.kv_heads) * c.head_dim;
            let seen = (position + 1).saturating_sub(c.window)..position + 1;
            let score =
                |k: &Vec<f32>| k[at..].iter().zip(q).map(|(k, q)| k * q).sum::<f32>() / (c.head_dim as f32).sqrt();
            let scores: Vec<f32> = keys[seen.clone()].iter().map(score).collect();
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f32 = weights.iter().sum();
            attended.extend(
                (at..at + c.head_dim)
                    .map(|d| weights.iter().zip(&values[seen.clone()]).map(|(w, v)| w * v[d]).sum::<f32>() / total),
            );
        }
        x.iter_mut().zip(wo.apply(&attended)).for_each(|(x, y)| *x += y);
        let mut u = norm(x, &ffn_norm, c.norm_eps);
        if let Some(ada) = ada {
            u.iter_mut().zip(ada).for_each(|(u, g)| *u *= g);
        }
        let hidden: Vec<f32> =
            gate.apply(&u).into_iter().zip(up.apply(&u)).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        x.iter_mut().zip(down.apply(&hidden)).for_each(|(x, y)| *x += y);
    }
}

/// Three taps over `xs` with `pad` rows of zeros before them, every `stride`th output, GELU.
fn conv(linear: &Linear, xs: &[Vec<f32>], pad: usize, stride: usize) -> Vec<Vec<f32>> {
    let (w, bias) = (linear.weight.to_f32(), linear.bias.as_ref().expect("a bias").to_f32());
    let channels = xs[0].len();
    let output = |m: usize, o: usize| {
        let mut sum = bias[o];
        for tap in 0..3 {
            if let Some(x) = (m + tap).checked_sub(pad).and_then(|at| xs.get(at)) {
                sum += x.iter().enumerate().map(|(i, x)| w[(o * channels + i) * 3 + tap] * x).sum::<f32>();
            }
        }
        gelu(sum)
    };
    (0..xs.len()).step_by(stride).map(|m| (0..bias.len()).map(|o| output(m, o)).collect()).collect()
}

/// What each stage comes to, a row each.
pub struct Outcome {
    pub stem: Vec<Vec<f32>>,
    pub encoder: Vec<Vec<f32>>,
    pub adapter: Vec<Vec<f32>>,
    pub logits: Vec<Vec<f32>>,
}

/// All of a stream at once.
pub fn run(model: &Model, delay: Delay, mel: &[f32], ids: &[u32]) -> Outcome {
    let (c, w) = (&model.config, &model.weights);
    let frames: Vec<Vec<f32>> = mel.chunks(c.audio.mel_bins).map(<[f32]>::to_vec).collect();
    let columns = conv(&w.conv[0], &frames, 2, 1);
    let stem = conv(&w.conv[1], &columns, 1, 2);
    let mut x = stem.clone();
    for l in &w.encoder {
        layer(&c.encoder, l, None, &mut x);
    }
    let encoder_norm = w.encoder_norm.to_f32();
    let encoder: Vec<Vec<f32>> = x.iter().map(|x| norm(x, &encoder_norm, c.encoder.norm_eps)).collect();
    let [first, second] = [Matrix::new(&w.adapter[0]), Matrix::new(&w.adapter[1])];
    let adapt =
        |rows: &[Vec<f32>]| second.apply(&first.apply(&rows.concat()).into_iter().map(gelu).collect::<Vec<_>>());
    let adapter: Vec<Vec<f32>> = encoder.chunks(c.downsample).map(adapt).collect();
    let embedding = Matrix::new(&Linear { weight: w.embedding.clone(), bias: None });
    let embed = |(&id, audio): (&u32, &Vec<f32>)| {
        let text = &embedding.w[id as usize * c.decoder.dim..][..c.decoder.dim];
        text.iter().zip(audio).map(|(t, a)| t + a).collect()
    };
    let mut x: Vec<Vec<f32>> = ids.iter().zip(&adapter).map(embed).collect();
    for (l, ada) in w.decoder.iter().zip(ada_scales(c, w, delay)) {
        layer(&c.decoder, l, Some(&ada), &mut x);
    }
    let decoder_norm = w.decoder_norm.to_f32();
    let logits = x.iter().map(|x| embedding.apply(&norm(x, &decoder_norm, c.decoder.norm_eps))).collect();
    Outcome { stem, encoder, adapter, logits }
}
