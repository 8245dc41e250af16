//! A GPU in a test's hands, random numbers, and comparisons.

use std::sync::Arc;

use bytemuck::Pod;
use half::bf16;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use voxtral_cuda::cut::Cut;
use voxtral_cuda::driver::{Buffer, Device, Download, DriverError, Graph, Stream, Upload};
use voxtral_cuda::images::{Image, choose};
use voxtral_cuda::kernels::{Attention, Kernels, Product, RowWork};

pub struct Gpu {
    kernels: Kernels,
    pub stream: Stream,
    pub device: Arc<Device>,
    pub image: Image,
}

/// Whether this run is to check the kernels that the driver compiles.
pub fn force_ptx() -> bool {
    std::env::var_os("VOXTRAL_FORCE_PTX").is_some()
}

impl Gpu {
    pub fn open() -> Self {
        let device = Device::open(0).expect("probed");
        let stream = Stream::new(&device).expect("a stream");
        let image = choose(device.capability, force_ptx()).expect("probed");
        let kernels = Kernels::load(&device, image, true).expect("kernels");
        Self { kernels, stream, device, image }
    }

    pub fn put<T: Pod>(&self, values: &[T]) -> Buffer {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = Buffer::new(&self.device, bytes.len()).expect("memory");
        let mut upload = Upload::new(&self.device, bytes.len()).expect("pinned memory");
        upload.fill().expect("ready")[..bytes.len()].copy_from_slice(bytes);
        upload.send(&self.stream, buffer.all()).expect("a copy");
        self.stream.wait().expect("a copy");
        buffer
    }

    pub fn put_bf16(&self, values: &[f32]) -> Buffer {
        self.put(&values.iter().map(|&v| bf16::from_f32(v).to_bits()).collect::<Vec<u16>>())
    }

    /// Memory that shows what nobody wrote: NaN in every type.
    pub fn poison(&self, bytes: usize) -> Buffer {
        self.put(&vec![0xffu8; bytes])
    }

    pub fn zeros(&self, bytes: usize) -> Buffer {
        let buffer = Buffer::new(&self.device, bytes).expect("memory");
        self.stream.zero(buffer.all()).expect("zeros");
        buffer
    }

    pub fn get<T: Pod>(&self, from: &Buffer, len: usize) -> Vec<T> {
        let bytes = len * size_of::<T>();
        let mut download = Download::new(&self.device, bytes).expect("pinned memory");
        bytemuck::cast_slice(download.fetch(&self.stream, from.region(0, bytes)).expect("results")).to_vec()
    }

    /// Free device memory, bytes.
    pub fn free(&self) -> Result<u64, String> {
        self.device.memory().map(|(free, _)| free).map_err(|e| e.to_string())
    }

    pub fn get_bf16(&self, from: &Buffer, len: usize) -> Vec<f32> {
        self.get::<u16>(from, len).into_iter().map(|b| bf16::from_bits(b).to_f32()).collect()
    }
}

type Launched = Result<(), String>;

fn words(launched: Result<(), DriverError>) -> Launched {
    launched.map_err(|e| e.to_string())
}

/// A launch of one row kernel.
pub type RowKernel = unsafe fn(&Kernels, &Stream, RowWork, usize) -> Result<(), DriverError>;

/// Launches. Whoever writes a check makes buffers as large as the kernel's contract says, and keeps them until the results are there.
impl Gpu {
    pub fn product(&self, p: Product, max_rows: usize) -> Launched {
        // SAFETY: a check sees to it, as above.
        words(unsafe { self.kernels.product(&self.stream, p, max_rows) })
    }

    pub fn embed(&self, p: Product, max_rows: usize) -> Launched {
        // SAFETY: a check sees to it, as above.
        words(unsafe { self.kernels.embed(&self.stream, p, max_rows) })
    }

    pub fn attention(&self, p: Attention, cut: Cut) -> Launched {
        // SAFETY: a check sees to it, as above.
        words(unsafe { self.kernels.attention(&self.stream, p, cut) })
    }

    pub fn row_kernel(&self, kernel: RowKernel, p: RowWork, max_rows: usize) -> Launched {
        // SAFETY: a check sees to it, as above.
        words(unsafe { kernel(&self.kernels, &self.stream, p, max_rows) })
    }

    pub fn replay(&self, graph: &mut Graph) -> Launched {
        // SAFETY: a check sees to it, as above.
        words(unsafe { self.stream.replay(graph) })
    }
}

pub fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

/// Values from -scale to scale that bf16 holds exactly, so that twin and kernel start from the same numbers.
pub fn random(rng: &mut SmallRng, len: usize, scale: f32) -> Vec<f32> {
    (0..len).map(|_| bf16::from_f32(rng.random_range(-scale..scale)).to_f32()).collect()
}

/// `[rows, width]` with rows padded by zeros to `ld`.
pub fn pad(values: &[f32], width: usize, ld: usize) -> Vec<f32> {
    let padded = |row: &[f32]| row.iter().copied().chain(std::iter::repeat_n(0.0, ld - width)).collect::<Vec<_>>();
    values.chunks(width).flat_map(padded).collect()
}

/// A weight `[n, k]` in the fragments that products read, padded.
pub fn fragments(w: &[f32], n: usize, k: usize) -> Vec<f32> {
    let ld = k.next_multiple_of(32);
    let mut out = vec![0.0; n.next_multiple_of(128) * ld];
    for (i, &v) in w.iter().enumerate() {
        let (row, k) = (i / k, i % k);
        let in_lane = (row % 8 * 4 + k % 32 / 8) * 8 + k % 4 / 2 * 4 + row % 16 / 8 * 2 + k % 2;
        out[row / 16 * 16 * ld + k / 32 * 512 + k % 8 / 4 * 256 + in_lane] = v;
    }
    out
}

/// Where in a ring a key (`value` 0) or a value (1) of a layer lies, in keys: blocks of 32 slots, each `[layers][key, value][32]`.
pub fn slot_at(layers: usize, layer: usize, value: usize, slot: usize) -> usize {
    (slot / 32 * 2 * layers + 2 * layer + value) * 32 + slot % 32
}

pub fn close(what: &str, got: &[f32], want: &[f32], tolerance: impl Fn(usize) -> f32) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} values, {} expected", got.len(), want.len()));
    }
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let off = (g - w).abs();
        if off.is_nan() || off > tolerance(i) {
            return Err(format!("{what}: value {i} is {g}, expected {w} within {}", tolerance(i)));
        }
    }
    Ok(())
}

pub fn same(what: &str, got: &[f32], want: &[f32]) -> Result<(), String> {
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    match got.iter().zip(want).position(differs) {
        None if got.len() == want.len() => Ok(()),
        None => Err(format!("{what}: {} values, {} expected", got.len(), want.len())),
        Some(i) => Err(format!("{what}: value {i} is {:?}, was {:?}", got[i], want[i])),
    }
}
