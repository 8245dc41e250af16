//! Where results go, and what went wrong.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use voxtral_audio::Waiting;
use voxtral_files::Writer;

use crate::progress::Stderr;
use crate::screen;

/// Standard output, or a file that appears when all is written.
pub(crate) enum Output {
    Stdout,
    /// A device or a pipe, which takes what is written at once.
    Stream(PathBuf, Writer),
    /// Its text stays here until it is whole: however the program ends, there is nothing to clean up.
    File(PathBuf, String),
}

impl Output {
    /// Opened before anything is computed, so that a wrong path is known at once, and that nothing takes what standard output is given.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path.filter(|path| !is_stdout(path)) else {
            stdout_is_open()?;
            return Ok(Self::Stdout);
        };
        let writer = Writer::create(path).with_context(|| cannot_write(path))?;
        let path = path.to_owned();
        Ok(if writer.is_stream() { Self::Stream(path, writer) } else { Self::File(path, String::new()) })
    }

    /// Writes, and sees to it that it can be read at once.
    pub(crate) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        fn all(mut to: impl Write, text: &str) -> io::Result<()> {
            to.write_all(text.as_bytes())?;
            to.flush()
        }
        match self {
            Self::Stdout => screen::words(text)
                .unwrap_or_else(|| all(Waiting(io::stdout().lock()), text))
                .context("cannot write to standard output"),
            Self::Stream(path, writer) => all(writer, text).with_context(|| cannot_write(path)),
            Self::File(_, whole) => {
                whole.push_str(text);
                Ok(())
            }
        }
    }

    /// Puts a file in its place; one without anything in it only where all is well. What was there before is better than nothing.
    pub(crate) fn finish_if(&self, all_is_well: bool) -> anyhow::Result<()> {
        if !all_is_well && matches!(self, Self::File(_, text) if text.is_empty()) {
            return Ok(());
        }
        self.finish()
    }

    /// Puts a file in its place.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        let Self::File(path, text) = self else { return Ok(()) };
        let put = || -> io::Result<()> {
            let mut writer = Writer::create(path)?;
            writer.write_all(text.as_bytes())?;
            writer.commit()
        };
        put().with_context(|| cannot_write(path))
    }
}

/// Whether a path is a name of standard output. To open `/dev/stdout` would be another thing: where that is a file, others that write to
/// it would not go on behind what was written.
fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || cfg!(unix) && path == Path::new("/dev/stdout")
}

fn stdout_is_open() -> anyhow::Result<()> {
    anyhow::ensure!(
        voxtral_files::stdout_is_writable(),
        "cannot write to standard output: it is closed, or not open for writing"
    );
    Ok(())
}

/// Writes what the command line itself is answered with: help or the version on standard output, what is wrong with it on standard
/// error.
pub(crate) fn answer(answer: &clap::Error) -> anyhow::Result<()> {
    if !answer.use_stderr() {
        stdout_is_open()?;
    }
    answer.print().and_then(|()| io::stdout().flush()).context("cannot write to standard output")
}

/// Whole characters at a time.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(bytes).map_err(io::Error::other)?;
        // The error says which output it is, and its cause whether anybody reads it.
        Self::write(self, text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    /// What is written can be read at once.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn cannot_write(path: &Path) -> String {
    format!("cannot write to {}", path.display())
}

/// Whether an error only says that nobody reads standard output any more, as behind `| head`.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    // Windows has several words for it, of which the standard library does not know this one.
    const PIPE_NOT_CONNECTED: i32 = 233;
    let is_closed = |e: &io::Error| {
        e.kind() == io::ErrorKind::BrokenPipe || cfg!(windows) && e.raw_os_error() == Some(PIPE_NOT_CONNECTED)
    };
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_closed))
}

/// For a command whose exit code is its result, whoever reads the rest: what was written, or that nobody reads it any more.
pub(crate) fn unless_closed(written: anyhow::Result<()>) -> anyhow::Result<()> {
    written.or_else(|error| if is_closed_pipe(&error) { Ok(()) } else { Err(error) })
}

/// What was to hold does not: a limit was passed, or what was to be measured is not there.
#[derive(Debug)]
pub(crate) struct Unmet(pub String);

impl std::fmt::Display for Unmet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unmet {}

/// Writes an error and its causes, those that its sentence does not end with already, as one line on standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    say(&line);
}

/// Writes a line on standard error, one line whatever a name in it holds. If that is closed or full there is nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = Stderr.write_all(format!("voxtral: {}\n", escaped(line)).as_bytes());
}

/// A text that names a file, with what would break the line, or would make a terminal show something else, written as in Rust.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    // Also what ends lines and what turns the direction of writing without being a control character.
    let hides = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hides) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if hides(c) { c.escape_default().to_string() } else { c.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_not_show_is_escaped() {
        assert_eq!(escaped("a\nb\x1b[2J\u{202e}\u{85}.wav"), r"a\nb\u{1b}[2J\u{202e}\u{85}.wav");
        assert!(matches!(escaped(r"C:\tälk 字.wav"), Cow::Borrowed(_)));
    }
}
