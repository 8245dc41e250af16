//! A terminal on which words grow, with a line of status under them.
//!
//! Only relative movements are used, so nothing needs to be known of the terminal but its width, and nothing is left on it but the words.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use console::{Term, measure_text_width, truncate_str};
use voxtral_audio::Waiting;

/// The screen that is in use. Whoever writes to the terminal asks it.
static SCREEN: Mutex<Option<Screen>> = Mutex::new(None);

/// A line that wide is wide enough for every status, where a terminal does not tell its width.
const WIDTH: usize = 80;

/// The terminal is in use until this is dropped.
pub(crate) struct InUse(());

impl InUse {
    /// None where standard error is no terminal that can move its cursor. `words` says whether standard output is the same terminal,
    /// and shows words.
    pub(crate) fn begin(words: bool) -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !io::stderr().is_terminal() || is_dumb {
            return None;
        }
        // On Windows this makes the console understand movements.
        let _ = console::colors_enabled_stderr();
        *screen() = Some(Screen { words: words.then(Words::default), status: String::new() });
        Some(Self(()))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        leave();
    }
}

/// Takes the status away, and leaves the terminal as it is.
pub(crate) fn leave() {
    if let Some(screen) = screen().take() {
        to_stderr(screen.without_status());
    }
}

/// Shows this below the words.
pub(crate) fn status(status: String) {
    if let Some(screen) = &mut *screen() {
        screen.status = status;
        to_stderr(&format!("{}{}", screen.without_status(), screen.with_status(width())));
    }
}

/// Writes to standard output if that is a part of the screen.
pub(crate) fn words(text: &str) -> Option<io::Result<()>> {
    let mut screen = screen();
    let screen = screen.as_mut().filter(|screen| screen.words.is_some())?;
    to_stderr(screen.without_status());
    let text = screen.words.as_mut()?.wrapped(text, width());
    let mut stdout = Waiting(io::stdout().lock());
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    to_stderr(&screen.with_status(width()));
    Some(written)
}

/// Writes whole lines to standard error, above the status. Whether there is a screen.
pub(crate) fn lines(text: &str) -> bool {
    let mut screen = screen();
    let Some(screen) = screen.as_mut() else { return false };
    let begin = screen.words.as_mut().is_some_and(|words| std::mem::take(&mut words.column) > 0);
    let text = format!("{}{}{text}", screen.without_status(), if begin { "\n" } else { "" });
    to_stderr(&format!("{text}{}", screen.with_status(width())));
    true
}

fn screen() -> MutexGuard<'static, Option<Screen>> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn width() -> usize {
    Term::stderr().size_checked().map_or(WIDTH, |(_, columns)| columns.into())
}

fn to_stderr(text: &str) {
    // Nobody can be told that a status cannot be shown.
    let _ = io::stderr().write_all(text.as_bytes());
}

struct Screen {
    words: Option<Words>,
    status: String,
}

impl Screen {
    /// What takes the status away; the cursor is where the next word goes.
    fn without_status(&self) -> &'static str {
        if self.words.is_some() { "\x1b[J" } else { "\r\x1b[K" }
    }

    /// What shows it, and puts the cursor back.
    fn with_status(&self, width: usize) -> String {
        let status = truncate_str(&self.status, width.max(1) - 1, "");
        match &self.words {
            _ if status.is_empty() => String::new(),
            None => status.into_owned(),
            Some(Words { column: 0 }) => format!("\r\n{status}\x1b[1A\r"),
            Some(Words { column }) => format!("\r\n{status}\x1b[1A\r\x1b[{column}C"),
        }
    }
}

/// Words on a terminal, with line breaks between them.
#[derive(Default)]
struct Words {
    /// Where the next one goes, counted from 0. Always left of the last column, where terminals differ in what they do.
    column: usize,
}

impl Words {
    fn wrapped(&mut self, text: &str, width: usize) -> String {
        let (mut wrapped, mut rest) = (String::new(), text);
        while !rest.is_empty() {
            // A word and the space before it, or the end of a line.
            let ends = |(at, c): (usize, char)| (at > 0 && matches!(c, ' ' | '\n')).then_some(at);
            let end = if rest.starts_with('\n') { 1 } else { rest.char_indices().find_map(ends).unwrap_or(rest.len()) };
            let (word, after) = rest.split_at(end);
            self.add(word, width.max(2) - 1, &mut wrapped);
            rest = after;
        }
        wrapped
    }

    fn add(&mut self, word: &str, width: usize, to: &mut String) {
        if word == "\n" {
            to.push_str(word);
            self.column = 0;
            return;
        }
        let mut word = word;
        if self.column > 0 && self.column + measure_text_width(word) > width {
            to.push('\n');
            self.column = 0;
            word = word.trim_start_matches(' ');
        }
        // Some are longer than a line, where no spaces are written.
        for letter in word.chars() {
            let letter_width = measure_text_width(letter.encode_utf8(&mut [0; 4]));
            if self.column + letter_width > width {
                to.push('\n');
                self.column = 0;
            }
            to.push(letter);
            self.column += letter_width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_break_before_the_last_column_wherever_they_are_cut() {
        let text = "one two three\nfour ab漢字漢字漢字 end";
        let expected = "one two\nthree\nfour\nab漢字漢\n字漢字\nend";
        let pieces = |size: usize| {
            let (mut words, letters) = (Words::default(), text.chars().collect::<Vec<_>>());
            letters.chunks(size).map(|piece| words.wrapped(&piece.iter().collect::<String>(), 9)).collect::<String>()
        };
        assert_eq!(pieces(100), expected);
        // A word of which the beginning was shown already is broken where the line ends.
        assert_eq!(pieces(1).replace(['\n', ' '], ""), expected.replace(['\n', ' '], ""));
        assert!(pieces(1).lines().all(|line| measure_text_width(line) <= 8));
    }

    #[test]
    fn the_cursor_comes_back_to_where_the_next_word_goes() {
        let screen =
            |column: Option<usize>| Screen { words: column.map(|column| Words { column }), status: "status".into() };
        assert_eq!(screen(Some(12)).with_status(80), "\r\nstatus\x1b[1A\r\x1b[12C");
        assert_eq!(screen(Some(0)).with_status(5), "\r\nstat\x1b[1A\r");
        assert_eq!(screen(None).with_status(80), "status");
    }
}
