//! Tensors as a checkpoint stores them.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::mapping::Mapping;
use crate::packed::Rows;

/// Where the bytes of tensors lie.
pub enum Storage {
    /// A file, mapped read-only.
    Mapped(Mapping),
    /// Part of the program.
    Static(&'static [u8]),
    /// Memory of our own, for what had to be rearranged; words of 8 bytes, so that it is aligned for every element type.
    Owned(Vec<u64>),
}

impl Storage {
    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(words) => bytemuck::cast_slice(words),
        }
    }
}

/// The elements of a tensor in the type they are stored in, row-major.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// bfloat16, as the released checkpoint is.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// Single precision.
    F32(&'a [f32]),
}

impl TensorData<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Bf16(d) => d.len(),
            Self::F16(d) => d.len(),
            Self::F32(d) => d.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DType {
    Bf16,
    F16,
    F32,
}

impl DType {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// As safetensors calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    /// Rounds `values` into `out`, as many bytes as they take.
    pub(crate) fn narrow(self, values: &[f32], out: &mut [u8]) {
        let pairs = out.chunks_exact_mut(self.bytes()).zip(values);
        match self {
            Self::Bf16 => pairs.for_each(|(out, &v)| out.copy_from_slice(&bf16::from_f32(v).to_le_bytes())),
            Self::F16 => pairs.for_each(|(out, &v)| out.copy_from_slice(&f16::from_f32(v).to_le_bytes())),
            Self::F32 => pairs.for_each(|(out, &v)| out.copy_from_slice(&v.to_le_bytes())),
        }
    }
}

/// One tensor of a checkpoint: a view that keeps the storage alive; cloning it copies no elements.
#[derive(Clone)]
pub struct Tensor {
    storage: Arc<Storage>,
    bytes: Range<usize>,
    dtype: DType,
    shape: Vec<usize>,
}

impl Tensor {
    /// A view of `bytes` of `storage`. Bytes that are not aligned for their type (nothing in a file promises it) are copied.
    ///
    /// `bytes` must lie inside `storage` and be as long as `shape` and `dtype` say.
    pub(crate) fn new(storage: Arc<Storage>, bytes: Range<usize>, dtype: DType, shape: Vec<usize>) -> Self {
        debug_assert_eq!(bytes.len(), shape.iter().product::<usize>() * dtype.bytes());
        let aligned = (storage.bytes()[bytes.clone()].as_ptr() as usize).is_multiple_of(dtype.bytes());
        if aligned {
            return Self { storage, bytes, dtype, shape };
        }
        Self::owned(&storage.bytes()[bytes], dtype, shape)
    }

    /// A tensor over a copy of `data`.
    pub(crate) fn owned(data: &[u8], dtype: DType, shape: Vec<usize>) -> Self {
        Self::filled(dtype, shape, |bytes| bytes.copy_from_slice(data))
    }

    /// A tensor over bytes that `fill` writes; they start as zeros.
    pub(crate) fn filled(dtype: DType, shape: Vec<usize>, fill: impl FnOnce(&mut [u8])) -> Self {
        let len = shape.iter().product::<usize>() * dtype.bytes();
        let mut words = vec![0u64; len.div_ceil(8)];
        fill(&mut bytemuck::cast_slice_mut(&mut words)[..len]);
        Self { storage: Arc::new(Storage::Owned(words)), bytes: 0..len, dtype, shape }
    }

    /// A tensor without elements, where only the list of tensors matters.
    pub(crate) fn none() -> Self {
        Self::owned(&[], DType::Bf16, vec![0])
    }

    /// A tensor over values of our own, for tests and for generated models.
    pub fn from_f32(values: &[f32], shape: &[usize]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values do not fill the shape");
        Self::owned(bytemuck::cast_slice(values), DType::F32, shape.to_vec())
    }

    /// Like [`Tensor::from_f32`], rounded to bfloat16.
    pub fn from_f32_as_bf16(values: &[f32], shape: &[usize]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values do not fill the shape");
        let rounded: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
        Self::owned(bytemuck::cast_slice(&rounded), DType::Bf16, shape.to_vec())
    }

    /// Outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, as stored.
    pub fn data(&self) -> TensorData<'_> {
        let bytes = self.as_bytes();
        match self.dtype {
            DType::Bf16 => TensorData::Bf16(bytemuck::cast_slice(bytes)),
            DType::F16 => TensorData::F16(bytemuck::cast_slice(bytes)),
            DType::F32 => TensorData::F32(bytemuck::cast_slice(bytes)),
        }
    }

    /// The elements' bytes, little-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.bytes.clone()]
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Their type: "bf16", "f16" or "f32".
    pub fn type_name(&self) -> &'static str {
        match self.dtype {
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::F32 => "f32",
        }
    }

    /// Elements `start..` in single precision.
    pub(crate) fn read(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self.data() {
            TensorData::Bf16(d) => out.iter_mut().zip(&d[range]).for_each(|(out, v)| *out = v.to_f32()),
            TensorData::F16(d) => out.iter_mut().zip(&d[range]).for_each(|(out, v)| *out = v.to_f32()),
            TensorData::F32(d) => out.copy_from_slice(&d[range]),
        }
    }

    /// A copy of the elements in single precision; meant for small tensors (norms, biases).
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.data().len()];
        self.read(0, &mut values);
        values
    }
}

impl Rows for Tensor {
    fn read(&self, start: usize, out: &mut [f32]) {
        self.read(start, out);
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({:?} {:?})", self.dtype, self.shape)
    }
}
