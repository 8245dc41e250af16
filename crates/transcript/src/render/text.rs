//! The text and nothing else, as it is recognised.

use std::io::{self, Write};

use super::{End, Sink};
use crate::Alternative;

/// Writes the text as it comes, each piece at once, and ends it with a line's end, as it does at endpoints. Where the model nearly wrote
/// something else instead of a piece, it is written as `[piece|another|a third]`.
#[derive(Debug)]
pub struct Text<W> {
    to: W,
    alternatives: Vec<Alternative>,
    line: Line,
}

/// How far the line is that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// It is the first, and nothing is on it.
    First,
    /// Others came before, and nothing is on it.
    Next,
    /// There is text on it.
    Begun,
}

impl<W: Write> Text<W> {
    /// To be written there.
    pub fn new(to: W) -> Self {
        Self { to, alternatives: Vec::new(), line: Line::First }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }
}

impl<W: Write> Sink for Text<W> {
    fn alternatives(&mut self, alternatives: &[Alternative]) -> io::Result<()> {
        self.alternatives = alternatives.to_vec();
        Ok(())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let text = if self.line == Line::Begun { text } else { text.trim_start() };
        let alternatives = std::mem::take(&mut self.alternatives);
        if text.is_empty() {
            return Ok(());
        }
        self.line = Line::Begun;
        if alternatives.is_empty() {
            return self.write(text);
        }
        let others: String = alternatives.iter().flat_map(|other| ["|", &other.text]).collect();
        self.write(&format!("[{text}{others}]"))
    }

    fn endpoint(&mut self, _: f64) -> io::Result<()> {
        self.line = Line::Next;
        self.write("\n")
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        // An empty line says that nothing was said. It would be wrong where that is not known, and after others.
        match self.line {
            Line::First if end.cut_short.is_some() => Ok(()),
            Line::Next => Ok(()),
            Line::First | Line::Begun => self.write("\n"),
        }
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

    #[test]
    fn endpoints_end_lines_and_leave_no_empty_ones() {
        let lines = |pieces: &[&str]| {
            let mut out = Vec::new();
            let mut text = Text::new(&mut out);
            for piece in pieces {
                if *piece == "|" { text.endpoint(1.0).unwrap() } else { text.text(piece).unwrap() }
            }
            text.end(&testing::end(&testing::summary(&pieces.concat()), false)).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(lines(&["four", " seven", "|", " ", "one", " two"]), "four seven\none two\n");
        assert_eq!(lines(&["four", "|"]), "four\n");
    }

    #[test]
    fn runners_up_are_written_beside_what_they_nearly_replaced() {
        let mut out = Vec::new();
        let mut text = Text::new(&mut out);
        let nearly = |texts: &[&str]| -> Vec<Alternative> {
            let other =
                |text: &&str| Alternative { instead_of: "not used".into(), text: (*text).into(), logprob: -1.0 };
            texts.iter().map(other).collect()
        };
        text.alternatives(&nearly(&[" for", " fore"])).unwrap();
        text.text("four").unwrap();
        text.alternatives(&nearly(&["teen"])).unwrap();
        text.text(" seven").unwrap();
        text.text(" one").unwrap();
        text.end(&testing::end(&testing::summary("not used"), false)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "[four| for| fore][ seven|teen] one\n");
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
