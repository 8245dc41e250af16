//! Reading and mapping the files of a model.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use crate::{ModelError, Storage};

/// Largest JSON file of a model that is read; the released `tekken.json` has 15 MB.
const MOST_JSON_BYTES: u64 = 256 << 20;

/// A small file, whole.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    let bytes = size(path)?;
    if bytes > MOST_JSON_BYTES {
        return Err(broken(path, format!("{bytes} bytes are more than such a file can have")));
    }
    let content = fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    refuse_pointer(path, &content)?;
    Ok(content)
}

/// A large file, mapped. It must not be changed or cut while the mapping is in use: replace it by renaming another over it.
#[allow(unsafe_code)]
pub(crate) fn map(path: &Path) -> Result<Arc<Storage>, ModelError> {
    let failed = |source| ModelError::Io { path: path.to_owned(), source };
    if size(path)? == 0 {
        return Err(broken(path, "the file is empty"));
    }
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only and any bytes are valid u8. That the file stays as it is while it is used is the promise that
    // `Model::open` asks of its caller.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(failed)?;
    refuse_pointer(path, &map)?;
    Ok(Arc::new(Storage::Mapped(map)))
}

pub(crate) fn broken(path: &Path, what: impl Into<String>) -> ModelError {
    ModelError::File { path: path.to_owned(), what: what.into() }
}

/// Size of a plain file. Anything else is refused before it is opened: a pipe would wait for its writer.
fn size(path: &Path) -> Result<u64, ModelError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
        Ok(_) => Err(broken(path, "not a file")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(ModelError::Missing { path: path.to_owned() }),
        Err(source) => Err(ModelError::Io { path: path.to_owned(), source }),
    }
}

/// A clone of a model repository without Git LFS has these few lines in place of every large file.
fn refuse_pointer(path: &Path, content: &[u8]) -> Result<(), ModelError> {
    if content.starts_with(b"version https://git-lfs") {
        return Err(broken(path, "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"));
    }
    Ok(())
}
