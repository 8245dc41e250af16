use super::*;
use proptest::prelude::*;

const WORD: Piece<'static> = Piece::Word;
const PAD: Piece<'static> = Piece::Special;

fn t(text: &str) -> Piece<'_> {
    Piece::Text(text.as_bytes())
}

/// The transcript of `pieces`, each with the log-probability −1, after `audio_s`; and all that `push` returned.
fn transcribe(pieces: &[Piece], audio_s: f64) -> (Transcript, String) {
    let mut transcript = Transcript::new();
    let mut live = String::new();
    for &piece in pieces {
        live += transcript.push(piece, -1.0);
    }
    live += transcript.finish(audio_s);
    (transcript, live)
}

/// `(text, start, end)` of every word, in milliseconds.
fn spans(transcript: &Transcript) -> Vec<(&str, i64, i64)> {
    let ms = |s: f64| (s * 1000.0).round() as i64;
    transcript.words().iter().map(|word| (word.text.as_str(), ms(word.start_s), ms(word.end_s))).collect()
}

/// The words with the spaces between them.
fn joined(transcript: &Transcript) -> String {
    let words = transcript.words().iter();
    words.flat_map(|word| [if word.after_space { " " } else { "" }, &word.text]).collect()
}

#[test]
fn a_marker_is_the_end_of_its_word() {
    let (got, live) = transcribe(&[PAD, PAD, PAD, PAD, PAD, WORD, t(" fo"), t("ur"), PAD, PAD, WORD, t(" six")], 10.0);
    assert_eq!(live, "four six");
    assert_eq!(spans(&got), [("four", 0, 480), ("six", 480, 880)]);
}

#[test]
fn a_start_is_guessed_from_the_length_and_never_before_the_last_end() {
    let mut pieces = vec![PAD; 49];
    pieces.extend([WORD, t(" six"), PAD, WORD, t(" seven")]);
    assert_eq!(spans(&transcribe(&pieces, 10.0).0), [("six", 3600, 4000), ("seven", 4000, 4240)]);
}

#[test]
fn words_of_one_marker_share_its_span_by_length() {
    let mut pieces = vec![PAD; 24];
    pieces.extend([WORD, t(" a"), t(" bcde"), t("fgh"), PAD, WORD, t(" i")]);
    // Usual lengths 0.24 and 0.72 s before 2.0 s.
    assert_eq!(spans(&transcribe(&pieces, 10.0).0), [("a", 1040, 1280), ("bcdefgh", 1280, 2000), ("i", 2160, 2400)]);
    // Squeezed into 0.08 s by a word that ended just before.
    let (got, _) = transcribe(&[PAD, WORD, WORD, t(" z"), PAD, WORD, t(" a"), t(" bcdefgh")], 10.0);
    assert_eq!(spans(&got), [("z", 0, 240), ("a", 240, 300), ("bcdefgh", 300, 480)]);
}

#[test]
fn a_word_without_a_marker_counts_from_its_first_piece() {
    let (got, _) = transcribe(&[PAD, PAD, PAD, t(" on"), t("e"), t(" two"), PAD, t(" three")], 10.0);
    assert_eq!(spans(&got), [("one", 0, 240), ("two", 240, 400), ("three", 400, 560)]);
}

#[test]
fn a_pad_ends_a_group_but_not_a_word() {
    let (got, _) = transcribe(&[PAD, PAD, WORD, t(" fo"), PAD, t("ur"), PAD, t(" six")], 10.0);
    assert_eq!(spans(&got), [("four", 0, 240), ("six", 240, 560)]);
}

#[test]
fn a_marker_begins_a_word_where_no_spaces_are_written() {
    let (got, live) = transcribe(&[PAD, WORD, t("你"), t("好"), PAD, WORD, t("世界")], 10.0);
    assert_eq!(live, "你好世界");
    assert_eq!(spans(&got), [("你好", 0, 160), ("世界", 160, 480)]);
    assert_eq!(joined(&got), "你好世界");
}

#[test]
fn a_special_inside_a_character_interrupts_nothing() {
    for special in [PAD, WORD] {
        let tokens =
            [PAD, WORD, t("你"), Piece::Text(b"\xe5\xa5"), special, Piece::Text(b"\xbd"), t("吗"), PAD, WORD, t("是")];
        let (got, live) = transcribe(&tokens, 10.0);
        assert_eq!((live.as_str(), spans(&got)), ("你好吗是", vec![("你好吗", 0, 160), ("是", 480, 720)]));
        // Where the rest of the character never comes, what follows still has its own time.
        let (got, _) =
            transcribe(&[WORD, Piece::Text(b" \xe4"), PAD, special, PAD, PAD, PAD, PAD, WORD, t(" a")], 10.0);
        assert_eq!(spans(&got)[1], ("a", 480, 720));
    }
}

#[test]
fn broken_bytes_hold_nothing_up() {
    let mut transcript = Transcript::new();
    assert_eq!(transcript.push(Piece::Text(b" \xe4\xbd"), 0.0), "");
    assert_eq!(transcript.push(t("a"), 0.0), "\u{fffd}a");
    assert_eq!(transcript.push(Piece::Text(b"\xff"), 0.0), "\u{fffd}");
    assert_eq!(transcript.push(Piece::Text(b"\xf0\x9f\x98"), 0.0), "");
    assert_eq!(transcript.finish(1.0), "\u{fffd}");
    assert_eq!(transcript.text(), "\u{fffd}a\u{fffd}\u{fffd}");
}

#[test]
fn white_space_at_the_ends_and_nul_are_no_text() {
    let (got, live) = transcribe(&[t("\0"), t(" "), t("\n a"), t("\0"), t(" b"), t(" \n")], 1.0);
    assert_eq!((live.as_str(), got.text()), ("a b \n", "a b"));
    assert_eq!(spans(&got).len(), 2);
}

#[test]
fn the_padding_after_the_audio_is_no_time() {
    let pieces = [PAD, PAD, WORD, t(" a"), PAD, WORD, t(" b"), PAD, WORD, t(" c")];
    let expected = [("a", 0, 200), ("b", 200, 200), ("c", 200, 200)];
    assert_eq!(spans(&transcribe(&pieces, 0.2).0), expected);
    // The same when it is known earlier, and words are taken out as they come.
    let mut transcript = Transcript::new();
    transcript.audio_ended(0.2);
    let mut taken = Vec::new();
    for piece in pieces {
        transcript.push(piece, -1.0);
        taken.extend(transcript.take_words());
    }
    transcript.finish(0.2);
    taken.extend(transcript.take_words());
    assert_eq!(taken, transcribe(&pieces, 0.2).0.words());
}

#[test]
fn a_word_is_complete_when_the_next_marker_comes() {
    let mut transcript = Transcript::new();
    let counts = [WORD, t(" fo"), t("ur"), PAD, WORD, t(" six")].map(|piece| {
        transcript.push(piece, -1.0);
        transcript.take_words().len()
    });
    assert_eq!(counts, [0, 0, 0, 0, 1, 0]);
    transcript.finish(1.0);
    assert_eq!(transcript.words()[0].text, "six");
}

#[test]
fn a_words_logprob_is_the_mean_of_its_tokens() {
    let mut transcript = Transcript::new();
    let pieces: [(Piece, f32); 9] = [
        (WORD, -9.0),
        (t(" fo"), -1.0),
        (t("ur"), -2.0),
        (PAD, -9.0),
        (t(" "), -3.0),
        (Piece::Text(b"\xe4\xbd"), -4.0),
        (Piece::Text(b"\xa0"), -5.0),
        (t("x y"), -8.0),
        (t("z"), -6.0),
    ];
    for (piece, logprob) in pieces {
        transcript.push(piece, logprob);
    }
    transcript.finish(1.0);
    let got: Vec<_> = transcript.words().iter().map(|word| (word.text.as_str(), word.logprob)).collect();
    assert_eq!(got, [("four", -1.5), ("你x", -5.0), ("yz", -7.0)]);
}

/// The bytes of each id and the text, both by mistral-common's tokenizer (MODEL.md §2.5); ids below 1000 have no bytes.
#[test]
fn texts_agree_with_mistral_common() {
    let cases: [(&[&[u8]], &str); 7] = [
        (&[b"", b"", b"", b" the", b"", b"", b" and", b" aa", b""], " the and aa"),
        (
            &[b"h", b"\xc3", b"\xa9", b"l", b"l", b"o", b" ", b"\xe4", b"\xbd", b"\xa0", b"\xe5", b"\xa5", b"\xbd"],
            "héllo 你好",
        ),
        (&[b"", b"\xe4", b"\xbd", b"\xa0", b""], "你"),
        // mistral-common gives two U+FFFD here, for it decodes each run between specials on its own. We do better.
        (&[b"", b"\xe4", b"\xbd", b"", b"\xa0"], "你"),
        // mistral-common gives the NUL.
        (&[b"\x00"], ""),
        (&[b"ml"], "ml"),
        (&[b"", b"", b"", b""], ""),
    ];
    for (pieces, text) in cases {
        let pieces: Vec<_> = pieces.iter().map(|&b| if b.is_empty() { PAD } else { Piece::Text(b) }).collect();
        assert_eq!(transcribe(&pieces, 1.0).0.text(), text.trim());
    }
}

/// Bytes, and a sequence of tokens that holds them: `Ok` a piece of them, `Err` a special, true for the marker.
type Tokens = Vec<Result<Vec<u8>, bool>>;

fn tokens(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = (Vec<u8>, Tokens)> {
    (bytes, prop::collection::vec((1_usize..6, prop::option::of(any::<bool>())), 60)).prop_map(|(mut bytes, cuts)| {
        let (mut tokens, mut at) = (Vec::new(), 0);
        for (len, special) in cuts {
            tokens.extend(special.map(Err));
            let end = bytes.len().min(at + len);
            tokens.extend((at < end).then(|| Ok(bytes[at..end].to_vec())));
            at = end;
        }
        bytes.truncate(at);
        (bytes, tokens)
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let text = "( ?[a-z]{1,5}[.,]?| é你| \u{1f600}x|你好|\0|\n| ){0,12}".prop_map(String::into_bytes);
    prop_oneof![text, any::<String>().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #[test]
    fn however_the_bytes_are_cut((bytes, tokens) in tokens(any_bytes()), audio_s in 0.0_f64..6.0) {
        let pieces: Vec<_> = tokens
            .iter()
            .map(|token| match token {
                Ok(bytes) => Piece::Text(bytes),
                Err(true) => WORD,
                Err(false) => PAD,
            })
            .collect();
        let (got, live) = transcribe(&pieces, audio_s);

        let text: Vec<u8> = bytes.iter().copied().filter(|&byte| byte != 0).collect();
        let text = String::from_utf8_lossy(&text);
        prop_assert_eq!(&live, text.trim_start());
        prop_assert_eq!(got.text(), text.trim());
        prop_assert_eq!(joined(&got), text.split_whitespace().collect::<Vec<_>>().join(" "));

        let mut last_end_s = 0.0;
        for word in got.words() {
            prop_assert!(!word.text.is_empty() && !word.text.contains(char::is_whitespace));
            prop_assert!(last_end_s <= word.start_s && word.start_s <= word.end_s && word.end_s < audio_s + 0.0006, "{:?}", word);
            prop_assert_eq!(word.logprob, -1.0);
            last_end_s = word.end_s;
        }
    }
}

#[test]
fn what_was_nearly_written_goes_with_its_word() {
    let other =
        |instead_of: &str, text: &str| Alternative { instead_of: instead_of.into(), text: text.into(), logprob: -1.0 };
    let mut transcript = Transcript::new();
    let pushes: [(Piece<'_>, Option<(&str, &str)>); 6] = [
        (Piece::Word, None),
        (Piece::Text(b" se"), Some((" se", " ele"))),
        (Piece::Text(b"ven"), Some(("ven", "cond"))),
        // A space alone goes with the word after it.
        (Piece::Text(b" "), Some((" ", "ty"))),
        (Piece::Text(b"one"), None),
        (Piece::Special, None),
    ];
    for (piece, nearly) in pushes {
        transcript.nearly(nearly.map(|(a, b)| other(a, b)));
        transcript.push(piece, -0.1);
    }
    transcript.finish(1.0);
    let of = |i: usize| transcript.words()[i].alternatives.clone();
    assert_eq!((of(0), of(1)), (vec![other(" se", " ele"), other("ven", "cond")], vec![other(" ", "ty")]));
}

#[test]
fn no_word_begins_before_the_end_of_a_pause() {
    let mut transcript = Transcript::new();
    let say = |transcript: &mut Transcript, text: &'static str| {
        transcript.push(Piece::Word, -0.1);
        transcript.push(Piece::Text(text.as_bytes()), -0.1);
    };
    say(&mut transcript, " one");
    for _ in 0..8 {
        transcript.push(PAD, -0.1);
    }
    // Ten tokens, 0.8 s: a pause that is said to last longer may not push a word's start beyond its end.
    assert!(transcript.pause(0.7));
    assert_eq!(transcript.take_words().len(), 1, "the word is complete");
    say(&mut transcript, " seventeen");
    assert!(transcript.pause(9.0));
    say(&mut transcript, " two");
    transcript.finish(2.0);
    let times: Vec<_> = transcript.words().iter().map(|word| (word.start_s, word.end_s)).collect();
    assert_eq!(times, [(0.7, 0.88), (0.96, 1.04)]);
}

#[test]
fn a_pause_in_the_middle_of_a_character_ends_nothing() {
    let mut transcript = Transcript::new();
    let (first, rest) = "é".as_bytes().split_at(1);
    transcript.push(Piece::Text(first), -0.1);
    assert!(!transcript.pause(0.0));
    transcript.push(Piece::Text(rest), -0.1);
    assert!(transcript.pause(0.0));
    assert_eq!(transcript.words()[0].text, "é");
}
