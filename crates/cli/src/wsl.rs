//! Whether a path lies on a drive of Windows, which WSL reads through a protocol of files (9p) and not as a disk.

use std::path::{Path, PathBuf};

/// Where the Windows drive that `path` lies on is mounted, such as `/mnt/c`; `None` on a file system of Linux's own, and on systems
/// without `/proc/mounts`.
pub(crate) fn windows_drive(path: &Path) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    drive_among(&mounts, &path.canonicalize().ok()?)
}

/// The same, of an absolute path and the contents of `/proc/mounts`: device, mount point, type and options in each line.
fn drive_among(mounts: &str, path: &Path) -> Option<PathBuf> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((PathBuf::from(unescaped(fields.next()?)), fields.next()?, fields.next()?))
    });
    // The deepest folder counts, and of several mounts there the last, which hides the others.
    let (point, kind, options) =
        mounts.filter(|(point, ..)| path.starts_with(point)).max_by_key(|(point, ..)| point.components().count())?;
    // WSL 1 has a type of its own; 9p, which is WSL 2's, is also how other virtual machines share folders.
    (kind == "drvfs" || kind == "9p" && options.contains("aname=drvfs")).then_some(point)
}

/// Spaces, tabs, line ends and backslashes are written as three octal digits.
fn unescaped(field: &str) -> String {
    [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", r"\")]
        .iter()
        .fold(field.to_owned(), |field, (code, character)| field.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WSL: &str = r"/dev/sdc / ext4 rw,relatime,discard,errors=remount-ro,data=ordered 0 0
none /mnt/wsl tmpfs rw,relatime 0 0
drivers /usr/lib/wsl/drivers 9p ro,nosuid,nodev,noatime,aname=drivers;fmask=222;dmask=222,trans=fd 0 0
C:\134 /mnt/c 9p rw,noatime,aname=drvfs;path=C:\;uid=1000;gid=1000;symlinkroot=/mnt/,mmap,trans=fd 0 0
D:\134 /mnt/my\040disk drvfs rw,noatime 0 0
/dev/sdd /mnt/c/linux ext4 rw,relatime 0 0
tmpfs /twice tmpfs rw 0 0
E:\134 /twice 9p rw,aname=drvfs;path=E:\ 0 0
share /srv/share 9p rw,trans=virtio 0 0
";

    #[test]
    fn windows_drives_are_told_from_the_file_systems_of_linux() {
        let cases = [
            ("/home/me/models/voxtral", None),
            ("/", None),
            ("/mnt/c", Some("/mnt/c")),
            ("/mnt/c/Users/me/models", Some("/mnt/c")),
            ("/mnt/cache/models", None),
            ("/mnt/my disk/models", Some("/mnt/my disk")),
            ("/mnt/c/linux/models", None),
            ("/twice/models", Some("/twice")),
            ("/srv/share/models", None),
        ];
        for (path, drive) in cases {
            assert_eq!(drive_among(WSL, Path::new(path)).as_deref(), drive.map(Path::new), "{path}");
        }
        for strange in ["", "\n\n", "one", "one two", "a /mnt 9p"] {
            assert_eq!(drive_among(strange, Path::new("/home")), None, "{strange:?}");
        }
    }

    #[test]
    fn what_cannot_be_found_is_on_no_drive() {
        assert_eq!(windows_drive(Path::new("nowhere/at/all")), None);
    }
}
