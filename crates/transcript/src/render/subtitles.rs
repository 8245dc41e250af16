//! Text with times, written cue by cue: subtitle files, tables, and lines for people.

use std::io::{self, Write};

use super::{Cue, Cues, End, Sink};
use crate::Word;
use crate::format::{cell_text, clock, millis};

/// The least that a subtitle is on the screen, where there is room: less cannot be read.
const LEAST_S: f64 = 1.0;

/// How cues are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CueFormat {
    /// SubRip (`.srt`): numbered cues, times as `00:01:02,345`.
    Srt,
    /// WebVTT (`.vtt`): times as `00:01:02.345`; `&`, `<` and `>` are escaped.
    Vtt,
    /// Tab-separated values: a header, then start and end of each cue in whole milliseconds, and its text in one line, as
    /// [`cell_text`].
    Tsv,
    /// A line each: `[00:00:01.200 --> 00:00:02.345] text`.
    Lines,
}

impl CueFormat {
    /// What a file begins with.
    fn header(self) -> &'static str {
        match self {
            Self::Srt | Self::Lines => "",
            Self::Vtt => "WEBVTT\n\n",
            Self::Tsv => "start\tend\ttext\n",
        }
    }

    /// Cue number `number`, counted from 1.
    fn cue(self, number: u64, cue: &Cue) -> String {
        let times = |separator| format!("{} --> {}", clock(cue.start_s, separator), clock(cue.end_s, separator));
        match self {
            Self::Srt => format!("{number}\n{}\n{}\n\n", times(','), cue.lines.join("\n")),
            Self::Vtt => {
                let text = cue.lines.join("\n").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                format!("{}\n{text}\n\n", times('.'))
            }
            Self::Tsv => {
                format!("{}\t{}\t{}\n", millis(cue.start_s), millis(cue.end_s), cell_text(&cue.lines.join(" ")))
            }
            Self::Lines => format!("[{}] {}\n", times('.'), cue.lines.join(" ")),
        }
    }
}

/// Writes [`Cues`], each as soon as it is complete, and at once.
#[derive(Debug)]
pub struct Subtitles<W> {
    to: W,
    format: CueFormat,
    cues: Cues,
    /// Cues that are written.
    written: u64,
}

impl<W: Write> Subtitles<W> {
    /// To be written there; with `each_word`, a word is a cue. What is shown on a screen is there for at least a second.
    pub fn new(to: W, format: CueFormat, each_word: bool) -> Self {
        let least_s = match format {
            CueFormat::Srt | CueFormat::Vtt => LEAST_S,
            CueFormat::Tsv | CueFormat::Lines => 0.0,
        };
        let cues = if each_word { Cues::of_each_word(least_s) } else { Cues::new(least_s) };
        Self { to, format, cues, written: 0 }
    }

    fn write(&mut self, cues: impl IntoIterator<Item = Cue>) -> io::Result<()> {
        for cue in cues {
            self.written += 1;
            let header = if self.written == 1 { self.format.header() } else { "" };
            self.to.write_all((header.to_owned() + &self.format.cue(self.written, &cue)).as_bytes())?;
            self.to.flush()?;
        }
        Ok(())
    }
}

impl<W: Write> Sink for Subtitles<W> {
    fn word(&mut self, word: &Word) -> io::Result<()> {
        let cues = self.cues.push(word);
        self.write(cues)
    }

    fn endpoint(&mut self, at_s: f64) -> io::Result<()> {
        let cue = self.cues.pause(at_s);
        self.write(cue)
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        let last = self.cues.finish(end.summary.audio_s);
        self.write(last)?;
        // A file without cues would say that nothing was said.
        if self.written > 0 || end.cut_short.is_some() {
            return Ok(());
        }
        self.to.write_all(self.format.header().as_bytes())?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn word(text: &str, start_s: f64, end_s: f64) -> Word {
        Word { text: text.into(), start_s, end_s, logprob: -0.1, alternatives: Vec::new(), after_space: true }
    }

    fn written(format: CueFormat, each_word: bool, words: &[Word], cut_short: bool) -> String {
        let mut out = Vec::new();
        let mut sink = Subtitles::new(&mut out, format, each_word);
        words.iter().for_each(|word| sink.word(word).unwrap());
        sink.end(&testing::end(&testing::summary("not used"), cut_short)).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn words() -> [Word; 3] {
        [word("a", 0.0, 0.48), word("<b>", 0.48, 1.88), word("c&d", 7.5, 7.9996)]
    }

    #[test]
    fn every_format_is_as_documented() {
        let expected = "1\n00:00:00,000 --> 00:00:01,880\na <b>\n\n2\n00:00:07,500 --> 00:00:08,195\nc&d\n\n";
        assert_eq!(written(CueFormat::Srt, false, &words(), false), expected);
        let expected = concat!(
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.880\na &lt;b&gt;\n\n",
            "00:00:07.500 --> 00:00:08.195\nc&amp;d\n\n"
        );
        assert_eq!(written(CueFormat::Vtt, false, &words(), false), expected);
        let expected = "start\tend\ttext\n0\t1880\ta <b>\n7500\t8000\tc&d\n";
        assert_eq!(written(CueFormat::Tsv, false, &words(), false), expected);
        let expected = "[00:00:00.000 --> 00:00:01.880] a <b>\n[00:00:07.500 --> 00:00:08.000] c&d\n";
        assert_eq!(written(CueFormat::Lines, false, &words(), false), expected);
        let expected = "[00:00:00.000 --> 00:00:00.480] a\n[00:00:00.480 --> 00:00:01.880] <b>\n";
        assert_eq!(written(CueFormat::Lines, true, &words()[..2], false), expected);
    }

    #[test]
    fn silence_is_a_file_without_cues_unless_it_was_cut_short() {
        let formats = [CueFormat::Srt, CueFormat::Vtt, CueFormat::Tsv, CueFormat::Lines];
        let empty = formats.map(|format| written(format, false, &[], false));
        assert_eq!(empty, ["", "WEBVTT\n\n", "start\tend\ttext\n", ""]);
        assert_eq!(formats.map(|format| written(format, false, &[], true)), [""; 4]);
    }

    #[test]
    fn a_cue_is_written_while_the_next_one_is_made() {
        let mut out = Vec::new();
        let mut sink = Subtitles::new(&mut out, CueFormat::Vtt, true);
        words()[..2].iter().for_each(|word| sink.word(word).unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), "WEBVTT\n\n00:00:00.000 --> 00:00:00.480\na\n\n");
    }

    #[test]
    fn a_cue_is_written_at_the_pause_after_it() {
        let mut out = Vec::new();
        let mut sink = Subtitles::new(&mut out, CueFormat::Lines, false);
        sink.word(&word("a", 0.0, 0.48)).unwrap();
        sink.endpoint(0.78).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "[00:00:00.000 --> 00:00:00.480] a\n");
    }

    #[test]
    fn text_in_a_cell_is_no_formula() {
        let words = [word("=1+1", 0.0, 0.5), word("-", 0.5, 1.0)];
        assert_eq!(written(CueFormat::Tsv, false, &words, false), "start\tend\ttext\n0\t1000\t'=1+1 -\n");
    }
}
