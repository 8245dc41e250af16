//! What is written is there whole, under its own name, or nothing has happened.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use voxtral_files::Writer;

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut writer = Writer::create(path)?;
    writer.write_all(text.as_bytes())?;
    writer.commit()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_when_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let mut writer = Writer::create(&path).unwrap();
    writer.write_all(b"new").unwrap();
    assert!(!path.exists() && !writer.is_stream());
    writer.commit().unwrap();
    assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["out".to_owned()], b"new".to_vec()));

    let mut writer = Writer::create(&path).unwrap();
    writer.write_all(b"newer").unwrap();
    drop(writer);
    assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["out".to_owned()], b"new".to_vec()));
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let kind = |path: &Path| Writer::create(path).map(|_| ()).unwrap_err().kind();
    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(kind(dir.path()), ErrorKind::IsADirectory);
    assert_eq!(kind(&dir.path().join("no/out")), ErrorKind::NotFound);
    assert_eq!(kind(&dir.path().join("file/out")), ErrorKind::NotADirectory);
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn nothing_is_replaced_that_must_not_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let mut writer = Writer::create_new(&path).unwrap();
    writer.write_all(b"late").unwrap();
    fs::write(&path, "early").unwrap();
    assert_eq!(writer.commit().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["out".to_owned()], b"early".to_vec()));
    assert_eq!(Writer::create_new(&path).map(|_| ()).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn two_at_once_are_one_or_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let (mut one, mut two) = (Writer::create(&path).unwrap(), Writer::create(&path).unwrap());
    one.write_all(b"one ").unwrap();
    two.write_all(b"two ").unwrap();
    one.write_all(b"is whole").unwrap();
    two.write_all(b"is whole").unwrap();
    one.commit().unwrap();
    two.commit().unwrap();
    assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["out".to_owned()], b"two is whole".to_vec()));
}

#[test]
#[cfg(windows)]
fn a_device_takes_what_is_written_at_once() {
    for name in ["NUL", r"\\.\NUL"] {
        assert!(Writer::create(Path::new(name)).unwrap().is_stream(), "{name}");
        write(Path::new(name), "gone").unwrap();
    }
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn permissions_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        for mode in [0o600, 0o640, 0o666, 0o755] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            write(&path, "new").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        // A new file has those of any other.
        let (ours, other) = (dir.path().join("ours"), dir.path().join("other"));
        write(&ours, "").unwrap();
        fs::write(&other, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&other));
    }

    #[test]
    fn links_are_followed_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("sub/target"));
        fs::create_dir(dir.path().join("sub")).unwrap();
        symlink("sub/second", &link).unwrap();
        symlink("target", dir.path().join("sub/second")).unwrap();
        for text in ["first", "second"] {
            write(&link, text).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
            assert!(link.is_symlink());
        }
        assert_eq!(names(&dir.path().join("sub")), ["second", "target"]);

        let circle = dir.path().join("circle");
        symlink("circle", &circle).unwrap();
        assert!(Writer::create(&circle).is_err());
        assert_eq!(Writer::create_new(&circle).map(|_| ()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn devices_and_pipes_are_written_at_once() {
        assert!(Writer::create(Path::new("/dev/null")).unwrap().is_stream());
        write(Path::new("/dev/null"), "gone").unwrap();

        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = [0; 4];
                let mut file = File::open(pipe).unwrap();
                file.read_exact(&mut text).unwrap();
                (text, file)
            }
        });
        let mut writer = Writer::create(&pipe).unwrap();
        writer.write_all(b"live").unwrap();
        // The reader has it before it is committed.
        assert_eq!(&reader.join().unwrap().0, b"live");
        writer.commit().unwrap();
        assert_eq!(names(dir.path()), ["pipe"]);
    }

    /// `/dev/stdout`, `/dev/fd/63` of a shell's `>(…)`: their links lead to no place in a folder.
    #[test]
    fn what_is_open_already_is_written_where_it_is() {
        let name = |fd: &dyn AsRawFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        if !name(&std::io::stdout()).exists() {
            eprintln!("skipped: nothing here names what is open");
            return;
        }
        let (mut reader, pipe) = std::io::pipe().unwrap();
        let mut writer = Writer::create(&name(&pipe)).unwrap();
        assert!(writer.is_stream());
        writer.write_all(b"live").unwrap();
        let mut text = [0; 4];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"live");

        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "before ").unwrap();
        let open = File::options().append(true).open(&log).unwrap();
        symlink(name(&open), dir.path().join("link")).unwrap();
        write(&name(&open), "once ").unwrap();
        write(&dir.path().join("link"), "twice").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "before once twice");
        assert_eq!(names(dir.path()), ["link", "log"]);
    }

    /// As where a file is mounted over another, which nothing can be renamed onto.
    #[test]
    fn what_cannot_be_replaced_is_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("out"), dir.path().join("other"));
        fs::write(&path, "a long old text").unwrap();
        fs::write(&other, "another long old text").unwrap();
        let mount = |args: &[&Path]| {
            std::process::Command::new(args[0]).args(&args[1..]).stderr(std::process::Stdio::null()).status()
        };
        if !mount(&[Path::new("mount"), Path::new("--bind"), &other, &path]).is_ok_and(|status| status.success()) {
            eprintln!("skipped: nothing can be mounted here");
            return;
        }
        let written = write(&path, "short");
        let text = fs::read_to_string(&path);
        assert!(mount(&[Path::new("umount"), &path]).unwrap().success());
        written.unwrap();
        assert_eq!(text.unwrap(), "short");
        assert_eq!(fs::read_to_string(&other).unwrap(), "short");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a long old text");
        assert_eq!(names(dir.path()), ["other", "out"]);
    }
}
