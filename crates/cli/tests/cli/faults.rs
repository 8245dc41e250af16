//! What is wrong with audio, models, outputs and flags: one line that names file and fault, and an exit code.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::*;

#[test]
fn an_empty_variable_is_as_good_as_none() {
    for args in [&["samples/digits.wav"][..], &["doctor", "--backend", "cpu"]] {
        voxtral().env("VOXTRAL_MODEL", "").args(args).assert().code(0);
    }
    let said = voxtral().env("VOXTRAL_MODEL", "no/model").arg("samples/digits.wav").assert().code(1);
    said.stderr(predicates::str::contains(format!("no/model: {}", no_folder())));
}

/// What a copy of a model says when it is run after `damage`.
#[track_caller]
fn model_fails(label: &str, model: &str, damage: impl FnOnce(&Path), says: &[&str]) {
    let dir = copy_of(model);
    damage(dir.path());
    let folder = dir.path().to_str().unwrap();
    fails(label, &["-d", folder, "samples/digits.wav"], b"", &[&[folder], says].concat());
}

#[test]
fn folders_that_hold_no_model() {
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let run = |label, dir: &str, says: &[&str]| fails(label, &["-d", dir, "samples/digits.wav"], b"", says);
    run("missing", "no/model", &[&format!("no/model: {}", no_folder())]);
    run("empty", empty, &[empty, "no model here"]);
    run("a file", "samples/digits.wav", &["samples/digits.wav: not a folder"]);
    let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
    for name in ["params.json", "consolidated.safetensors", "tekken.json"] {
        model_fails("missing", "tiny", remove(name), &[name, "there is no such file"]);
    }
    for name in ["config.json", "model.safetensors", "tekken.json"] {
        model_fails("missing", "tiny_hf", remove(name), &[name, "there is no such file"]);
    }
}

#[test]
fn files_of_a_model_that_are_something_else() {
    for name in ["params.json", "consolidated.safetensors", "tekken.json"] {
        let whole = fs::read(root().join("goldens/tiny").join(name)).unwrap();
        let contents: [(&str, &[u8]); 6] = [
            ("empty", b""),
            ("HTML", b"<!doctype html><title>404</title>"),
            ("noise", &noise(3, 5000)),
            ("an audio file", &digits_wav()),
            ("a tenth", &whole[..whole.len() / 10]),
            ("all but the end", &whole[..whole.len() - 2]),
        ];
        for (label, content) in contents {
            model_fails(
                &format!("{name}: {label}"),
                "tiny",
                |dir| fs::write(dir.join(name), content).unwrap(),
                &[name],
            );
        }
    }
}

#[test]
fn descriptions_of_no_model() {
    let cases = [
        ("\"dim\": 96", "\"dim\": 0", "decoder.dim is 0"),
        ("\"dim\": 96", "\"dim\": 1099511627776", "decoder.dim is 1099511627776"),
        ("\"dim\": 96", "\"dim\": 65536", "expected"),
        ("\"dim\": 64", "\"dim\": 66", "expected"),
        ("\"dim\": 96", "\"dim\": -96", "dim is -96"),
        ("\"dim\": 96", "\"dim\": \"wide\"", "dim is \"wide\""),
        ("\"n_layers\": 3", "\"n_layers\": 1000000000", "decoder.layers is 1000000000"),
        ("\"n_layers\": 3", "\"n_layers\": 512", "is missing"),
        ("\"n_layers\": 3", "\"n_layers\": 2", "has no place in this model"),
        ("\"n_heads\": 6", "\"n_heads\": 0", "decoder.heads is 0"),
        ("\"n_kv_heads\": 2", "\"n_kv_heads\": 5", "decoder.kv_heads is 5"),
        ("\"head_dim\": 32", "\"head_dim\": 33", "decoder.head_dim is 33"),
        ("\"sliding_window\": 20", "\"sliding_window\": 0", "decoder.window is 0"),
        ("\"sliding_window\": 20", "\"sliding_window\": 1e12", "sliding_window is 1000000000000.0"),
        ("\"vocab_size\": 1536", "\"vocab_size\": 1000000000000", "vocab is 1000000000000"),
        ("\"rope_theta\": 1000000.0", "\"rope_theta\": 0", "decoder.rope_theta is 0"),
        ("\"norm_eps\": 1e-05", "\"norm_eps\": \"nan\"", "norm_eps is \"nan\""),
        ("\"hop_length\": 160", "\"hop_length\": 0", "audio.hop is 0"),
        ("\"num_mel_bins\": 128", "\"num_mel_bins\": 100000", "audio.mel_bins is 100000"),
        ("\"frame_rate\": 12.5", "\"frame_rate\": 0", "frame_rate is 0"),
    ];
    for (from, to, says) in cases {
        let change = |dir: &Path| {
            let params = fs::read_to_string(dir.join("params.json")).unwrap();
            assert!(params.contains(from), "{from}");
            fs::write(dir.join("params.json"), params.replacen(from, to, 1)).unwrap();
        };
        model_fails(to, "tiny", change, &[says]);
    }
}

#[test]
fn weights_that_are_damaged() {
    const NAME: &str = "consolidated.safetensors";
    let header_says = |length: u64| {
        move |dir: &Path| {
            let mut file = fs::read(dir.join(NAME)).unwrap();
            file[..8].copy_from_slice(&length.to_le_bytes());
            fs::write(dir.join(NAME), file).unwrap();
        }
    };
    for length in [0, 1, 1 << 20, 1 << 50, u64::MAX] {
        model_fails(&format!("a header of {length} bytes"), "tiny", header_says(length), &[NAME]);
    }
    let norm = "layers.1.ffn_norm.weight";
    let changed = |change: fn(&mut Weights, &str)| {
        move |dir: &Path| {
            let mut weights = Weights::read(&dir.join(NAME));
            change(&mut weights, norm);
            weights.write(&dir.join(NAME));
        }
    };
    type Change = fn(&mut Weights, &str);
    let cases: [(&str, Change, &[&str]); 8] = [
        ("missing tensor", |w, norm| drop(w.header.remove(norm)), &[]),
        (
            "renamed tensor",
            |w, norm| {
                let info = w.header.remove(norm).unwrap();
                w.header.insert("layers.1.ffn_nrom.weight".into(), info);
            },
            &["layers.1.ffn_norm.weight is missing"],
        ),
        ("shape", |w, norm| w.header[norm]["shape"] = json!([2, 48]), &[norm, "expected [96], file has [2, 48]"]),
        ("terabytes", |w, norm| w.header[norm]["data_offsets"] = json!([0, 1u64 << 45]), &[]),
        ("type", |w, norm| w.header[norm]["dtype"] = json!("I16"), &[norm, "I16"]),
        ("NaN", |w, norm| w.elements(norm)[95] = bf16(f32::NAN), &[norm, "not finite"]),
        ("infinity", |w, norm| w.elements(norm)[0] = bf16(f32::INFINITY), &[norm, "not finite"]),
        ("-infinity", |w, norm| w.elements(norm)[1] = bf16(f32::NEG_INFINITY), &[norm, "not finite"]),
    ];
    for (label, change, says) in cases {
        model_fails(label, "tiny", changed(change), &[&[NAME], says].concat());
    }
    // Finite, and too large to compute with.
    let dir = copy_of("tiny");
    changed(|w, norm| w.elements(norm).fill(bf16(3e38)))(dir.path());
    let model = dir.path().to_str().unwrap();
    fails("overflow", &["-d", model, "samples/digits.wav"], b"", &["samples/digits.wav: ", "not a number", "weights"]);
}

#[test]
fn shards_that_are_not_there() {
    let index = |content: &'static str| {
        move |dir: &Path| {
            fs::remove_file(dir.join("model.safetensors")).unwrap();
            fs::write(dir.join("model.safetensors.index.json"), content).unwrap();
        }
    };
    let name = "model.safetensors.index.json";
    model_fails(
        "a shard",
        "tiny_hf",
        index(r#"{"weight_map":{"x":"a.safetensors"}}"#),
        &["a.safetensors: there is no"],
    );
    model_fails(
        "outside",
        "tiny_hf",
        index(r#"{"weight_map":{"x":"../x"}}"#),
        &[name, "../x", "not a file of this folder"],
    );
    model_fails(
        "root",
        "tiny_hf",
        index(r#"{"weight_map":{"x":"/etc/passwd"}}"#),
        &[name, "not a file of this folder"],
    );
    model_fails("no map", "tiny_hf", index("{}"), &[name]);
    model_fails("garbage", "tiny_hf", index("]"), &[name]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let run = |label, path: &str, says: &[&str]| fails(label, &["samples/digits.wav", "-o", path], b"", says);
    let no_directory = if cfg!(windows) {
        std::io::ErrorKind::NotADirectory.to_string()
    } else {
        std::io::Error::from_raw_os_error(20).to_string()
    };
    run("no folder", "no/folder/out", &[&format!("cannot write to no/folder/out: {}\n", no_folder())]);
    run(
        "a file for a folder",
        "samples/digits.wav/out",
        &[&format!("cannot write to samples/digits.wav/out: {no_directory}\n")],
    );
    run(
        "a folder",
        "samples",
        &["samples is a folder: for a file of each input in it, end it with a slash, -o samples/\n"],
    );
    if Path::new("/dev/full").exists() {
        run("full", "/dev/full", &["cannot write to /dev/full: No space left"]);
        for format in ["text", "json"] {
            let full = fs::File::options().write(true).open("/dev/full").unwrap();
            let mut program = program();
            let run =
                program.args(["--silent", "--format", format, "samples/digits.wav"]).stdout(full).output().unwrap();
            let line = String::from_utf8(run.stderr).unwrap();
            assert_eq!(run.status.code(), Some(1), "{format}: {line}");
            assert_eq!(line, "voxtral: cannot write to standard output: No space left on device (os error 28)\n");
        }
        // With nobody to tell, the exit code still says it.
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(program().arg("nowhere.wav").stderr(full).status().unwrap().code(), Some(1));
    }
}

/// Names of all that is in a folder.
fn names(dir: &TempDir) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_where_anything_was_heard_and_only_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.txt");
    let run = |inputs: &[&str]| voxtral().arg("--silent").args(inputs).arg("-o").arg(&out).assert().stdout("");
    run(&["samples/digits.wav"]).success();
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("{DIGITS}\n"));
    run(&["nowhere.wav"]).code(1);
    run(&["nowhere.wav", "README.nowhere"]).code(1);
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("{DIGITS}\n"));
    run(&["samples/digits.wav", "samples/digits.wav"]).success();
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("{DIGITS}\n{DIGITS}\n"));
    assert_eq!(names(&dir), ["out.txt"]);
    fs::remove_file(&out).unwrap();
    run(&["nowhere.wav"]).code(1);
    assert!(names(&dir).is_empty());
    #[cfg(unix)]
    {
        let target = dir.path().join("target.txt");
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink("target.txt", &out).unwrap();
        run(&["samples/digits.wav"]).success();
        assert_eq!(fs::read_to_string(&target).unwrap(), format!("{DIGITS}\n"));
        assert!(out.is_symlink(), "what a link leads to is replaced, not the link");
    }
}

/// Runs the program by a line of the shell, in which "$@" is the program with `args`.
#[cfg(unix)]
fn by_shell(line: &str, args: &[&str]) -> std::process::Output {
    let mut shell = std::process::Command::new("sh");
    shell
        .current_dir(root())
        .env_remove("VOXTRAL_MODEL")
        .env("HF_HUB_CACHE", NO_CACHE)
        .env("CUDA_VISIBLE_DEVICES", "-1");
    shell.args(["-c", line, "sh", env!("CARGO_BIN_EXE_voxtral")]).args(args).output().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn standard_output_that_takes_nothing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("a.json");
    fs::write(&json, json_of(&["samples/digits.wav"], "").to_string()).unwrap();
    let json = json.to_str().unwrap();
    let commands: [&[&str]; 5] = [
        &["--silent", "samples/digits.wav"],
        &["--silent", "--format", "json", "samples/digits.wav"],
        &["bench", "--backend", "cpu", "--repeat", "1"],
        &["compare", json, json],
        &["doctor", "--backend", "cpu"],
    ];
    for args in commands {
        for nowhere in [">&-", "1</dev/null"] {
            let run = by_shell(&format!("exec \"$@\" {nowhere}"), args);
            let line = String::from_utf8(run.stderr).unwrap();
            assert_eq!(run.status.code(), Some(1), "{args:?} {nowhere}: {line}");
            let says = "voxtral: cannot write to standard output: it is closed, or not open for writing\n";
            assert_eq!(line, says, "{args:?} {nowhere}");
        }
        // Who wants nothing gets nothing; some programs open it for reading, too.
        for nothing in [">/dev/null", "1<>/dev/null"] {
            let run = by_shell(&format!("exec \"$@\" {nothing}"), args);
            assert_eq!(run.status.code(), Some(0), "{args:?} {nothing}: {}", String::from_utf8_lossy(&run.stderr));
        }
    }
    // What is not written to is not asked for.
    let out = dir.path().join("out.txt");
    let run = by_shell("exec \"$@\" >&-", &["--silent", "samples/digits.wav", "-o", out.to_str().unwrap()]);
    assert_eq!((run.status.code(), fs::read_to_string(&out).unwrap()), (Some(0), format!("{DIGITS}\n")));
}

/// Past `ulimit -f`. What cannot be written whole leaves nothing behind.
#[test]
#[cfg(unix)]
fn a_limit_on_the_size_of_files_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let limited = |line: &str, args: &[&str], says: &str| {
        let run = by_shell(line, args);
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(1), "{args:?}: {:?}, {said}", run.status);
        assert_eq!(said, format!("voxtral: {says}: File too large (os error 27)\n"));
    };
    let (out, model) = (path("out.txt"), path("model"));
    let transcribe = ["--silent", "samples/digits.wav"];
    let none = "ulimit -f 0; exec \"$@\"";
    limited(none, &[&transcribe[..], &["-o", &out]].concat(), &format!("cannot write to {out}"));
    assert!(names(&dir).is_empty(), "{:?}", names(&dir));
    limited(&format!("{none} >'{out}'"), &transcribe, "cannot write to standard output");
    fs::remove_file(&out).unwrap();
    let weights = Path::new(&model).join("consolidated.safetensors");
    let synth = ["synth-model", "--out", &model, "--size", "small"];
    limited("ulimit -f 4000; exec \"$@\"", &synth, weights.to_str().unwrap());
    assert_eq!(fs::read_dir(&model).unwrap().count(), 0);
}

#[test]
#[cfg(unix)]
fn ctrl_c_takes_an_unfinished_model_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = program();
    let mut running =
        program.args(["synth-model", "--out"]).arg(dir.path()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while names(&dir).is_empty() {
        assert!(std::time::Instant::now() < deadline, "it does not begin");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(running.wait().unwrap().code(), Some(130));
    assert!(names(&dir).is_empty(), "{:?}", names(&dir));
}

#[test]
fn the_only_recording_is_looked_for_before_the_model_is_opened() {
    let says = |args: &[&str], what: &str| {
        let run = voxtral().args(["-d", "no/model"]).args(args).assert().code(1).stdout("");
        run.stderr(predicates::str::starts_with(format!("voxtral: {what}: ")));
    };
    says(&["nowhere.wav"], "nowhere.wav");
    says(&["crates"], "crates");
    says(&["README.md"], "README.md");
    says(&["nowhere.wav", "samples/digits.wav"], "no/model");
}

/// Standard output that nobody reads.
fn closed_pipe() -> std::process::Stdio {
    std::io::pipe().unwrap().1.into()
}

#[test]
fn a_result_is_told_though_nobody_reads_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let whole = json_of(&["samples/digits.wav"], "");
    fs::write(path("a.json"), whole.to_string()).unwrap();
    fs::write(path("b.json"), whole.to_string().replace("eight", "nine")).unwrap();
    let code = |args: &[&str]| {
        program().args(args).env("CUDA_VISIBLE_DEVICES", "-1").stdout(closed_pipe()).status().unwrap().code()
    };
    assert_eq!(code(&["compare", &path("a.json"), &path("a.json")]), Some(0));
    assert_eq!(code(&["compare", &path("a.json"), &path("b.json")]), Some(3));
    assert_eq!(code(&["bench", "--backend", "cpu", "--repeat", "1"]), Some(0));
    assert_eq!(code(&["doctor", "--backend", "cuda", "-o", &path("report.json")]), Some(3));
    let report: Value = serde_json::from_slice(&fs::read(path("report.json")).unwrap()).unwrap();
    assert_eq!(report["status"], "failure");
}

#[test]
fn no_recording_is_replaced_by_what_is_said_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let talk = dir.path().join("talk.wav");
    fs::write(&talk, digits_wav()).unwrap();
    for command in [&["bench"][..], &["compare", "--isas", "auto,portable"], &["doctor", "--acceptance"]] {
        let run = voxtral().args(command).arg(&talk).arg("-o").arg(&talk).assert().code(2).stdout("");
        run.stderr(predicates::str::contains("is an input, and --output would replace it"));
    }
    assert_eq!(fs::read(&talk).unwrap(), digits_wav());
}

#[test]
fn one_bad_recording_does_not_stop_the_others() {
    let files = ["samples/digits.wav", "nowhere.wav", "README.nowhere", "samples/digits.wav"];
    let run = voxtral().arg("--silent").args(files).assert().code(1);
    let missing = no_file();
    run.stdout(format!("{DIGITS}\n{DIGITS}\n")).stderr(format!(
        "voxtral: nowhere.wav: {missing}\nvoxtral: README.nowhere: {missing}\nvoxtral: 2 of 4 inputs failed: nowhere.wav, README.nowhere\n"
    ));
}

#[test]
fn wrong_usage() {
    let copy = tempfile::tempdir().unwrap();
    let talk = copy.path().join("talk.wav");
    fs::copy(root().join("samples/digits.wav"), &talk).unwrap();
    let talk = talk.to_str().unwrap();
    let cases: [(&[&str], &str); 21] = [
        (&[], "nothing to transcribe"),
        (&["--frobnicate", "a.wav"], "--frobnicate"),
        (&["a.wav", "-d", ""], "--model"),
        (&["a.wav", "--delay", "100"], "--delay"),
        (&["a.wav", "--delay", "abc"], "--delay"),
        (&["a.wav", "--delay", "-80"], "-8"),
        (&["a.wav", "--delay", "0"], "--delay"),
        (&["--stdin", "-"], "standard input"),
        (&["-", "-i", "-"], "standard input"),
        (&["a.wav", "--threads", "0"], "--threads"),
        (&["a.wav", "--lookahead", "0"], "--lookahead"),
        (&["a.wav", "--lookahead", "129"], "--lookahead"),
        (&["a.wav", "--silent", "-v"], "--silent"),
        (&["a.wav", "--format", "xml"], "--format"),
        (&["a.wav", "--precision", "f64"], "--precision"),
        (&["--stdin", "--raw-rate", "0"], "--raw-rate"),
        (&["--stdin", "--raw-channels", "0"], "--raw-channels"),
        (&[talk, "-o", talk], "is an input"),
        (&["synth-model"], "--out"),
        (&["synth-model", "--out", "no/where", "--size", "huge"], "there is no size \"huge\""),
        (
            &["synth-model", "--out", "no/where", "--size", "small", "decoder.depth=3"],
            "there is no field \"decoder.depth\"",
        ),
    ];
    for (args, says) in cases {
        let run = voxtral().args(args).output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!((run.status.code(), &run.stdout[..]), (Some(2), &b""[..]), "{args:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(says), "{args:?}: {said}");
    }
    for field in ["decoder.dim=0", "decoder.dim=many", "decoder.kv_heads=3", "vocab=10"] {
        let run = voxtral().args(["synth-model", "--out", "no/where", "--size", "small", field]).output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(matches!(run.status.code(), Some(1 | 2)), "{field}: {said}");
        assert!(said.contains(field.split_once('=').unwrap().0), "{field}: {said}");
    }
    assert!(!root().join("no").exists());
}

#[test]
fn a_model_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let model: PathBuf = dir.path().join("model");
    let write = |out: &Path| {
        let size = ["--size", "small", "encoder.layers=1", "decoder.layers=1", "vocab=1500"];
        voxtral().args(["synth-model", "--out"]).arg(out).args(size).assert().stdout("")
    };
    write(&model).success();
    let before = fs::read(model.join("consolidated.safetensors")).unwrap();
    let there = format!("voxtral: {}: there already is such a file", model.join("params.json").display());
    write(&model).code(1).stderr(predicates::str::starts_with(there));
    assert_eq!(fs::read(model.join("consolidated.safetensors")).unwrap(), before);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let inside = file.join("model");
    let no_directory = std::io::Error::from_raw_os_error(if cfg!(windows) { 183 } else { 20 });
    write(&inside).code(1).stderr(format!("voxtral: {}: {no_directory}\n", inside.display()));
}

/// Each thread takes a gigabyte of a limit that leaves room for a few: it works, or one line says why.
#[test]
#[cfg(target_os = "linux")]
fn threads_that_cannot_be_started_are_an_error() {
    let commands: [&[&str]; 6] = [
        &["--silent", "--threads", "1", "samples/digits.wav"],
        &["--silent", "--threads", "1", "samples/digits.wav", "samples/digits.wav", "samples/digits.wav"],
        &["bench", "--backend", "cpu", "--threads", "1", "--repeat", "1"],
        &["bench", "--backend", "cpu", "--threads", "1", "--live", "--sessions", "3", "--seconds", "1", "--files", "1"],
        &["compare", "--backend", "cpu", "--threads", "1", "--decodes", "sequential,parallel"],
        &["doctor", "--backend", "cpu"],
    ];
    for args in commands {
        for threads in 0..8 {
            let kilobytes = (threads << 20) + 900_000;
            let run = by_shell(&format!("ulimit -v {kilobytes}; RUST_MIN_STACK=1073741824 exec \"$@\""), args);
            let said = String::from_utf8(run.stderr).unwrap();
            assert!(
                matches!(run.status.code(), Some(0 | 1 | 3)),
                "{args:?}, {threads} threads: {:?}, {said}",
                run.status
            );
            let told = !said.is_empty() && said.lines().all(|line| line.starts_with("voxtral: "));
            assert!(run.status.success() || told, "{args:?}, {threads} threads: {said}");
        }
    }
}

/// It holds what the program would write for a while, and says that a write would have to wait.
#[test]
#[cfg(unix)]
fn standard_output_that_is_full_for_a_while_gets_everything() {
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    while theirs.write(&[b'.'; 1024]).is_ok() {}
    let mut program = program();
    let mut run = program.args(["--silent", "samples/digits.wav"]).stdout(OwnedFd::from(theirs)).spawn().unwrap();
    drop(program);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let mut came = String::new();
    ours.read_to_string(&mut came).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!(came.trim_start_matches('.'), format!("{DIGITS}\n"));
}

#[test]
fn a_name_of_several_lines_is_told_in_one() {
    fails("a line break", &["two\nlines.wav"], b"", &["two\\nlines.wav: "]);
}

#[test]
#[cfg(target_os = "linux")]
fn help_that_cannot_be_written_is_an_error() {
    for args in [&["--help"][..], &["--version"], &["bench", "--help"]] {
        for (nowhere, says) in
            [(">/dev/full", "No space left on device (os error 28)"), (">&-", "it is closed, or not open for writing")]
        {
            let run = by_shell(&format!("exec \"$@\" {nowhere}"), args);
            let line = String::from_utf8(run.stderr).unwrap();
            assert_eq!(run.status.code(), Some(1), "{args:?} {nowhere}: {line}");
            assert_eq!(line, format!("voxtral: cannot write to standard output: {says}\n"), "{args:?} {nowhere}");
        }
    }
}
