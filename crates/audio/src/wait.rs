//! Reading and writing that wait, whatever the file descriptor says.

use std::io::{self, Read, Write};
#[cfg(unix)]
use std::os::fd::AsFd;

#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, poll};

/// A reader that waits for bytes, or a writer that waits for room, even where its file descriptor is set not to wait (`O_NONBLOCK`).
///
/// That flag belongs to the pipe's end and not to the program: whoever else holds it may have set it, and
/// would be surprised to find it cleared.
pub struct Waiting<R>(pub R);

#[cfg(unix)]
impl<R: Read + AsFd> Read for Waiting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        waiting(&mut self.0, PollFlags::IN, |reader| reader.read(buffer))
    }
}

#[cfg(unix)]
impl<W: Write + AsFd> Write for Waiting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        waiting(&mut self.0, PollFlags::OUT, |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        waiting(&mut self.0, PollFlags::OUT, Write::flush)
    }
}

/// Tries again whenever `file` is ready, as long as it says that it would have to wait.
#[cfg(unix)]
fn waiting<F: AsFd, T>(
    file: &mut F,
    ready: PollFlags,
    mut attempt: impl FnMut(&mut F) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match attempt(file) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
        match poll(&mut [PollFd::new(&*file, ready)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(not(unix))]
impl<R: Read> Read for Waiting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[cfg(not(unix))]
impl<W: Write> Write for Waiting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    #[test]
    fn both_ends_wait_though_neither_should() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        // More than the system keeps for a reader.
        let sent: Vec<u8> = (0..4 << 20).map(|i| (i % 251) as u8).collect();
        let came = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut came = Vec::new();
                Waiting(theirs).read_to_end(&mut came).map(|_| came)
            });
            Waiting(ours).write_all(&sent).unwrap();
            reader.join().unwrap().unwrap()
        });
        assert!(came == sent, "{} bytes of {}", came.len(), sent.len());
    }
}
