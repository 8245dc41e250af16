//! The figures: products of the real sizes against a copy measured in the same run, norms, attention, then the passes of the whole model
//! with random weights.

use std::time::Instant;

use voxtral_cuda::CudaBackend;
use voxtral_cuda::cut::{slices, splits};
use voxtral_cuda::driver::Event;
use voxtral_cuda::kernels::{Kernels, Mode, Product, RowWork};
use voxtral_cuda::packed::Joined;
use voxtral_cuda::table::{Counts, Row, Table};
use voxtral_model::{
    Backend, DecodeSpan, EncodeSpan, Encoding, Group, LANES, Model, ModelConfig, Packed, Plan, Tensor, Weight,
};

use crate::gpu::{Gpu, random, rng};
use crate::model::{backend, open};
use crate::twins_attention::{Call, Shape};

/// The figures whose names hold `filter`; how many that are.
pub fn run(gpu: &Gpu, filter: &str) -> usize {
    let all: [(_, fn(&Gpu)); 6] = [
        ("products", products),
        ("encodings", packed_products),
        ("norms", norms),
        ("attention", attention),
        ("passes", passes),
        ("packed", packed),
    ];
    let asked = all.iter().filter(|(name, _)| name.contains(filter));
    asked.inspect(|(_, measure)| measure(gpu)).count()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Microseconds of one of `repeats` runs in a recorded graph, the median of `rounds` replays.
fn time(gpu: &Gpu, repeats: usize, rounds: usize, work: impl Fn(usize)) -> f64 {
    let record = || -> Result<(), voxtral_cuda::driver::DriverError> {
        (0..repeats).for_each(&work);
        Ok(())
    };
    let mut graph = gpu.stream.record(record).expect("a graph");
    let [begin, end] = [(); 2].map(|()| Event::new(&gpu.device).expect("an event"));
    let mut times = Vec::new();
    for _ in 0..rounds + 2 {
        begin.record(&gpu.stream).expect("recorded");
        gpu.replay(&mut graph).expect("launched");
        end.record(&gpu.stream).expect("recorded");
        end.wait().expect("done");
        times.push(f64::from(end.since(&begin).expect("timed")) * 1e3 / repeats as f64);
    }
    median(times.split_off(2))
}

fn products(gpu: &Gpu) {
    let rate = CudaBackend::copy_rate(0).expect("a copy");
    println!("copy: {:.2} TB/s, read and written", rate / 1e12);

    let shapes = [
        ("decoder qkv", 6144, 3072),
        ("decoder out", 3072, 4096),
        ("decoder gate, up", 18432, 3072),
        ("decoder down", 3072, 9216),
        ("head", 131072, 3072),
        ("encoder qkv", 6144, 1280),
        ("encoder out", 1280, 2048),
        ("encoder gate, up", 10240, 1280),
        ("encoder down", 1280, 5120),
    ];
    println!(
        "{:18} us at rows 1, 8, 32, 64, 128, 256, 512, 1024 (TB/s of weights at 1 and 32; TFLOP/s at 256 and 1024)",
        ""
    );
    for (name, n, k) in shapes {
        // More than the second-level cache holds, so that weights come from memory.
        let copies = (400 << 20) / (n * k * 2) + 1;
        let block = random(&mut rng(1), 1 << 16, 0.05);
        let w = gpu.put_bf16(&block.iter().copied().cycle().take(copies * n * k).collect::<Vec<_>>());
        let x = gpu.put_bf16(&random(&mut rng(2), 1024 * k, 1.0));
        let splits = if n < k { splits(n, k) } else { 1 };
        let out = gpu.poison(splits * 1024 * n * 4);
        let mut row = String::new();
        let mut times = Vec::new();
        for rows in [1usize, 8, 32, 64, 128, 256, 512, 1024] {
            let count = gpu.put(&[rows as u32]);
            let us = time(gpu, 3 * copies, 5, |i| {
                let p = Product {
                    w: w.address() + i % copies * n * k * 2,
                    x: x.address(),
                    out: out.address(),
                    count: count.address(),
                    n: n as u32,
                    k: k as u32,
                    stride: (16 * k * 2) as u32,
                    splits: splits as u32,
                    split_stride: (1024 * n) as u32,
                    slices: slices(n, k, splits) as u32,
                    mode: if splits > 1 { Mode::Store } else { Mode::SiluMul } as u32,
                    ldo: n as u32,
                    ..Product::default()
                };
                gpu.product(p, rows).expect("launched");
            });
            row += &format!("{us:8.1}");
            times.push(us);
        }
        let rate = |us: f64| (2 * n * k) as f64 / us / 1e6;
        let flops = |rows: usize, us: f64| (2 * n * k * rows) as f64 / us / 1e6;
        let (few, many) = (flops(256, times[5]), flops(1024, times[7]));
        println!("{name:18}{row}   ({:.2}, {:.2}; {few:.0}, {many:.0})", rate(times[0]), rate(times[2]));
    }
}

/// The decoder's products with every encoding of the weights.
fn packed_products(gpu: &Gpu) {
    let shapes = [
        ("qkv", 6144, 3072),
        ("out", 3072, 4096),
        ("gate, up", 18432, 3072),
        ("down", 3072, 9216),
        ("head", 131072, 3072),
    ];
    let encodings = [Encoding::Bf16, Encoding::Bf12, Encoding::Int8(Group::Of32), Encoding::Int4(Group::Of32)];
    println!("{:18} us at rows 1, 8, 32 (TB/s of weights)", "");
    for (name, n, k) in shapes {
        for encoding in encodings {
            // A panel of random weights again and again, more than the second-level cache holds.
            let tensor = Tensor::from_f32_as_bf16(&random(&mut rng(1), LANES * k, 0.05), &[LANES, k]);
            let weight = Weight::Packed(Packed::of(&tensor, encoding).expect("it can be packed"));
            let joined = Joined::new(&[&weight], false).expect("it can be taken as it is");
            let mut panel = vec![0u8; joined.panel_bytes()];
            joined.panel(0, &mut panel);
            let bytes = n / LANES * panel.len();
            let copies = (400 << 20) / bytes + 1;
            let w = gpu.put(&panel.repeat(n / LANES * copies));
            let x = gpu.put_bf16(&random(&mut rng(2), 32 * k, 1.0));
            let splits = if n < k { splits(n, k) } else { 1 };
            let mode = if splits > 1 { Mode::Store } else { Mode::SiluMul } as u32;
            let slices = if name == "head" { 1 } else { slices(n, k, splits) as u32 };
            let out = gpu.poison(splits * 32 * n * 4);
            let mut row = String::new();
            for rows in [1usize, 8, 32] {
                let count = gpu.put(&[rows as u32]);
                let us = time(gpu, 3 * copies, 5, |i| {
                    let p = Product {
                        w: w.address() + i % copies * bytes,
                        x: x.address(),
                        out: out.address(),
                        count: count.address(),
                        n: n as u32,
                        k: k as u32,
                        encoding: joined.format() as u32,
                        stride: joined.panel_bytes() as u32,
                        head: joined.head_bytes() as u32,
                        parameter: joined.parameter(),
                        splits: splits as u32,
                        split_stride: (32 * n) as u32,
                        slices,
                        mode,
                        ldo: n as u32,
                        ..Product::default()
                    };
                    gpu.product(p, rows).expect("launched");
                });
                row += &format!("{us:8.1} ({:.2})", bytes as f64 / us / 1e6);
            }
            println!("{name:10}{:8}{row}", encoding.name());
        }
    }
}

fn norms(gpu: &Gpu) {
    for (name, dim, rows) in
        [("add_rms_norm 3072", 3072, 1), ("add_rms_norm 3072", 3072, 32), ("add_rms_norm 1280", 1280, 256)]
    {
        let x = gpu.put(&random(&mut rng(1), rows * dim, 1.0));
        let (out, sums) = (gpu.poison(rows * dim * 2), gpu.put(&random(&mut rng(2), 2 * rows * dim, 1.0)));
        let split_stride = (rows * dim) as u32;
        let counts = gpu.put(&[Counts { rows: rows as u32, ..Counts::default() }]);
        let (dim, ld) = (dim as u32, dim as u32);
        let (input, weight, counts) = (x.address(), x.address(), counts.address());
        let added = RowWork { sums: sums.address(), x: input, splits: 2, split_stride, ..RowWork::default() };
        let p = RowWork { input, out: out.address(), weight, counts, dim, ld, group: 1, ..added };
        let us = time(gpu, 100, 5, |_| gpu.row_kernel(Kernels::add_rms_norm, p, rows).expect("launched"));
        println!("{name}, {rows} rows: {us:.2} us");
    }
}

fn attention(gpu: &Gpu) {
    let decoder = Shape { group: 4, kv_heads: 8, head_dim: 128, window: 8192 };
    let encoder = Shape { group: 1, kv_heads: 32, head_dim: 64, window: 750 };
    // As many layers as the model has, so that the blocks of a ring lie as far apart as they will.
    let (decoder, encoder) = ((decoder, 26), (encoder, 32));
    let cases: [(_, usize, usize); 12] = [
        (decoder, 128, 1),
        (decoder, 2304, 1),
        (decoder, 8192, 1),
        (decoder, 2304, 8),
        (decoder, 2304, 16),
        (decoder, 2304, 32),
        (decoder, 8192, 32),
        (decoder, 2304, 64),
        (decoder, 2304, 128),
        (encoder, 2000, 4),
        (encoder, 2000, 256),
        (encoder, 2000, 1024),
    ];
    for ((shape, layers), context, rows) in cases {
        let Shape { group, kv_heads, head_dim, .. } = shape;
        let ring = (context + rows).next_multiple_of(32);
        let kv = gpu.zeros(layers * 2 * ring * shape.kv_dim() * 2);
        let row = |p: usize| Row::new(kv.address(), ring, p);
        let (cut, mut table) = (shape.cut(rows), Table::default());
        table.push((context..context + rows).map(row), cut);
        let call =
            Call::new(gpu, shape, cut, &table, &random(&mut rng(2), rows * shape.q_dim(), 1.0), (layers / 2, layers));
        let us = time(gpu, 20, 5, |_| gpu.attention(call.parameters, cut).expect("launched"));
        println!("attention {kv_heads} x {group} heads of {head_dim}, {rows} rows at {context}: {us:.1} us");
    }
}

fn passes(_: &Gpu) {
    let config = ModelConfig::released();
    let begun = Instant::now();
    let model = Model::synthetic(&config, 1).expect("the released dimensions");
    println!("random weights made in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let mut backend = backend(&model);
    println!("load: {:.2} s for {:.2} GB", begun.elapsed().as_secs_f64(), backend.info().device_bytes as f64 / 1e9);
    let live = open(&mut backend, 4, 0).expect("memory");
    let fixed = backend.info().device_bytes;
    for (what, tokens) in
        [("31 tokens", 31), ("10 s", 156), ("a minute", 781), ("5 minutes", 3781), ("an hour", 45_031)]
    {
        let begun = Instant::now();
        backend.grow(live, tokens).expect("memory");
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        let taken = (backend.info().device_bytes - fixed) as f64 / 1e6;
        println!("device memory of a live stream after {what}: {taken:.0} MB, grown in {ms:.2} ms");
    }
    backend.close(live);

    // 180 s and its padding: what a file is.
    let tokens = 2304;
    let len = config.frames_per_token() * config.audio.mel_bins;
    let most = backend.info().encode_tokens;
    let mel = random(&mut rng(3), most * len, 1.0);
    for call in [64, 128, most] {
        let mut encode_s = Vec::new();
        for _ in 0..4 {
            let stream = open(&mut backend, call, tokens).expect("memory");
            let begun = Instant::now();
            for _ in 0..tokens / call {
                backend.encode(&[EncodeSpan { stream, mel: &mel[..call * len] }]).expect("encoded");
            }
            encode_s.push(begun.elapsed().as_secs_f64());
            backend.close(stream);
        }
        println!("encoder and adapter, {tokens} tokens in calls of {call}: {:.4} s", median(encode_s));
    }
    let mel = &mel[..64 * len];

    let stream = open(&mut backend, 64, 4 * tokens).expect("memory");
    let (mut position, mut encoded) = (0, 0);
    let mut out = Vec::new();
    let mut fill = |backend: &mut voxtral_cuda::CudaBackend, position: &mut usize, to: usize| {
        while *position < to {
            while encoded < *position + 128 {
                backend.encode(&[EncodeSpan { stream, mel }]).expect("encoded");
                encoded += 64;
            }
            backend
                .decode(&[DecodeSpan { stream, position: *position, ids: &[32; 128], runners_up: None }], &mut out)
                .expect("decoded");
            *position += 128;
        }
    };
    println!("ms of a decode pass, rows 1, 2, 4, 8, 16, 32, 39, 64, 128 (median of 30; p99 of 300 single rows)");
    for context in [128, 2304, 8192] {
        fill(&mut backend, &mut position, context + 128);
        let first = position - 128;
        let pass = |backend: &mut voxtral_cuda::CudaBackend, rows: usize, count: usize| -> Vec<f64> {
            let mut out = Vec::new();
            let once = |_| {
                let begun = Instant::now();
                backend
                    .decode(
                        &[DecodeSpan { stream, position: first, ids: &[32; 128][..rows], runners_up: None }],
                        &mut out,
                    )
                    .expect("decoded");
                begun.elapsed().as_secs_f64() * 1e3
            };
            (0..count + 3).map(once).skip(3).collect()
        };
        let mut row = String::new();
        for rows in [1, 2, 4, 8, 16, 32, 39, 64, 128] {
            row += &format!("{:8.3}", median(pass(&mut backend, rows, 30)));
        }
        let mut singles = pass(&mut backend, 1, 300);
        singles.sort_by(f64::total_cmp);
        println!("context {context:5}:{row}   (p99 {:.3})", singles[297]);
        // What was decoded again must be decoded on before the next context.
        position = first;
    }

    let stream = open(&mut backend, 4, 0).expect("memory");
    let mut live = Vec::new();
    let mut out = Vec::new();
    for position in 0..800 {
        let begun = Instant::now();
        backend.grow(stream, position + 1).expect("memory");
        backend.encode(&[EncodeSpan { stream, mel: &mel[..len] }]).expect("encoded");
        let encoded = begun.elapsed().as_secs_f64() * 1e3;
        backend.decode(&[DecodeSpan { stream, position, ids: &[32], runners_up: None }], &mut out).expect("decoded");
        live.push((begun.elapsed().as_secs_f64() * 1e3, encoded));
    }
    live.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (p50, p99) = (live[live.len() / 2], live[live.len() * 99 / 100]);
    println!(
        "live step, growth, encode and decode: p50 {:.3} ms ({:.3} of it growth and encode), p99 {:.3} ms",
        p50.0, p50.1, p99.0
    );
}

/// Passes with every encoding of the weights, one after the other.
fn packed(_: &Gpu) {
    let config = ModelConfig::released();
    let dense = Model::synthetic(&config, 1).expect("the released dimensions");
    let len = config.frames_per_token() * config.audio.mel_bins;
    println!("ms of a decode pass at 128 and at 2304 positions, rows 1, 8, 16, 32, 64, 128 (median of 30)");
    let packed = [Encoding::Bf12, Encoding::Int8(Group::Of32), Encoding::Int4(Group::Of32)];
    for encoding in [None].into_iter().chain(packed.map(Some)) {
        let name = encoding.map_or("bf16", Encoding::name);
        let begun = Instant::now();
        let model = encoding.map_or_else(|| dense.clone(), |encoding| dense.packed(&Plan::all(encoding)));
        let packed_s = begun.elapsed().as_secs_f64();
        let needs = CudaBackend::needs(&model, usize::MAX).expect("planned");
        let begun = Instant::now();
        let mut backend = backend(&model);
        let (load_s, gb) = (begun.elapsed().as_secs_f64(), backend.info().device_bytes as f64 / 1e9);
        println!(
            "{name}: packed in {packed_s:.1} s, loaded in {load_s:.2} s, {gb:.2} GB, {:.2} GB with a full window",
            needs as f64 / 1e9
        );
        let mel = random(&mut rng(3), 256 * len, 1.0);
        let mut encode_s = Vec::new();
        for _ in 0..3 {
            let stream = open(&mut backend, 256, 2304).expect("memory");
            let begun = Instant::now();
            for _ in 0..9 {
                backend.encode(&[EncodeSpan { stream, mel: &mel }]).expect("encoded");
            }
            encode_s.push(begun.elapsed().as_secs_f64());
            backend.close(stream);
        }
        println!("{name}: encoder and adapter, 2304 tokens in calls of 256: {:.4} s", median(encode_s));
        let stream = open(&mut backend, 256, 2560).expect("memory");
        let (mut position, mut encoded, mut out) = (0, 0, Vec::new());
        for context in [128, 2304] {
            while position < context + 128 {
                while encoded < position + 128 {
                    backend.encode(&[EncodeSpan { stream, mel: &mel }]).expect("encoded");
                    encoded += 256;
                }
                let span = DecodeSpan { stream, position, ids: &[32; 128], runners_up: None };
                backend.decode(&[span], &mut out).expect("decoded");
                position += 128;
            }
            position -= 128;
            let mut row = String::new();
            for rows in [1, 8, 16, 32, 64, 128] {
                let times = (0..33).map(|_| {
                    let begun = Instant::now();
                    let span = DecodeSpan { stream, position, ids: &[32; 128][..rows], runners_up: None };
                    backend.decode(&[span], &mut out).expect("decoded");
                    begun.elapsed().as_secs_f64() * 1e3
                });
                row += &format!("{:8.3}", median(times.skip(3).collect()));
            }
            println!("{name}, context {context:5}:{row}");
        }
    }
}
