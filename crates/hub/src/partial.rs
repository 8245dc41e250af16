//! A file that is still coming, in chunks that come at the same time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The least and the most that one request asks for. Few requests, since the Hub counts them; and many enough that a file of some
/// megabytes comes over several connections, too.
const CHUNK: Range<u64> = 1 << 20..64 << 20;
/// A file is cut into about so many chunks, where they get neither too small nor too large.
const CHUNKS: u64 = 32;
/// Bytes that count a chunk's bytes.
const COUNTER: u64 = 8;

/// A file beside its place. First come the bytes of the file, of which some are still missing; after them, for each chunk, how many
/// of its bytes are there. So a program that is killed loses nothing that was counted.
///
/// Nothing is counted before it is written. That the disk had both only when the power failed is not certain: that is what the checksum
/// is for.
pub(crate) struct Partial {
    path: PathBuf,
    size: u64,
    chunk: u64,
    /// Bytes that are there of each chunk.
    done: Vec<u64>,
}

impl Partial {
    /// Goes on with what is at `path`, if it is of a file of this size; else starts anew.
    pub(crate) fn open(path: &Path, size: u64) -> io::Result<Self> {
        let mut partial = Self { path: path.to_owned(), size, chunk: chunk_of(size), done: Vec::new() };
        match read_counters(path, size) {
            Ok(done) => partial.done = done,
            Err(_) => {
                partial.done = vec![0; size.div_ceil(partial.chunk) as usize];
                partial.clear()?;
            }
        }
        Ok(partial)
    }

    /// What is still to come of a file of which there may be a part at `path`. Changes nothing.
    pub(crate) fn missing_of(path: &Path, size: u64) -> u64 {
        size - read_counters(path, size).map_or(0, |done| done.iter().sum())
    }

    /// Starts again with one chunk, for a server that gives no parts.
    pub(crate) fn make_whole(&mut self) -> io::Result<()> {
        self.chunk = self.size;
        self.done = vec![0];
        self.clear()
    }

    fn clear(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        file.set_len(self.size + self.done.len() as u64 * COUNTER)
    }

    pub(crate) fn have(&self) -> u64 {
        self.done.iter().sum()
    }

    /// The chunks that are not whole, to be filled each by one thread.
    pub(crate) fn missing(&self) -> Vec<Chunk> {
        let incomplete = (0..self.done.len()).filter(|&index| self.done[index] < length(self.size, self.chunk, index));
        let chunk = |index| Chunk {
            path: self.path.clone(),
            start: index as u64 * self.chunk,
            length: length(self.size, self.chunk, index),
            counter: self.size + index as u64 * COUNTER,
            done: self.done[index],
        };
        incomplete.map(chunk).collect()
    }

    /// The bytes of the file, when all are there.
    pub(crate) fn bytes(&self) -> io::Result<impl Read> {
        Ok(File::open(&self.path)?.take(self.size))
    }

    /// Makes it the file alone, on the disk. Not before its bytes are known to be right: this cannot be gone on with.
    pub(crate) fn finish(self) -> io::Result<()> {
        let file = File::options().write(true).open(&self.path)?;
        file.set_len(self.size)?;
        file.sync_all()
    }
}

/// A part of the file that is filled from its start on.
pub(crate) struct Chunk {
    path: PathBuf,
    start: u64,
    length: u64,
    counter: u64,
    done: u64,
}

impl Chunk {
    /// What is missing of it, in the file.
    pub(crate) fn range(&self) -> Range<u64> {
        self.start + self.done..self.start + self.length
    }

    /// Forgets what came.
    pub(crate) fn restart(&mut self) {
        self.done = 0;
    }

    /// To write into, which one does for as long as one connection lasts.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::options().write(true).open(&self.path)
    }

    /// The next bytes, at most as many as are missing.
    pub(crate) fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.range().start))?;
        file.write_all(bytes)?;
        self.done += bytes.len() as u64;
        file.seek(SeekFrom::Start(self.counter))?;
        file.write_all(&self.done.to_le_bytes())
    }
}

fn chunk_of(size: u64) -> u64 {
    (size / CHUNKS).clamp(CHUNK.start, CHUNK.end)
}

/// Bytes of a chunk.
fn length(size: u64, chunk: u64, index: usize) -> u64 {
    chunk.min(size - index as u64 * chunk)
}

/// What is behind the bytes of a file of this size, if such a file is at `path`. The size may be any that somebody claims.
fn read_counters(path: &Path, size: u64) -> io::Result<Vec<u64>> {
    let chunk = chunk_of(size);
    let counted = size.div_ceil(chunk).saturating_mul(COUNTER);
    let mut file = File::open(path)?;
    if file.metadata()?.len() != size.saturating_add(counted) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.seek(SeekFrom::Start(size))?;
    let mut counters = Vec::new();
    file.read_to_end(&mut counters)?;
    let done: Vec<u64> = counters.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
    let possible = (0..done.len()).all(|index| done[index] <= length(size, chunk, index));
    possible.then_some(done).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checking some gigabytes takes a while, in which a program may be ended.
    #[test]
    fn what_is_whole_and_was_not_finished_does_not_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("partial");
        let partial = Partial::open(&path, 5).unwrap();
        for mut chunk in partial.missing() {
            let mut file = chunk.open().unwrap();
            chunk.append(&mut file, b"hello").unwrap();
        }
        let mut bytes = String::new();
        Partial::open(&path, 5).unwrap().bytes().unwrap().read_to_string(&mut bytes).unwrap();
        let again = Partial::open(&path, 5).unwrap();
        assert_eq!((bytes.as_str(), again.have(), Partial::missing_of(&path, 5)), ("hello", 5, 0));
        again.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    }
}
