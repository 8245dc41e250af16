//! What must hold whatever live clients do, and however many there are.

mod common;
#[path = "../../engine/tests/common/mod.rs"]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use common::ws::{Client, DIGITS, digits, eventually, pcm};
use common::{Running, server, server_with};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use voxtral::{Config, Voxtral};
use voxtral_server::ServerConfig;

const VLLM: &str = "/v1/realtime";
const OPENAI: &str = "/v1/realtime?intent=transcription";

fn commit() -> Value {
    json!({ "type": "input_audio_buffer.commit" })
}

fn last_commit() -> Value {
    json!({ "type": "input_audio_buffer.commit", "final": true })
}

async fn vllm(server: &Running) -> Client {
    let mut client = server.connect(VLLM).await;
    client.event().await;
    client.send(json!({ "type": "session.update", "model": "digits" })).await;
    client
}

/// Sends the sample, and waits for its text.
async fn transcribes(client: &mut Client) {
    client.send(commit()).await;
    client.append(&pcm(&digits()), 3200).await;
    client.send(last_commit()).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
}

/// What a client is refused with: status, body, seconds after which it may come again.
fn refusal(outcome: Result<Client, Error>) -> (u16, Value, Option<u64>) {
    let Err(Error::Http(response)) = outcome else { panic!("it is not refused") };
    let after = response.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
    (response.status().into(), serde_json::from_slice(response.body().as_deref().unwrap()).unwrap(), after)
}

fn of(max_sessions: usize) -> ServerConfig {
    ServerConfig { max_sessions, ..ServerConfig::default() }
}

#[tokio::test]
async fn an_abort_in_any_state_frees_session_and_slot_and_leaves_others_as_they_are() {
    let server = server();
    let mut other = vllm(&server).await;
    other.send(commit()).await;
    let samples = pcm(&digits());
    let (first, second) = samples.split_at(samples.len() / 2);
    other.append(first, 3200).await;

    let begun = json!({ "type": "session.update", "session": { "turn_detection": null } });
    let states: [(&str, &[Value], bool, &[Value]); 6] = [
        (VLLM, &[], false, &[]),
        (VLLM, &[], true, &[]),
        (VLLM, &[json!({ "type": "session.update", "model": "digits" }), commit()], true, &[]),
        (VLLM, &[json!({ "type": "session.update", "model": "digits" }), commit()], true, &[last_commit()]),
        (OPENAI, std::slice::from_ref(&begun), true, &[]),
        (OPENAI, std::slice::from_ref(&begun), true, &[commit()]),
    ];
    for (path, before, audio, after) in states {
        let mut client = server.connect(path).await;
        for event in before {
            client.send(event.clone()).await;
        }
        if audio {
            client.append(&samples, 3200).await;
        }
        for event in after {
            client.send(event.clone()).await;
        }
        // Without a word.
        drop(client);
    }
    eventually("only the other is left", async || {
        server.server.voxtral().engine().counters().sessions == 1 && server.free().await == Some(31)
    })
    .await;
    other.append(second, 3200).await;
    other.send(last_commit()).await;
    assert_eq!(other.until("transcription.done").await["text"], DIGITS);
    drop(other);
    server.all_is_free().await;
    server.stopped().await;
}

/// Nobody lingers to tell it what was wrong with its leaving.
#[tokio::test]
async fn the_slot_of_a_client_that_left_without_a_close_is_free_at_once() {
    let server = server_with(of(1));
    let twenty_leave = async {
        for _ in 0..20 {
            drop(server.connect(VLLM).await);
            server.becomes_free(1).await;
        }
    };
    timeout(Duration::from_secs(40), twenty_leave).await.expect("their slots are kept for a while");
    server.stopped().await;
}

#[tokio::test]
async fn a_client_that_sends_no_audio_is_idle() {
    let idle_timeout = Duration::from_secs(1);
    let server = server_with(ServerConfig { idle_timeout, ..of(4) });
    for path in [VLLM, OPENAI] {
        let mut client = server.connect(path).await;
        client.event().await;
        let error = client.event().await;
        let code = if path == OPENAI { &error["error"]["code"] } else { &error["code"] };
        assert_eq!((&error["type"], code), (&json!("error"), &json!("idle_timeout")));
        assert_eq!(client.closed().await, 1008);
    }
    // Also in the middle of an utterance.
    let mut client = vllm(&server).await;
    client.send(commit()).await;
    client.append(&pcm(&digits()[..8000]), 3200).await;
    assert_eq!(client.closed().await, 1008);
    server.becomes_free(4).await;
    server.stopped().await;
}

#[tokio::test]
async fn silence_is_not_idleness() {
    let idle_timeout = Duration::from_secs(2);
    let server = server_with(ServerConfig { idle_timeout, ..of(4) });
    for path in [VLLM, OPENAI] {
        let mut client = server.connect(path).await;
        client.event().await;
        let until = Instant::now() + 2 * idle_timeout;
        while Instant::now() < until {
            client.append(&[0; 3200], 3200).await;
            sleep(Duration::from_millis(100)).await;
        }
        let more = timeout(Duration::from_millis(10), client.socket.next()).await;
        assert!(more.is_err(), "{more:?}");
    }
    server.stopped().await;
}

/// Until somebody reads them: they are in order behind all that was sent before.
async fn pong(client: &mut Client) {
    client.socket.send(Message::Ping("are you there".into())).await.unwrap();
    loop {
        match client.message().await {
            Some(Ok(Message::Pong(_))) => return,
            Some(Ok(Message::Text(text))) => client.heard.push(serde_json::from_str(&text).unwrap()),
            other => panic!("{other:?} instead of a pong"),
        }
    }
}

#[tokio::test]
async fn audio_without_a_commit_is_bounded_and_pings_are_answered() {
    let server = server();
    let mut client = vllm(&server).await;
    // Ten seconds in each piece, five minutes in all, are held.
    let piece = [0; 320_000];
    for _ in 0..30 {
        client.append(&piece, piece.len()).await;
    }
    pong(&mut client).await;
    assert!(client.heard.iter().all(|event| event["type"] != "error"), "{:?}", client.heard);
    for _ in 0..2 {
        client.append(&piece, piece.len()).await;
        assert_eq!(client.event().await["code"], "buffer_full");
    }
    pong(&mut client).await;
    assert_eq!(server.server.voxtral().engine().counters().sessions, 0);
    drop(client);
    server.all_is_free().await;
    server.stopped().await;
}

/// The engine takes ten seconds, and the rest waits.
#[tokio::test]
async fn pings_are_answered_while_audio_waits_for_the_engine() {
    let server = server();
    let mut client = vllm(&server).await;
    client.send(commit()).await;
    for _ in 0..12 {
        client.append(&pcm(&digits()), 1 << 20).await;
    }
    client.send(last_commit()).await;
    for _ in 0..10 {
        pong(&mut client).await;
    }
    assert!(client.heard.iter().all(|event| event["type"] != "transcription.done"), "it was done too soon to tell");
    client.until("transcription.done").await;
    server.stopped().await;
}

#[tokio::test]
async fn a_flood_of_tiny_messages_is_only_audio() {
    let server = server();
    let mut client = server.connect(OPENAI).await;
    let input = json!({ "format": { "type": "audio/pcm", "rate": 16000 }, "turn_detection": null });
    client.send(json!({ "type": "session.update", "session": { "audio": { "input": input } } })).await;
    client.append(&pcm(&digits()), 17).await;
    client.send(commit()).await;
    let completed = client.until("conversation.item.input_audio_transcription.completed").await;
    assert_eq!(completed["transcript"], DIGITS);
    server.stopped().await;
}

#[tokio::test]
async fn one_more_than_there_are_slots_is_refused_before_the_upgrade() {
    let server = server_with(of(1));
    let mut client = vllm(&server).await;
    let (status, body, after) = refusal(Client::of(server.request(VLLM)).await);
    assert_eq!((status, &body["error"]["code"]), (503, &json!("server_full")));
    assert!(after.is_some_and(|seconds| (1..=120).contains(&seconds)));
    transcribes(&mut client).await;
    client.socket.close(None).await.unwrap();
    server.becomes_free(1).await;
    transcribes(&mut vllm(&server).await).await;
    server.stopped().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_the_upgrade() {
    let server = server();
    for (path, status, code) in [
        ("/v1/realtime?model=another", 404, json!("model_not_found")),
        ("/v1/realtime?intent=transcription&input_audio_format=mp3", 400, Value::Null),
        ("/v1/realtime?intent=transcription&turn_detection=clairvoyance", 400, Value::Null),
    ] {
        let (refused, body, _) = refusal(Client::of(server.request(path)).await);
        assert_eq!((refused, &body["error"]["code"]), (status, &code), "{path}: {body}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
    server.all_is_free().await;
    server.stopped().await;
}

#[tokio::test]
async fn a_thousand_connections_take_no_slot_for_long() {
    let server = server_with(of(3));
    let mut client = vllm(&server).await;
    client.send(commit()).await;
    let come = async |_| match Client::of(server.request(VLLM)).await {
        Ok(_) => 1,
        Err(Error::Http(response)) => {
            assert_eq!(response.status(), 503);
            0
        }
        Err(error) => panic!("{error}"),
    };
    let opened: usize =
        futures_util::stream::iter(0..1000).map(come).buffer_unordered(64).fold(0, async |all, one| all + one).await;
    assert!((2..1000).contains(&opened), "{opened} of 1000");
    client.append(&pcm(&digits()), 3200).await;
    client.send(last_commit()).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    drop(client);
    server.becomes_free(3).await;
    server.stopped().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_connection_only() {
    let server = server();
    let mut other = vllm(&server).await;
    let mut client = vllm(&server).await;
    // The server may be gone before all is sent.
    let _ = client.socket.send(Message::text("A".repeat((16 << 20) + 1))).await;
    assert_eq!(client.closed().await, 1009);
    transcribes(&mut other).await;
    drop((client, other));
    server.all_is_free().await;
    server.stopped().await;
}

/// It has asked for more answers than fit into the network's buffers.
#[tokio::test]
async fn a_client_that_reads_nothing_is_left_and_disturbs_nobody() {
    let server = server();
    let mut deaf = server.connect(OPENAI).await;
    let update = json!({ "type": "session.update", "session": { "prompt": "A".repeat(40_000) } }).to_string();
    let sending = async { while deaf.socket.send(Message::text(update.clone())).await.is_ok() {} };
    // The server stops reading, then ends the connection.
    let left = timeout(Duration::from_secs(50), sending);
    let (left, ()) = tokio::join!(left, async { transcribes(&mut vllm(&server).await).await });
    assert!(left.is_ok(), "it is still served");
    server.all_is_free().await;
    server.stopped().await;
}

#[tokio::test]
async fn draining_lets_what_runs_end_and_then_says_going_away() {
    let mut server = server();
    let (mut running, mut waiting) = (vllm(&server).await, server.connect(OPENAI).await);
    running.send(commit()).await;
    let samples = pcm(&digits());
    let (first, second) = samples.split_at(samples.len() / 2);
    running.append(first, 3200).await;
    running.until("transcription.delta").await;
    server.server.drain();
    assert_eq!(waiting.closed().await, 1001);
    let (status, body, _) = refusal(Client::of(server.request(VLLM)).await);
    assert_eq!((status, &body["error"]["code"]), (503, &json!("server_draining")));
    server.end();
    running.append(second, 3200).await;
    running.send(last_commit()).await;
    assert_eq!(running.until("transcription.done").await["text"], DIGITS);
    assert_eq!(running.closed().await, 1001);
    server.stopped().await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_short_when_the_server_ends() {
    let mut server = server_with(ServerConfig { drain_timeout: Duration::from_millis(300), ..of(4) });
    let mut client = vllm(&server).await;
    client.send(commit()).await;
    client.append(&pcm(&digits()), 3200).await;
    client.until("transcription.delta").await;
    server.end();
    assert_eq!(client.closed().await, 1001);
    server.stopped().await;
}

#[tokio::test]
async fn what_was_live_is_in_the_figures() {
    let server = server();
    let mut client = vllm(&server).await;
    transcribes(&mut client).await;
    client.socket.send(Message::text("{")).await.unwrap();
    assert_eq!(client.event().await["code"], "invalid_json");
    let address = server.address;
    let ask = move || common::ask(&mut common::connect(address), "GET /metrics", &[]).body;
    let figures = tokio::task::spawn_blocking(ask).await.unwrap();
    for figure in [
        "voxtral_audio_seconds_total 8.195",
        "voxtral_word_lateness_seconds_count 11",
        "voxtral_first_word_seconds_count 1",
        "voxtral_errors_total{kind=\"invalid_json\"} 1",
        "voxtral_streams_active 1",
    ] {
        assert!(figures.lines().any(|line| line == figure), "no {figure} in {figures}");
    }
    server.stopped().await;
}

/// The figure of a server.
async fn figure(server: &Running, name: &str) -> f64 {
    let address = server.address;
    let ask = move || common::ask(&mut common::connect(address), "GET /metrics", &[]).body;
    let figures = tokio::task::spawn_blocking(ask).await.unwrap();
    let value = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {figures}")).parse().unwrap()
}

/// Four and a half minutes of it: the model writes only padding, and hears what comes after.
#[tokio::test]
async fn a_long_silence_is_only_silence() {
    let server = server();
    let mut client = vllm(&server).await;
    let update = json!({ "type": "session.update", "model": "digits", "timestamp_granularities": ["word"] });
    client.send(update).await;
    client.send(commit()).await;
    client.append(&vec![0; 270 * 32_000], 1 << 18).await;
    client.append(&pcm(&digits()), 3200).await;
    client.send(last_commit()).await;
    assert_eq!(client.until("transcription.done").await["text"], DIGITS);
    let first = client.heard.iter().find(|event| event["type"] == "transcription.word").unwrap();
    assert_eq!((&first["word"], &first["start"]), (&json!("four"), &json!(270.4)));
    let runs = figure(&server, "voxtral_pad_run_seconds_count").await;
    assert!(runs > 0.0, "between words there is padding");
    assert_eq!(figure(&server, "voxtral_pad_run_seconds_bucket{le=\"2.5\"}").await, runs, "silence is no speech");
    server.stopped().await;
}

/// vllm#47614: it goes on as if nothing were said, and that must be seen.
#[tokio::test]
async fn speech_of_which_the_model_writes_nothing_is_in_the_figures() {
    let model = voxtral_digits::model();
    let hears_nothing = fake::Fake::new(&model, u64::MAX, Arc::new(|_: &fake::Call| Ok(())));
    let voxtral = Voxtral::with_backend(&Config::default(), model, Box::new(hears_nothing)).unwrap();
    let server = common::serve(voxtral, ServerConfig::default());
    let mut client = vllm(&server).await;
    client.send(commit()).await;
    client.append(&pcm(&digits()), 3200).await;
    client.send(last_commit()).await;
    assert_eq!(client.until("transcription.done").await["text"], "");
    let runs = figure(&server, "voxtral_pad_run_seconds_count").await;
    assert!(figure(&server, "voxtral_pad_run_seconds_bucket{le=\"1.0\"}").await < runs, "no long run among {runs}");
    server.stopped().await;
}
