//! Mapped files, and what happens when one is cut, or its disk goes away, while it is mapped.
//!
//! Reading a part of a mapping that its file no longer has raises SIGBUS, and on Windows, where a mapped file cannot be cut but a disk
//! can still go away, an exception; by either a process ends without a word. So the first mapping installs a handler: if the address is
//! in one of our mappings it writes a line that names the file and ends the process with exit code 1; if not, the fault takes its course.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

/// A file, mapped read-only.
pub struct Mapping {
    // First the name goes, then what it names.
    _watched: Watched,
    map: memmap2::Mmap,
}

impl Mapping {
    /// Of all of a file; `path` is for the message.
    pub(crate) fn new(file: &File, path: &Path) -> io::Result<Self> {
        // SAFETY: the map is read-only and any bytes are valid u8. If the file is cut, reading what is gone ends the process (see
        // above), so no code sees it. That nobody writes into the file meanwhile is what `Model::open` asks of its caller.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        // Weights are read from end to end at each step, which is faster in pages of 2 MB. Systems that have none go on with what they have.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { _watched: Watched::new(&map, path), map })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// A mapping that the handler knows of, as long as this lives.
struct Watched(&'static Entry);

/// What the handler says, as the program says its errors.
#[derive(Debug, thiserror::Error)]
#[error("{}: the file was cut or became unreadable while it was in use", path.display())]
struct Cut<'a> {
    path: &'a Path,
}

/// Entries are never freed, for the handler may be reading them: some hundred bytes for each file that was ever mapped.
struct Entry {
    start: usize,
    /// 0 when the mapping is no more.
    end: AtomicUsize,
    /// What to say.
    line: Box<[u8]>,
    /// Set before the list has the entry, and not again.
    next: AtomicPtr<Entry>,
}

/// A list that only grows, at its head: it can be read at any moment, by any thread, without waiting.
static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

static INSTALL: Once = Once::new();

impl Watched {
    fn new(map: &[u8], path: &Path) -> Self {
        INSTALL.call_once(system::install);
        let line = format!("voxtral: {}\n", Cut { path });
        let bounds = map.as_ptr_range();
        let entry = Box::into_raw(Box::new(Entry {
            start: bounds.start as usize,
            end: AtomicUsize::new(bounds.end as usize),
            line: line.into_bytes().into(),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        // SAFETY: it was just made, and is never freed.
        let watched: &'static Entry = unsafe { &*entry };
        let mut head = ENTRIES.load(Ordering::Acquire);
        loop {
            watched.next.store(head, Ordering::Relaxed);
            match ENTRIES.compare_exchange_weak(head, entry, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Self(watched),
                Err(other) => head = other,
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
    }
}

/// What to say when the byte at that address cannot be read, if it is one of ours. May be called in a signal's handler.
fn line_for(address: usize) -> Option<&'static [u8]> {
    let mut next = ENTRIES.load(Ordering::Acquire);
    // SAFETY: an entry was whole before the list had it, does not change but for the atomic end, and is never freed.
    while let Some(entry) = unsafe { next.as_ref() } {
        if (entry.start..entry.end.load(Ordering::Acquire)).contains(&address) {
            return Some(&entry.line);
        }
        next = entry.next.load(Ordering::Relaxed);
    }
    None
}
