//! Words that stand on the screen together, found while they come.

use crate::Word;

/// Longer lines are hard to take in at a glance.
const LINE_CHARS: usize = 42;
const CUE_LINES: usize = 2;
const CUE_S: f64 = 7.0;
/// A longer pause ends a cue.
const PAUSE_S: f64 = 0.8;

/// Words that are shown together.
#[derive(Clone, Debug, PartialEq)]
pub struct Cue {
    /// When the first word starts, in seconds; never before the end of the cue before.
    pub start_s: f64,
    /// When the last word ends, in seconds, or when it goes from the screen.
    pub end_s: f64,
    /// One or two lines of at most 42 characters.
    pub lines: Vec<String>,
}

/// Makes cues of words, one after the other: each is handed out when the first word after it has come.
///
/// A cue ends at a pause of more than 0.8 s, at the end of a sentence, and where another word would make it more than two lines of 42
/// characters or seven seconds. Times rise and stay within the audio where those of the words do.
#[derive(Debug)]
pub struct Cues {
    each_word: bool,
    least_s: f64,
    open: Option<Cue>,
    /// No word is added to the open one any more.
    full: bool,
    /// Where the cue before the open one ended.
    shown_until_s: f64,
}

impl Cues {
    /// Cues that are shown for at least `least_s` seconds, where the next one or the end of the audio leaves room.
    pub fn new(least_s: f64) -> Self {
        Self { each_word: false, least_s, open: None, full: false, shown_until_s: 0.0 }
    }

    /// The same with one word a cue, however long it is.
    pub fn of_each_word(least_s: f64) -> Self {
        Self { each_word: true, ..Self::new(least_s) }
    }

    /// Takes the next word, and gives the cues that are complete with it: mostly none or one; more where a word fills whole cues.
    pub fn push(&mut self, word: &Word) -> Vec<Cue> {
        if self.each_word {
            self.take(word).into_iter().collect()
        } else {
            parts(word).filter_map(|part| self.take(&part)).collect()
        }
    }

    /// Ends the open cue at a pause that lasts until `until_s` at least, and gives it if it may go from the screen by then.
    pub fn pause(&mut self, until_s: f64) -> Option<Cue> {
        self.full = true;
        let cue = self.open.take_if(|cue| cue.start_s + self.least_s <= until_s)?;
        Some(self.show(cue, until_s))
    }

    /// The last cue, of audio that is `audio_s` seconds long.
    pub fn finish(&mut self, audio_s: f64) -> Option<Cue> {
        let cue = self.open.take()?;
        Some(self.show(cue, audio_s))
    }

    fn take(&mut self, word: &Word) -> Option<Cue> {
        if !self.each_word && !self.full && self.open.as_mut().is_some_and(|cue| cue.take(word)) {
            return None;
        }
        self.full = false;
        let mut start_s = word.start_s.max(self.shown_until_s);
        let done = self.open.take().map(|mut cue| {
            // A word that has no time of its own, such as one at the very end of the audio, gets half of what is shown before it.
            if word.end_s <= cue.end_s {
                cue.end_s = f64::midpoint(cue.start_s, cue.end_s);
                start_s = cue.end_s;
            }
            start_s = start_s.max(cue.end_s);
            self.show(cue, start_s)
        });
        self.open = Some(Cue { start_s, end_s: word.end_s.max(start_s), lines: vec![word.text.clone()] });
        done
    }

    /// Gives a cue the time that it is shown, up to `limit_s` at most.
    fn show(&mut self, mut cue: Cue, limit_s: f64) -> Cue {
        cue.end_s = cue.end_s.max(limit_s.min(cue.start_s + self.least_s));
        if !self.each_word {
            cue.end_s = cue.end_s.min(cue.start_s + CUE_S);
        }
        self.shown_until_s = cue.end_s;
        cue
    }
}

impl Cue {
    /// Adds the word if it belongs here and there is room.
    fn take(&mut self, word: &Word) -> bool {
        let Some(line) = self.lines.last_mut() else { return false };
        let too_late = word.start_s - self.end_s > PAUSE_S || word.end_s - self.start_s > CUE_S;
        if too_late || ends_sentence(line, word.after_space) {
            return false;
        }
        let space = if word.after_space { " " } else { "" };
        if line.chars().count() + space.len() + word.text.chars().count() <= LINE_CHARS {
            *line += space;
            *line += &word.text;
        } else if self.lines.len() < CUE_LINES {
            self.lines.push(word.text.clone());
        } else {
            return false;
        }
        self.end_s = self.end_s.max(word.end_s);
        true
    }
}

/// A word in pieces that fit a line, each with its share of the time; nearly always one. Where a language has no spaces, a word may be
/// as long as a sentence.
fn parts(word: &Word) -> impl Iterator<Item = Word> + '_ {
    let chars: Vec<char> = word.text.chars().collect();
    let (count, duration_s) = (chars.len(), word.end_s - word.start_s);
    (0..count.div_ceil(LINE_CHARS)).map(move |i| {
        let (from, to) = (i * LINE_CHARS, ((i + 1) * LINE_CHARS).min(count));
        let at_s = |char: usize| {
            if char == count { word.end_s } else { word.start_s + duration_s * char as f64 / count as f64 }
        };
        Word {
            text: chars[from..to].iter().collect(),
            start_s: at_s(from),
            end_s: at_s(to),
            logprob: word.logprob,
            alternatives: Vec::new(),
            after_space: word.after_space && i == 0,
        }
    })
}

/// Whether a sentence is over after `line`. A Latin full stop needs a space after it, as the one in "3.5" has not.
fn ends_sentence(line: &str, space_follows: bool) -> bool {
    let line = line.trim_end_matches(['"', '\'', ')', ']', '”', '’', '»', '」', '』', '）']);
    line.ends_with(['。', '！', '？', '।']) || (space_follows && line.ends_with(['.', '!', '?', '…', '؟']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(text: &str, start_s: f64, end_s: f64) -> Word {
        Word { text: text.into(), start_s, end_s, logprob: -0.1, alternatives: Vec::new(), after_space: true }
    }

    /// Words of half a second, one after the other.
    fn speech(text: &str) -> Vec<Word> {
        let words = text.split_whitespace().zip(0..);
        words.map(|(text, i)| word(text, f64::from(i) * 0.5, f64::from(i) * 0.5 + 0.5)).collect()
    }

    fn all(mut cues: Cues, words: &[Word], audio_s: f64) -> Vec<Cue> {
        let mut done: Vec<Cue> = words.iter().flat_map(|word| cues.push(word)).collect();
        done.extend(cues.finish(audio_s));
        done
    }

    fn lines(words: &[Word]) -> Vec<String> {
        all(Cues::new(0.0), words, 1e6).iter().map(|cue| cue.lines.join("|")).collect()
    }

    fn times(cues: Cues, words: &[Word], audio_s: f64) -> Vec<(f64, f64)> {
        all(cues, words, audio_s).iter().map(|cue| (cue.start_s, cue.end_s)).collect()
    }

    #[test]
    fn pauses_and_sentences_end_a_cue() {
        let words = [word("a", 0.0, 1.0), word("b", 1.8, 2.0), word("c", 2.81, 3.0)];
        assert_eq!(lines(&words), ["a b", "c"]);
        assert_eq!(
            lines(&speech("One. \"Two!\" three? four, five… six")),
            ["One.", "\"Two!\"", "three?", "four, five…", "six"]
        );
        let glued = [word("3.", 0.0, 1.0), Word { after_space: false, ..word("5", 1.0, 1.1) }];
        assert_eq!(lines(&glued), ["3.5"]);
        let glued = [word("好。", 0.0, 1.0), Word { after_space: false, ..word("你", 1.0, 1.1) }];
        assert_eq!(lines(&glued), ["好。", "你"]);
    }

    #[test]
    fn a_cue_has_two_lines_and_seven_seconds() {
        let quick: Vec<_> =
            speech(&"abcdefghi ".repeat(10)).into_iter().map(|w| Word { start_s: 0.0, end_s: 0.1, ..w }).collect();
        let line = ["abcdefghi"; 4].join(" ");
        assert_eq!(lines(&quick), [format!("{line}|{line}"), "abcdefghi abcdefghi".into()]);
        assert_eq!(lines(&speech(&"a ".repeat(16))), [["a"; 14].join(" "), "a a".into()]);
        let exact = [word(&"x".repeat(40), 0.0, 0.1), word("y", 0.1, 0.2), word("z", 0.2, 0.3)];
        assert_eq!(lines(&exact), [format!("{} y|z", "x".repeat(40))]);
        let one_more = [word(&"x".repeat(41), 0.0, 0.1), word("y", 0.1, 0.2)];
        assert_eq!(lines(&one_more), [format!("{}|y", "x".repeat(41))]);
    }

    #[test]
    fn a_word_that_fits_no_line_is_broken_and_its_time_shared() {
        let words = [word(&"字".repeat(100), 0.0, 1.0)];
        let cues = all(Cues::new(0.0), &words, 9.0);
        let row = "字".repeat(42);
        assert_eq!(cues[0].lines, [row.clone(), row]);
        assert_eq!(cues[1], Cue { start_s: 0.84, end_s: 1.0, lines: vec!["字".repeat(16)] });
        assert_eq!(cues[0].end_s, 0.84);
    }

    #[test]
    fn a_short_cue_stays_as_long_as_there_is_room() {
        let words = [word("No.", 1.0, 1.2), word("Yes.", 1.5, 1.7), word("And", 4.0, 4.2)];
        assert_eq!(times(Cues::new(1.0), &words, 4.5), [(1.0, 1.5), (1.5, 2.5), (4.0, 4.5)]);
        assert_eq!(times(Cues::new(0.0), &words, 4.5), [(1.0, 1.2), (1.5, 1.7), (4.0, 4.2)]);
    }

    #[test]
    fn a_cue_comes_out_with_the_first_word_after_it() {
        let mut cues = Cues::new(1.0);
        assert_eq!(cues.push(&word("One.", 0.0, 2.0)), []);
        assert_eq!(cues.push(&word("Two.", 2.0, 4.0))[0].lines, ["One."]);
    }

    #[test]
    fn a_pause_that_was_heard_ends_a_cue_as_soon_as_it_may_go() {
        let (a, b) = (word("a", 0.0, 0.4), word("b", 0.9, 1.2));
        let mut cues = Cues::new(1.0);
        assert_eq!(cues.push(&a), []);
        assert_eq!(cues.pause(0.9), None, "less than a second");
        assert_eq!(cues.push(&b), [Cue { start_s: 0.0, end_s: 0.9, lines: vec!["a".into()] }]);
        assert_eq!(cues.pause(2.0), Some(Cue { start_s: 0.9, end_s: 1.9, lines: vec!["b".into()] }));
        assert_eq!(
            (cues.pause(3.0), cues.push(&word("c", 3.0, 3.2)), cues.push(&word("d", 3.2, 3.4))),
            (None, vec![], vec![])
        );
        assert_eq!(cues.finish(5.0), Some(Cue { start_s: 3.0, end_s: 4.0, lines: vec!["c d".into()] }));
    }

    #[test]
    fn words_at_the_end_of_the_audio_share_its_last_time() {
        let words = [word("a", 0.0, 2.0), word("b", 2.0, 2.0), word("c", 2.0, 2.0)];
        assert_eq!(times(Cues::of_each_word(1.0), &words, 2.0), [(0.0, 1.0), (1.0, 1.5), (1.5, 2.0)]);
    }

    /// Words as a transcript has them: one after the other, some without any time, and the length of the audio.
    fn words() -> impl Strategy<Value = (Vec<Word>, f64)> {
        let one = ("[a-z字.!。]{1,60}", 0_u32..30, 0_u32..100, any::<bool>());
        (proptest::collection::vec(one, 0..60), 0_u32..20).prop_map(|(all, rest)| {
            let mut tokens = 0;
            let mut at_s = |more: u32| {
                tokens += more;
                f64::from(tokens) * 0.08
            };
            let words = all.into_iter().map(|(text, pause, length, after_space)| {
                let (start_s, end_s) = (at_s(pause / 3), at_s(length / 4));
                Word { text, start_s, end_s, logprob: -0.1, alternatives: Vec::new(), after_space }
            });
            (words.collect(), at_s(rest))
        })
    }

    proptest! {
        #[test]
        fn cues_keep_the_rules((words, audio_s) in words(), each_word: bool, least_s in 0.0..2.0) {
            let start = || if each_word { Cues::of_each_word(least_s) } else { Cues::new(least_s) };
            let cues = all(start(), &words, audio_s);
            let shown: String = cues.iter().flat_map(|cue| &cue.lines).flat_map(|line| line.split(' ')).collect();
            let said: String = words.iter().map(|word| word.text.as_str()).collect();
            prop_assert_eq!(shown, said, "all words, in order");
            let mut before_s = 0.0;
            for (i, cue) in cues.iter().enumerate() {
                prop_assert!(before_s <= cue.start_s && cue.start_s <= cue.end_s && cue.end_s <= audio_s, "{:?}", cue);
                before_s = cue.end_s;
                if each_word {
                    continue;
                }
                prop_assert!(cue.lines.len() <= 2 && cue.lines.iter().all(|line| line.chars().count() <= 42), "{:?}", cue);
                prop_assert!(cue.end_s - cue.start_s <= 7.0 + 1e-9, "{:?}", cue);
                let room_s = cues.get(i + 1).map_or(audio_s, |next| next.start_s) - cue.start_s;
                prop_assert!(cue.end_s - cue.start_s >= room_s.min(least_s) - 1e-9, "{:?} with room for {} s", cue, room_s);
            }
            if each_word {
                prop_assert_eq!(cues.len(), words.len());
            }
        }
    }
}
