//! A flush brings out what was said, and leaves no trace in the time of what is said after it.

mod digits;

use digits::{SAMPLE_RATE, engine, sample};
use voxtral_engine::{Event, Session, SessionOptions, Summary};
use voxtral_transcript::Word;

#[derive(Debug, Default, PartialEq)]
struct Heard {
    text: String,
    words: Vec<Word>,
    tokens: usize,
}

/// What comes up to the next flush, and where that was in the audio.
fn up_to_flush(session: &mut Session) -> (Heard, f64) {
    let mut heard = Heard::default();
    loop {
        match session.next_event().expect("a flush is answered").unwrap() {
            Event::Text(text) => heard.text += &text,
            Event::Word(word) => heard.words.push(word),
            Event::Token(_) => heard.tokens += 1,
            Event::Alternatives(_) | Event::Endpoint { .. } => panic!("nobody asked for that"),
            Event::Flushed { audio_s } => return (heard, audio_s),
            Event::Done(_) => panic!("the session has ended"),
        }
    }
}

fn rest(mut session: Session) -> (Heard, Summary) {
    let mut heard = Heard::default();
    while let Some(event) = session.next_event() {
        match event.unwrap() {
            Event::Text(text) => heard.text += &text,
            Event::Word(word) => heard.words.push(word),
            Event::Token(_) => heard.tokens += 1,
            Event::Alternatives(_) | Event::Endpoint { .. } => panic!("nobody asked for that"),
            Event::Flushed { .. } => panic!("a flush that nobody asked for"),
            Event::Done(summary) => return (heard, summary),
        }
    }
    panic!("no end")
}

#[test]
fn what_was_said_comes_out_and_times_go_on() {
    let (engine, samples) = (engine(), sample());
    let mut plain = engine.session(SessionOptions::default()).unwrap();
    plain.push_samples(&samples).unwrap();
    plain.finish();
    let (plain, whole) = rest(plain);
    // In the middle of the longest pause.
    let pause = |i: &usize| plain.words[i + 1].start_s - plain.words[*i].end_s;
    let widest = (0..plain.words.len() - 1).max_by(|a, b| pause(a).total_cmp(&pause(b))).unwrap();
    let middle_s = plain.words[widest].end_s + pause(&widest) / 2.0;
    let middle = (middle_s * SAMPLE_RATE) as usize;

    let run = |chunk: usize| {
        let mut session = engine.session(SessionOptions::default()).unwrap();
        samples[..middle].chunks(chunk).for_each(|chunk| session.push_samples(chunk).unwrap());
        session.flush().unwrap();
        let (first, at_s) = up_to_flush(&mut session);
        assert_eq!(at_s, middle as f64 / SAMPLE_RATE);
        samples[middle..].chunks(chunk).for_each(|chunk| session.push_samples(chunk).unwrap());
        session.finish();
        let (second, summary) = rest(session);
        (first, second, summary.text, summary.audio_s)
    };
    let (first, second, text, audio_s) = run(samples.len());
    assert_eq!(text, whole.text);
    assert_eq!(first.text + &second.text, whole.text);
    assert_eq!(audio_s, whole.audio_s);
    assert_eq!(first.words.len(), widest + 1, "all that was said before it, and nothing else");
    for (word, plain) in first.words.iter().chain(&second.words).zip(&plain.words) {
        assert_eq!(word.text, plain.text);
        assert!((word.end_s - plain.end_s).abs() <= 0.081, "{word:?}, without a flush {plain:?}");
        assert!(word.end_s <= audio_s);
    }
    // However the audio is cut.
    for chunk in [777, 1280, 16_000] {
        let (again_first, again_second, again, _) = run(chunk);
        assert_eq!((&again_first.words, again_first.tokens), (&first.words, first.tokens), "pieces of {chunk}");
        assert_eq!((&again_second.words, &again), (&second.words, &text), "pieces of {chunk}");
    }
}

#[test]
fn flushes_in_a_row_and_at_both_ends_are_answered_and_add_nothing() {
    let (engine, samples) = (engine(), sample());
    let mut session = engine.session(SessionOptions::default()).unwrap();
    session.flush().unwrap();
    assert_eq!(up_to_flush(&mut session).1, 0.0);
    session.push_samples(&samples).unwrap();
    for _ in 0..3 {
        session.flush().unwrap();
    }
    let (heard, at_s) = up_to_flush(&mut session);
    assert_eq!(at_s, samples.len() as f64 / SAMPLE_RATE);
    for _ in 0..2 {
        assert_eq!(up_to_flush(&mut session), (Heard::default(), at_s));
    }
    session.finish();
    let (nothing, summary) = rest(session);
    assert_eq!((nothing, summary.text), (Heard::default(), heard.text));
    assert_eq!(summary.audio_s, at_s);
}
