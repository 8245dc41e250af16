//! Where results go, and what went wrong.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::NamedTempFile;

/// Standard output, or a file that appears when all is written.
pub(crate) enum Output {
    Stdout,
    /// Something that cannot be replaced by another file: a device, a pipe.
    Special(PathBuf, File),
    /// Its text stays here until it is whole: however the program ends, there is nothing to clean up.
    File(PathBuf, String),
}

impl Output {
    /// Opened before anything is computed, so that a wrong path is known at once.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        let open = || -> io::Result<Self> {
            match fs::metadata(path) {
                Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
                Ok(found) if !found.is_file() => {
                    Ok(Self::Special(path.to_owned(), File::options().write(true).open(path)?))
                }
                found => {
                    // Where a link leads to a file, that file is replaced and not the link.
                    let path = if found.is_ok() { path.canonicalize()? } else { path.to_owned() };
                    beside(&path)?;
                    Ok(Self::File(path, String::new()))
                }
            }
        };
        open().with_context(|| cannot_write(path))
    }

    /// Writes, and sees to it that it can be read at once.
    pub(crate) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        fn all(mut to: impl Write, text: &str) -> io::Result<()> {
            to.write_all(text.as_bytes())?;
            to.flush()
        }
        match self {
            Self::Stdout => all(io::stdout().lock(), text).context("cannot write to standard output"),
            Self::Special(path, file) => all(file, text).with_context(|| cannot_write(path)),
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
            let mut file = beside(&path)?;
            file.as_file_mut().write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        put().with_context(|| cannot_write(&path))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write to {}", path.display())
}

/// A new file in the folder of `path`, which goes away if it is not made to stay.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // First the folder, since an error of the new file names that, and the user has not heard of it.
    fs::metadata(folder)?;
    builder.prefix(".voxtral-").tempfile_in(folder).map_err(|error| error.kind().into())
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

/// Writes a line on standard error. If that is closed or full there is nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "voxtral: {line}");
}
