//! Where results go.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::NamedTempFile;

/// Standard output, or a file that appears when all is written.
pub(crate) enum Output {
    Stdout,
    /// Something that cannot be replaced by another file: a device, a pipe.
    Special(PathBuf, std::fs::File),
    File(PathBuf, NamedTempFile),
}

impl Output {
    /// Opened before anything is computed, so that a wrong path is known at once.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        let open = || -> io::Result<Self> {
            match std::fs::metadata(path) {
                Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
                Ok(found) if !found.is_file() => {
                    Ok(Self::Special(path.to_owned(), std::fs::File::options().write(true).open(path)?))
                }
                _ => {
                    let folder =
                        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    let mut builder = tempfile::Builder::new();
                    #[cfg(unix)]
                    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
                    Ok(Self::File(path.to_owned(), builder.prefix(".voxtral-").tempfile_in(folder)?))
                }
            }
        };
        open().with_context(|| format!("cannot write to {}", path.display()))
    }

    /// Writes, and sees to it that it can be read at once.
    pub(crate) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        fn all(mut to: impl Write, text: &str) -> io::Result<()> {
            to.write_all(text.as_bytes())?;
            to.flush()
        }
        match self {
            Self::Stdout => all(io::stdout().lock(), text).context("cannot write to standard output"),
            Self::Special(path, file) => all(file, text).with_context(|| format!("cannot write to {}", path.display())),
            Self::File(path, file) => all(file, text).with_context(|| format!("cannot write to {}", path.display())),
        }
    }

    /// Puts a file in its place.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        if let Self::File(path, file) = self {
            let persist = || -> io::Result<()> {
                file.as_file().sync_all()?;
                file.persist(&path)?;
                Ok(())
            };
            persist().with_context(|| format!("cannot write to {}", path.display()))?;
        }
        Ok(())
    }
}

/// Whether an error only says that nobody reads standard output any more, as behind `| head`.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_closed = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_closed))
}
