//! Bytes whose beginning can be looked at before it is read: what the recognition of formats works on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

use crate::wait::Waiting;

/// A file, or a stream that cannot go back.
pub(crate) struct Input {
    source: Source,
    /// Bytes looked at and not yet read.
    head: Vec<u8>,
}

enum Source {
    File(File),
    Stream(Box<dyn Read + Send + Sync>),
}

impl Input {
    /// A file, or the stream behind its name where that is a pipe or a device.
    pub(crate) fn file(file: File) -> io::Result<Self> {
        let regular = file.metadata()?.is_file();
        let source = if regular { Source::File(file) } else { Source::Stream(Box::new(Waiting(file))) };
        Ok(Self { source, head: Vec::new() })
    }

    pub(crate) fn stream(reader: impl Read + Send + Sync + 'static) -> Self {
        Self { source: Source::Stream(Box::new(reader)), head: Vec::new() }
    }

    /// The first bytes, without reading them: `count` of them or more, fewer only where the input ends before. Waits for
    /// no more than `count`.
    pub(crate) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let mut block = [0; 4096];
        while self.head.len() < count {
            match self.source.read(&mut block) {
                Ok(0) => break,
                Ok(n) => self.head.extend_from_slice(&block[..n]),
                Err(e) => return Err(e),
            }
        }
        Ok(&self.head)
    }

    /// Reads over the first `count` bytes, which have been looked at.
    pub(crate) fn skip_peeked(&mut self, count: usize) {
        self.head.drain(..count.min(self.head.len()));
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            return self.source.read(buffer);
        }
        let count = buffer.len().min(self.head.len());
        buffer[..count].copy_from_slice(&self.head[..count]);
        self.head.drain(..count);
        Ok(count)
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let Source::File(file) = &mut self.source else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a stream cannot go back"));
        };
        // The file itself is ahead of the reader by what has only been looked at.
        let to = match to {
            SeekFrom::Current(by) => SeekFrom::Current(by.saturating_sub_unsigned(self.head.len() as u64)),
            absolute => absolute,
        };
        let at = file.seek(to)?;
        self.head.clear();
        Ok(at)
    }
}

impl MediaSource for Input {
    fn is_seekable(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    fn byte_len(&self) -> Option<u64> {
        match &self.source {
            Source::File(file) => file.metadata().ok().map(|m| m.len()),
            Source::Stream(_) => None,
        }
    }
}

/// A signal interrupts nothing.
impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let outcome = match self {
                Source::File(file) => file.read(buffer),
                Source::Stream(reader) => reader.read(buffer),
            };
            match outcome {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}
