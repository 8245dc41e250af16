//! `--alt`: what the model nearly wrote.

use predicates::prelude::*;
use serde_json::Value;

use crate::support::*;

const TALK: &str = "samples/digits.wav";

/// The text as it is with brackets, put together from the words of the JSON; each of the demo model's words is one token.
fn inline(json: &Value) -> String {
    let bracket = |(i, word): (usize, &Value)| {
        let space = if i == 0 { "" } else { " " };
        let text = format!("{space}{}", word["text"].as_str().unwrap());
        let Some(alternatives) = word["alternatives"].as_array() else { return text };
        assert!(alternatives.iter().all(|other| other["instead_of"] == format!(" {}", word["text"].as_str().unwrap())));
        let others: Vec<_> = alternatives.iter().map(|other| other["text"].as_str().unwrap()).collect();
        format!("[{text}|{}]", others.join("|"))
    };
    json["words"].as_array().unwrap().iter().enumerate().map(bracket).collect::<String>() + "\n"
}

#[test]
fn runners_up_are_in_brackets_in_the_text_and_beside_words_in_json() {
    let words = DIGITS.split(' ').count();
    for decode in ["sequential", "parallel"] {
        let flags = ["--backend", "cpu", "--decode", decode, TALK, "--alt"];
        let with = |more: &[&str]| output(&[&flags, more].concat(), "");
        let json: Value = serde_json::from_str(&with(&["1", "--format", "json"])).unwrap();
        assert_eq!(json["text"], DIGITS, "the text itself has no brackets");
        let text = with(&["1"]);
        assert_eq!((text.matches('[').count(), text.matches('|').count()), (words, 2 * words), "{text}");
        assert_eq!(inline(&json), text);
        // The model knows very well what it heard: nothing else is half as probable.
        assert_eq!(with(&["0.5"]), format!("{DIGITS}\n"));
        // Some are this near, and others not.
        let near = with(&["0.999999"]);
        let json: Value = serde_json::from_str(&with(&["0.999999", "--format", "json"])).unwrap();
        assert!(near.contains('[') && near.matches('|').count() < 2 * words, "{near}");
        assert_eq!(inline(&json), near);
    }
}

#[test]
fn decoding_and_company_change_no_runner_up() {
    let words = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["words"].clone()).collect()
    };
    let run =
        |flags: &[&str]| words(&output(&[&["--backend", "cpu", "--alt", "1", "--format", "json"], flags].concat(), ""));
    let alone = run(&["--decode", "sequential", TALK]);
    assert_eq!(run(&["--decode", "parallel", "--lookahead", "128", TALK]), alone);
    assert_eq!(run(&["--jobs", "3", TALK, TALK, TALK]), vec![alone[0].clone(); 3]);
}

#[test]
fn events_with_runners_up_are_as_the_schema_says() {
    let schema = schema_of("jsonl.schema.json");
    let lines = output(&["--format", "jsonl", "--alt", "1", TALK], "");
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| schema.is_valid(event)), "{lines}");
    let words = events.iter().filter(|event| event["type"] == "word");
    assert!(words.clone().count() > 0 && words.clone().all(|word| word["alternatives"].as_array().unwrap().len() == 2));
}

#[test]
fn runners_up_that_nothing_would_show_are_refused() {
    for flags in [&["--words"][..], &["--timestamps"], &["--format", "srt"]] {
        voxtral()
            .args(["--alt", "0.5", TALK])
            .args(flags)
            .assert()
            .code(2)
            .stderr(predicate::str::contains("--alt is for"));
    }
    voxtral().args(["--alt", "1.5", TALK]).assert().code(2).stderr(predicate::str::contains("is not from 0 to 1"));
}
