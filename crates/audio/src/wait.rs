//! Reading that waits, whatever the file descriptor says.

use std::io::{self, Read};

/// A reader that waits for bytes even where its file descriptor is set not to wait (`O_NONBLOCK`).
///
/// That flag belongs to the pipe's end and not to the program: whoever else holds standard input may have set it, and
/// would be surprised to find it cleared.
pub struct Waiting<R>(pub R);

#[cfg(unix)]
impl<R: Read + std::os::fd::AsFd> Read for Waiting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            match self.0.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(not(unix))]
impl<R: Read> Read for Waiting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
