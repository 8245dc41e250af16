//! What the system does to a program that writes, and what it hides from it.

#![allow(unsafe_code)]

/// Makes a write past the limit on the size of files (`ulimit -f`) an error like any other. Without it the process is killed, and
/// what it was writing stays. To be called when the program starts.
pub fn survive_size_limit() {
    #[cfg(unix)]
    // SAFETY: to ignore a signal runs no code of ours, now or later.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Runs what listens for signals, and leaves the end of the terminal ignored where it was: `nohup` asks for that.
pub fn heed_nohup<T>(listen: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    {
        // SAFETY: to ignore a signal runs no code of ours, now or later.
        let ignore = || unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        let before = ignore();
        if before != libc::SIG_IGN {
            // SAFETY: it is what the system named a moment ago.
            unsafe { libc::signal(libc::SIGHUP, before) };
        }
        let listening = listen();
        if before == libc::SIG_IGN {
            ignore();
        }
        listening
    }
    #[cfg(not(unix))]
    listen()
}

/// Whether standard output was open for writing when the program started.
///
/// The standard library opens `/dev/null` in place of a standard output that is closed, and drops what is written to one that is only
/// open for reading, so later nothing tells them from one that works.
pub fn stdout_is_writable() -> bool {
    #[cfg(target_os = "linux")]
    return at_start::stdout_is_writable();
    #[cfg(not(target_os = "linux"))]
    return true;
}

#[cfg(target_os = "linux")]
mod at_start {
    use std::sync::atomic::{AtomicI32, Ordering};

    /// The flags of standard output, or -1 where it was closed.
    static FLAGS: AtomicI32 = AtomicI32::new(libc::O_RDWR);

    // SAFETY: the section holds functions of this signature, which run before `main` and so before the standard library starts.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        // SAFETY: F_GETFL takes a number and gives one. Nothing here needs the standard library to have started.
        FLAGS.store(unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFL) }, Ordering::Relaxed);
    }

    pub(super) fn stdout_is_writable() -> bool {
        let flags = FLAGS.load(Ordering::Relaxed);
        flags != -1 && flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}
