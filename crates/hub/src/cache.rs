//! The cache on disk, as Hugging Face's own programs lay it out.
//!
//! ```text
//! .locks/models--OWNER--NAME/CHECKSUM.lock      held while that file is downloaded
//! models--OWNER--NAME/blobs/CHECKSUM            the bytes of a file, whole and checked
//! models--OWNER--NAME/snapshots/COMMIT/NAME     a link to them, or the file itself where there are no links
//! models--OWNER--NAME/refs/main                 the commit that is the newest
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use voxtral_files::Writer;

use crate::checksum::Checksum;
use crate::{Error, Repo};

/// A folder of downloads, shared with every program that uses Hugging Face's cache.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    links: bool,
}

impl Cache {
    /// In a folder, which is made when something is downloaded: what `HF_HUB_CACHE` names.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), links: true }
    }

    /// The same with files in the place of links, as it is anyway where the system makes no links: Windows, as a rule.
    pub fn without_links(self) -> Self {
        Self { links: false, ..self }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder with the newest files of a model that were downloaded, if there is one. Whether all are there is not looked at.
    pub fn snapshot(&self, repo: &Repo) -> Option<PathBuf> {
        let commit = fs::read_to_string(self.main(repo)).ok()?;
        Some(self.snapshot_of(repo, commit.trim())).filter(|dir| is_commit(commit.trim()) && dir.is_dir())
    }

    pub(crate) fn snapshot_of(&self, repo: &Repo, commit: &str) -> PathBuf {
        self.dir.join(repo.folder()).join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, repo: &Repo, checksum: &Checksum) -> PathBuf {
        self.dir.join(repo.folder()).join("blobs").join(checksum.as_str())
    }

    fn main(&self, repo: &Repo) -> PathBuf {
        self.dir.join(repo.folder()).join("refs/main")
    }

    /// Makes `commit` the newest.
    pub(crate) fn point_main_to(&self, repo: &Repo, commit: &str) -> Result<(), Error> {
        let path = self.main(repo);
        if fs::read_to_string(&path).is_ok_and(|there| there == commit) {
            return Ok(()); // the cache may be one that nobody may write to
        }
        make_parent(&path)?;
        let write = || {
            let mut writer = Writer::create(&path)?;
            writer.write_all(commit.as_bytes())?;
            writer.commit()
        };
        write().map_err(Error::io(&path))
    }

    /// Makes a blob a file of a snapshot; one that is `new` is moved there where it cannot be linked, since nothing else needs it.
    pub(crate) fn place(&self, blob: &Path, file: &Path, new: bool) -> Result<(), Error> {
        make_parent(file)?;
        match fs::remove_file(file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(file)(e)),
            _ => {}
        }
        // Piece by piece, for Windows follows no link with a slash in it.
        let target = Path::new("..").join("..").join("blobs").join(blob.file_name().unwrap_or_default());
        // Wine says that it has made one, and makes none.
        if self.links && link(&target, file).is_ok() && file.is_symlink() {
            return Ok(());
        }
        let copy = || {
            let mut writer = Writer::create(file)?;
            io::copy(&mut File::open(blob)?, &mut writer)?;
            writer.commit()
        };
        if new { fs::rename(blob, file) } else { copy() }.map_err(Error::io(file))
    }

    /// Waits until nobody else downloads that file; `tell` is called if somebody does. The lock ends with what is returned.
    pub(crate) fn lock(&self, repo: &Repo, checksum: &Checksum, tell: impl FnOnce()) -> Result<File, Error> {
        let path = self.dir.join(".locks").join(repo.folder()).join(format!("{}.lock", checksum.as_str()));
        make_parent(&path)?;
        let take = || {
            let file = File::options().create(true).write(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    tell();
                    file.lock()?;
                }
                Err(TryLockError::Error(e)) => return Err(e),
            }
            Ok(file)
        };
        take().map_err(Error::io(&path))
    }
}

/// Whether it is what git calls a commit, and so safe in a path.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(crate) fn make_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io(parent))
}

#[cfg(unix)]
fn link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
