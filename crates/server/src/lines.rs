//! Lines that a sink writes, one at a time.

use std::io::{self, Write};

type Give = Box<dyn FnMut(Vec<u8>) -> io::Result<()> + Send>;

/// Collects what is written, and gives it on as one line when it is flushed.
pub(crate) struct Lines {
    line: Vec<u8>,
    give: Give,
}

impl Lines {
    pub(crate) fn new(give: impl FnMut(Vec<u8>) -> io::Result<()> + Send + 'static) -> Self {
        Self { line: Vec::new(), give: Box::new(give) }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.give)(std::mem::take(&mut self.line))
    }
}
