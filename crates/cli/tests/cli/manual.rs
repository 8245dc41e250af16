//! What the program says of itself.

use crate::support::{output, voxtral};

#[test]
fn the_version_tells_commit_backends_and_kernels() {
    let long = String::from_utf8(voxtral().arg("--version").output().unwrap().stdout).unwrap();
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], concat!("voxtral ", env!("CARGO_PKG_VERSION")));
    assert!(lines[1].starts_with("commit "), "{long}");
    assert!(lines[2].starts_with("backend cpu, kernels for this CPU: portable"), "{long}");
    assert!(lines[3].starts_with("backend cuda, kernels for: sm_80, ") && lines[3].ends_with(", compute_80"), "{long}");
    assert_eq!(output(&["-V"], ""), format!("{}\n", lines[0]));
}

#[test]
fn every_shell_gets_completions_of_commands_and_flags() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = voxtral().args(["completions", shell]).assert().code(0);
        let script = String::from_utf8(script.get_output().stdout.clone()).unwrap();
        for word in ["voxtral", "download", "bench", "raw-format"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn bash_completes_with_what_it_gets() {
    let complete = r#"
        source <("$0" completions bash)
        COMP_WORDS=(voxtral down); COMP_CWORD=1; COMP_LINE='voxtral down'; COMP_POINT=12
        _voxtral voxtral down voxtral
        echo "${COMPREPLY[@]}"
    "#;
    let run =
        std::process::Command::new("bash").args(["-c", complete, env!("CARGO_BIN_EXE_voxtral")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&run.stdout).trim(), "download", "{run:?}");
}

#[test]
fn manual_pages_tell_every_flag() {
    let page = |args: &[&str]| {
        let run = voxtral().arg("man").args(args).assert().code(0);
        String::from_utf8(run.get_output().stdout.clone()).unwrap().replace('\\', "")
    };
    let whole = page(&[]);
    assert!(whole.contains(".TH voxtral 1") && whole.contains("--raw-format") && whole.contains("voxtral-bench"));
    let bench = page(&["bench"]);
    assert!(bench.contains(concat!("bench ", env!("CARGO_PKG_VERSION"))) && bench.contains("--max-slowdown"));
    voxtral()
        .args(["man", "nothing"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("there is no command nothing"));
}
