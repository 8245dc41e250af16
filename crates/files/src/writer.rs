//! A file that appears when all of it is written.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Links that are followed before they count as a circle, as the system does it.
const MOST_LINKS: usize = 40;

/// Writes a file whole or not at all: into a file with a name of its own in the same folder, which [`Writer::commit`] renames.
/// Dropped without that it leaves nothing behind.
///
/// * Where there is a file, it is replaced and the new one has its permissions. One that may not be written is not replaced.
/// * Where there is a link, what it leads to is replaced, and the link stays.
/// * What is open already (`/dev/stderr`, `/dev/fd/63` of a shell's `>(…)`) takes what is written at once, behind what it holds.
/// * What cannot be replaced is written in place: a device or a pipe at once, a file on which nothing can be renamed (it is a mount of
///   its own, its folder is not writable) when all is there or, where the folder takes no new file, as it comes.
pub struct Writer {
    path: PathBuf,
    to: To,
}

enum To {
    /// Beside its place, to be renamed to it, and whether something is there that it replaces.
    Beside { new: NamedTempFile, replaces: bool },
    /// In its place, as it comes.
    InPlace { file: File, is_stream: bool },
    /// Beside its place, where nothing may be.
    Unless(NamedTempFile),
}

impl Writer {
    /// For what is to be at `path`.
    ///
    /// # Errors
    /// When `path` is a folder, may not be written, or lies in a folder that is not there or takes no new files.
    pub fn create(path: &Path) -> io::Result<Self> {
        let path = destination(path)?;
        let found = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            Ok(found) => Some(found),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            // Of a device, such as NUL, Windows tells nothing.
            Err(e) if cfg!(windows) => {
                let file = File::options().write(true).open(&path).map_err(|_| e)?;
                return Ok(Self { path, to: To::InPlace { file, is_stream: true } });
            }
            Err(e) => return Err(e),
        };
        let is_open = names_what_is_open(&path);
        // That it can be opened says that it may be written; it is not changed by that.
        let old = found.as_ref().map(|_| File::options().write(true).append(is_open).open(&path)).transpose()?;
        let to = match (old, found) {
            (Some(file), Some(found)) if is_open || !found.is_file() => To::InPlace { file, is_stream: true },
            (old, found) => match (beside(&path, found.as_ref()), old) {
                // It is not kept open: Windows would not replace it.
                (Ok(new), old) => To::Beside { new, replaces: old.is_some() },
                (Err(e), Some(file)) if takes_no_files(&e) => To::InPlace { file, is_stream: false },
                (Err(e), _) => return Err(e),
            },
        };
        Ok(Self { path, to })
    }

    /// For what is to be at `path`, where nothing may be: neither now nor when it is committed.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) when something is there, and as [`Writer::create`].
    pub fn create_new(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Ok(Self { path: path.to_owned(), to: To::Unless(beside(path, None)?) })
            }
            Err(e) => Err(e),
        }
    }

    /// Whether it is a device or a pipe, which takes what is written at once.
    pub fn is_stream(&self) -> bool {
        matches!(self.to, To::InPlace { is_stream: true, .. })
    }

    fn file(&mut self) -> &mut File {
        match &mut self.to {
            To::Beside { new, .. } | To::Unless(new) => new.as_file_mut(),
            To::InPlace { file, .. } => file,
        }
    }

    /// Puts the file in its place, when its bytes have reached the disk.
    ///
    /// # Errors
    /// When it cannot be put there; then what was there is still there. Only where that had to be written in place it may be damaged.
    pub fn commit(self) -> io::Result<()> {
        match self.to {
            To::InPlace { is_stream: true, .. } => Ok(()),
            To::InPlace { mut file, .. } => end_here(&mut file),
            To::Unless(new) => {
                new.as_file().sync_all()?;
                new.persist_noclobber(&self.path).map_err(|e| e.error)?;
                Ok(())
            }
            To::Beside { new, replaces } => {
                new.as_file().sync_all()?;
                let Err(refused) = new.persist(&self.path) else { return Ok(()) };
                // There may be the permission to write it, only not to put another in its place.
                match File::options().write(true).open(&self.path) {
                    Ok(mut old) if replaces && old.metadata()?.is_file() => {
                        let mut new = refused.file.into_file();
                        new.rewind()?;
                        io::copy(&mut new, &mut old)?;
                        end_here(&mut old)
                    }
                    _ => Err(refused.error),
                }
            }
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Cuts off what was there before, behind what was written.
fn end_here(file: &mut File) -> io::Result<()> {
    let end = file.stream_position()?;
    file.set_len(end)?;
    file.sync_all()
}

/// Where `path` leads to, though nothing may be there yet.
fn destination(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if names_what_is_open(&path) {
            return Ok(path);
        }
        // Whatever else is wrong with it is told when it is opened.
        let Ok(target) = fs::read_link(&path) else { return Ok(path) };
        path = folder(&path).join(target);
    }
    fs::metadata(&path).map(|_| path)
}

/// Whether the path is Linux's name for what a process has open. It looks like a link, and what that says may be no path at all
/// (`pipe:[123]`) or a file that others write at the same time: only the system itself can follow it.
fn names_what_is_open(path: &Path) -> bool {
    cfg!(target_os = "linux") && folder(path).canonicalize().is_ok_and(|folder| folder.starts_with("/proc"))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file in the folder of `path`, with the permissions of the file that was there, or else those that any new file has.
fn beside(path: &Path, old: Option<&Metadata>) -> io::Result<NamedTempFile> {
    let folder = folder(path);
    // First the folder, since an error of the new file names that, and the user has not heard of it.
    if !fs::metadata(folder)?.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    if path.file_name().is_none() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    let any = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(old.map_or(any, Metadata::permissions));
    let new = builder.prefix(".voxtral-").tempfile_in(folder).map_err(plain)?;
    if let Some(old) = old {
        // Once more, for a new file does not get all that it asks for.
        new.as_file().set_permissions(old.permissions())?;
    }
    Ok(new)
}

/// An error of a new file without that file's name.
fn plain(error: io::Error) -> io::Error {
    let code = error.get_ref().and_then(|e| e.source()?.downcast_ref::<io::Error>()?.raw_os_error());
    code.map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn takes_no_files(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
