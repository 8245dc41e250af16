//! A file on disk that is read while it is written.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;

/// Nothing is read before there is so much, or all: what a file is taken for must not depend on how fast its beginning comes.
const HEAD: u64 = 128 << 10;

/// What was written of a temporary file. The file is gone with the last of this and its readers.
pub(crate) struct Spool(Arc<Shared>);

/// Reads all of it from its beginning, and waits for what is not written yet.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    at: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    file: File,
    len: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// Nobody will write the rest.
    Abandoned,
}

impl Spool {
    /// Nothing yet.
    ///
    /// # Errors
    /// Where no temporary file can be made.
    pub(crate) fn new() -> io::Result<Self> {
        let state = Mutex::new(State { file: tempfile::tempfile()?, len: 0, end: None });
        Ok(Self(Arc::new(Shared { state, changed: Condvar::new() })))
    }

    /// Adds what has come.
    ///
    /// # Errors
    /// Those of writing, as when the disk is full.
    pub(crate) async fn write(&self, bytes: Bytes) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || {
            let mut state = shared.lock();
            state.file.seek(SeekFrom::End(0))?;
            state.file.write_all(&bytes)?;
            state.len += bytes.len() as u64;
            shared.changed.notify_all();
            Ok(())
        });
        written.await?
    }

    /// It is whole.
    pub(crate) fn end(&mut self) {
        self.0.end(End::Whole);
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.0), at: 0 }
    }
}

/// What is not whole is given up.
impl Drop for Spool {
    fn drop(&mut self) {
        self.0.end(End::Abandoned);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (self.at + 1).max(HEAD);
        let waits = |state: &mut State| state.end.is_none() && state.len < wanted;
        let state = self.shared.changed.wait_while(self.shared.lock(), waits);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.end == Some(End::Abandoned) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the upload ended before the file did"));
        }
        state.file.seek(SeekFrom::Start(self.at))?;
        let count = state.file.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_read_while_it_is_written() {
        let mut spool = Spool::new().unwrap();
        let reader = || {
            let mut reader = spool.reader();
            std::thread::spawn(move || {
                let mut read = Vec::new();
                reader.read_to_end(&mut read).map(|_| read)
            })
        };
        let (first, second) = (reader(), reader());
        let piece = |value: u8| Bytes::from(vec![value; HEAD as usize / 2 + 1]);
        for value in 0..4 {
            spool.write(piece(value)).await.unwrap();
        }
        let late = reader();
        spool.end();
        let expected: Vec<u8> = (0..4).flat_map(piece).collect();
        for reader in [first, second, late] {
            assert!(reader.join().unwrap().unwrap() == expected);
        }
    }

    #[tokio::test]
    async fn who_waits_for_the_rest_gets_to_know_that_there_is_none() {
        let spool = Spool::new().unwrap();
        let mut reader = spool.reader();
        let read = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
        spool.write(Bytes::from_static(b"half of it")).await.unwrap();
        drop(spool);
        assert_eq!(read.join().unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
