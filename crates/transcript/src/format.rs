//! Words as subtitle files: SubRip, WebVTT and tab-separated values.
//!
//! All three show the same [`cues`]: a few words that stand on the screen together.

use crate::Word;
use std::borrow::Cow;
use std::fmt::Write;

/// Lines longer than this are hard to take in at a glance.
const LINE_CHARS: usize = 42;
const CUE_LINES: usize = 2;
const CUE_S: f64 = 7.0;
/// A longer pause ends a cue.
const PAUSE_S: f64 = 0.8;

/// Words that are shown together.
#[derive(Clone, Debug, PartialEq)]
pub struct Cue {
    /// When the first word starts, in seconds.
    pub start_s: f64,
    /// When the last word ends, in seconds.
    pub end_s: f64,
    /// One or two lines of at most 42 characters; longer only where a single word is, since words are not broken.
    pub lines: Vec<String>,
}

/// Groups words into cues of at most two lines and seven seconds, ended by pauses and the ends of sentences.
pub fn cues(words: &[Word]) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::new();
    for word in words {
        if !cues.last_mut().is_some_and(|cue| cue.take(word)) {
            cues.push(Cue { start_s: word.start_s, end_s: word.end_s, lines: vec![word.text.clone()] });
        }
    }
    cues
}

impl Cue {
    /// Adds the word if it belongs here and there is room.
    fn take(&mut self, word: &Word) -> bool {
        let Some(line) = self.lines.last_mut() else { return false };
        let too_late = word.start_s - self.end_s > PAUSE_S || word.end_s - self.start_s > CUE_S;
        if too_late || ends_sentence(line, word.after_space) {
            return false;
        }
        let space = if word.after_space { " " } else { "" };
        if line.chars().count() + space.len() + word.text.chars().count() <= LINE_CHARS {
            *line += space;
            *line += &word.text;
        } else if self.lines.len() < CUE_LINES {
            self.lines.push(word.text.clone());
        } else {
            return false;
        }
        self.end_s = word.end_s;
        true
    }
}

/// Whether a sentence is over after `line`. A Latin full stop needs a space after it, as the one in "3.5" has not.
fn ends_sentence(line: &str, space_follows: bool) -> bool {
    let line = line.trim_end_matches(['"', '\'', ')', ']', '”', '’', '»', '」', '』', '）']);
    line.ends_with(['。', '！', '？', '।']) || (space_follows && line.ends_with(['.', '!', '?', '…', '؟']))
}

/// SubRip (`.srt`): numbered cues, times as `00:01:02,345`.
pub fn srt(words: &[Word]) -> String {
    let mut out = String::new();
    for (number, cue) in (1..).zip(cues(words)) {
        let (start, end) = (clock(cue.start_s, ','), clock(cue.end_s, ','));
        push_line(&mut out, format_args!("{number}\n{start} --> {end}\n{}\n", cue.lines.join("\n")));
    }
    out
}

/// WebVTT (`.vtt`): times as `00:01:02.345`; `&`, `<` and `>` are escaped.
pub fn vtt(words: &[Word]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for cue in cues(words) {
        let (start, end) = (clock(cue.start_s, '.'), clock(cue.end_s, '.'));
        let text = cue.lines.join("\n").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        push_line(&mut out, format_args!("{start} --> {end}\n{text}\n"));
    }
    out
}

/// Tab-separated values: a header, then start and end of each cue in whole milliseconds, and its text in one line, as
/// [`cell_text`].
pub fn tsv(words: &[Word]) -> String {
    let mut out = String::from("start\tend\ttext\n");
    for cue in cues(words) {
        let text = cue.lines.join(" ");
        push_line(&mut out, format_args!("{}\t{}\t{}", millis(cue.start_s), millis(cue.end_s), cell_text(&text)));
    }
    out
}

/// Text for a cell of a spreadsheet: with `'` in front, where it begins as a formula that would be computed on opening.
pub fn cell_text(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn push_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}

/// `hours:minutes:seconds` and milliseconds; two digits of hours, or as many as it takes.
fn clock(seconds: f64, separator: char) -> String {
    let ms = millis(seconds);
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{h:02}:{m:02}:{s:02}{separator}{ms:03}")
}

/// Rounded before it is taken apart, so that 59.9996 s is a minute and not 59.1000.
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, start_s: f64, end_s: f64) -> Word {
        Word { text: text.into(), start_s, end_s, logprob: -0.1, after_space: true }
    }

    /// Words of half a second, one after the other.
    fn speech(text: &str) -> Vec<Word> {
        let words = text.split_whitespace().zip(0..);
        words.map(|(text, i)| word(text, f64::from(i) * 0.5, f64::from(i) * 0.5 + 0.5)).collect()
    }

    fn lines(words: &[Word]) -> Vec<String> {
        cues(words).iter().map(|cue| cue.lines.join("|")).collect()
    }

    #[test]
    fn clocks_carry_and_hours_go_on() {
        let cases = [
            (0.0, "00:00:00,000"),
            (0.0004, "00:00:00,000"),
            (59.9994, "00:00:59,999"),
            (59.9996, "00:01:00,000"),
            (3599.9996, "01:00:00,000"),
            (100.0 * 3600.0 + 61.5, "100:01:01,500"),
            (-1.0, "00:00:00,000"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(clock(seconds, ','), expected);
        }
    }

    #[test]
    fn the_three_formats() {
        let words = [word("a", 0.0, 0.48), word("<b>", 0.48, 0.88), word("c&d", 59.5, 59.9996)];
        let expected = "1\n00:00:00,000 --> 00:00:00,880\na <b>\n\n2\n00:00:59,500 --> 00:01:00,000\nc&d\n\n";
        assert_eq!(srt(&words), expected);
        let expected = concat!(
            "WEBVTT\n\n00:00:00.000 --> 00:00:00.880\na &lt;b&gt;\n\n",
            "00:00:59.500 --> 00:01:00.000\nc&amp;d\n\n"
        );
        assert_eq!(vtt(&words), expected);
        assert_eq!(tsv(&words), "start\tend\ttext\n0\t880\ta <b>\n59500\t60000\tc&d\n");
        assert_eq!([srt(&[]), vtt(&[]), tsv(&[])], ["", "WEBVTT\n\n", "start\tend\ttext\n"]);
    }

    #[test]
    fn text_in_a_cell_is_no_formula() {
        let words = [word("=1+1", 0.0, 0.5), word("-", 0.5, 1.0)];
        assert_eq!(tsv(&words), "start\tend\ttext\n0\t1000\t'=1+1 -\n");
        for text in ["=a", "+a", "-a", "@a", "\ta", "\ra"] {
            assert_eq!(cell_text(text), format!("'{text}"));
        }
        assert_eq!(["a=b", "", " -"].map(cell_text), ["a=b", "", " -"]);
    }

    #[test]
    fn pauses_and_sentences_end_a_cue() {
        let words = [word("a", 0.0, 1.0), word("b", 1.8, 2.0), word("c", 2.81, 3.0)];
        assert_eq!(lines(&words), ["a b", "c"]);
        assert_eq!(
            lines(&speech("One. \"Two!\" three? four, five… six")),
            ["One.", "\"Two!\"", "three?", "four, five…", "six"]
        );
        let glued = [word("3.", 0.0, 1.0), Word { after_space: false, ..word("5", 1.0, 1.1) }];
        assert_eq!(lines(&glued), ["3.5"]);
        let glued = [word("好。", 0.0, 1.0), Word { after_space: false, ..word("你", 1.0, 1.1) }];
        assert_eq!(lines(&glued), ["好。", "你"]);
    }

    #[test]
    fn a_cue_has_two_lines_and_seven_seconds() {
        let quick: Vec<_> =
            speech(&"abcdefghi ".repeat(10)).into_iter().map(|w| Word { start_s: 0.0, end_s: 0.1, ..w }).collect();
        let line = ["abcdefghi"; 4].join(" ");
        assert_eq!(lines(&quick), [format!("{line}|{line}"), "abcdefghi abcdefghi".into()]);
        assert_eq!(lines(&speech(&"a ".repeat(16))), [["a"; 14].join(" "), "a a".into()]);
        let exact = [word(&"x".repeat(40), 0.0, 0.1), word("y", 0.1, 0.2), word("z", 0.2, 0.3)];
        assert_eq!(lines(&exact), [format!("{} y|z", "x".repeat(40))]);
        let one_more = [word(&"x".repeat(41), 0.0, 0.1), word("y", 0.1, 0.2)];
        assert_eq!(lines(&one_more), [format!("{}|y", "x".repeat(41))]);
        assert_eq!(lines(&[word(&"x".repeat(50), 0.0, 0.1)]), ["x".repeat(50)]);
    }
}
