//! Linux on Windows: which of its two kinds this is, and what lies on a drive of Windows.

use std::fs;
use std::path::{Path, PathBuf};

/// Linux on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wsl {
    /// Translates system calls; has no GPU.
    V1,
    /// A virtual machine with a kernel of its own.
    V2,
}

impl Wsl {
    /// `None` where this is no Linux on Windows.
    pub(crate) fn detect() -> Option<Self> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::told_by(&read("/proc/version"), &read("/proc/sys/kernel/osrelease"))
    }

    /// From `/proc/version` and `/proc/sys/kernel/osrelease`.
    fn told_by(version: &str, osrelease: &str) -> Option<Self> {
        let both = format!("{version} {osrelease}").to_lowercase();
        match both.contains("microsoft") {
            false => None,
            true if both.contains("wsl2") || both.contains("microsoft-standard") => Some(Self::V2),
            true => Some(Self::V1),
        }
    }
}

/// Where the Windows drive that `path` lies on is mounted, such as `/mnt/c`: each of its reads goes through the border between the two
/// systems. `None` on a file system of Linux's own, and where this is no Linux on Windows.
pub(crate) fn windows_drive(path: &Path) -> Option<PathBuf> {
    Wsl::detect()?;
    drive_among(&fs::read_to_string("/proc/mounts").ok()?, &path.canonicalize().ok()?)
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
    let is_drive = match kind {
        "drvfs" => true,
        // WSL 2's own folders are 9p too.
        "9p" => options.contains("aname=drvfs"),
        "virtiofs" => point.starts_with("/mnt"),
        _ => false,
    };
    is_drive.then_some(point)
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
drvfsV /mnt/v virtiofs rw,relatime 0 0
";

    #[test]
    fn linux_on_windows_is_told_from_linux() {
        let wsl2 = "Linux version 5.15.167.4-microsoft-standard-WSL2 (root@f9c826d3017f) (gcc (GCC) 11.2.0) #1 SMP";
        assert_eq!(Wsl::told_by(wsl2, "5.15.167.4-microsoft-standard-WSL2\n"), Some(Wsl::V2));
        assert_eq!(Wsl::told_by("Linux version 4.19.104-microsoft-standard (oe@oe)", ""), Some(Wsl::V2));
        assert_eq!(Wsl::told_by("Linux version 6.6.36 (me@pc)", "6.6.36-Microsoft-custom-WSL2"), Some(Wsl::V2));
        let wsl1 = "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) (gcc version 5.4.0 (GCC) )";
        assert_eq!(Wsl::told_by(wsl1, "4.4.0-19041-Microsoft\n"), Some(Wsl::V1));
        assert_eq!(
            Wsl::told_by("Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org)", "6.1.0-28-amd64"),
            None
        );
        assert_eq!(Wsl::told_by("", ""), None);
    }

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
            ("/mnt/v/models", Some("/mnt/v")),
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
