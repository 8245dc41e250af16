//! Test support: what the documentation of [`Backend`] promises, as properties that any backend can be held to.
//!
//! Every property runs on tiny generated models that between them have every shape that kernels trip over: one, three and four query
//! heads a key head, shared key heads in the encoder, widths that are no multiple of 64, windows of 20 and 30 positions that wrap
//! many times. A property that does not hold panics and says which one, on which model, and where.
//!
//! ```no_run
//! use voxtral_model::{Backend, Model, conformance};
//! # fn my_backend(model: &Model) -> Box<dyn Backend> { unimplemented!() }
//!
//! conformance::run(&|model: &Model| my_backend(model), &conformance::Terms::EXACT);
//! ```

mod bench;
#[cfg(test)]
mod fake;
mod refusals;

use crate::{Backend, MAX_DECODE_ROWS, Model, ModelConfig, Stage};
use bench::{Bench, Live, Row, Script};

pub use refusals::{closed_streams_are_refused, mistakes_are_refused, old_audio_is_refused};

/// Makes the backend under test for a model.
pub type Make<'a> = &'a dyn Fn(&Model) -> Box<dyn Backend>;

/// What a backend is held to.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How far two logits that should be the same may be apart; 0 asks for the same bits. Log-probabilities may be twice as far
    /// apart, and ids differ only between logits that are this close.
    pub tolerance: f32,
    /// Head widths to try; each is one model.
    pub head_dims: &'static [usize],
}

impl Terms {
    /// The same bits, and head widths that are even but otherwise anything.
    pub const EXACT: Self = Self { tolerance: 0.0, head_dims: &[16, 24, 64, 128] };
}

/// All properties.
pub fn run(make: Make<'_>, terms: &Terms) {
    chunks_do_not_matter(make, terms);
    spans_do_not_matter(make, terms);
    batch_does_not_matter(make, terms);
    delays_do_not_mix(make, terms);
    runners_up_are_for_those_who_ask(make, terms);
    decoding_again_overwrites(make, terms);
    forks_are_equal_and_independent(make, terms);
    capacity_does_not_matter(make, terms);
    windows_have_their_width(make, terms);
    closed_streams_are_refused(make, terms);
    mistakes_are_refused(make, terms);
    old_audio_is_refused(make, terms);
}

/// One model for each head width, the other dimensions taken in turn.
fn models(terms: &Terms) -> Vec<Model> {
    let turns = [(4, 4, 96, 160), (6, 2, 80, 144), (4, 1, 160, 112), (8, 2, 112, 208)];
    let encoders = [(6, 2, 16, 48), (2, 2, 64, 80), (4, 1, 16, 96), (3, 1, 64, 112)];
    let model = |(i, &head_dim): (usize, &usize)| {
        let mut config = ModelConfig { vocab: 1296, ada_dim: 16, ..ModelConfig::released() };
        let (heads, kv_heads, dim, ffn_dim) = turns[i % turns.len()];
        let decoder = &mut config.decoder;
        (decoder.heads, decoder.kv_heads, decoder.dim, decoder.ffn_dim) = (heads, kv_heads, dim, ffn_dim);
        (decoder.head_dim, decoder.layers, decoder.window) = (head_dim, 2, 20);
        let (heads, kv_heads, head_dim, dim) = encoders[i % encoders.len()];
        let encoder = &mut config.encoder;
        (encoder.heads, encoder.kv_heads, encoder.head_dim, encoder.dim) = (heads, kv_heads, head_dim, dim);
        (encoder.ffn_dim, encoder.layers, encoder.window) = (dim + 32, 2, 30);
        Model::synthetic(&config, i as u64).expect("these dimensions make sense")
    };
    terms.head_dims.iter().enumerate().map(model).collect()
}

fn on_each_model(property: &str, make: Make<'_>, terms: &Terms, check: impl Fn(&mut Bench<'_>)) {
    for model in &models(terms) {
        check(&mut Bench::new(property, make(model), model, terms));
    }
}

/// Audio comes to the same embeddings and logits whatever the pieces that it is encoded in.
pub fn chunks_do_not_matter(make: Make<'_>, terms: &Terms) {
    on_each_model("chunks do not matter", make, terms, |bench| {
        let most = bench.backend.info().encode_tokens;
        let script = Script::new(bench, 6, most + 6, 1);
        let mut run = |cuts: &[usize]| {
            let mut live = bench.open(&script, usize::MAX);
            let mut embeddings = Vec::new();
            for &cut in cuts.iter().cycle() {
                let left = script.len() - live.encoded;
                if left == 0 {
                    break;
                }
                bench.encode(&mut [(&mut live, cut.min(left))]);
                embeddings.extend(bench.inspect(Stage::Adapter));
            }
            (embeddings, bench.decode_rest(&mut live, &[7]))
        };
        let (embeddings, rows) = run(&[most, 6]);
        let others = [&[1][..], &[2, 5, 1, 11, 3]].map(|cuts| (cuts, run(cuts)));
        for (cuts, (got_embeddings, got_rows)) in others {
            let what = format!("encoded in pieces of {cuts:?} tokens");
            bench.same_values(&format!("{what}: embeddings"), &embeddings, &got_embeddings);
            bench.same(&what, &rows, &got_rows);
        }
    });
}

/// Positions come to the same logits whether they are decoded one by one or many at once, even more than the window is wide.
pub fn spans_do_not_matter(make: Make<'_>, terms: &Terms) {
    on_each_model("spans do not matter", make, terms, |bench| {
        let script = Script::new(bench, 6, 300, 2);
        let expected = bench.reference(&script);
        for cuts in [&[39, 1, 1, 1, 1][..], &[1, 2, 3, 5, 8, 13, 21, 34, 55], &[128], &[32]] {
            let mut live = bench.open(&script, script.len());
            let got = bench.decode_rest(&mut live, cuts);
            bench.same(&format!("decoded in spans of {cuts:?}"), &expected, &got);
        }
    });
}

/// A stream comes to the same whatever other streams share its calls, at other delays and other places.
pub fn batch_does_not_matter(make: Make<'_>, terms: &Terms) {
    on_each_model("the batch does not matter", make, terms, |bench| {
        let delays = [1, 3, 6, 15, 30];
        let scripts: Vec<Script> =
            delays.iter().enumerate().map(|(i, &delay)| Script::new(bench, delay, 40 + 7 * i, 10 + i as u64)).collect();
        let expected: Vec<_> = scripts.iter().map(|script| bench.reference(script)).collect();

        let mut lives: Vec<_> = scripts.iter().map(|script| bench.open(script, usize::MAX)).collect();
        let mut rows = vec![Vec::new(); lives.len()];
        for round in 0.. {
            // Each goes at its own pace, and some sit a round out.
            let pace = |i: usize| (i * 5 + round * 3) % 13;
            let turn = |i: usize, live: &Live| pace(i).min(live.left());
            let awake: Vec<usize> = (0..lives.len()).filter(|&i| turn(i, &lives[i]) > 0).collect();
            let mut batch: Vec<_> = lives
                .iter_mut()
                .enumerate()
                .map(|(i, live)| (turn(i, live), live))
                .filter(|(count, _)| *count > 0)
                .map(|(count, live)| (live, count))
                .collect();
            bench.encode(&mut batch);
            let got = bench.decode(&mut batch);
            awake.iter().zip(got).for_each(|(&i, got)| rows[i].extend(got));
            if lives.iter().all(|live| live.left() == 0) {
                break;
            }
        }
        for ((delay, expected), got) in delays.iter().zip(&expected).zip(&rows) {
            bench.same(&format!("the stream with a delay of {delay} tokens among others"), expected, got);
        }
    });
}

/// A stream has its own delay, whichever a backend was asked for before.
pub fn delays_do_not_mix(make: Make<'_>, terms: &Terms) {
    let property = "delays do not mix";
    on_each_model(property, make, terms, |bench| {
        let scripts = [1, 6, 30].map(|delay| Script::new(bench, delay, 20, 11));
        // By backends that have known no other delay.
        let expected = scripts
            .each_ref()
            .map(|script| Bench::new(property, make(bench.model), bench.model, terms).reference(script));
        for i in [0, 1, 2, 1, 0] {
            let got = bench.reference(&scripts[i]);
            bench.same(&format!("a delay of {}", scripts[i].delay), &expected[i], &got);
            let other = &expected[(i + 1) % 3];
            assert!(got[0].logits != other[0].logits, "{}: another delay has no effect", bench.label);
        }
    });
}

/// Runners-up are the most probable ids of those that may be some, in the rows that ask for them and in no other; whether a row asks
/// changes nothing else. All other properties hold for them too: every other stream of the suite asks.
pub fn runners_up_are_for_those_who_ask(make: Make<'_>, terms: &Terms) {
    on_each_model("runners-up are for those who ask", make, terms, |bench| {
        let vocab = bench.model.config.vocab as u32;
        let silent = Script { runners_up: None, ..Script::new(bench, 6, 80, 12) };
        let expected = bench.reference(&silent);
        // Every id; none of the special ones; one or none beside the prediction.
        let asks = [None, Some(0), None, Some(1000), Some(vocab - 1)];
        let mut lives = asks.map(|runners_up| bench.open(&Script { runners_up, ..silent.clone() }, usize::MAX));
        let mut rows = asks.map(|_| Vec::new());
        while lives[0].left() > 0 {
            // Up to 70 rows in all: more than one tile of a device.
            let count = [1, 14, 3][lives[0].decoded % 3].min(lives[0].left());
            lives.iter_mut().for_each(|live| bench.hear(live, live.decoded + count));
            let mut batch: Vec<_> = lives.iter_mut().map(|live| (live, count)).collect();
            let got = bench.decode(&mut batch);
            rows.iter_mut().zip(got).for_each(|(rows, got)| rows.extend(got));
        }
        for (asks, mut rows) in asks.into_iter().zip(rows) {
            rows.iter_mut().for_each(Row::forget_runners_up);
            bench.same(&format!("a stream that asks for {asks:?} beside others"), &expected, &rows);
        }
    });
}

/// A position decoded again with another id is as if it had never had the first, and so is what comes after it.
pub fn decoding_again_overwrites(make: Make<'_>, terms: &Terms) {
    on_each_model("decoding again overwrites", make, terms, |bench| {
        let script = Script::new(bench, 6, 280, 3);
        let expected = bench.reference(&script);
        // How many positions are guessed at once, and how many of them turn out right.
        for (guessed, right) in [(8, 3), (32, 1), (128, 0), (128, 100), (5, 0)] {
            let what = format!("{right} of {guessed} guesses right");
            let mut live = bench.open(&script, usize::MAX);
            let mut rows = Vec::new();
            while live.left() > 0 {
                let position = live.decoded;
                let guessed = live.left().min(guessed);
                let right = guessed.min(right);
                let wrong = Script::new(bench, 6, script.len(), 4);
                live.script.ids[position + right..].copy_from_slice(&wrong.ids[position + right..]);
                let got = bench.decode_spans(&mut live, guessed);
                rows.extend(got.into_iter().take(right));
                live.script.ids.copy_from_slice(&script.ids);
                live.decoded = position + right;
                rows.extend(bench.decode_spans(&mut live, (guessed - right).min(2)));
            }
            bench.same(&what, &expected, &rows);
        }
    });
}

/// A fork goes on as its original would have, and neither notices the other.
pub fn forks_are_equal_and_independent(make: Make<'_>, terms: &Terms) {
    on_each_model("forks are equal and independent", make, terms, |bench| {
        let script = Script::new(bench, 3, 150, 5);
        let expected = bench.reference(&script);
        // Before anything, within the first window, after it wrapped; with audio ahead of the text and without.
        for (decoded, ahead) in [(0, 0), (0, 3), (10, 0), (31, 5), (101, 0)] {
            let mut other = Script::new(bench, 3, 150, 9);
            let heard = (decoded + ahead) * bench.token_len();
            other.mel[..heard].copy_from_slice(&script.mel[..heard]);
            other.ids[..decoded].copy_from_slice(&script.ids[..decoded]);
            let expected_other = bench.reference(&other);

            let mut original = bench.open(&script, usize::MAX);
            bench.hear(&mut original, decoded + ahead);
            let mut rows = bench.decode_spans(&mut original, decoded);
            let mut twin = bench.fork(&original, &script, usize::MAX);
            let mut stray = bench.fork(&original, &other, script.len());
            let (mut twin_rows, mut stray_rows) = (rows.clone(), rows.clone());
            // In turns, and the forks outlive their original.
            rows.extend(bench.decode_spans(&mut original, 7));
            stray_rows.extend(bench.decode_spans(&mut stray, 20));
            twin_rows.extend(bench.decode_spans(&mut twin, 5));
            rows.extend(bench.decode_rest(&mut original, &[9]));
            bench.close(&original);
            stray_rows.extend(bench.decode_rest(&mut stray, &[4]));
            twin_rows.extend(bench.decode_rest(&mut twin, &[6]));

            let what = format!("forked after {decoded} positions with {ahead} tokens of audio ahead");
            bench.same(&format!("{what}, the original"), &expected, &rows);
            bench.same(&format!("{what}, a fork of the same script"), &expected, &twin_rows);
            bench.same(&format!("{what}, a fork of another script"), &expected_other, &stray_rows);
        }
        // As far as its original may, a fork may decode again what that has decoded.
        let script = Script::new(bench, 3, 230, 7);
        let expected = bench.reference(&script);
        let mut original = bench.open(&script, usize::MAX);
        bench.decode_spans(&mut original, 200);
        for back in [1, MAX_DECODE_ROWS] {
            let mut fork = bench.fork(&original, &script, script.len());
            fork.decoded -= back;
            let position = fork.decoded;
            let rows = bench.decode_rest(&mut fork, &[11]);
            bench.same(&format!("a fork that goes back {back} positions"), &expected[position..], &rows);
            bench.close(&fork);
        }
    });
}

/// KV caches that wrap hold what caches that never need to would hold, and growing moves nothing that matters: a stream comes to the
/// same whatever capacity it has from the start and however long its encode spans may be.
pub fn capacity_does_not_matter(make: Make<'_>, terms: &Terms) {
    on_each_model("capacity does not matter", make, terms, |bench| {
        for tokens in [5, 25, 640] {
            let script = Script::new(bench, 6, tokens, 7);
            let mut exact = bench.open(&script, tokens);
            let expected = bench.decode_rest(&mut exact, &[8]);
            for (span, capacity) in [(1, 0), (3, 17), (8, 0), (8, tokens + 1000), (4, usize::MAX)] {
                let mut live = bench.open_for_spans(&script, span, capacity);
                let got = bench.decode_rest(&mut live, &[8]);
                let what =
                    format!("{tokens} tokens in spans of {span}, in a stream with memory for {capacity} at first");
                bench.same(&what, &expected, &got);
                bench.close(&live);
            }
            bench.close(&exact);
        }
    });
}

/// An id, and a frame of audio, are felt as far as the windows of all layers reach, and no further.
pub fn windows_have_their_width(make: Make<'_>, terms: &Terms) {
    on_each_model("windows have their width", make, terms, |bench| {
        let script = Script::new(bench, 6, 120, 8);
        let expected = bench.reference(&script);
        let decoder = &bench.model.config.decoder;
        let reach = decoder.layers * (decoder.window - 1);
        let mut felt_at_the_end = false;
        for place in 40..50 {
            let mut other = script.clone();
            other.ids[place] = if script.ids[place] == 1290 { 1291 } else { 1290 };
            let got = bench.reference(&other);
            let end = place + reach;
            bench.same("before another id", &expected[..place], &got[..place]);
            bench.same("out of reach of another id", &expected[end + 1..], &got[end + 1..]);
            assert!(expected[place].logits != got[place].logits, "{}: another id has no effect", bench.label);
            felt_at_the_end |= expected[end].logits != got[end].logits;
        }
        // So far away an id may be felt by less than rounding shows, but not at every place.
        let narrow = bench.exact() && !felt_at_the_end;
        assert!(!narrow, "{}: an id is not felt as far as the windows reach", bench.label);

        let place = 50;
        let mut other = script.clone();
        for value in &mut other.mel[place * bench.token_len()..(place + 1) * bench.token_len()] {
            *value = -*value;
        }
        let got = bench.embeddings(&other);
        let expected = bench.embeddings(&script);
        let encoder = &bench.model.config.encoder;
        let width = bench.model.config.decoder.dim;
        // The convolutions carry a frame at most one position further, the layers then as far as they reach.
        let positions = (place + 1) * bench.model.config.downsample + encoder.layers * (encoder.window - 1);
        let last = (positions / bench.model.config.downsample + 1) * width;
        bench.same_values("embeddings before other audio", &expected[..place * width], &got[..place * width]);
        bench.same_values("embeddings out of reach of other audio", &expected[last..], &got[last..]);
        assert!(
            expected[place * width..(place + 1) * width] != got[place * width..(place + 1) * width],
            "{}: other audio has no effect",
            bench.label
        );
    });
}
