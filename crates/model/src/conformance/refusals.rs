//! What a backend must refuse with [`BackendError::Contract`], without harm to anything that the call did not name.

use super::bench::{Bench, Live, Script};
use super::{Make, Terms, on_each_model};
use crate::{AUDIO_WINDOW, BackendError, DecodeSpan, EncodeSpan, MAX_DECODE_ROWS, StreamId};

fn refused<T>(bench: &Bench<'_>, what: &str, result: Result<T, BackendError>) {
    match result {
        Err(BackendError::Contract(message)) => {
            assert!(!message.is_empty(), "{}: {what}: an empty message", bench.label);
        }
        Err(other) => panic!("{}: {what}: refused, but as {other:?}", bench.label),
        Ok(_) => panic!("{}: {what}: not refused", bench.label),
    }
}

fn decode(bench: &mut Bench<'_>, spans: &[(StreamId, usize, &[u32])]) -> Result<(), BackendError> {
    let spans: Vec<_> =
        spans.iter().map(|&(stream, position, ids)| DecodeSpan { stream, position, ids, runners_up: None }).collect();
    bench.backend.decode(&spans, &mut Vec::new())
}

fn encode(bench: &mut Bench<'_>, spans: &[(StreamId, &[f32])]) -> Result<(), BackendError> {
    let spans: Vec<_> = spans.iter().map(|&(stream, mel)| EncodeSpan { stream, mel }).collect();
    bench.backend.encode(&spans)
}

/// Streams come and go in any number; ids do not come back, and one that is closed is refused everywhere.
pub fn closed_streams_are_refused(make: Make<'_>, terms: &Terms) {
    on_each_model("closed streams are refused", make, terms, |bench| {
        let script = Script::new(bench, 6, 12, 20);
        let expected = bench.reference(&script);
        let mut stays = bench.open(&script, usize::MAX);
        let mut rows = bench.decode_spans(&mut stays, 4);
        let mut seen = vec![stays.id];
        for round in 0..60 {
            let mut live = bench.open(&script, if round % 2 == 0 { script.len() } else { usize::MAX });
            assert!(!seen.contains(&live.id), "{}: {:?} was given out twice", bench.label, live.id);
            seen.push(live.id);
            // Memory that was another stream's must not show.
            let got = bench.decode_spans(&mut live, 1 + round % 5);
            bench.same("a stream after others were closed", &expected[..got.len()], &got);
            bench.close(&live);
            bench.close(&live);
        }
        let closed = seen[30];
        let mel = &script.mel[..bench.token_len()];
        let result = encode(bench, &[(closed, mel)]);
        refused(bench, "encode of a closed stream", result);
        let result = decode(bench, &[(closed, 0, &[1])]);
        refused(bench, "decode of a closed stream", result);
        let result = bench.backend.fork(closed, 1);
        refused(bench, "fork of a closed stream", result);
        let result = bench.backend.grow(closed, 1);
        refused(bench, "growing a closed stream", result);
        let result = decode(bench, &[(StreamId(u64::MAX), 0, &[1])]);
        refused(bench, "decode of a stream that never was", result);
        bench.close(&Live { id: StreamId(u64::MAX), script, encoded: 0, decoded: 0, span: 1 });
        rows.extend(bench.decode_rest(&mut stays, &[3]));
        bench.same("the stream that stayed", &expected, &rows);
    });
}

/// Every mistake of a caller is an error, never a panic, and all streams go on as if nothing had been, the one that was named too.
pub fn mistakes_are_refused(make: Make<'_>, terms: &Terms) {
    on_each_model("mistakes are refused", make, terms, |bench| {
        let script = Script::new(bench, 6, 290, 21);
        let expected = bench.reference(&script);
        let mut bystander = bench.open(&script, usize::MAX);
        let mut rows = Vec::new();
        let vocab = bench.model.config.vocab as u32;
        let token = bench.token_len();
        let frame = bench.model.config.audio.mel_bins;
        let encode_tokens = bench.backend.info().encode_tokens;

        type Mistake<'s> = Box<dyn Fn(&mut Bench<'_>, &mut Live) -> Result<(), BackendError> + 's>;
        let script = &script;
        let (mel, ids) = (&script.mel, &script.ids);
        // Each is made on a fresh stream, opened for spans of 8 tokens, that has memory for 280 and has heard 270; positions were decoded up
        // to 180, then again from 60 to 61.
        let mistakes: Vec<(&str, Mistake<'_>)> = vec![
            ("more rows than a call takes", Box::new(|b, s| decode(b, &[(s.id, 61, &ids[..MAX_DECODE_ROWS + 1])]))),
            ("no rows", Box::new(|b, s| decode(b, &[(s.id, 61, &[])]))),
            ("a gap in the positions", Box::new(|b, s| decode(b, &[(s.id, 62, &ids[..1])]))),
            ("a position out of this world", Box::new(|b, s| decode(b, &[(s.id, usize::MAX, &ids[..1])]))),
            ("too far behind the furthest", Box::new(|b, s| decode(b, &[(s.id, 179 - MAX_DECODE_ROWS, &ids[..1])]))),
            ("an id beyond the vocabulary", Box::new(move |b, s| decode(b, &[(s.id, 61, &[1, vocab])]))),
            ("the largest id", Box::new(|b, s| decode(b, &[(s.id, 61, &[u32::MAX])]))),
            (
                "runners-up from beyond the vocabulary",
                Box::new(move |b, s| {
                    let span = DecodeSpan { stream: s.id, position: 61, ids: &ids[..1], runners_up: Some(vocab) };
                    b.backend.decode(&[span], &mut Vec::new())
                }),
            ),
            (
                "audio that was not encoded",
                Box::new(|b, s| {
                    s.decoded = 61;
                    b.decode_spans(s, 199);
                    decode(b, &[(s.id, 260, &ids[..11])])
                }),
            ),
            ("a stream twice in a decode", Box::new(|b, s| decode(b, &[(s.id, 61, &ids[..1]), (s.id, 61, &ids[..1])]))),
            (
                "more audio than there is memory for",
                Box::new(move |b, s| {
                    b.hear(s, 278);
                    encode(b, &[(s.id, &mel[278 * token..281 * token])])
                }),
            ),
            ("a longer span than was announced", Box::new(move |b, s| encode(b, &[(s.id, &mel[..9 * token])]))),
            (
                "more audio than a call takes",
                Box::new(move |b, s| {
                    let all: Vec<_> = mel.iter().copied().cycle().take((encode_tokens + 1) * token).collect();
                    encode(b, &[(s.id, &all)])
                }),
            ),
            ("no audio", Box::new(|b, s| encode(b, &[(s.id, &[])]))),
            ("a part of a token", Box::new(move |b, s| encode(b, &[(s.id, &mel[..token - frame])]))),
            ("a part of a frame", Box::new(move |b, s| encode(b, &[(s.id, &mel[..token - 1])]))),
            (
                "a stream twice in an encode",
                Box::new(move |b, s| encode(b, &[(s.id, &mel[..token]), (s.id, &mel[..token])])),
            ),
        ];
        for (what, mistake) in &mistakes {
            let mut live = bench.open_for_spans(script, 8, 0);
            bench.hear(&mut live, 270);
            bench.decode_spans(&mut live, 180);
            live.decoded = 60;
            bench.decode_spans(&mut live, 1);
            let grown = bench.backend.grow(live.id, 280);
            grown.unwrap_or_else(|e| panic!("{}: {what}: {e}", bench.label));
            let result = mistake(bench, &mut live);
            refused(bench, what, result);
            let position = live.decoded;
            let after = bench.decode_rest(&mut live, &[16]);
            bench.same(&format!("the stream after {what}"), &expected[position..], &after);
            bench.close(&live);
            rows.extend(bench.decode_spans(&mut bystander, 5));
        }
        rows.extend(bench.decode_rest(&mut bystander, &[16]));
        bench.same("a stream that was not named", &expected, &rows);
    });
}

/// Audio that is no longer kept cannot be decoded.
pub fn old_audio_is_refused(make: Make<'_>, terms: &Terms) {
    on_each_model("old audio is refused", make, terms, |bench| {
        let script = Script::new(bench, 6, AUDIO_WINDOW + 10, 22);
        let mut live = bench.open(&script, usize::MAX);
        bench.decode_spans(&mut live, 9);
        bench.hear(&mut live, AUDIO_WINDOW + 10);
        let result = decode(bench, &[(live.id, 9, &script.ids[..1])]);
        refused(bench, "audio that is too old", result);
        bench.close(&live);
    });
}
