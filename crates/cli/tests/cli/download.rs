//! `voxtral download` from a hub on this machine, and finding what was downloaded. The hub has the demo model under the name of the
//! real one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::hub::{Answer, COMMIT, REPO, Repository, Request, Server};
use crate::support::{DIGITS, copy_of_folder, program, root};

const FILES: [&str; 3] = ["params.json", "tekken.json", "consolidated.safetensors"];

fn file(name: &str) -> Vec<u8> {
    fs::read(root().join("models/digits").join(name)).unwrap()
}

/// The demo model as a repository, its weights where large files are.
fn repository() -> Repository {
    let [params, tekken, weights] = FILES;
    Repository::default().with(params, file(params)).with(tekken, file(tekken)).with_large(weights, file(weights))
}

struct Site {
    hub: Server,
    store: Server,
    home: TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with_store(|_, answer| answer)
    }

    fn with_store(twist: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> Self {
        let files = repository();
        let store = Server::start(move |request| twist(request, files.stored(request)));
        let files = Repository { store: Some(store.by_name()), ..repository() };
        let hub = Server::start(move |request| files.answer(request));
        Self { hub, store, home: tempfile::tempdir().unwrap() }
    }

    /// The program, with that hub and a cache of its own.
    fn program(&self) -> Command {
        let mut program = program();
        program.env_remove("HF_HUB_CACHE").env("HF_HOME", self.home.path()).env("HF_ENDPOINT", self.hub.url());
        program
    }

    fn run(&self, args: &[&str]) -> Output {
        self.program().args(args).output().unwrap()
    }

    fn snapshot(&self) -> PathBuf {
        self.model().join("snapshots").join(COMMIT)
    }

    fn model(&self) -> PathBuf {
        self.home.path().join("hub").join("models--mistralai--Voxtral-Mini-4B-Realtime-2602")
    }
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn ends_with(run: &Output, code: i32, says: &str) {
    let stderr = text(&run.stderr);
    assert!(run.status.code() == Some(code) && stderr.contains(says), "{:?}: {stderr}", run.status);
}

#[test]
fn a_downloaded_model_just_works_by_every_name_and_as_the_default() {
    let site = Site::new();
    let run = site.run(&["download"]);
    ends_with(&run, 0, "voxtral: params.json: 1.33 kB\n");
    assert_eq!(text(&run.stdout), format!("{}\n", site.snapshot().display()));
    for name in [&["-d", "voxtral-mini"][..], &["-d", REPO], &[]] {
        let run = site.run(&[name, &["samples/digits.wav", "--format", "json"]].concat());
        ends_with(
            &run,
            0,
            if name.is_empty() { "using mistralai/Voxtral-Mini-4B-Realtime-2602, which was downloaded" } else { "" },
        );
        let json: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(
            (json["text"].as_str(), json["model"].as_str()),
            (Some(DIGITS), Some("Voxtral-Mini-4B-Realtime-2602"))
        );
    }
    let run = site.run(&["-d", "digits", "samples/digits.wav", "--format", "json"]);
    assert!(text(&run.stdout).contains(r#""model":"digits""#), "{run:?}");
    // Again, nothing comes but the question whether there is something new.
    site.store.take_sent();
    ends_with(&site.run(&["download", REPO]), 0, "consolidated.safetensors: 8.97 MB, there already\n");
    assert_eq!(site.store.take_sent(), 0);
}

#[test]
fn what_is_not_downloaded_is_not_the_default_and_its_name_tells_how_to_get_it() {
    let site = Site::new();
    let none = |label: &str| {
        ends_with(&site.run(&["samples/digits.wav"]), 0, "using the built-in demo model");
        for name in ["voxtral-mini", REPO] {
            let says = format!("get it with: voxtral download {name}");
            ends_with(&site.run(&["-d", name, "samples/digits.wav"]), 1, &says);
        }
        eprintln!("{label} passed");
    };
    none("nothing there");
    site.run(&["download"]);
    let weights = site.snapshot().join("consolidated.safetensors");
    fs::remove_file(fs::canonicalize(&weights).unwrap()).unwrap();
    none("a link that leads nowhere");
    if weights.is_symlink() {
        fs::remove_file(weights).unwrap();
    }
    none("a file that is missing");
}

#[test]
fn a_folder_comes_before_a_name() {
    let site = Site::new();
    site.run(&["download"]);
    let here = tempfile::tempdir().unwrap();
    let copy = copy_of_folder("models/digits");
    fs::rename(copy.path(), here.path().join("voxtral-mini")).unwrap();
    let sample = root().join("samples/digits.wav");
    let run =
        site.program().current_dir(here.path()).args(["-d", "voxtral-mini", "--format", "json"]).arg(sample).output();
    assert!(text(&run.unwrap().stdout).contains(r#""model":"voxtral-mini""#));
}

#[test]
fn doctor_and_compare_know_the_names_too() {
    let site = Site::new();
    site.run(&["download"]);
    let run = site.run(&["compare", "--backend", "cpu", "--models", "voxtral-mini,digits"]);
    ends_with(&run, 0, "");
    let run = site.run(&["doctor", "--backend", "cpu", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let model = &report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "model").unwrap();
    assert!(model.to_string().contains("Voxtral-Mini-4B-Realtime-2602"), "{model}");
}

#[test]
fn the_environment_is_that_of_hugging_faces_programs() {
    let site = Site::new();
    let asked = |program: &mut Command| {
        let before = site.hub.requests().len();
        let run = program.arg("download").output().unwrap();
        let mut last =
            site.hub.requests().into_iter().skip(before).map(|request| request.authorization().map(str::to_owned));
        (run, last.next_back().flatten())
    };
    fs::write(site.home.path().join("token"), "\u{feff}hf_saved\r\n").unwrap();
    assert_eq!(asked(&mut site.program()).1.as_deref(), Some("Bearer hf_saved"));
    assert_eq!(asked(site.program().env("HF_TOKEN", "hf_given")).1.as_deref(), Some("Bearer hf_given"));
    assert!(site.store.requests().iter().all(|request| request.authorization().is_none()));
    let elsewhere = tempfile::tempdir().unwrap();
    let (run, _) = asked(site.program().env("HF_HUB_CACHE", elsewhere.path()).env("HF_ENDPOINT", site.hub.url() + "/"));
    assert!(text(&run.stdout).starts_with(elsewhere.path().to_str().unwrap()), "{run:?}");
    let (run, _) = asked(site.program().env_remove("HF_HOME").env("XDG_CACHE_HOME", elsewhere.path()));
    let below = elsewhere.path().join("huggingface").join("hub");
    assert!(text(&run.stdout).starts_with(below.to_str().unwrap()), "{run:?}");
    let home = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let (run, _) = asked(site.program().env("HF_HOME", "~/hf").env(home, elsewhere.path()));
    assert!(text(&run.stdout).starts_with(elsewhere.path().join("hf").join("hub").to_str().unwrap()), "{run:?}");

    let offline = |home: &Path| {
        let before = site.hub.requests().len();
        let (run, _) = asked(site.program().env("HF_HUB_OFFLINE", "1").env("HF_HOME", home));
        assert_eq!(site.hub.requests().len(), before);
        run
    };
    assert_eq!(text(&offline(site.home.path()).stdout), format!("{}\n", site.snapshot().display()));
    let nothing = tempfile::tempdir().unwrap();
    ends_with(&offline(nothing.path()), 1, "not downloaded, and HF_HUB_OFFLINE forbids the network");
}

#[test]
fn refusals_are_sentences_with_what_to_do() {
    for (status, code, says) in [
        (401, "GatedRepo", "accept the model's conditions at http://127.0.0.1:"),
        (403, "", "set HF_TOKEN to a token of that account"),
        (401, "", "has no such model: check the name"),
        (404, "RepoNotFound", "has no such model: check the name"),
        (418, "", "127.0.0.1 answered with HTTP status 418"),
    ] {
        let hub = Server::start(move |_| Answer::status(status).with("X-Error-Code", code));
        let home = tempfile::tempdir().unwrap();
        let run =
            program().arg("download").env("HF_HUB_CACHE", home.path()).env("HF_ENDPOINT", hub.url()).output().unwrap();
        ends_with(&run, 1, says);
        assert_eq!(text(&run.stderr).lines().count(), 1, "{run:?}");
    }
    let run = program().args(["download", "nothing"]).output().unwrap();
    ends_with(&run, 1, "nothing: not the name of a model: those are of the form OWNER/NAME");
}

#[test]
fn a_download_that_was_killed_goes_on_where_it_was() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let site = Site::with_store(move |_, answer| {
        let pace = if slow.load(Ordering::Relaxed) { Duration::from_millis(50) } else { Duration::ZERO };
        Answer { pace, ..answer }
    });
    let mut running = site.program().arg("download").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let whole = file("consolidated.safetensors").len() as u64;
    let mut sent = 0;
    let begun = Instant::now();
    while sent < whole / 3 {
        assert!(running.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60), "{sent} bytes");
        thread::sleep(Duration::from_millis(20));
        sent += site.store.take_sent();
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(!site.snapshot().join("consolidated.safetensors").exists());
    thread::sleep(Duration::from_millis(500)); // for the server to see it
    site.store.take_sent();
    is_slow.store(false, Ordering::Relaxed);
    ends_with(&site.run(&["download"]), 0, "of them there already");
    let again = site.store.take_sent();
    assert!(0 < again && again < whole, "{again} of {whole}");
    eprintln!("{again} of {whole} bytes came after the kill");
    ends_with(&site.run(&["-d", "voxtral-mini", "samples/digits.wav"]), 0, "");
}

#[test]
#[cfg(unix)]
fn a_limit_on_the_size_of_files_is_told() {
    let site = Site::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 4096; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_voxtral"), "download"]);
    let run =
        shell.env("HF_HOME", site.home.path()).env("HF_ENDPOINT", site.hub.url()).env_remove("HF_HUB_CACHE").output();
    ends_with(&run.unwrap(), 1, "the disk is full: make room and run the command again");
    ends_with(&site.run(&["download"]), 0, "");
}

/// A file system of so many megabytes, as long as it lives. Only the system's administrator may make one.
#[cfg(target_os = "linux")]
struct SmallDisk(TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn new(megabytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        if mounted.is_ok_and(|run| run.status.success()) { Some(Self(dir)) } else { None }
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_is_full_is_told_before_or_when_it_is() {
    let (Some(small), Some(filling)) = (SmallDisk::new(4), SmallDisk::new(16)) else {
        return eprintln!("skipped: no file system can be mounted here");
    };
    let site = Site::new();
    let download =
        |disk: &SmallDisk, site: &Site| site.program().arg("download").env("HF_HOME", disk.0.path()).output().unwrap();
    ends_with(&download(&small, &site), 1, "10 MB are needed and ");
    assert!(site.store.requests().is_empty());

    // Another program takes the room meanwhile.
    let filler = filling.0.path().join("filler");
    let path = filler.clone();
    let site = Site::with_store(move |request, answer| {
        if request.range().is_some_and(|(first, _)| first > 0) && !path.exists() {
            let _ = fs::write(&path, vec![1; 12 << 20]); // it takes all that there is
        }
        answer
    });
    ends_with(&download(&filling, &site), 1, "the disk is full: make room and run the command again");
    fs::remove_file(&filler).unwrap();
    fs::write(&filler, "").unwrap();
    ends_with(&download(&filling, &site), 0, "");
}

/// What Python prints, with `huggingface_hub` installed and in the same cache as the program.
fn python(site: &Site, code: &str) -> String {
    let venv = root().join("target/huggingface_hub");
    let python = venv.join("bin/python");
    if !python.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status().unwrap();
        assert!(made.success(), "python3 -m venv");
    }
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "huggingface_hub==2.4.0"];
    assert!(Command::new(&python).args(install).status().unwrap().success(), "pip install");
    let mut program = Command::new(python);
    program.args(["-c", code]).env("HF_HOME", site.home.path()).env("HF_ENDPOINT", site.hub.url());
    // Its own protocol for large files needs a server of its own.
    let run = program.env("HF_HUB_DISABLE_XET", "1").env_remove("HF_HUB_CACHE").output().unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    text(&run.stdout).trim().to_owned()
}

#[test]
#[ignore = "installs huggingface_hub from PyPI"]
fn huggingface_hub_finds_what_this_program_downloaded() {
    let site = Site::new();
    site.run(&["download"]);
    let found = python(
        &site,
        &format!(
            "import huggingface_hub as h\n\
             folder = h.snapshot_download({REPO:?}, local_files_only=True)\n\
             for name in {FILES:?}: assert h.try_to_load_from_cache({REPO:?}, name).startswith(folder), name\n\
             scan = h.scan_cache_dir()\n\
             assert not scan.warnings and not scan.incomplete_files, scan\n\
             assert [(r.repo_id, r.nb_files) for r in scan.repos] == [({REPO:?}, 3)], scan\n\
             print(folder)"
        ),
    );
    assert_eq!(Path::new(&found), site.snapshot());
    // Online, it asks the hub and finds that it has everything.
    site.store.take_sent();
    python(&site, &format!("import huggingface_hub as h; h.hf_hub_download({REPO:?}, {:?})", FILES[2]));
    assert_eq!(site.store.take_sent(), 0);
}

#[test]
#[ignore = "installs huggingface_hub from PyPI"]
fn what_huggingface_hub_downloaded_is_found() {
    let site = Site::new();
    python(&site, &format!("import huggingface_hub as h\nfor name in {FILES:?}: h.hf_hub_download({REPO:?}, name)"));
    site.store.take_sent();
    ends_with(
        &site.run(&["samples/digits.wav"]),
        0,
        "using mistralai/Voxtral-Mini-4B-Realtime-2602, which was downloaded",
    );
    ends_with(&site.run(&["download"]), 0, "consolidated.safetensors: 8.97 MB, there already");
    assert_eq!(site.store.take_sent(), 0);
    assert_eq!(fs::read_link(site.snapshot().join(FILES[2])).unwrap().components().count(), 4, "a relative link");
}

#[test]
#[ignore = "installs huggingface_hub from PyPI"]
fn a_download_of_huggingface_hub_is_waited_for() {
    let site = Site::with_store(|_, answer| Answer { pace: Duration::from_millis(30), ..answer });
    python(&site, "import huggingface_hub"); // installed before the race begins
    thread::scope(|scope| {
        let theirs = scope.spawn(|| {
            python(&site, &format!("import huggingface_hub as h; h.hf_hub_download({REPO:?}, {:?})", FILES[2]))
        });
        while site.store.requests().is_empty() {
            thread::sleep(Duration::from_millis(20));
        }
        ends_with(&site.run(&["download"]), 0, "another program downloads this file: waiting for it");
        theirs.join().unwrap();
    });
    assert_eq!(site.store.take_sent(), file(FILES[2]).len() as u64);
}
