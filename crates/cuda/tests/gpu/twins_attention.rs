//! Attention against a scalar twin.

use rand::Rng;
use voxtral_cuda::cut::Cut;
use voxtral_cuda::driver::Buffer;
use voxtral_cuda::kernels::Attention;
use voxtral_cuda::table::{Layout, Row, Table};

use crate::Check;
use crate::gpu::{Gpu, close, random, rng, same, slot_at};

pub const CHECKS: &[Check] = &[
    ("attention: every head width and group", shapes),
    ("attention: windows and rings that wrap", windows),
    ("attention: the same bits alone, in a span, in another ring", bits),
];

#[derive(Clone, Copy)]
pub struct Shape {
    pub group: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub window: usize,
}

impl Shape {
    pub fn q_dim(&self) -> usize {
        self.group * self.kv_dim()
    }

    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Of a pass over so many rows.
    pub fn cut(&self, max_rows: usize) -> Cut {
        Cut { group: self.group, window: self.window, max_rows }
    }
}

/// A launch over a table, and the memory that it works on.
pub struct Call {
    pub parameters: Attention,
    pub out: Buffer,
    _memory: [Buffer; 4],
}

impl Call {
    /// Over `table`, which was cut by `cut` and whose rows ask `queries`, in one layer of so many in their rings.
    pub fn new(gpu: &Gpu, s: Shape, cut: Cut, table: &Table, queries: &[f32], (layer, layers): (usize, usize)) -> Self {
        let rows = table.rows.len();
        let layout = Layout::new(rows, 0, table.items.len());
        let mut bytes = vec![0u64; layout.bytes.div_ceil(8)];
        table.write(&layout, bytemuck::cast_slice_mut(&mut bytes));
        let partials = rows * cut.partials();
        let (table, q, out) = (gpu.put(&bytes), gpu.put_bf16(queries), gpu.poison(rows * s.q_dim() * 2));
        let partial = gpu.poison(partials * s.q_dim() * 4);
        let norms = gpu.poison(partials * s.group * s.kv_heads * 8);
        let parameters = Attention {
            q: q.address(),
            out: out.address(),
            partial: partial.address(),
            norms: norms.address(),
            rows: table.address() + layout.rows,
            items: table.address() + layout.items,
            counts: table.address(),
            ldq: s.q_dim() as u32,
            ldo: s.q_dim() as u32,
            group: s.group as u32,
            kv_heads: s.kv_heads as u32,
            head_dim: s.head_dim as u32,
            window: s.window as u32,
            layer: layer as u32,
            layers: layers as u32,
            scale: std::f32::consts::LOG2_E / (s.head_dim as f32).sqrt(),
            ..Attention::default()
        };
        Self { parameters, out, _memory: [table, q, partial, norms] }
    }
}

/// Keys and values of every absolute position, and queries; a ring is filled from them as decoding would.
struct Case {
    s: Shape,
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
}

impl Case {
    fn new(s: Shape, positions: usize, seed: u64) -> Self {
        let rng = &mut rng(seed);
        let (kv, q) = (s.kv_dim(), s.q_dim());
        let (keys, values) = (random(rng, positions * kv, 1.0), random(rng, positions * kv, 1.0));
        Self { s, keys, values, queries: random(rng, positions * q, 2.0) }
    }

    /// Runs spans (first position, rows, ring), each its own stream.
    fn run(&self, gpu: &Gpu, spans: &[(usize, usize, usize)]) -> Result<Vec<f32>, String> {
        let (kv_dim, q_dim) = (self.s.kv_dim(), self.s.q_dim());
        let (layer, layers) = (1, 3);
        let cut = self.s.cut(spans.iter().map(|span| span.1).sum());
        let mut table = Table::default();
        let mut rings = Vec::new();
        let mut q = Vec::new();
        for &(first, rows, ring) in spans {
            let mut kv = vec![7.0; layers * 2 * ring * kv_dim];
            for position in (first + rows).saturating_sub(ring)..first + rows {
                for (value, from) in [&self.keys, &self.values].into_iter().enumerate() {
                    let at = slot_at(layers, layer, value, position % ring) * kv_dim;
                    kv[at..at + kv_dim].copy_from_slice(&from[position * kv_dim..][..kv_dim]);
                }
            }
            q.extend_from_slice(&self.queries[first * q_dim..][..rows * q_dim]);
            let kv = gpu.put_bf16(&kv);
            let row = |p: usize| Row::new(kv.address(), ring, p);
            table.push((first..first + rows).map(row), cut);
            rings.push(kv);
        }
        let call = Call::new(gpu, self.s, cut, &table, &q, (layer, layers));
        gpu.attention(call.parameters, cut)?;
        gpu.stream.wait().map_err(|e| e.to_string())?;
        Ok(gpu.get_bf16(&call.out, q.len()))
    }

    /// The twin of one row, and for each output the sum of |p v|, which bounds what rounding p to bf16 does.
    fn twin(&self, position: usize) -> (Vec<f32>, Vec<f32>) {
        let Shape { group, head_dim, window, .. } = self.s;
        let seen = (position + 1).saturating_sub(window)..position + 1;
        let mut out = Vec::new();
        for (head, q) in self.queries[position * self.s.q_dim()..][..self.s.q_dim()].chunks(head_dim).enumerate() {
            let of = |from: &'_ [f32], key: usize| {
                from[key * self.s.kv_dim() + head / group * head_dim..][..head_dim].to_vec()
            };
            let dot = |key| of(&self.keys, key).iter().zip(q).map(|(&k, &q)| f64::from(k) * f64::from(q)).sum::<f64>();
            let scores: Vec<f64> = seen.clone().map(|key| dot(key) / (head_dim as f64).sqrt()).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let norm: f64 = weights.iter().sum();
            let mut sums = vec![(0.0, 0.0); head_dim];
            for (key, w) in seen.clone().zip(&weights) {
                for (sum, v) in sums.iter_mut().zip(of(&self.values, key)) {
                    let term = w / norm * f64::from(v);
                    *sum = (sum.0 + term, sum.1 + term.abs());
                }
            }
            out.extend(sums.into_iter().map(|(sum, size)| (sum as f32, size as f32)));
        }
        out.into_iter().unzip()
    }

    fn check(&self, gpu: &Gpu, spans: &[(usize, usize, usize)], what: &str) -> Result<(), String> {
        let got = self.run(gpu, spans)?;
        let positions = spans.iter().flat_map(|&(first, rows, _)| first..first + rows);
        for (position, got) in positions.zip(got.chunks(self.s.q_dim())) {
            let (want, size) = self.twin(position);
            let rounding = |i: usize| size[i] / 256.0 + want[i].abs() / 256.0 + 1e-5;
            close(&format!("{what}, position {position}"), got, &want, rounding)?;
        }
        Ok(())
    }
}

fn shapes(gpu: &Gpu) -> Result<(), String> {
    for head_dim in (16..=128).step_by(16) {
        for (group, kv_heads) in [(1, 3), (2, 2), (3, 1), (4, 2), (8, 1), (16, 1)] {
            let case = Case::new(Shape { group, kv_heads, head_dim, window: 300 }, 420, head_dim as u64);
            let what = format!("head_dim {head_dim}, group {group}");
            case.check(gpu, &[(0, 9, 448)], &what)?;
            case.check(gpu, &[(390, 19, 448), (17, 1, 64), (255, 3, 448)], &what)?;
            case.check(gpu, &[(391, 5, 448), (63, 1, 64), (128, 2, 448)], &format!("{what}, few rows"))?;
        }
    }
    Ok(())
}

fn windows(gpu: &Gpu) -> Result<(), String> {
    for (window, ring, first, rows) in
        [(20, 160, 1000, 128), (20, 64, 500, 31), (257, 416, 1500, 100), (750, 1024, 1900, 33), (1, 160, 3, 7)]
    {
        let case = Case::new(Shape { group: 4, kv_heads: 2, head_dim: 32, window }, 2100, window as u64);
        let what = format!("window {window}, ring {ring}");
        case.check(gpu, &[(first, rows, ring)], &what)?;
        case.check(gpu, &[(first + rows / 2, 7.min(rows), ring)], &format!("{what}, few rows"))?;
    }
    Ok(())
}

fn bits(gpu: &Gpu) -> Result<(), String> {
    let rng = &mut rng(1);
    // The last two cross the number of keys from which few rows are cut otherwise, and have a window that moves from run to run.
    for (group, kv_heads, head_dim, window, first) in [
        (4, 8, 128, 8192, 2300),
        (4, 2, 128, 500, 2300),
        (1, 4, 64, 750, 2300),
        (4, 1, 64, 8192, 4050),
        (4, 1, 128, 4000, 8150),
    ] {
        let rows = 128;
        let case = Case::new(Shape { group, kv_heads, head_dim, window }, first + rows, 5);
        let ring = (first + rows).next_multiple_of(32);
        let span = case.run(gpu, &[(first, rows, ring)])?;
        for _ in 0..8 {
            let r = rng.random_range(0..rows);
            let alone = case.run(gpu, &[(77, 2, 160), (first + r, 1, ring + 64)])?;
            let width = case.s.q_dim();
            same(
                &format!("head_dim {head_dim}, window {window}, row {r}"),
                &alone[2 * width..],
                &span[r * width..][..width],
            )?;
        }
    }
    Ok(())
}
