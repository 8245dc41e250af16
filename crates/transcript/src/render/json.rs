//! One JSON object an input: a [`Report`], on one line.

use std::io::{self, Write};
use std::time::Duration;

use voxtral_audio::Damage;

use super::{End, Open, Sink};
use crate::{Audio, Report, Segment, Stats, TokenRecord, Word};

/// What a report says that is known before anything is heard.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The model's name, or its folder.
    pub model: String,
    /// `cpu` or `cuda`.
    pub backend: String,
    /// The CPU or GPU, by its own name.
    pub device: String,
    /// The input, as the user gave it; `-` for standard input.
    pub path: String,
    /// The delay that the model is conditioned on.
    pub delay_ms: u32,
    /// Time that loading the model took; none for inputs after the first.
    pub load: Duration,
    /// Whether the text between pauses is listed.
    pub segments: bool,
    /// Whether all tokens are listed.
    pub tokens: bool,
}

/// Writes a [`Report`] as a line of JSON when all is known; until then it holds the words. That the audio could not be read to its end
/// is damage there; nothing is written if no word was heard before.
#[derive(Debug)]
pub struct Json<W> {
    to: W,
    about: About,
    words: Vec<Word>,
    open: Open,
    segments: Vec<Segment>,
    tokens: Vec<TokenRecord>,
    damage: Vec<Damage>,
}

impl<W: Write> Json<W> {
    /// To be written there.
    pub fn new(to: W, about: About) -> Self {
        let (words, segments, tokens, damage) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { to, about, words, open: Open::default(), segments, tokens, damage }
    }

    fn report(&mut self, end: &End<'_>) -> Report {
        let About { model, backend, device, path, delay_ms, load, segments, tokens } = std::mem::take(&mut self.about);
        let (summary, stats) = (end.summary, &end.summary.stats);
        Report {
            model,
            backend,
            device,
            audio: Audio { path, duration_s: summary.audio_s, damage: std::mem::take(&mut self.damage) },
            delay_ms,
            text: summary.text.clone(),
            words: std::mem::take(&mut self.words),
            segments: segments.then(|| std::mem::take(&mut self.segments)),
            tokens: tokens.then(|| std::mem::take(&mut self.tokens)),
            stats: Stats {
                load_ms: ms(load),
                encode_ms: ms(stats.encode),
                decode_ms: ms(stats.decode),
                total_ms: ms(end.total),
                first_text_ms: stats.first_text.map(ms),
                positions: stats.positions as u64,
                passes: stats.passes as u64,
                tokens_per_pass: stats.tokens as f64 / stats.passes.max(1) as f64,
                rtf: if summary.audio_s > 0.0 { end.total.as_secs_f64() / summary.audio_s } else { 0.0 },
                peak_rss_mb: end.peak_rss_bytes as f64 / 1e6,
                device_mb: end.peak_device_bytes as f64 / 1e6,
            },
        }
    }
}

impl<W: Write> Sink for Json<W> {
    fn token(&mut self, token: &TokenRecord) -> io::Result<()> {
        if self.about.tokens {
            self.tokens.push(*token);
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        if self.about.segments {
            self.open.text += text;
        }
        Ok(())
    }

    fn endpoint(&mut self, at_s: f64) -> io::Result<()> {
        self.segments.push(self.open.end(at_s));
        Ok(())
    }

    fn word(&mut self, word: &Word) -> io::Result<()> {
        self.words.push(word.clone());
        Ok(())
    }

    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.damage.push(damage.clone());
        Ok(())
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        if let Some(why) = end.cut_short {
            // An object without words would say that nothing was said.
            if self.words.is_empty() {
                return Ok(());
            }
            self.damage.push(Damage { at_s: end.summary.audio_s, lost_s: 0.0, what: why.to_owned() });
        }
        let last = self.open.end(end.summary.audio_s);
        self.segments.extend((!last.text.is_empty()).then_some(last));
        let line = self.report(end).to_json()? + "\n";
        self.to.write_all(line.as_bytes())?;
        self.to.flush()
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn written(tokens: bool, cut_short: bool, logprob: f32) -> io::Result<String> {
        let mut out = Vec::new();
        let about = About { path: "a.wav".into(), delay_ms: 480, tokens, ..About::default() };
        let mut json = Json::new(&mut out, about);
        json.token(&TokenRecord { id: 32, logprob: 0.0 })?;
        json.text("four")?;
        json.word(&Word {
            text: "four".into(),
            start_s: 0.4,
            end_s: 0.88,
            logprob,
            alternatives: Vec::new(),
            after_space: false,
        })?;
        json.damage(&Damage { at_s: 1.5, lost_s: 0.25, what: "bad".into() })?;
        json.end(&testing::end(&testing::summary("four"), cut_short))?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_report_is_of_what_was_told() {
        let text = written(true, false, -0.5).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        let report = &Report::read_all(&text).unwrap()[0];
        assert_eq!((report.text.as_str(), report.words[0].text.as_str()), ("four", "four"));
        assert_eq!((report.audio.path.as_str(), report.audio.duration_s, report.delay_ms), ("a.wav", 8.195, 480));
        assert_eq!(report.audio.damage, [Damage { at_s: 1.5, lost_s: 0.25, what: "bad".into() }]);
        assert_eq!(report.tokens, Some(vec![TokenRecord { id: 32, logprob: 0.0 }]));
        let stats = &report.stats;
        assert_eq!((stats.total_ms, stats.positions, stats.tokens_per_pass), (820.0, 151, 1.0));
        assert!((stats.rtf - 0.82 / 8.195).abs() < 1e-6 && stats.peak_rss_mb == 25.0, "{stats:?}");
    }

    #[test]
    fn tokens_are_listed_where_they_were_asked_for() {
        assert!(!written(false, false, -0.5).unwrap().contains("tokens\":["));
    }

    #[test]
    fn segments_are_what_was_said_between_pauses() {
        let listed = |segments, pieces: &[&str]| {
            let mut out = Vec::new();
            let mut json = Json::new(&mut out, About { segments, ..About::default() });
            for piece in pieces {
                if *piece == "|" { json.endpoint(2.5).unwrap() } else { json.text(piece).unwrap() }
            }
            json.end(&testing::end(&testing::summary("not used"), false)).unwrap();
            Report::read_all(str::from_utf8(&out).unwrap()).unwrap().remove(0).segments
        };
        let segment = |start_s, end_s, text: &str| Segment { start_s, end_s, text: text.into() };
        let (first, second) = (segment(0.0, 2.5, "four seven"), segment(2.5, 8.195, "one"));
        assert_eq!(listed(true, &["four", " seven", "|", " one"]), Some(vec![first.clone(), second]));
        assert_eq!(listed(true, &["four", " seven", "|"]), Some(vec![first]));
        assert_eq!(listed(true, &[]), Some(Vec::new()));
        assert_eq!(listed(false, &["four", " seven"]), None);
    }

    #[test]
    fn that_the_rest_could_not_be_read_is_damage() {
        let report = &Report::read_all(&written(false, true, -0.5).unwrap()).unwrap()[0];
        assert_eq!(report.audio.damage[1], Damage { at_s: 8.195, lost_s: 0.0, what: "no such disk".into() });
        let mut out = Vec::new();
        Json::new(&mut out, About::default()).end(&testing::end(&testing::summary(""), true)).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn a_number_that_json_has_not_is_an_error() {
        let error = written(false, false, f32::NAN).unwrap_err();
        assert!(error.to_string().contains("NaN cannot be written"), "{error}");
    }
}
