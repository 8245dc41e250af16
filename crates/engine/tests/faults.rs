//! Whatever a backend does, nobody waits for ever, and what did not fail goes on.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::{Call, Fake, Hook, broken, out_of_memory};
use voxtral_engine::{Engine, EngineError, EngineOptions, Event, Session, SessionOptions};
use voxtral_model::{BackendError, Delay, Model};

/// How long anybody may wait, in tests whose work takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

fn engine(model: &Model, memory: u64, options: EngineOptions, hook: Hook) -> Engine {
    Engine::new(model, Box::new(Fake::new(model, memory, hook)), options).unwrap()
}

fn last(session: &mut Session) -> Result<Event, EngineError> {
    std::iter::from_fn(|| session.next_event()).last().expect("a last event")
}

/// Pushes, and reads all that comes.
fn run(engine: &Engine, options: SessionOptions, samples: usize) -> Result<Event, EngineError> {
    let mut session = engine.session(options)?;
    // Where it has failed already, the last event says why.
    let _ = session.push_samples(&vec![0.1; samples]);
    session.finish();
    last(&mut session)
}

/// A name for each kind of call.
fn kind(call: &Call) -> &'static str {
    match call {
        Call::Info => "info",
        Call::StreamBytes => "stream_bytes",
        Call::FreeBytes => "free_bytes",
        Call::Open => "open",
        Call::Fork(_) => "fork",
        Call::Grow(..) => "grow",
        Call::Close => "close",
        Call::Encode(_) => "encode",
        Call::Decode(_) => "decode",
    }
}

/// The call of a kind that fails, by an error or a panic.
fn fault(at: &'static str, number: usize, panics: bool) -> (Hook, Arc<AtomicBool>) {
    let (count, armed) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let is_armed = Arc::clone(&armed);
    let hook = move |call: &Call| {
        if kind(call) != at || !is_armed.load(Relaxed) || count.fetch_add(1, Relaxed) != number {
            return Ok(());
        }
        if panics { panic!("told to break in {at}") } else { Err(broken()) }
    };
    (Arc::new(hook), armed)
}

/// Sessions that are opened, running, paused and dropped by several threads, while one call of the backend fails.
#[test]
fn nobody_waits_for_a_backend_that_fails_or_panics() {
    let model = voxtral_digits::model();
    let kinds = ["info", "stream_bytes", "free_bytes", "open", "fork", "grow", "close", "encode", "decode"];
    let mut injected = 0;
    for at in kinds {
        for number in [0, 1, 2, 3, 5, 8, 13] {
            for panics in [false, true] {
                let (hook, armed) = fault(at, number, panics);
                let engine = engine(&model, 1_000_000, EngineOptions::default(), hook);
                armed.store(true, Relaxed);
                let (done, waiting) = mpsc::channel();
                std::thread::scope(|scope| {
                    for who in 0..6u32 {
                        let (engine, done) = (&engine, done.clone());
                        scope.spawn(move || {
                            let delay = Delay::from_ms(80 * (1 + who % 3)).ok();
                            let options = SessionOptions { delay, live: who % 2 == 0, ..SessionOptions::default() };
                            match who {
                                // Never reads, until it is over.
                                0 => drop(engine.session(options).map(|mut session| {
                                    let _ = session.push_samples(&vec![0.1; 1_600_000]);
                                    session.finish();
                                    last(&mut session)
                                })),
                                // Leaves in the middle.
                                1 => drop(engine.session(options).map(|mut s| s.push_samples(&[0.1; 20_000]))),
                                2 => drop(engine.prewarm(&[delay.unwrap()])),
                                _ => (0..4).for_each(|_| drop(run(engine, options, 30_000))),
                            }
                            done.send(who).unwrap();
                        });
                    }
                    drop(done);
                    for _ in 0..6 {
                        let what = format!("call {number} of {at}, {}", if panics { "a panic" } else { "an error" });
                        // A thread that hangs cannot be joined: the process ends.
                        if waiting.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                            eprintln!("somebody waits for ever: {what}");
                            std::process::abort();
                        }
                    }
                });
                injected += 1;
            }
        }
    }
    assert_eq!(injected, 126);
}

#[test]
fn a_panic_is_told_to_all_and_nobody_is_admitted_after_it() {
    let model = voxtral_digits::model();
    let (hook, armed) = fault("encode", 0, true);
    let engine = engine(&model, u64::MAX, EngineOptions::default(), hook);
    engine.prewarm(&[Delay::from_ms(480).unwrap()]).unwrap();
    let mut sessions = [(); 3].map(|()| engine.session(SessionOptions::default()).unwrap());
    armed.store(true, Relaxed);
    let _ = sessions[0].push_samples(&[0.1; 16_000]);
    for session in &mut sessions {
        let told = last(session).unwrap_err();
        assert!(matches!(&told, EngineError::Backend(e) if e.to_string().contains("told to break")), "{told}");
    }
    // The engine's thread ends a moment after it has told everybody.
    let refused = std::iter::repeat_with(|| run(&engine, SessionOptions::default(), 0));
    let refused = refused.take(1000).find(|outcome| matches!(outcome, Err(EngineError::Stopped)));
    assert!(refused.is_some());
}

#[test]
fn a_warm_up_that_fails_leaves_nothing_behind() {
    let model = voxtral_digits::model();
    for at in ["open", "grow", "encode", "decode"] {
        let (hook, armed) = fault(at, 0, false);
        let engine = engine(&model, u64::MAX, EngineOptions::default(), hook);
        armed.store(true, Relaxed);
        let failed = run(&engine, SessionOptions::default(), 16_000);
        assert!(matches!(failed, Err(EngineError::Backend(_))), "{at}: {failed:?}");
        let Ok(Event::Done(summary)) = run(&engine, SessionOptions::default(), 16_000) else { panic!("{at}") };
        assert_eq!(summary.stats.tokens, 13 + 10, "{at}");
        // It has left, as soon as the engine has seen it.
        let open = std::iter::repeat_with(|| engine.counters().sessions);
        assert!(open.take(100_000_000).any(|open| open == 0), "{at}");
    }
}

#[test]
fn growth_that_finds_no_memory_ends_that_session_only() {
    let model = voxtral_digits::model();
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    // The first session's stream comes after the template.
    let hook = move |call: &Call| match call {
        Call::Grow(stream, _) if stream.0 == 1 && is_full.load(Relaxed) => Err(out_of_memory()),
        _ => Ok(()),
    };
    let engine = engine(&model, u64::MAX, EngineOptions::default(), Arc::new(hook));
    let mut sessions = [(); 3].map(|()| engine.session(SessionOptions::default()).unwrap());
    for session in &mut sessions {
        session.push_samples(&[0.1; 16_000]).unwrap();
        while !matches!(session.next_event(), Some(Ok(Event::Token(_)))) {}
    }
    full.store(true, Relaxed);
    for session in &mut sessions {
        let _ = session.push_samples(&[0.1; 16_000]);
        session.finish();
    }
    let [first, others @ ..] = sessions.map(|mut session| last(&mut session));
    let told = first.unwrap_err();
    assert!(matches!(&told, EngineError::Backend(e) if matches!(**e, BackendError::OutOfMemory { .. })), "{told}");
    assert!(others.iter().all(|last| matches!(last, Ok(Event::Done(_)))), "{others:?}");
}

#[test]
fn a_session_is_admitted_where_what_it_and_the_others_may_come_to_fits() {
    let model = voxtral_digits::model();
    let schedule_tokens = |samples: usize| samples / 1280 + 32 + 6 + 11;
    // The template, and two sessions of ten seconds.
    let memory = 31 + 2 * schedule_tokens(160_000) as u64;
    let options = EngineOptions { expected: Duration::from_secs(10), ..EngineOptions::default() };
    let engine = engine(&model, memory, options, Arc::new(|_: &Call| Ok(())));
    let capacity = || engine.capacity(model.tokenizer.default_delay()).unwrap();
    assert_eq!(capacity(), Some(2));
    let mut sessions = [(); 2].map(|()| engine.session(SessionOptions::default()).unwrap());
    for session in &mut sessions {
        session.push_samples(&[0.1; 16_000]).unwrap();
        while !matches!(session.next_event(), Some(Ok(Event::Token(_)))) {}
    }
    // There is memory now, but it is promised.
    let refused = run(&engine, SessionOptions::default(), 0).unwrap_err();
    assert!(
        matches!(&refused, EngineError::Backend(e) if matches!(**e, BackendError::OutOfMemory { .. })),
        "{refused}"
    );
    assert_eq!(capacity(), Some(2), "those that run are among them");
    // What was promised is kept.
    for session in &mut sessions {
        session.push_samples(&[0.1; 144_000]).unwrap();
        session.finish();
        assert!(matches!(last(session), Ok(Event::Done(_))));
    }
    let short = SessionOptions { samples: Some(16_000), ..SessionOptions::default() };
    assert!(matches!(run(&engine, short, 16_000), Ok(Event::Done(_))), "their memory is free again");
    assert!(engine.peak_device_bytes() <= memory);
}

#[test]
fn more_sessions_than_are_allowed_are_refused() {
    let model = voxtral_digits::model();
    let options = EngineOptions { max_sessions: 2, ..EngineOptions::default() };
    let engine = engine(&model, u64::MAX, options, Arc::new(|_: &Call| Ok(())));
    let [first, mut second] = [(); 2].map(|()| engine.session(SessionOptions::default()).unwrap());
    let refused = engine.session(SessionOptions::default()).err();
    assert!(matches!(refused, Some(EngineError::Full { running: 2 })), "{refused:?}");
    drop(first);
    second.finish();
    assert!(matches!(last(&mut second), Ok(Event::Done(_))));
    assert!(engine.session(SessionOptions::default()).is_ok(), "both have left");
    assert_eq!(engine.capacity(Delay::from_ms(480).unwrap()).unwrap(), None, "nobody promises the host's memory");
}
