//! Pauses end what was said before them, wherever the audio comes from and however its tokens are found, and change nothing else.

mod digits;

use std::time::Duration;

use digits::{SAMPLE_RATE, engine, engine_of};
use voxtral_engine::{Decoding, Engine, Event, Session, SessionOptions};
use voxtral_model::testing::golden;
use voxtral_model::{Kind, Model};
use voxtral_transcript::Word;

/// Digits with long pauses after the second (as heard), the fifth and the last.
fn sample() -> Vec<f32> {
    let samples = digits::sample();
    let silence = vec![0.0; 24_000];
    let (first, rest) = samples.split_at((1.95 * SAMPLE_RATE) as usize);
    let (second, third) = rest.split_at((2.3 * SAMPLE_RATE) as usize);
    [first, &silence, second, &silence, third, &silence].concat()
}

/// Text and words between pauses, and where each was told, the end of the audio being the last.
#[derive(Debug, Default, PartialEq)]
struct Segment {
    text: String,
    words: Vec<Word>,
    tokens: usize,
    at_s: f64,
}

fn segments(session: &mut Session) -> Vec<Segment> {
    let mut segments = vec![Segment::default()];
    while let Some(event) = session.next_event() {
        let last = segments.last_mut().unwrap();
        match event.unwrap() {
            Event::Text(text) => last.text += &text,
            Event::Word(word) => last.words.push(word),
            Event::Token(_) => last.tokens += 1,
            Event::Endpoint { at_s } => {
                last.at_s = at_s;
                segments.push(Segment::default());
            }
            Event::Done(summary) => last.at_s = summary.audio_s,
            Event::Alternatives(_) | Event::Flushed { .. } => panic!("nobody asked for that"),
        }
    }
    segments
}

fn run(engine: &Engine, samples: &[f32], chunk: usize, options: SessionOptions) -> Vec<Segment> {
    let mut session = engine.session(options).unwrap();
    samples.chunks(chunk).for_each(|chunk| session.push_samples(chunk).unwrap());
    session.finish();
    segments(&mut session)
}

fn asking(ms: u64) -> SessionOptions {
    SessionOptions { endpoint: Some(Duration::from_millis(ms)), ..SessionOptions::default() }
}

#[test]
fn words_come_out_at_the_pause_after_them() {
    let (engine, samples) = (engine(), sample());
    let got = run(&engine, &samples, samples.len(), asking(800));
    let texts: Vec<_> = got.iter().map(|segment| segment.text.trim()).collect();
    assert_eq!(texts, ["four seven", "one one nine", "zero two six three five eight", ""]);
    // 1.8 s, 4.1 s and 8.07 s of speech, as the detector hears it, and the pauses up to there.
    for (segment, at_s) in got.iter().zip([2.6, 6.4, 11.87, samples.len() as f64 / SAMPLE_RATE]) {
        assert!((segment.at_s - at_s).abs() < 0.06, "{segment:?}");
    }
    for pair in got.windows(2) {
        assert!(pair[0].words.iter().all(|word| word.end_s <= pair[0].at_s), "{:?}", pair[0]);
        assert!(pair[1].words.iter().all(|word| word.start_s >= pair[0].at_s), "{:?}", pair[1]);
    }
}

#[test]
fn what_is_said_is_the_same_with_and_without_pauses() {
    let (engine, samples) = (engine(), sample());
    let plain = run(&engine, &samples, samples.len(), SessionOptions::default()).remove(0);
    // The longest pause is 1.5 s longer than one between two digits.
    for (ms, expected) in [(200, 7), (800, 4), (3000, 1)] {
        let got = run(&engine, &samples, samples.len(), asking(ms));
        assert!(if ms == 200 { got.len() >= expected } else { got.len() == expected }, "{ms} ms: {got:?}");
        assert_eq!(got.iter().map(|segment| segment.tokens).sum::<usize>(), plain.tokens, "{ms} ms");
        assert_eq!(got.iter().map(|segment| segment.text.as_str()).collect::<String>(), plain.text, "{ms} ms");
        let words = got.iter().flat_map(|segment| &segment.words);
        let ends: Vec<_> = words.map(|word| (&word.text, word.end_s, word.logprob)).collect();
        let expected: Vec<_> = plain.words.iter().map(|word| (&word.text, word.end_s, word.logprob)).collect();
        assert_eq!(ends, expected, "{ms} ms");
    }
}

#[test]
fn neither_pieces_nor_decoding_nor_company_matter() {
    let (engine, samples) = (engine(), sample());
    let expected = run(&engine, &samples, samples.len(), asking(300));
    for (chunk, live, decoding) in [
        (777, true, Decoding::Sequential),
        (1280, true, Decoding::Auto),
        (16_000, false, Decoding::Parallel { lookahead: 32 }),
        (usize::MAX, false, Decoding::Parallel { lookahead: 128 }),
    ] {
        let options = SessionOptions { live, decoding, ..asking(300) };
        // One that does not ask goes beside.
        let mut other = engine.session(SessionOptions { live: false, ..SessionOptions::default() }).unwrap();
        other.push_samples(&samples).unwrap();
        let got = run(&engine, &samples, chunk, options);
        assert_eq!(got, expected, "pieces of {chunk}, live {live}, {decoding:?}");
        other.finish();
        assert_eq!(segments(&mut other).len(), 1);
    }
}

/// A model that writes at random writes words of many tokens, also where the audio pauses.
#[test]
fn a_word_that_is_being_written_is_written_to_its_end() {
    let model = Model::open(&golden("tiny").unwrap()).unwrap();
    let engine = engine_of(&model);
    let mut session = engine.session(asking(200)).unwrap();
    session.push_samples(&sample()).unwrap();
    session.finish();
    let (mut last_is_text, mut texts) = (false, 0);
    while let Some(event) = session.next_event() {
        match event.unwrap() {
            Event::Token(token) => {
                last_is_text = matches!(model.tokenizer.kind(token.id), Kind::Text(_));
                texts += usize::from(last_is_text);
            }
            Event::Endpoint { at_s } => assert!(!last_is_text, "at {at_s} s, after {texts} tokens of text"),
            _ => {}
        }
    }
    assert!(texts > 50, "{texts}");
}

#[test]
fn live_words_do_not_wait_for_the_next() {
    let (engine, samples) = (engine(), sample());
    let mut session = engine.session(asking(500)).unwrap();
    // Two words, and of the pause after them as much as it takes to know and to write: the delay, and a word's tokens.
    let heard = ((1.8 + 0.5 + 0.48 + 0.25) * SAMPLE_RATE) as usize;
    session.push_samples(&samples[..heard]).unwrap();
    let endpoint =
        std::iter::from_fn(|| session.next_event()).find(|event| matches!(event, Ok(Event::Endpoint { .. })));
    assert!(endpoint.is_some(), "told while the pause goes on");
}

#[test]
fn after_a_flush_pauses_are_where_they_are_in_the_audio() {
    let (engine, samples) = (engine(), sample());
    let expected = run(&engine, &samples, samples.len(), asking(800));
    let mut session = engine.session(asking(800)).unwrap();
    // In the first pause, before it has lasted long enough.
    let (before, after) = samples.split_at((2.2 * SAMPLE_RATE) as usize);
    session.push_samples(before).unwrap();
    session.flush().unwrap();
    while !matches!(session.next_event(), Some(Ok(Event::Flushed { .. }))) {}
    session.push_samples(after).unwrap();
    session.finish();
    let got = segments(&mut session);
    let told = |segments: &[Segment]| segments.iter().map(|segment| segment.at_s).collect::<Vec<_>>();
    assert_eq!(told(&got), told(&expected));
    assert_eq!(got[1].text, expected[1].text);
}

#[test]
fn nothing_is_told_where_nothing_is_said() {
    let engine = engine();
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0.1 * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    for samples in [vec![0.0; 80_000], (0..80_000).map(|_| noise()).collect()] {
        let got = run(&engine, &samples, samples.len(), asking(200));
        assert!(got.iter().take(got.len() - 1).all(|segment| !segment.text.is_empty()), "{got:?}");
    }
}
