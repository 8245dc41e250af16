//! Products and row kernels against scalar twins.

use half::{bf16, f16};
use rand::Rng;
use voxtral_cuda::cut::{slices, splits};
use voxtral_cuda::driver::{Address, Buffer};
use voxtral_cuda::kernels::{Kernels, Mode, Product, RowWork};
use voxtral_cuda::packed::Joined;
use voxtral_cuda::table::{Counts, Row, Span};
use voxtral_model::{Encoding, Group, LANES, Packed, RUNNERS_UP, Rope, Tensor, Weight, gelu};

use crate::Check;
use crate::gpu::{Gpu, close, fragments, pad, random, rng, same, slot_at};

pub const CHECKS: &[Check] = &[
    ("product: odd sizes", odd_products),
    ("product: real sizes, the same bits for every row count", real_products),
    ("product: packed weights", packed_products),
    ("product: 12 bits are bf16", lossless_products),
    ("product: SiLU, GELU, audio", epilogues),
    ("product: queries, keys and values", qkv),
    ("product: head", head),
    ("add_rms_norm", add_rms_norm),
    ("rope_table, embed", positions),
    ("gather_mel, gather_columns", gathers),
];

const ROWS: [usize; 12] = [1, 2, 3, 7, 8, 9, 31, 32, 33, 64, 100, 128];

/// More than an encode call has, and no whole tiles.
const MANY_ROWS: usize = 1100;

/// A matrix, activations for some rows, and where the result goes.
struct Case {
    n: usize,
    k: usize,
    ld: usize,
    splits: usize,
    w: Vec<f32>,
    x: Vec<f32>,
    bias: Vec<f32>,
    on_device: [Buffer; 3],
    /// How the weights lie.
    weights: Product,
}

impl Case {
    fn new(gpu: &Gpu, n: usize, k: usize, rows: usize, seed: u64) -> Self {
        let rng = &mut rng(seed);
        let (w, x) = (random(rng, n * k, 0.5), random(rng, rows * k, 2.0));
        let bias: Vec<f32> = (0..n).map(|_| rng.random_range(-1.0..1.0)).collect();
        let ld = k.next_multiple_of(32);
        let on_device = [gpu.put_bf16(&fragments(&w, n, k)), gpu.put_bf16(&pad(&x, k, ld)), gpu.put(&bias)];
        let weights = Product { stride: (16 * ld * 2) as u32, ..Product::default() };
        Self { n, k, ld, splits: 1, w, x, bias, on_device, weights }
    }

    /// The same with its weights packed; now and then one of another magnitude.
    fn packed(mut self, gpu: &Gpu, encoding: Encoding) -> Result<Self, String> {
        for i in (7..self.w.len()).step_by(1999) {
            self.w[i] *= [0.0, 1e-20][i / 1999 % 2];
        }
        let tensor = Tensor::from_f32_as_bf16(&self.w, &[self.n, self.k]);
        let packed = Packed::of(&tensor, encoding).ok_or("it cannot be packed")?;
        self.w = (0..self.n).flat_map(|output| decoded(&packed, output)).collect();
        let joined = Joined::new(&[&Weight::Packed(packed)], false).ok_or("it cannot be taken as it is")?;
        let panel_bytes = joined.panel_bytes();
        let mut panels = vec![0u8; self.n.next_multiple_of(128) / LANES * panel_bytes];
        for (i, panel) in panels.chunks_mut(panel_bytes).take(self.n.div_ceil(LANES)).enumerate() {
            joined.panel(i, panel);
        }
        self.on_device[0] = gpu.put(&panels);
        self.weights = Product {
            encoding: joined.format() as u32,
            stride: panel_bytes as u32,
            head: joined.head_bytes() as u32,
            parameter: joined.parameter(),
            ..Product::default()
        };
        Ok(self)
    }

    fn product(&self) -> Product {
        let [w, x, bias] = &self.on_device;
        let (n, k, splits) = (self.n as u32, self.ld as u32, self.splits as u32);
        let slices = slices(self.n, self.ld, self.splits) as u32;
        let (w, x, bias) = (w.address(), x.address(), bias.address());
        Product { w, x, bias, n, k, splits, slices, ldo: n, ..self.weights }
    }

    fn run(&self, gpu: &Gpu, p: Product, mode: Mode, rows: usize) -> Result<(), String> {
        let counts = gpu.put(&[rows as u32]);
        let p = Product { count: counts.address(), mode: mode as u32, ..p };
        gpu.product(p, rows)?;
        gpu.stream.wait().map_err(|e| e.to_string())
    }

    /// `[rows, splits, n]`
    fn store(&self, gpu: &Gpu, rows: usize) -> Result<Vec<f32>, String> {
        let stride = rows * self.n + 8;
        let out = gpu.poison(self.splits * stride * 4);
        let p = Product { out: out.address(), split_stride: stride as u32, ..self.product() };
        self.run(gpu, p, Mode::Store, rows)?;
        let all: Vec<f32> = gpu.get(&out, self.splits * stride);
        let row = |i: usize| &all[i % self.splits * stride + i / self.splits * self.n..][..self.n];
        Ok((0..rows * self.splits).flat_map(row).copied().collect())
    }

    /// The splits of `[rows, splits, n]` added.
    fn added(&self, stored: &[f32]) -> Vec<f32> {
        let sum = |row: &[f32]| (0..self.n).map(|f| row[f..].iter().step_by(self.n).sum()).collect::<Vec<f32>>();
        stored.chunks(self.splits * self.n).flat_map(sum).collect()
    }

    /// The twin: y of one row and output in f64, and the sum of magnitudes that bounds rounding.
    fn twin(&self, r: usize, f: usize) -> (f32, f32) {
        let (w, x) = (&self.w[f * self.k..][..self.k], &self.x[r * self.k..][..self.k]);
        let products = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
        let (sum, size) = products.fold((0.0, 0.0), |(s, a), p: f64| (s + p, a + p.abs()));
        ((sum + f64::from(self.bias[f])) as f32, size as f32)
    }

    fn twins(&self, rows: usize) -> (Vec<f32>, Vec<f32>) {
        (0..rows * self.n).map(|i| self.twin(i / self.n, i % self.n)).unzip()
    }
}

/// The weights of an output as kernels decode them: scales are rounded to bf16, and so is what they give.
fn decoded(packed: &Packed, output: usize) -> Vec<f32> {
    let mut row = vec![0.0; packed.k()];
    Weight::Packed(packed.clone()).row(output, &mut row);
    let Some(group) = packed.encoding().group() else { return row };
    let scales = packed.panel(output / LANES).scales.as_chunks::<2>().0;
    let rounded = |(k, v): (usize, f32)| {
        let scale = f16::from_le_bytes(scales[k / group * LANES + output % LANES]).to_f32();
        let code = if scale == 0.0 { 0.0 } else { (v / scale).round() };
        bf16::from_f32(code * bf16::from_f32(scale).to_f32()).to_f32()
    };
    row.into_iter().enumerate().map(rounded).collect()
}

fn packed_products(gpu: &Gpu) -> Result<(), String> {
    let scaled = [Group::Of32, Group::Of64, Group::Of128].into_iter();
    let scaled = scaled.flat_map(|group| [Encoding::Int8(group), Encoding::Int4(group)]);
    for encoding in scaled.chain([Encoding::Bf16, Encoding::Bf12]) {
        for (n, k) in [(16, 16), (80, 112), (272, 1040), (1040, 48), (6144, 3072), (3072, 9216), (1280, 5120)] {
            let small = n * k < 1 << 20;
            let splits = if small { 1 } else { splits(n, k) };
            let case = Case { splits, ..Case::new(gpu, n, k, MANY_ROWS, (n * k) as u64).packed(gpu, encoding)? };
            let mut alone = Vec::new();
            for rows in [1, 3, 8, 9, 31, 32, 33, 100, MANY_ROWS] {
                let what = format!("{encoding:?} {n} x {k}, {rows} rows");
                let stored = case.store(gpu, rows)?;
                let got = case.added(&stored);
                let rng = &mut rng(7);
                for _ in 0..300 {
                    let (r, f) = (rng.random_range(0..rows), rng.random_range(0..n));
                    let (want, size) = case.twin(r, f);
                    let rounding = |_| ROUNDING * (1.0 + size);
                    close(&format!("{what}, row {r}, output {f}"), &[got[r * n + f]], &[want], rounding)?;
                }
                if rows == 1 {
                    alone = stored;
                } else {
                    same(&format!("{what}: row 0 against row 0 alone"), &stored[..splits * n], &alone)?;
                }
            }
        }
    }
    Ok(())
}

/// Every output has the bits that bf16 gives, with exponents that the code has no room for among the weights.
fn lossless_products(gpu: &Gpu) -> Result<(), String> {
    for (n, k) in [(48, 272), (1040, 480), (6144, 3072), (3072, 9216)] {
        let case = Case::new(gpu, n, k, 100, (n + k) as u64).packed(gpu, Encoding::Bf12)?;
        let mut plain = Case::new(gpu, n, k, 100, (n + k) as u64);
        plain.on_device[0] = gpu.put_bf16(&fragments(&case.w, n, k));
        for rows in [1, 8, 20, 32, 100] {
            same(&format!("{n} x {k}, {rows} rows"), &case.store(gpu, rows)?, &plain.store(gpu, rows)?)?;
        }
    }
    Ok(())
}

/// f32 sums of products of bf16: a few units in the last place of the magnitudes.
const ROUNDING: f32 = 4e-6;

fn odd_products(gpu: &Gpu) -> Result<(), String> {
    for (n, k) in [(16, 16), (48, 48), (80, 112), (144, 272), (272, 1040), (1040, 48)] {
        let mut case = Case::new(gpu, n, k, MANY_ROWS, (n * k) as u64);
        let (want, size) = case.twins(MANY_ROWS);
        for splits in [1, 2, 4].into_iter().filter(|splits| *splits <= case.ld / 32) {
            case.splits = splits;
            for rows in ROWS.into_iter().chain([129, 250, 256, 700, MANY_ROWS]) {
                let got = case.added(&case.store(gpu, rows)?);
                let what = format!("{n} x {k} in {splits} splits, {rows} rows");
                close(&what, &got, &want[..rows * n], |i| ROUNDING * (1.0 + size[i]))?;
            }
        }
    }
    Ok(())
}

fn real_products(gpu: &Gpu) -> Result<(), String> {
    let shapes = [
        (6144, 3072),
        (3072, 4096),
        (18432, 3072),
        (3072, 9216),
        (6144, 1280),
        (1280, 2048),
        (10240, 1280),
        (1280, 5120),
        (1280, 3840),
        (1280, 384),
    ];
    for (n, k) in shapes {
        let splits = if n < k { splits(n, k) } else { 1 };
        let case = Case { splits, ..Case::new(gpu, n, k, MANY_ROWS, (n + k) as u64) };
        let mut alone = Vec::new();
        for rows in ROWS.into_iter().chain([256, 1000, MANY_ROWS]) {
            let what = format!("{n} x {k}, {rows} rows");
            let stored = case.store(gpu, rows)?;
            let got = case.added(&stored);
            let rng = &mut rng(7);
            for _ in 0..200 {
                let (r, f) = (rng.random_range(0..rows), rng.random_range(0..n));
                let (want, size) = case.twin(r, f);
                close(&format!("{what}, row {r}, output {f}"), &[got[r * n + f]], &[want], |_| {
                    ROUNDING * (1.0 + size)
                })?;
            }
            if rows == 1 {
                alone = stored;
            } else {
                same(&format!("{what}: row 0 against row 0 alone"), &stored[..splits * n], &alone)?;
            }
        }
        // A row that is not the first of its tile, alone and in a batch.
        let last = case.store(gpu, 100)?;
        let x = case.on_device[1].address() + 99 * case.ld * 2;
        let out = gpu.poison(splits * n * 4);
        let p = Product { x, out: out.address(), split_stride: n as u32, ..case.product() };
        case.run(gpu, p, Mode::Store, 1)?;
        same(&format!("{n} x {k}: row 99"), &gpu.get::<f32>(&out, splits * n), &last[99 * splits * n..])?;
    }
    Ok(())
}

fn silu(v: f32) -> f32 {
    v / (1.0 + (-v).exp())
}

fn epilogues(gpu: &Gpu) -> Result<(), String> {
    let (n, k) = (144, 80);
    let case = Case::new(gpu, n, k, 70, 3);
    let ldo = 160;
    for rows in [1, 5, 8, 9, 31, 32, 33, 70] {
        let (y, size) = case.twins(rows);
        let rounding = |i: usize| 1e-5 * (1.0 + size[i]);
        let out = gpu.poison(rows * ldo * 4);
        let p = Product { out: out.address(), ldo: ldo as u32, ..case.product() };
        let rows_of = |values: Vec<f32>, width: usize| -> Vec<f32> {
            values.chunks(ldo).flat_map(|r| r[..width].to_vec()).collect()
        };

        case.run(gpu, p, Mode::GeluF32, rows)?;
        let want: Vec<f32> = y.iter().map(|&y| gelu(y)).collect();
        close("GELU f32", &rows_of(gpu.get(&out, rows * ldo), n), &want, rounding)?;
        case.run(gpu, p, Mode::Gelu, rows)?;
        close("GELU", &rows_of(gpu.get_bf16(&out, rows * ldo), n), &want, |i| rounding(i) + want[i].abs() / 256.0)?;

        case.run(gpu, p, Mode::SiluMul, rows)?;
        let want: Vec<f32> = y.chunks(2).map(|y| silu(y[0]) * y[1]).collect();
        let got = rows_of(gpu.get_bf16(&out, rows * ldo), n / 2);
        close("SiLU", &got, &want, |i| want[i].abs() / 250.0 + 8.0 * rounding(2 * i))?;

        let slots = gpu.poison(rows * 1000 * 4);
        let table: Vec<Row> =
            (0..rows).map(|r| Row { audio: slots.address() + (rows - 1 - r) * 4000, ..Row::default() }).collect();
        let table = gpu.put(&table);
        case.run(gpu, Product { rows: table.address(), ..p }, Mode::Audio, rows)?;
        let got = gpu.get::<f32>(&slots, rows * 1000);
        for r in 0..rows {
            close("audio", &got[(rows - 1 - r) * 1000..][..n], &y[r * n..][..n], |i| rounding(r * n + i))?;
        }
    }
    Ok(())
}

fn qkv(gpu: &Gpu) -> Result<(), String> {
    let (heads, kv_heads, head_dim, k) = (6, 2, 48, 80);
    let (q_dim, kv_dim) = (heads * head_dim, kv_heads * head_dim);
    let n = q_dim + 2 * kv_dim;
    let (ring, layer, layers) = (160, 1, 3);
    let case = Case::new(gpu, n, k, 70, 5);
    let rope = Rope::new(head_dim, 1e6);
    for rows in [1, 3, 8, 9, 31, 32, 33] {
        let (y, size) = case.twins(rows);
        let position = |r: usize| 1000 + 3 * r;
        let elements = layers as usize * 2 * ring * kv_dim;
        let kv = gpu.poison(elements * 2);
        let table: Vec<Row> = (0..rows).map(|r| Row::new(kv.address(), ring, position(r))).collect();
        let table = gpu.put(&table);
        let table_of_rope: Vec<[f32; 2]> =
            (0..rows).flat_map(|r| rope.cos_sin(position(r)).map(|(c, s)| [c, s]).collect::<Vec<_>>()).collect();
        let table_of_rope = gpu.put(&table_of_rope);
        let ldo = q_dim.next_multiple_of(32);
        let q = gpu.poison(rows * ldo * 2);
        let p = Product {
            out: q.address(),
            ldo: ldo as u32,
            rows: table.address(),
            rope: table_of_rope.address(),
            layer,
            layers,
            q_dim: q_dim as u32,
            kv_dim: kv_dim as u32,
            head_dim: head_dim as u32,
            ..case.product()
        };
        case.run(gpu, p, Mode::Qkv, rows)?;
        let (q, kv) = (gpu.get_bf16(&q, rows * ldo), gpu.get_bf16(&kv, elements));
        for r in 0..rows {
            let mut want = y[r * n..][..n].to_vec();
            for (i, pair) in want[..q_dim + kv_dim].chunks_mut(2).enumerate() {
                let (c, s) = rope.cos_sin(position(r)).nth(i % (head_dim / 2)).expect("a pair");
                (pair[0], pair[1]) = (pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s);
            }
            let slot = |value| slot_at(layers as usize, layer as usize, value, position(r) % ring) * kv_dim;
            let got: Vec<f32> = [&q[r * ldo..][..q_dim], &kv[slot(0)..][..kv_dim], &kv[slot(1)..][..kv_dim]].concat();
            close(&format!("{rows} rows, row {r}"), &got, &want, |i| {
                want[i].abs() / 250.0 + 2e-5 * (1.0 + size[r * n + i])
            })?;
        }
    }
    Ok(())
}

/// From which id on a row's runners-up may come: rows that do not ask, any id, some, and the last alone.
fn asked(row: usize, ids: usize) -> u32 {
    [Row::UNASKED, 0, ids as u32 / 2, ids as u32 - 1][row % 4]
}

type RunnersUp = [[u32; 2]; RUNNERS_UP];

/// What the kernel finds; rows that do not ask keep the poison.
fn runners_up(
    gpu: &Gpu,
    logits: &Buffer,
    predictions: &Buffer,
    ids: usize,
    rows: usize,
) -> Result<Vec<RunnersUp>, String> {
    let table: Vec<Row> = (0..rows).map(|r| Row { runners_up: asked(r, ids), ..Row::default() }).collect();
    let (table, out) = (gpu.put(&table), gpu.poison(rows * size_of::<RunnersUp>()));
    let p = RowWork {
        input: logits.address(),
        weight: predictions.address(),
        out: out.address(),
        rows: table.address(),
        dim: ids as u32,
        ..RowWork::default()
    };
    // With one row, nobody asks, and the kernel is not to be called.
    if rows > 1 {
        gpu.row_kernel(Kernels::runners_up, p, rows)?;
    }
    Ok(gpu.get(&out, rows).iter().map(|&[a, b, c, d]: &[u32; 4]| [[a, b], [c, d]]).collect())
}

/// The twin: the largest logits of those that are left, the lower id of those that tie.
fn same_runners_up(what: &str, row: &[f32], predicted: [u32; 2], from: u32, found: RunnersUp) -> Result<(), String> {
    let (best, logprob) = (predicted[0] as usize, f32::from_bits(predicted[1]));
    let mut taken = vec![best];
    for [id, bits] in found {
        if from == Row::UNASKED {
            if (id, bits) != (u32::MAX, u32::MAX) {
                return Err(format!("{what}: {id} for a row that does not ask"));
            }
            continue;
        }
        let left = (from as usize..row.len()).filter(|i| !taken.contains(i));
        let want = left.reduce(|a, b| if row[b] > row[a] { b } else { a });
        let Some(want) = want else {
            if id != u32::MAX {
                return Err(format!("{what}: runner-up {id} where no id is left"));
            }
            continue;
        };
        let (got, expected) = (f32::from_bits(bits), logprob + (row[want] - row[best]));
        if id as usize != want || (got - expected).abs() > 1e-6 * expected.abs().max(1.0) {
            return Err(format!("{what}: runner-up {id} {got}, expected {want} {expected}"));
        }
        taken.push(want);
    }
    Ok(())
}

fn head(gpu: &Gpu) -> Result<(), String> {
    for (n, k) in [(80, 48), (1002, 96), (131072, 256)] {
        let mut case = Case::new(gpu, n, k, 128, 6);
        // Two equal rows of weights, so that ties occur; no bias.
        let (low, high) = (n / 3, n - 5);
        let from = case.w[low * k..][..k].to_vec();
        case.w[high * k..][..k].copy_from_slice(&from);
        case.on_device[0] = gpu.put_bf16(&fragments(&case.w, n, k));
        let tiles = n.div_ceil(128);
        let mut alone = Vec::new();
        for rows in [1, 2, 8, 9, 31, 32, 33, 128] {
            let best = gpu.poison(rows * tiles * 16);
            let out = gpu.poison(rows * 8);
            let counts = gpu.put(&[Counts { rows: rows as u32, ..Counts::default() }]);
            let p =
                Product { bias: Address::NONE, slices: 1, out: best.address(), ldo: tiles as u32, ..case.product() };
            case.run(gpu, p, Mode::Head, rows)?;
            let reduce = RowWork {
                input: best.address(),
                out: out.address(),
                counts: counts.address(),
                dim: tiles as u32,
                ..RowWork::default()
            };
            gpu.row_kernel(Kernels::best_of_row, reduce, rows)?;
            let got = gpu.get::<[u32; 2]>(&out, rows);
            let logits = gpu.poison(rows * n * 4);
            case.run(
                gpu,
                Product { bias: Address::NONE, slices: 1, out: logits.address(), ..case.product() },
                Mode::Store,
                rows,
            )?;
            let found = runners_up(gpu, &logits, &out, n, rows)?;
            let logits = gpu.get::<f32>(&logits, rows * n);
            for (r, row) in logits.chunks(n).enumerate() {
                same_runners_up(&format!("{n} ids, row {r} of {rows}"), row, got[r], asked(r, n), found[r])?;
                let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let id = row.iter().position(|&v| v == max).expect("a maximum");
                let logprob = -row.iter().map(|&v| f64::from(v - max).exp()).sum::<f64>().ln() as f32;
                let (got_id, got_logprob) = (got[r][0], f32::from_bits(got[r][1]));
                if got_id as usize != id || (got_logprob - logprob).abs() > 1e-4 {
                    return Err(format!("{n} ids, row {r} of {rows}: {got_id} {got_logprob}, expected {id} {logprob}"));
                }
            }
            if rows == 1 {
                alone = got.clone();
            }
            if got[0] != alone[0] {
                return Err(format!("{n} ids: row 0 of {rows} is {:?}, alone {:?}", got[0], alone[0]));
            }
        }
    }
    Ok(())
}

fn add_rms_norm(gpu: &Gpu) -> Result<(), String> {
    let shapes = [(16, 1, 1), (48, 4, 0), (1280, 4, 2), (3072, 1, 2), (3072, 1, 1), (4096, 1, 0), (4096, 1, 2)];
    for (dim, group, splits) in shapes {
        let rows = 12;
        let stride = rows * dim + 16;
        let rng = &mut rng(dim as u64);
        let (x, weight, ada) = (random(rng, rows * dim, 4.0), random(rng, dim, 2.0), random(rng, 2 * dim, 2.0));
        let sums = random(rng, splits.max(1) * stride, 3.0);
        let (x_d, weight_d, ada_d, sums_d) = (gpu.put(&x), gpu.put(&weight), gpu.put(&ada), gpu.put(&sums));
        let added = |at: usize| x[at] + (0..splits).map(|split| sums[split * stride + at]).sum::<f32>();
        for conditioned in [false, true] {
            let ld = (group * dim).next_multiple_of(32);
            let out = gpu.put(&vec![0u16; rows / group * ld]);
            let table = gpu.put(&vec![Row { ada: ada_d.address(), ..Row::default() }; rows]);
            let counts = gpu.put(&[Counts { rows: rows as u32, ..Counts::default() }]);
            let sum = gpu.poison(rows * dim * 4);
            let p = RowWork {
                input: x_d.address(),
                out: out.address(),
                sums: sums_d.address(),
                x: sum.address(),
                splits: splits as u32,
                split_stride: stride as u32,
                weight: weight_d.address(),
                rows: if conditioned { table.address() } else { Address::NONE },
                counts: counts.address(),
                dim: dim as u32,
                ld: ld as u32,
                layer: 1,
                group: group as u32,
                eps: 1e-5,
                ..RowWork::default()
            };
            gpu.row_kernel(Kernels::add_rms_norm, p, rows + 3)?;
            let want: Vec<f32> = (0..rows * dim).map(added).collect();
            if splits > 0 {
                same(&format!("dim {dim}, {splits} splits added"), &gpu.get(&sum, rows * dim), &want)?;
            }
            let got = gpu.get_bf16(&out, rows / group * ld);
            for r in 0..rows {
                let row = &want[r * dim..][..dim];
                let mean = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / dim as f64;
                let scale = (1.0 / (mean + 1e-5).sqrt()) as f32;
                let g = |i: usize| if conditioned { ada[dim + i] } else { 1.0 };
                let want: Vec<f32> = (0..dim).map(|i| row[i] * scale * weight[i] * g(i)).collect();
                let at = r / group * ld + r % group * dim;
                close(&format!("dim {dim}, row {r}"), &got[at..][..dim], &want, |i| want[i].abs() / 250.0 + 1e-6)?;
            }
        }
    }
    Ok(())
}

fn positions(gpu: &Gpu) -> Result<(), String> {
    let (dim, head_dim, vocab, rows) = (80, 48, 50, 5);
    let ld = 96;
    let rng = &mut rng(9);
    let (embedding, audio) = (random(rng, vocab * dim, 1.0), random(rng, rows * dim, 1.0));
    let (embedding_d, audio_d) = (gpu.put_bf16(&fragments(&embedding, vocab, dim)), gpu.put(&audio));
    let row = |r: usize| Row {
        audio: audio_d.address() + r * dim * 4,
        position: [0, 1, 77, 8191, 131_071][r],
        id: [0, 49, 7, 8, 9][r],
        ..Row::default()
    };
    let table: Vec<Row> = (0..rows).map(row).collect();
    let (table_d, counts) = (gpu.put(&table), gpu.put(&[Counts { rows: rows as u32, ..Counts::default() }]));
    let out = gpu.poison(rows * dim * 4);
    let base = RowWork { rows: table_d.address(), counts: counts.address(), ..RowWork::default() };
    let p = Product {
        w: embedding_d.address(),
        out: out.address(),
        rows: table_d.address(),
        count: counts.address(),
        ldo: dim as u32,
        n: vocab as u32,
        k: ld as u32,
        stride: (16 * ld * 2) as u32,
        ..Product::default()
    };
    gpu.embed(p, 8)?;
    let want: Vec<f32> =
        (0..rows * dim).map(|i| embedding[table[i / dim].id as usize * dim + i % dim] + audio[i]).collect();
    same("embed", &gpu.get::<f32>(&out, rows * dim), &want)?;

    let rope = Rope::new(head_dim, 1e6);
    let (frequencies, out) = (gpu.put(rope.frequencies()), gpu.poison(rows * head_dim * 4));
    let p = RowWork { weight: frequencies.address(), out: out.address(), dim: head_dim as u32, ..base };
    gpu.row_kernel(Kernels::rope_table, p, 8)?;
    let want: Vec<f32> = table
        .iter()
        .flat_map(|row| rope.cos_sin(row.position as usize).flat_map(|(c, s)| [c, s]).collect::<Vec<_>>())
        .collect();
    close("rope_table", &gpu.get::<f32>(&out, rows * head_dim), &want, |_| 1.2e-7)
}

fn gathers(gpu: &Gpu) -> Result<(), String> {
    let (bins, dim) = (20, 48);
    let lens = [8usize, 24, 16];
    let frames: usize = lens.iter().sum();
    let rng = &mut rng(11);
    let (mel, columns) = (random(rng, frames * bins, 1.0), random(rng, frames * dim, 1.0));
    let carries: Vec<(Vec<f32>, Vec<f32>)> =
        lens.iter().map(|_| (random(rng, 2 * bins, 1.0), random(rng, dim, 1.0))).collect();
    let on_device: Vec<(Buffer, Buffer)> = carries.iter().map(|(m, c)| (gpu.put(m), gpu.put_bf16(c))).collect();
    let mut at = 0;
    let span = |(len, (mel, column)): (&usize, &(Buffer, Buffer))| {
        at += len;
        Span { mel_carry: mel.address(), column_carry: column.address(), frame: (at - len) as u32, frames: *len as u32 }
    };
    let spans: Vec<Span> = lens.iter().zip(&on_device).map(span).collect();
    let (spans_d, counts) = (gpu.put(&spans), gpu.put(&[Counts { frames: frames as u32, ..Counts::default() }]));
    let base = RowWork { spans: spans_d.address(), counts: counts.address(), ..RowWork::default() };
    let (mel_d, columns_d) = (gpu.put(&mel), gpu.put_bf16(&columns));
    let (ld0, ld1) = (64, 160);
    let (out0, out1) = (gpu.put(&vec![0u16; frames * ld0]), gpu.put(&vec![0u16; frames / 2 * ld1]));
    let p0 = RowWork { input: mel_d.address(), out: out0.address(), dim: bins as u32, ld: ld0 as u32, ..base };
    let p1 = RowWork { input: columns_d.address(), out: out1.address(), dim: dim as u32, ld: ld1 as u32, ..base };
    gpu.row_kernel(Kernels::gather_mel, p0, frames + 8)?;
    gpu.row_kernel(Kernels::gather_columns, p1, frames / 2 + 4)?;
    let (got0, got1) = (gpu.get_bf16(&out0, frames * ld0), gpu.get_bf16(&out1, frames / 2 * ld1));
    for ((span, (mel_carry, column_carry)), (mel_d, column_d)) in spans.iter().zip(&carries).zip(&on_device) {
        let (first, len) = (span.frame as usize, span.frames as usize);
        let inputs: Vec<f32> = mel_carry.iter().chain(&mel[first * bins..][..len * bins]).copied().collect();
        for m in 0..len {
            same("gather_mel", &got0[(first + m) * ld0..][..3 * bins], &inputs[m * bins..][..3 * bins])?;
        }
        same("mel carry", &gpu.get::<f32>(mel_d, 2 * bins), &inputs[len * bins..])?;
        let inputs: Vec<f32> = column_carry.iter().chain(&columns[first * dim..][..len * dim]).copied().collect();
        for s in 0..len / 2 {
            same("gather_columns", &got1[(first / 2 + s) * ld1..][..3 * dim], &inputs[2 * s * dim..][..3 * dim])?;
        }
        same("column carry", &gpu.get_bf16(column_d, dim), &inputs[len * dim..])?;
    }
    Ok(())
}
