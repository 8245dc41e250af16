//! One safetensors file: 8 bytes of header length, a JSON header, the bytes of the tensors.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::{DType, Storage, Tensor};
use crate::{JsonError, ModelError, files::broken};

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
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
}

impl Entry {
    /// A view of it, if it has this shape.
    pub(super) fn tensor(&self, shape: &[usize]) -> Result<Tensor, ModelError> {
        if self.shape != shape {
            return Err(ModelError::Shape {
                path: self.path.to_path_buf(),
                tensor: self.name.clone(),
                expected: shape.to_vec(),
                got: self.shape.clone(),
            });
        }
        Ok(Tensor::new(self.storage.clone(), self.bytes.clone(), self.dtype, self.shape.clone()))
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
    let mut entries = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let dtype = match info.dtype {
            Dtype::BF16 => DType::Bf16,
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            other => {
                return Err(ModelError::DType { path: path.to_path_buf(), tensor: name, dtype: format!("{other:?}") });
            }
        };
        let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
        let (path, storage, shape) = (path.clone(), storage.clone(), info.shape.clone());
        entries.push(Entry { name, path, storage, bytes, dtype, shape });
    }
    Ok(entries)
}
