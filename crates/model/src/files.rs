//! Reading and mapping the files of a model.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::mapping::Mapping;
use crate::{ModelError, Storage};

/// The largest `params.json` and `config.json` that are read; the released ones have 2 kB. Parsed, JSON takes many times its size.
pub(crate) const MOST_CONFIG_BYTES: u64 = 1 << 20;
/// The largest index of shards; that of the released size has 60 kB.
pub(crate) const MOST_INDEX_BYTES: u64 = 4 << 20;
/// The largest `tekken.json`; the released one has 15 MB. It is parsed in place.
pub(crate) const MOST_TEKKEN_BYTES: u64 = 64 << 20;

/// A small file, whole, if it has at most so many bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, ModelError> {
    let failed = |source| ModelError::Io { path: path.to_owned(), source };
    let too_large = |bytes| ModelError::TooLarge { path: path.to_owned(), bytes, most };
    let bytes = size(path)?;
    if bytes > most {
        return Err(too_large(bytes));
    }
    let mut content = Vec::with_capacity(bytes as usize);
    // It may have grown since.
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut content)).map_err(failed)?;
    if content.len() as u64 > most {
        return Err(too_large(content.len() as u64));
    }
    refuse_pointer(path, &content)?;
    Ok(content)
}

/// A large file, mapped.
pub(crate) fn map(path: &Path) -> Result<Arc<Storage>, ModelError> {
    let failed = |source| ModelError::Io { path: path.to_owned(), source };
    if size(path)? == 0 {
        return Err(broken(path, "the file is empty"));
    }
    let map = File::open(path).and_then(|file| Mapping::new(&file, path)).map_err(failed)?;
    refuse_pointer(path, &map)?;
    Ok(Arc::new(Storage::Mapped(map)))
}

/// What is at `path`, links followed, if anything. That this cannot be told is an error, and not that there is nothing.
pub(crate) fn look(path: &Path) -> Result<Option<Metadata>, ModelError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Io { path: path.to_owned(), source }),
    }
}

/// The name of a file, without its folder.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// SHA-256, as `sha256sum` writes it.
pub(crate) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn broken(path: &Path, what: impl Into<String>) -> ModelError {
    ModelError::File { path: path.to_owned(), what: what.into() }
}

/// Size of a plain file. Anything else is refused before it is opened: a pipe would wait for its writer.
fn size(path: &Path) -> Result<u64, ModelError> {
    match look(path)? {
        Some(found) if found.is_file() => Ok(found.len()),
        Some(_) => Err(broken(path, "not a file")),
        None => Err(ModelError::Missing { path: path.to_owned() }),
    }
}

/// A clone of a model repository without Git LFS has these few lines in place of every large file.
fn refuse_pointer(path: &Path, content: &[u8]) -> Result<(), ModelError> {
    if content.starts_with(b"version https://git-lfs") {
        return Err(broken(path, "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"));
    }
    Ok(())
}
