//! Mapped files, and what happens when one is cut while it is mapped.
//!
//! Reading a part of a mapping that its file no longer has raises SIGBUS, by which a process ends without a word. So the first mapping
//! installs a handler: if the address is in one of our mappings it writes a line that names the file and ends the process with exit
//! code 1; if not, it puts back what was there before, and the fault takes its course.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A file, mapped read-only.
pub struct Mapping {
    // First the name goes, then what it names.
    _watched: watch::Watched,
    map: memmap2::Mmap,
}

impl Mapping {
    /// Of all of a file; `path` is for the message.
    pub(crate) fn new(file: &File, path: &Path) -> io::Result<Self> {
        // SAFETY: the map is read-only and any bytes are valid u8. If the file is cut, reading what is gone ends the process (see
        // above), so no code sees it. That nobody writes into the file meanwhile is what `Model::open` asks of its caller.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self { _watched: watch::Watched::new(&map, path), map })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(not(unix))]
mod watch {
    use std::path::Path;

    /// Elsewhere a mapped file cannot be cut.
    pub(super) struct Watched;

    impl Watched {
        pub(super) fn new(_: &[u8], _: &Path) -> Self {
            Self
        }
    }
}

#[cfg(unix)]
mod watch {
    use std::path::Path;
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    use libc::{c_int, c_void, siginfo_t};

    /// A mapping that the handler knows of, as long as this lives.
    pub(super) struct Watched(&'static Entry);

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

    /// What was done about SIGBUS before.
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    impl Watched {
        pub(super) fn new(map: &[u8], path: &Path) -> Self {
            BEFORE.get_or_init(install);
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

    fn install() -> libc::sigaction {
        // SAFETY: all zeros are a valid sigaction. The handler has the signature that SA_SIGINFO asks for and calls nothing but what
        // may be called in a handler. Both pointers are to values of this function; the call keeps neither.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            let mut ours: libc::sigaction = std::mem::zeroed();
            ours.sa_sigaction = on_bus_error as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut ours.sa_mask);
            libc::sigaction(libc::SIGBUS, &ours, &mut before);
            before
        }
    }

    extern "C" fn on_bus_error(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
        // SAFETY: with SA_SIGINFO the system passes a siginfo_t, of SIGBUS, which has an address.
        let address = unsafe { (*info).si_addr() } as usize;
        let mut next = ENTRIES.load(Ordering::Acquire);
        // SAFETY: an entry was whole before the list had it, does not change but for the atomic end, and is never freed.
        while let Some(entry) = unsafe { next.as_ref() } {
            if (entry.start..entry.end.load(Ordering::Acquire)).contains(&address) {
                // SAFETY: write and _exit may be called in a handler, and the line is as long as it says.
                unsafe {
                    libc::write(2, entry.line.as_ptr().cast(), entry.line.len());
                    libc::_exit(1);
                }
            }
            next = entry.next.load(Ordering::Relaxed);
        }
        // Another's fault. On return the instruction runs again and meets what was there before us.
        // SAFETY: sigaction may be called in a handler; what it reads is a sigaction of the system, or, in the moment before that is
        // kept, all zeros, which is the default action.
        unsafe {
            let default: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, BEFORE.get().unwrap_or(&default), ptr::null_mut());
        }
    }
}
