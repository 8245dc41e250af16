//! Where results go, and what went wrong.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use voxtral_audio::Waiting;
use voxtral_files::Writer;

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
        let Some(path) = path else {
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
            Self::Stdout => all(Waiting(io::stdout().lock()), text).context("cannot write to standard output"),
            Self::Stream(path, writer) => all(writer, text).with_context(|| cannot_write(path)),
            Self::File(_, whole) => {
                whole.push_str(text);
                Ok(())
            }
        }
    }

    /// Puts a file in its place.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let Self::File(path, text) = self else { return Ok(()) };
        let put = || -> io::Result<()> {
            let mut writer = Writer::create(&path)?;
            writer.write_all(text.as_bytes())?;
            writer.commit()
        };
        put().with_context(|| cannot_write(&path))
    }
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

fn cannot_write(path: &Path) -> String {
    format!("cannot write to {}", path.display())
}

/// Whether an error only says that nobody reads standard output any more, as behind `| head`.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_closed = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
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
    let _ = writeln!(io::stderr(), "voxtral: {}", line.replace(char::is_control, "\u{FFFD}"));
}
