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
    let spans: Vec<_> = spans.iter().map(|&(stream, position, ids)| DecodeSpan { stream, position, ids }).collect();
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
        let result = bench.backend.fork(closed, usize::MAX);
        refused(bench, "fork of a closed stream", result);
        let result = decode(bench, &[(StreamId(u64::MAX), 0, &[1])]);
        refused(bench, "decode of a stream that never was", result);
        bench.close(&Live { id: StreamId(u64::MAX), script, encoded: 0, decoded: 0 });
        rows.extend(bench.decode_rest(&mut stays, &[3]));
        bench.same("the stream that stayed", &expected, &rows);
    });
}

/// Every mistake of a caller is an error, never a panic, and streams that the call did not name go on as if nothing had been.
pub fn mistakes_are_refused(make: Make<'_>, terms: &Terms) {
    on_each_model("mistakes are refused", make, terms, |bench| {
        let script = Script::new(bench, 6, 160, 21);
        let expected = bench.reference(&script);
        let mut bystander = bench.open(&script, usize::MAX);
        let mut rows = Vec::new();
        let vocab = bench.model.config.vocab as u32;
        let token = bench.token_len();
        let frame = bench.model.config.audio.mel_bins;

        type Mistake<'s> = Box<dyn Fn(&mut Bench<'_>, StreamId) -> Result<(), BackendError> + 's>;
        let script = &script;
        let ids = &script.ids;
        // Each is made on a fresh stream that has heard 140 tokens and decoded 30 positions.
        let mistakes: Vec<(&str, Mistake<'_>)> = vec![
            ("more rows than a call takes", Box::new(|b, s| decode(b, &[(s, 0, &ids[..MAX_DECODE_ROWS + 1])]))),
            ("a gap in the positions", Box::new(|b, s| decode(b, &[(s, 31, &ids[..1])]))),
            ("a position out of this world", Box::new(|b, s| decode(b, &[(s, usize::MAX, &ids[..1])]))),
            ("an id beyond the vocabulary", Box::new(move |b, s| decode(b, &[(s, 30, &[1, vocab])]))),
            ("the largest id", Box::new(|b, s| decode(b, &[(s, 30, &[u32::MAX])]))),
            (
                "audio that was not encoded",
                Box::new(|b, s| {
                    decode(b, &[(s, 30, &ids[..100])])?;
                    decode(b, &[(s, 130, &ids[..11])])
                }),
            ),
            ("a stream twice in a decode", Box::new(|b, s| decode(b, &[(s, 30, &ids[..1]), (s, 31, &ids[..1])]))),
            (
                "audio that is too old",
                Box::new(move |b, s| {
                    for chunk in script.mel.chunks(40 * token).cycle().take(AUDIO_WINDOW / 40 + 1) {
                        encode(b, &[(s, chunk)])?;
                    }
                    decode(b, &[(s, 30, &ids[..1])])
                }),
            ),
            (
                "more audio than a call takes",
                Box::new(move |b, s| {
                    let tokens = b.backend.info().encode_tokens + 1;
                    encode(b, &[(s, &script.mel.iter().copied().cycle().take(tokens * token).collect::<Vec<_>>())])
                }),
            ),
            ("a part of a token", Box::new(move |b, s| encode(b, &[(s, &script.mel[..token - frame])]))),
            ("a part of a frame", Box::new(move |b, s| encode(b, &[(s, &script.mel[..token - 1])]))),
            (
                "a stream twice in an encode",
                Box::new(move |b, s| encode(b, &[(s, &script.mel[..token]), (s, &script.mel[..token])])),
            ),
        ];
        for (what, mistake) in &mistakes {
            let mut live = bench.open(script, usize::MAX);
            bench.hear(&mut live, 140);
            bench.decode_spans(&mut live, 30);
            let result = mistake(bench, live.id);
            refused(bench, what, result);
            bench.close(&live);
            rows.extend(bench.decode_spans(&mut bystander, 5));
        }
        rows.extend(bench.decode_rest(&mut bystander, &[16]));
        bench.same("a stream that was not named", &expected, &rows);
    });
}
