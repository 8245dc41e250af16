//! Who waits for whom.

mod common;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{Call, Fake, Hook};
use voxtral_engine::{AudioIn, Engine, EngineOptions, Event, SessionOptions};
use voxtral_model::{Delay, StreamId};

/// The most tokens or rows of a call that live audio waits for, as documented.
const BOUND: usize = 32;
const TOKEN: usize = 1280;

fn live() -> SessionOptions {
    SessionOptions::default()
}

fn recorded() -> SessionOptions {
    SessionOptions { live: false, interval: usize::MAX, ..SessionOptions::default() }
}

fn spans(call: &Call) -> &[(StreamId, usize)] {
    match call {
        Call::Encode(spans) | Call::Decode(spans) => spans,
        _ => &[],
    }
}

/// In every call that does not serve the live session, that has something new to say. It must be heard next: no two calls in a row are
/// for others, and none of those is longer than the bound.
#[test]
fn live_audio_waits_for_at_most_one_bounded_call_of_others() {
    let model = voxtral_digits::model();
    let talking: Arc<Mutex<Option<(StreamId, AudioIn)>>> = Arc::default();
    let others = Arc::new(Mutex::new((0usize, 0usize, 0usize)));
    let (talks, counted) = (Arc::clone(&talking), Arc::clone(&others));
    let hook = move |call: &Call| {
        let talking = talks.lock().unwrap();
        let takes_time = matches!(call, Call::Fork(_) | Call::Encode(_) | Call::Decode(_));
        if let (Some((stream, audio)), true) = (&*talking, takes_time) {
            let mut others = counted.lock().unwrap();
            if spans(call).iter().any(|span| span.0 == *stream) {
                others.0 = 0;
            } else {
                let length = spans(call).iter().map(|span| span.1).sum();
                *others = (others.0 + 1, others.1.max(others.0 + 1), others.2.max(length));
                audio.push_samples(&[0.1; TOKEN]).unwrap();
            }
        }
        Ok(())
    };
    let fake = Fake::new(&model, u64::MAX, Arc::new(hook));
    let calls = fake.calls();
    let engine = Engine::new(&model, Box::new(fake), EngineOptions::default()).unwrap();
    let (audio, mut events) = engine.session(live()).unwrap().split();
    audio.push_samples(&[0.1; 40 * TOKEN]).unwrap();
    while !matches!(events.next(), Some(Ok(Event::Token(_)))) {}
    // The live stream is the one that was encoded last.
    let stream = calls.lock().unwrap().iter().rev().find_map(|call| spans(call).first()).unwrap().0;
    *talking.lock().unwrap() = Some((stream, audio));

    let reader = std::thread::spawn(move || events.filter(|event| event.is_ok()).count());
    std::thread::scope(|scope| {
        // That they are opened all at once is no reason to wait for all of them.
        for _ in 0..20 {
            scope.spawn(|| {
                let mut session = engine.session(recorded()).unwrap();
                session.push_samples(&vec![0.1; 100 * TOKEN]).unwrap();
                session.finish();
                while session.next_event().is_some() {}
            });
        }
        let delays = [1, 2, 3, 30].map(|tokens| Delay::from_ms(tokens * 80).unwrap());
        engine.prewarm(&delays).unwrap();
    });
    let (_, in_a_row, longest) = *others.lock().unwrap();
    *talking.lock().unwrap() = None;
    assert!(reader.join().unwrap() > 100);
    assert_eq!(in_a_row, 1, "calls of others that live audio waited for");
    assert!((2..=BOUND).contains(&longest), "the longest call of others has {longest} tokens or rows");
}

/// Alone, recordings have whole calls.
#[test]
fn recordings_have_whole_calls_where_nobody_is_live() {
    let model = voxtral_digits::model();
    let fake = Fake::new(&model, u64::MAX, Arc::new(|_: &Call| Ok(())));
    let calls = fake.calls();
    let engine = Engine::new(&model, Box::new(fake), EngineOptions::default()).unwrap();
    let mut session = engine.session(recorded()).unwrap();
    session.push_samples(&vec![0.1; 300 * TOKEN]).unwrap();
    session.finish();
    while session.next_event().is_some() {}
    let longest =
        calls.lock().unwrap().iter().filter(|call| matches!(call, Call::Encode(_))).map(|c| spans(c)[0].1).max();
    assert_eq!(longest, Some(common::ENCODE_TOKENS));
}

/// More streams than a call has rows: all come to their end, and they share calls.
#[test]
fn hundreds_of_live_sessions_share_calls() {
    let model = voxtral_digits::model();
    let gate = Arc::new(Mutex::new(()));
    let fake = Fake::new(&model, u64::MAX, waits_at(&gate));
    let calls = fake.calls();
    let engine = Engine::new(&model, Box::new(fake), EngineOptions::default()).unwrap();
    engine.prewarm(&[Delay::from_ms(480).unwrap()]).unwrap();
    let held = gate.lock().unwrap();
    let sessions: Vec<_> = (0..300).map(|_| engine.session(live()).unwrap().split()).collect();
    assert_eq!(engine.counters().sessions, 300);
    wait_for_forks(&calls, 300);
    for _ in 0..20 {
        sessions.iter().for_each(|(audio, _)| audio.push_samples(&[0.1; TOKEN]).unwrap());
    }
    let (audio, events): (Vec<_>, Vec<_>) = sessions.into_iter().unzip();
    drop((audio, held));
    for events in events {
        let tokens = events.filter(|event| matches!(event, Ok(Event::Token(_)))).count();
        assert_eq!(tokens, 20 + 10);
    }
    let served: Vec<Vec<(StreamId, usize)>> = calls
        .lock()
        .unwrap()
        .iter()
        .filter(|call| matches!(call, Call::Decode(_)))
        .map(|c| spans(c).to_vec())
        .collect();
    assert!(served.iter().any(|call| call.len() > 100), "no call serves many");
    let counters = engine.counters();
    assert_eq!(counters.queued_frames, 0);
    assert!(counters.rounds > 0 && counters.decoded_rows >= 300 * 30 && counters.encoded_tokens >= 300 * 30);
    assert!(counters.passes < counters.decoded_rows && counters.decoded_tokens >= 300 * 30);
    assert!(!engine.has_stopped());
}

/// Sessions that are left while a call is under way, after it was known what they have due and before it is their turn.
#[test]
fn sessions_that_are_left_in_the_middle_of_a_round_hold_up_nobody() {
    let model = voxtral_digits::model();
    let (gate, leaving) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(Vec::new())));
    let (waits, leave) = (waits_at(&gate), Arc::clone(&leaving));
    let hook = move |call: &Call| {
        waits(call)?;
        let tokens: usize = spans(call).iter().map(|span| span.1).sum();
        if matches!(call, Call::Encode(_)) && tokens == common::ENCODE_TOKENS {
            leave.lock().unwrap().clear();
        }
        Ok(())
    };
    let fake = Fake::new(&model, u64::MAX, Arc::new(hook));
    let calls = fake.calls();
    let engine = Engine::new(&model, Box::new(fake), EngineOptions::default()).unwrap();
    engine.prewarm(&[Delay::from_ms(480).unwrap()]).unwrap();
    let held = gate.lock().unwrap();
    let count = 2 * common::ENCODE_TOKENS;
    let sessions: Vec<_> = (0..count).map(|_| engine.session(live()).unwrap().split()).collect();
    wait_for_forks(&calls, count);
    for (audio, events) in sessions {
        audio.push_samples(&[0.1; TOKEN]).unwrap();
        leaving.lock().unwrap().push((audio, events));
    }
    drop(held);
    let (audio, mut events) = engine.session(live()).unwrap().split();
    audio.finish();
    loop {
        match events.next_timeout(Duration::from_secs(60)) {
            Poll::Ready(event) => match event.expect("a last event").unwrap() {
                Event::Done(_) => break,
                _ => continue,
            },
            // The engine cannot be dropped if its thread hangs: the process ends.
            Poll::Pending => {
                eprintln!("the engine hangs");
                std::process::abort();
            }
        }
    }
    assert!(leaving.lock().unwrap().is_empty(), "no call was full");
}

/// So many sessions have been opened.
fn wait_for_forks(calls: &Mutex<Vec<Call>>, count: usize) {
    while calls.lock().unwrap().iter().filter(|call| matches!(call, Call::Fork(_))).count() < count {
        std::thread::yield_now();
    }
}

#[derive(Default)]
struct Woken(Mutex<u32>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
    }
}

impl Woken {
    fn times(&self) -> u32 {
        *self.0.lock().unwrap()
    }

    /// Who is woken may have seen what for before.
    fn wait_for_once(&self) {
        while self.times() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(self.times(), 1);
    }
}

/// The engine waits at the gate with every call that encodes what is not the template's.
fn waits_at(gate: &Arc<Mutex<()>>) -> Hook {
    let gate = Arc::clone(gate);
    Arc::new(move |call: &Call| {
        if matches!(call, Call::Encode(spans) if spans[0].0.0 > 0) {
            drop(gate.lock().unwrap());
        }
        Ok(())
    })
}

/// Callers that must not wait are told when there is something for them.
#[test]
fn readers_and_writers_need_not_wait() {
    let model = voxtral_digits::model();
    let gate = Arc::new(Mutex::new(()));
    let fake = Fake::new(&model, u64::MAX, waits_at(&gate));
    let engine = Engine::new(&model, Box::new(fake), EngineOptions::default()).unwrap();
    engine.prewarm(&[Delay::from_ms(480).unwrap()]).unwrap();
    let (audio, mut events) = engine.session(live()).unwrap().split();
    let (reader, writer) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let wakers = [Waker::from(Arc::clone(&reader)), Waker::from(Arc::clone(&writer))];
    let held = gate.lock().unwrap();
    assert!(events.next_timeout(Duration::ZERO).is_pending());
    assert!(events.poll_next(&mut Context::from_waker(&wakers[0])).is_pending());
    // The engine takes some of it at most before it comes to the gate.
    let minute = vec![0.1; 60 * 16_000];
    let taken = audio.push_timeout(&minute, Duration::from_millis(300)).unwrap();
    assert!((160_000..600_000).contains(&taken), "{taken}");
    assert_eq!(audio.push_timeout(&minute, Duration::ZERO).unwrap(), 0);
    assert!(audio.poll_push(&mut Context::from_waker(&wakers[1]), &minute).is_pending());
    assert_eq!((reader.times(), writer.times()), (0, 0));
    drop(held);
    let Some(Ok(Event::Token(_))) = events.next() else { panic!("a token") };
    reader.wait_for_once();
    drop(audio);
    while let Poll::Ready(Some(event)) = events.next_timeout(Duration::from_secs(60)) {
        event.unwrap();
    }
    writer.wait_for_once();
    assert!(matches!(events.next_timeout(Duration::ZERO), Poll::Ready(None)));
}
