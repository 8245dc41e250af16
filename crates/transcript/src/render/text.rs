//! The text and nothing else, as it is recognised.

use std::io::{self, Write};

use super::{End, Sink};

/// Writes the text as it comes, each piece at once, and ends it with a line's end.
#[derive(Debug)]
pub struct Text<W> {
    to: W,
}

impl<W: Write> Text<W> {
    /// To be written there.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }
}

impl<W: Write> Sink for Text<W> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.write(text)
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        // An empty line would say that nothing was said.
        if end.cut_short.is_some() && end.summary.text.is_empty() { Ok(()) } else { self.write("\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn written(pieces: &[&str], cut_short: bool) -> String {
        let mut out = Vec::new();
        let mut text = Text::new(&mut out);
        pieces.iter().for_each(|piece| text.text(piece).unwrap());
        text.end(&testing::end(&testing::summary(&pieces.concat()), cut_short)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_a_line_unless_it_was_cut_short_before_it_began() {
        assert_eq!(written(&["fo", "ur", " seven"], false), "four seven\n");
        assert_eq!(written(&["four"], true), "four\n");
        assert_eq!([written(&[], false), written(&[], true)], ["\n", ""]);
    }

    /// Counts what has been flushed.
    #[derive(Default)]
    struct Pipe {
        held: usize,
        out: usize,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.held += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.out += std::mem::take(&mut self.held);
            Ok(())
        }
    }

    #[test]
    fn every_piece_is_out_at_once() {
        let mut pipe = Pipe::default();
        Text::new(&mut pipe).text("four").unwrap();
        assert_eq!((pipe.out, pipe.held), (4, 0));
    }
}
