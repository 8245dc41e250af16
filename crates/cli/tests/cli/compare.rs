//! `voxtral compare`: faults of every kind are noticed, and what is right passes.

use std::fs;

use serde_json::Value;

use crate::support::*;

/// What it writes as JSON, ended as `code`, and what it says.
#[track_caller]
fn compare(args: &[&str], code: i32) -> (Value, String) {
    let run = voxtral().args(["compare", "--format", "json"]).args(args).assert().code(code).get_output().clone();
    let json = serde_json::from_slice(&run.stdout).unwrap();
    follows_schema(&json, "compare.schema.json");
    (json, String::from_utf8(run.stderr).unwrap())
}

/// What it says when it cannot compare.
#[track_caller]
fn fails(args: &[&str], code: i32) -> String {
    let run = voxtral().arg("compare").args(args).assert().code(code).stdout("").get_output().clone();
    String::from_utf8(run.stderr).unwrap()
}

#[test]
fn what_should_not_matter_does_not() {
    let (_, said) = compare(&["--backend", "cpu", "--decodes", "sequential,parallel", "--max-drift", "0"], 0);
    assert_eq!(said, "");
    let same = compare(&["--isas", "scalar,auto", "--max-drift", "0.01", "samples/digits.wav"], 0).0;
    assert_eq!(same["recordings"][0]["left"], DIGITS);
    assert_eq!(same["total"]["tokens"]["equal"], 113);
    assert!(same["left"].as_str().unwrap().ends_with("portable"), "{same}");
    compare(&["--precisions", "f32,auto", "--max-drift", "0.01"], 0);
    let copy = copy_of_folder("models/digits");
    let models = format!("digits,{}", copy.path().display());
    compare(&["--backend", "cpu", "--models", &models, "--max-drift", "0"], 0);
}

#[test]
fn a_wrong_weight_is_noticed() {
    let damaged = |tensor: &str| {
        let copy = copy_of_folder("models/digits");
        let path = copy.path().join("consolidated.safetensors");
        let mut weights = Weights::read(&path);
        weights.elements(tensor).fill(bf16(0.0));
        weights.write(&path);
        copy
    };
    let models = |copy: &tempfile::TempDir| format!("digits,{}", copy.path().display());
    let decoder = damaged("layers.0.feed_forward.w2.weight");
    let (report, said) = compare(&["--backend", "cpu", "--models", &models(&decoder)], 3);
    assert!(said.contains("the mismatch ratio is ") && said.contains("at most 0.005 is allowed"), "{said}");
    let divergence = &report["recordings"][0]["first_divergence"];
    assert!(divergence["at_s"].as_f64().is_some_and(|at| at > 0.0 && at < 8.2), "{divergence}");
    // Words do not show every fault, log-probabilities do.
    let encoder =
        damaged("mm_streams_embeddings.embedding_module.whisper_encoder.transformer.layers.0.feed_forward.w2.weight");
    let (report, said) = compare(&["--backend", "cpu", "--models", &models(&encoder), "--max-drift", "0.001"], 3);
    assert!(said.contains("the drift of log-probabilities is "), "{said}");
    assert!(report["total"]["tokens"]["max_drift"].as_f64().unwrap() > 0.001, "{report}");
}

#[test]
fn a_shifted_mel_is_noticed() {
    let (right, wrong) = ("\"global_log_mel_max\": 1.5", "\"global_log_mel_max\": 4.5");
    let copy = copy_of_folder("models/digits");
    let path = copy.path().join("params.json");
    let params = fs::read_to_string(&path).unwrap();
    assert!(params.contains(right));
    fs::write(&path, params.replace(right, wrong)).unwrap();
    let models = format!("digits,{}", copy.path().display());
    let said = compare(&["--backend", "cpu", "--models", &models, "--max-drift", "0.01"], 3).1;
    assert!(said.contains("the drift of log-probabilities is "), "{said}");
}

/// Files with transcripts, saved and edited.
struct Saved(tempfile::TempDir);

impl Saved {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

#[test]
fn saved_transcripts_are_compared() {
    let saved = Saved(tempfile::tempdir().unwrap());
    let whole = json_of(&["samples/digits.wav"], "");
    let a = saved.write("a.json", &format!("{whole}\n{whole}\n"));
    let (report, _) = compare(&[&a, &a, "--tolerance", "0", "--max-wer", "0", "--max-drift", "0"], 0);
    assert_eq!(report["recordings"].as_array().unwrap().len(), 2);
    assert_eq!(report["total"]["tokens"]["equal"], 226);

    // The last word of the second is dropped.
    let mut short = whole.clone();
    short["text"] = DIGITS.strip_suffix(" eight").unwrap().into();
    short["words"].as_array_mut().unwrap().pop();
    let b = saved.write("b.json", &format!("{whole}\n{short}\n"));
    let (report, said) = compare(&[&a, &b], 3);
    assert!(said.starts_with("voxtral: the mismatch ratio is 0.0233, at most 0.005 is allowed"), "{said}");
    let (total, second) = (&report["total"], &report["recordings"][1]);
    assert_eq!((&total["wer"]["deletions"], &total["wer"]["reference"]), (&1.into(), &22.into()));
    let eight = &whole["words"][10]["end_s"];
    assert_eq!(second["first_divergence"], serde_json::json!({ "at_s": eight, "left": "eight", "right": null }));
    assert_eq!(report["recordings"][0]["first_divergence"], Value::Null);
    compare(&[&a, &b, "--tolerance", "0.03"], 0);
    let said = compare(&[&a, &b, "--tolerance", "0.03", "--max-wer", "0.04"], 3).1;
    assert!(said.contains("the word error rate is 0.0455, at most 0.04 is allowed"), "{said}");

    // A log-probability that drifts.
    let mut drifted = whole.clone();
    drifted["tokens"][20]["logprob"] = (whole["tokens"][20]["logprob"].as_f64().unwrap() - 0.5).into();
    let c = saved.write("c.json", &drifted.to_string());
    let one = saved.write("one.json", &whole.to_string());
    let report = compare(&[&one, &c, "--max-drift", "0.4"], 3).0;
    assert!((report["total"]["tokens"]["max_drift"].as_f64().unwrap() - 0.5).abs() < 1e-5, "{report}");
}

#[test]
fn what_was_not_compared_has_not_held() {
    let saved = Saved(tempfile::tempdir().unwrap());
    let whole = json_of(&["samples/digits.wav"], "");
    let mut other = whole.clone();
    for token in other["tokens"].as_array_mut().unwrap() {
        token["id"] = (token["id"].as_u64().unwrap() + 1).into();
    }
    let mut without = whole.clone();
    without["tokens"] = serde_json::json!([]);
    let [whole, other, without] = [("a", whole), ("b", other), ("c", without)].map(|(n, json)| {
        let json = json.to_string();
        (saved.write(&format!("{n}.json"), &json), json)
    });
    for (left, right) in [(&whole, &other), (&without, &without)] {
        let (report, said) = compare(&[&left.0, &right.0, "--max-drift", "0.01"], 3);
        let tokens = &report["total"]["tokens"];
        assert_eq!(
            (&tokens["equal"], &tokens["max_drift"], &tokens["mean_drift"]),
            (&0.into(), &Value::Null, &Value::Null)
        );
        assert!(said.contains("samples/digits.wav: not one token is equal"), "{said}");
        let text = voxtral().args(["compare", &left.0, &right.0]).assert().code(0).get_output().stdout.clone();
        assert!(!String::from_utf8(text).unwrap().contains("drift"));
    }
    // One recording of several is not made up for by the others.
    let left = saved.write("left.json", &[&whole.1[..], &whole.1].concat());
    let right = saved.write("right.json", &[&whole.1[..], &other.1].concat());
    let (report, _) = compare(&[&left, &right, "--max-drift", "0.01"], 3);
    assert_eq!(report["past"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["total"]["tokens"]["max_drift"], 0.0);
}

/// The program is given a minute: cell by cell, this takes longer.
#[test]
fn long_texts_that_have_nothing_in_common_are_scored() {
    let saved = Saved(tempfile::tempdir().unwrap());
    let mut json = json_of(&["samples/digits.wav"], "");
    json["words"] = serde_json::json!([]);
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("w{:04} ", (state >> 8) % 1000)
    };
    let [a, b] = ["a", "b"].map(|name| {
        json["text"] = (0..40_000).map(|_| random()).collect::<String>().into();
        saved.write(name, &json.to_string())
    });
    let report = compare(&[&a, &b], 3).0;
    assert_eq!(report["total"]["wer"]["reference"], 40_000);
    assert!(report["total"]["mismatch"].as_f64().is_some_and(|mismatch| mismatch > 0.9), "{report}");

    // And where what was asked for would take hours, that is said.
    let [a, b] = [("a", "x ".repeat(30_000)), ("b", "x y ".repeat(15_000))].map(|(name, text)| {
        json["text"] = text.into();
        saved.write(name, &json.to_string())
    });
    let (report, said) = compare(&[&a, &b], 3);
    assert_eq!(report["total"]["mismatch"], Value::Null);
    assert!(said.contains("samples/digits.wav: the mismatch ratio was given up"), "{said}");
}

#[test]
fn files_that_are_no_transcripts_are_told() {
    let saved = Saved(tempfile::tempdir().unwrap());
    let whole = json_of(&["samples/digits.wav"], "").to_string();
    let good = saved.write("good.json", &whole);
    let not_ours = "is not what voxtral --format json writes: ";
    let cases = [
        ("text.json", "four seven one", not_ours),
        ("other.json", "{\"text\": \"four\"}", "missing field `model`"),
        ("cut.json", &whole[..whole.len() / 2], "EOF while parsing"),
        ("list.json", "[1, 2]", not_ours),
        ("empty.json", "", "the numbers of transcripts differ: 1 in "),
        ("two.json", &format!("{whole}{whole}"), ", 2 in "),
    ];
    for (name, text, says) in cases {
        let said = fails(&[&good, &saved.write(name, text)], 1);
        assert!(said.contains(name) && said.contains(says), "{name}: {said}");
        assert!(said.starts_with("voxtral: ") && said.lines().count() == 1, "{said}");
    }
    let empty = saved.write("empty.json", "");
    assert!(fails(&[&empty, &empty], 1).contains("there is nothing to compare in "));
    assert!(fails(&[&good, &saved.path("nowhere.json")], 1).contains(&format!("nowhere.json: {}", no_file())));
    let mut bare: Value = serde_json::from_str(&whole).unwrap();
    bare.as_object_mut().unwrap().remove("tokens");
    let bare = saved.write("bare.json", &bare.to_string());
    compare(&[&good, &bare], 0);
    assert!(fails(&[&good, &bare, "--max-drift", "1"], 1).contains("write the JSON with --tokens"));
}

#[test]
fn references_score_a_folder() {
    let saved = Saved(tempfile::tempdir().unwrap());
    fs::copy(root().join("samples/digits.wav"), saved.path("a.wav")).unwrap();
    // As an editor of Windows saves it.
    let refs = saved.write("refs.tsv", &format!("\u{feff}a.wav\t{DIGITS}\n\na.wav\t{DIGITS}\n"));
    let report = compare(&["--backend", "cpu", "--refs", &refs, "--max-wer", "0"], 0).0;
    assert_eq!(report["total"]["wer"]["reference"], 22);
    assert_eq!((&report["limits"]["tolerance"], &report["total"]["tokens"]), (&Value::Null, &Value::Null));
    let wrong = saved.write("wrong.tsv", &format!("a.wav\t{DIGITS} nine\n"));
    compare(&["--backend", "cpu", "--refs", &wrong], 0);
    let said = compare(&["--backend", "cpu", "--refs", &wrong, "--max-wer", "0.05"], 3).1;
    assert!(said.contains("the word error rate is 0.0833, at most 0.05 is allowed"), "{said}");

    let eval = root().join("../shared/digits/eval/refs.tsv");
    if eval.exists() {
        compare(&["--backend", "cpu", "--refs", eval.to_str().unwrap(), "--max-wer", "0.005"], 0);
    } else {
        eprintln!("skipped: {} is absent", eval.display());
    }

    for line in ["a.wav four\n", "\tfour\n"] {
        let said = fails(&["--refs", &saved.write("none.tsv", line)], 1);
        assert!(said.contains("none.tsv, line 1: expected a recording, a tab and what is said in it"), "{said}");
    }
    let said = fails(&["--refs", &saved.write("lost.tsv", "\nb.wav\tfour\n")], 1);
    assert!(said.contains("lost.tsv, line 2: ") && said.contains(&format!("b.wav: {}", no_file())), "{said}");
    assert!(fails(&["--refs", &saved.write("blank.tsv", "\n")], 1).contains("there is nothing to compare in "));
}

#[test]
fn pages_show_text_as_text() {
    let saved = Saved(tempfile::tempdir().unwrap());
    let mut json = json_of(&["samples/digits.wav"], "");
    json["audio"]["path"] = "<img src=x onerror=alert(1)>.wav".into();
    json["text"] = "four <script>alert(1)</script> & \"seven\"".into();
    let a = saved.write("a.json", &json.to_string());
    json["text"] = "four <b>seven</b>".into();
    // On Windows no name can have the marks of tags.
    let b = saved.write(if cfg!(windows) { "b'.json" } else { "b'<i>.json" }, &json.to_string());
    let page = saved.path("page.html");
    voxtral().args(["compare", "--format", "html", "-o", &page, &a, &b]).assert().code(3).stdout("");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
    for bad in ["<script", "<img", "<b>", "<i>", "\"seven\"", "http"] {
        assert!(!page.contains(bad), "{bad} in {page}");
    }
    for good in [
        "four <del>&lt;script&gt;alert(1)&lt;/script&gt;</del>",
        "<ins>&lt;b&gt;seven&lt;/b&gt;</ins>",
        "class=\"past\"",
    ] {
        assert!(page.contains(good), "no {good} in {page}");
    }
}

#[test]
fn what_to_compare_has_to_be_said() {
    assert!(fails(&[], 2).contains("Name two JSON files, or one of --backends"));
    assert!(fails(&["samples/digits.wav"], 2).contains("Name two JSON files"));
    assert!(fails(&["--backends", "cpu"], 2).contains("--backends takes two, as in --backends A,B; got 1"));
    assert!(fails(&["--isas", "auto,avx2,avx512"], 2).contains("--isas takes two"));
    assert!(fails(&["--isas", "auto,scalar", "--decodes", "auto,parallel"], 2).contains("cannot be used with"));
    assert!(fails(&["--refs", "a.tsv", "samples/digits.wav"], 2).contains("cannot be used with"));
    // A reference has no log-probabilities.
    assert!(fails(&["--refs", "a.tsv", "--max-drift", "1"], 2).contains("cannot be used with"));
    assert!(fails(&[], 2).contains("\nUsage: voxtral compare "));
    assert!(fails(&["a.json", "b.json", "--tolerance=-1"], 2).contains("is not a number from 0 up"));
    let said = fails(&["--precisions", "f32,auto", "nowhere.wav"], 1);
    assert!(said.contains(&format!("nowhere.wav: {}", no_file())), "{said}");
}
