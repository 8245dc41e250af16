//! One safetensors file: 8 bytes of header length, a JSON header, the bytes of the tensors.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{DType, Storage, Tensor};
use crate::error::brief;
use crate::packed::{Described, Description, Packed, Stored, VERSION};
use crate::{JsonError, ModelError, Weight, files::broken};

const LENGTH_BYTES: usize = 8;
/// The released header has 92 kB. A limit keeps a file that is something else from being parsed by the gigabyte.
const MOST_HEADER_BYTES: u64 = 4 << 20;

/// A tensor in a file. Its bytes are inside the file and as many as its shape and type ask for.
pub(super) struct Entry {
    /// As the file names it.
    pub(super) name: String,
    pub(super) path: Arc<Path>,
    pub(super) storage: Arc<Storage>,
    pub(super) bytes: Range<usize>,
    pub(super) stored: Stored,
    /// Of the tensor; packed, its bytes in the file have another.
    pub(super) shape: Vec<usize>,
}

impl Entry {
    /// A view of it, if it has this shape and is not packed.
    pub(super) fn tensor(&self, shape: &[usize]) -> Result<Tensor, ModelError> {
        match self.weight(shape)? {
            Weight::Dense(tensor) => Ok(tensor),
            Weight::Packed(_) => Err(self.damaged("only the matrices of products can be packed, and this is none")),
        }
    }

    /// A view of it, if it has this shape.
    pub(super) fn weight(&self, shape: &[usize]) -> Result<Weight, ModelError> {
        if self.shape != shape {
            return Err(ModelError::Shape {
                path: self.path.to_path_buf(),
                tensor: self.name.clone(),
                expected: shape.to_vec(),
                got: self.shape.clone(),
            });
        }
        let (storage, bytes, shape) = (self.storage.clone(), self.bytes.clone(), self.shape.clone());
        match self.stored {
            Stored::Dense(dtype) => Ok(Weight::Dense(Tensor::new(storage, bytes, dtype, shape))),
            Stored::Packed(encoding) => {
                let packed = Packed::new(storage, bytes, encoding, shape).map_err(|what| self.damaged(what))?;
                Ok(Weight::Packed(packed))
            }
        }
    }

    fn damaged(&self, what: &'static str) -> ModelError {
        ModelError::Packed { path: self.path.to_path_buf(), tensor: self.name.clone(), what }
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.storage.bytes()[self.bytes.clone()]
    }
}

/// All tensors of a file, by name.
pub(super) fn entries(path: &Arc<Path>, storage: &Arc<Storage>) -> Result<Vec<Entry>, ModelError> {
    let file = storage.bytes();
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(broken(path, format!("{} bytes are too few for a safetensors file", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MOST_HEADER_BYTES {
        return Err(broken(path, format!("not a safetensors file: its header would have {length} bytes")));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(broken(path, format!("cut short: the header has {length} bytes, {} are there", rest.len())));
    };
    // Parsing also checks that the tensors lie side by side without gaps and are as long as their shapes say.
    let header: Metadata = serde_json::from_slice(header)
        .map_err(|e| broken(path, format!("not a safetensors header: {}", JsonError(e))))?;
    if header.data_len() > data.len() {
        let what = format!("cut short: the tensors have {} bytes, {} are there", header.data_len(), data.len());
        return Err(broken(path, what));
    }
    if header.data_len() < data.len() {
        let what = format!("the tensors have {} bytes, but {} follow the header", header.data_len(), data.len());
        return Err(broken(path, what));
    }

    let start = file.len() - data.len();
    let mut packed = match header.metadata().as_ref().and_then(|all| all.get(Description::KEY)) {
        Some(description) => described(path, description)?,
        None => HashMap::new(),
    };
    let mut entries = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let (stored, shape) = match packed.remove(&name) {
            Some(described) => packed_as(path, &name, info, described)?,
            None => (Stored::Dense(dense(path, &name, info.dtype)?), info.shape.clone()),
        };
        let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
        entries.push(Entry { name, path: path.clone(), storage: storage.clone(), bytes, stored, shape });
    }
    match packed.into_keys().min() {
        Some(name) => Err(broken(path, format!("it describes {}, which is not there", brief(name)))),
        None => Ok(entries),
    }
}

fn dense(path: &Path, name: &str, dtype: Dtype) -> Result<DType, ModelError> {
    match dtype {
        Dtype::BF16 => Ok(DType::Bf16),
        Dtype::F16 => Ok(DType::F16),
        Dtype::F32 => Ok(DType::F32),
        other => Err(ModelError::DType { path: path.to_owned(), tensor: name.to_owned(), dtype: format!("{other:?}") }),
    }
}

/// The packed tensors that a file says it has.
fn described(path: &Path, description: &str) -> Result<HashMap<String, Described>, ModelError> {
    let description: Description = serde_json::from_str(description)
        .map_err(|e| broken(path, format!("not a description of packed weights: {}", JsonError(e))))?;
    if description.version != VERSION {
        return Err(ModelError::PackedVersion { path: path.to_owned(), version: description.version, known: VERSION });
    }
    Ok(description.tensors)
}

fn packed_as(
    path: &Path,
    name: &str,
    info: &TensorInfo,
    described: Described,
) -> Result<(Stored, Vec<usize>), ModelError> {
    let damaged = |what| ModelError::Packed { path: path.to_owned(), tensor: name.to_owned(), what };
    let encoding = described.encoding().ok_or_else(|| damaged("this program does not know how they are stored"))?;
    if info.dtype != Dtype::U8 || info.shape.len() != 1 {
        return Err(damaged("they are not a row of bytes (U8)"));
    }
    Ok((Stored::Packed(encoding), described.shape))
}
