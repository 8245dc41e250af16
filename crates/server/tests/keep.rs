//! What a server keeps where it was told to, and that it keeps nothing else.

#[allow(dead_code, reason = "this sends whole forms, and one that is cut off")]
#[path = "files/client.rs"]
mod client;
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::{Form, Sending, post};
use common::ws::{DIGITS, SAMPLE, digits, pcm};
use common::{Running, server_with};
use serde_json::{Value, json};
use voxtral_server::{Keep, ServerConfig};

fn keeping(folder: &Path) -> Running {
    server_with(ServerConfig { keep: Some(Keep::open(folder).unwrap()), ..ServerConfig::default() })
}

/// The files in a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Transcripts and their audio, in the order in which they began; nothing else is there.
fn kept(folder: &Path) -> Vec<(Value, Vec<i16>)> {
    let files = files(folder);
    let pairs = files.chunks(2).map(|pair| {
        let [json, wav] = pair else { panic!("{files:?}") };
        assert_eq!((json.extension().unwrap(), &json.with_extension("wav")), ("json".as_ref(), wav), "{files:?}");
        let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        assert_eq!(report["audio"]["path"], wav.file_name().unwrap().to_str().unwrap());
        let samples = hound::WavReader::open(wav).unwrap().into_samples().map(Result::unwrap).collect();
        (report, samples)
    });
    pairs.collect()
}

fn form() -> Form {
    Form::default().field("model", "whisper-1").file(&fs::read(SAMPLE).unwrap())
}

/// The times of its words, too, are those of the answer.
#[test]
fn a_file_is_kept_as_it_was_heard_under_its_request_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a/b");
    let server = keeping(&folder);
    let words = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let form = words.iter().fold(form(), |form, (name, value)| form.field(name, value));
    // Options behind the file may begin it anew.
    let form = form.field("delay_ms", "960").header("x-request-id", "../../mine 7");
    let answer = post(&server, &form).json();
    server.stop();
    let [(report, samples)] = &kept(&folder)[..] else { panic!("{:?}", files(&folder)) };
    assert_eq!((&report["text"], &report["delay_ms"]), (&json!(DIGITS), &json!(960)));
    let times = |words: &Value, start: &str| {
        words.as_array().unwrap().iter().map(|word| word[start].clone()).collect::<Vec<_>>()
    };
    assert_eq!(times(&report["words"], "start_s"), times(&answer["words"], "start"));
    assert_eq!(*samples, digits());
    let name = files(&folder)[0].file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("20") && name.ends_with("Z-______mine_7.json"), "{name}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert!(files(&folder).iter().all(|file| mode(file) == 0o600));
    }
}

#[test]
fn an_upload_that_nobody_is_answered_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping(folder.path());
    let body = form().body();
    let mut leaving = Sending::begin(&server);
    leaving.send(&body[..body.len() * 3 / 4]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while files(folder.path()).is_empty() {
        assert!(Instant::now() < deadline, "nothing is written");
    }
    drop(leaving);
    server.stop();
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[tokio::test]
async fn each_utterance_is_kept_and_one_that_breaks_off_as_far_as_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping(folder.path());
    let mut client = server.connect("/v1/realtime").await;
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    for samples in [&digits()[..], &digits()[..30_400]] {
        client.append(&pcm(samples), 3200).await;
        client.send(json!({ "type": "input_audio_buffer.commit", "final": true })).await;
        client.until("transcription.done").await;
    }
    client.send(json!({ "type": "input_audio_buffer.commit" })).await;
    client.append(&pcm(&digits()), 3200).await;
    client.until("transcription.delta").await;
    client.until("transcription.delta").await;
    drop(client);
    server.all_is_free().await;
    server.stopped().await;
    let kept = kept(folder.path());
    let [(first, all), (second, part), (third, heard)] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!((&first["text"], &second["text"]), (&json!(DIGITS), &json!("four seven")));
    assert_eq!((&all[..], &part[..]), (&digits()[..], &digits()[..30_400]));
    assert!(third["text"].as_str().unwrap().starts_with("four"), "{third}");
    assert_eq!(third["audio"]["damage"][0]["what"], "the session broke off here");
    assert!(digits().starts_with(heard) && !heard.is_empty());
}

#[tokio::test]
async fn what_is_cleared_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping(folder.path());
    let mut client = server.connect("/v1/realtime?input_audio_format=pcm_s16le_16000&turn_detection=none").await;
    client.append(&pcm(&digits()), 3200).await;
    client.until("conversation.item.input_audio_transcription.delta").await;
    client.send(json!({ "type": "input_audio_buffer.clear" })).await;
    client.until("input_audio_buffer.cleared").await;
    drop(client);
    server.all_is_free().await;
    server.stopped().await;
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[test]
fn a_live_upload_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping(folder.path());
    let url = server.url("/v1/audio/transcriptions/live");
    let answer = ureq::post(url).send(&pcm(&digits())[..]).unwrap().body_mut().read_to_string().unwrap();
    assert!(answer.contains(DIGITS), "{answer}");
    server.stop();
    let [(report, samples)] = &kept(folder.path())[..] else { panic!("{:?}", files(folder.path())) };
    assert_eq!((&report["text"], samples), (&json!(DIGITS), &digits()));
}

#[test]
fn a_folder_that_is_gone_costs_nobody_anything() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping(folder.path());
    folder.close().unwrap();
    assert_eq!(post(&server, &form()).json()["text"], DIGITS);
    server.stop();
}
