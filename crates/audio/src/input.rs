//! Bytes whose beginning can be looked at before it is read: what the recognition of formats works on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::wait::Waiting;

/// A pipe can begin anew as long as no more than this has been read: enough for any header.
const REPLAY: usize = 4 << 20;
/// No more of a stream is kept in a temporary file.
const MAX_SPOOL: u64 = 2 << 30;
/// Pieces that a pipe may be ahead of its reader, of [`PIECE`] bytes each.
const AHEAD: usize = 16;
const PIECE: usize = 16 << 10;

/// A file, or a stream that cannot go back.
pub(crate) struct Input {
    source: Source,
    /// Bytes taken from the source: `head[at..]` have not been read. What is before is kept to begin anew.
    head: Vec<u8>,
    at: usize,
    /// Bytes from the beginning to `head[0]`.
    dropped: u64,
    replay: bool,
    ended: bool,
}

enum Source {
    File { file: File, path: Option<PathBuf>, len: u64 },
    Stream(Pump),
}

/// A thread reads the pipe, so that one can wait for it for a time only. It ends with the pipe, or when a read finds that
/// nobody takes its bytes.
struct Pump {
    pieces: Mutex<Receiver<io::Result<Vec<u8>>>>,
    /// When the first piece came.
    began: Option<Instant>,
}

impl Pump {
    fn new(mut reader: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(AHEAD);
        let work = move || {
            let mut buffer = vec![0; PIECE];
            loop {
                let piece = match reader.read(&mut buffer) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(0) => return,
                    outcome => outcome.map(|n| buffer[..n].to_vec()),
                };
                let failed = piece.is_err();
                if sender.send(piece).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("audio-pipe".to_owned()).spawn(work)?;
        Ok(Self { pieces: Mutex::new(pieces), began: None })
    }

    /// The next bytes; none at the end, `None` where none came in time.
    fn next(&mut self, wait: Option<Duration>) -> io::Result<Option<Vec<u8>>> {
        let pieces = self.pieces.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let piece = match wait {
            None => pieces.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => pieces.recv_timeout(wait),
        };
        match piece {
            Ok(piece) => {
                self.began.get_or_insert_with(Instant::now);
                piece.map(Some)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(Some(Vec::new())),
            Err(RecvTimeoutError::Timeout) => Ok(None),
        }
    }
}

impl Input {
    /// A file, or the stream behind its name where that is a pipe or a device.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() {
            return Ok(Self::of(Source::File { file, path: Some(path.to_owned()), len: metadata.len() }));
        }
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Self::stream(Waiting(file))
    }

    pub(crate) fn stream(reader: impl Read + Send + 'static) -> io::Result<Self> {
        Ok(Self::of(Source::Stream(Pump::new(reader)?)))
    }

    fn of(source: Source) -> Self {
        Self { source, head: Vec::new(), at: 0, dropped: 0, replay: true, ended: false }
    }

    /// The next bytes, without reading them: `count` of them or more, fewer only where the input ends before.
    pub(crate) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.head.len() - self.at < count && self.fill(count, None)? {}
        Ok(&self.head[self.at..])
    }

    /// As [`peek`](Self::peek), but waits for no more than `wait` since the first byte came.
    pub(crate) fn peek_soon(&mut self, count: usize, wait: Duration) -> io::Result<&[u8]> {
        while self.head.len() - self.at < count {
            let left = match &self.source {
                Source::Stream(Pump { began: Some(began), .. }) => Some(wait.saturating_sub(began.elapsed())),
                _ => None,
            };
            if !self.fill(count, left)? {
                break;
            }
        }
        Ok(&self.head[self.at..])
    }

    /// Takes more bytes from the source; `false` at its end, and where they did not come in time.
    fn fill(&mut self, wanted: usize, wait: Option<Duration>) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.replay && self.at > REPLAY {
            self.replay = false;
        }
        // What has been read goes only now and then, so that it costs nothing.
        if !self.replay && (self.at == self.head.len() || self.at > PIECE * 4 && self.at > self.head.len() / 2) {
            self.dropped += self.at as u64;
            self.head.drain(..self.at);
            self.at = 0;
        }
        match &mut self.source {
            Source::File { file, .. } => {
                let room = (wanted.saturating_sub(self.head.len() - self.at)).clamp(PIECE, 1 << 20);
                let before = self.head.len();
                self.head.resize(before + room, 0);
                let count = loop {
                    match file.read(&mut self.head[before..]) {
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        outcome => break outcome,
                    }
                };
                self.head.truncate(before + *count.as_ref().unwrap_or(&0));
                self.ended = count? == 0;
            }
            Source::Stream(pump) => match pump.next(wait)? {
                Some(piece) => {
                    self.ended = piece.is_empty();
                    self.head.extend_from_slice(&piece);
                }
                None => return Ok(false),
            },
        }
        Ok(!self.ended)
    }

    /// Reads over up to `count` bytes; how many there were.
    pub(crate) fn skip(&mut self, count: u64) -> io::Result<u64> {
        let held = (self.head.len() - self.at) as u64;
        if let Source::File { len, .. } = self.source
            && count > held
        {
            let to = self.position().saturating_add(count).min(len.max(self.position()));
            let skipped = to - self.position();
            self.seek(to)?;
            return Ok(skipped);
        }
        let mut left = count;
        while left > 0 {
            if self.at == self.head.len() && !self.fill(1, None)? {
                break;
            }
            let step = left.min((self.head.len() - self.at) as u64);
            self.at += step as usize;
            left -= step;
        }
        Ok(count - left)
    }

    /// Reads up to `count` bytes into `bytes`; fewer only at the end.
    pub(crate) fn take(&mut self, count: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        // A size that is a lie costs no more memory than there are bytes.
        while bytes.len() < count {
            if self.at == self.head.len() && !self.fill(count - bytes.len(), None)? {
                break;
            }
            let step = (count - bytes.len()).min(self.head.len() - self.at);
            bytes.extend_from_slice(&self.head[self.at..self.at + step]);
            self.at += step;
        }
        Ok(())
    }

    /// Bytes read since the beginning.
    pub(crate) fn position(&self) -> u64 {
        self.dropped + self.at as u64
    }

    /// Whether nothing follows what has been looked at.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes in all, where that is known.
    pub(crate) fn len(&self) -> Option<u64> {
        match self.source {
            Source::File { len, .. } => Some(len),
            Source::Stream(_) => None,
        }
    }

    /// The name of the file, where there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::File { path, .. } => path.as_deref(),
            Source::Stream(_) => None,
        }
    }

    /// The file that a stream was kept in, at its beginning; `None` where it was not.
    pub(crate) fn kept(&self) -> io::Result<Option<File>> {
        let Source::File { file, path: None, .. } = &self.source else { return Ok(None) };
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Some(file))
    }

    /// Goes to `position`: anywhere in a file, forward in a stream. `false` where that cannot be.
    pub(crate) fn seek(&mut self, position: u64) -> io::Result<bool> {
        if position >= self.dropped && position <= self.dropped + self.head.len() as u64 {
            self.at = (position - self.dropped) as usize;
            return Ok(true);
        }
        let here = self.position();
        match &mut self.source {
            Source::File { file, len, .. } => {
                let inside = position <= *len;
                file.seek(SeekFrom::Start(position.min(*len)))?;
                self.dropped = position.min(*len);
                self.head.clear();
                self.at = 0;
                self.replay = false;
                self.ended = false;
                Ok(inside)
            }
            Source::Stream(_) if position < here => Ok(false),
            Source::Stream(_) => {
                let ahead = position - here;
                Ok(self.skip(ahead)? == ahead)
            }
        }
    }

    /// Begins anew, if that is still possible.
    pub(crate) fn restart(&mut self) -> io::Result<bool> {
        self.seek(0)
    }

    /// There will be no beginning anew.
    pub(crate) fn settle(&mut self) {
        self.replay = false;
    }

    /// Becomes a temporary file of all that is still to come, which is gone with the input.
    ///
    /// # Errors
    /// [`Error::TooLongToKeep`] beyond [`MAX_SPOOL`] bytes.
    pub(crate) fn spool(&mut self) -> Result<()> {
        let mut file = tempfile::tempfile()?;
        let (mut bytes, mut len) = (Vec::new(), 0);
        loop {
            self.take(PIECE * 4, &mut bytes)?;
            self.settle();
            len += bytes.len() as u64;
            if bytes.is_empty() {
                break;
            }
            if len > MAX_SPOOL {
                return Err(Error::TooLongToKeep { limit: MAX_SPOOL });
            }
            file.write_all(&bytes)?;
        }
        file.seek(SeekFrom::Start(0))?;
        *self = Self::of(Source::File { file, path: None, len });
        Ok(())
    }
}

/// What has come, at least a byte of it; nothing at the end.
impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.head.len() && !self.fill(buffer.len(), None)? {
            return Ok(0);
        }
        let count = buffer.len().min(self.head.len() - self.at);
        buffer[..count].copy_from_slice(&self.head[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
