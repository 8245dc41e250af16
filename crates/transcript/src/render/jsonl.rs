//! What happens, as it happens: a line of JSON for each event.

use std::io::{self, Write};

use serde::Serialize;
use voxtral_audio::Damage;

use super::{End, Open, Sink};
use crate::report::decimals3;
use crate::{Segment, Word};

/// Writes events as they come, one JSON object a line, each at once; `schemas/jsonl.schema.json` describes them.
#[derive(Debug)]
pub struct JsonLines<W> {
    to: W,
    path: String,
    done_s: f64,
    open: Open,
}

/// A line, but for the input that it is about.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    /// The text goes on with this.
    Partial {
        #[serde(serialize_with = "decimals3")]
        at_s: f64,
        text: &'a str,
    },
    Word(&'a Word),
    Damage(&'a Damage),
    /// The text from here to there, which does not change any more.
    Final {
        #[serde(flatten)]
        segment: Segment,
        cut_short: bool,
    },
}

#[derive(Serialize)]
struct About<'a> {
    path: &'a str,
    #[serde(flatten)]
    line: Line<'a>,
}

impl<W: Write> JsonLines<W> {
    /// To be written there. `path` is the input, as the user gave it; `-` for standard input.
    pub fn new(to: W, path: String) -> Self {
        Self { to, path, done_s: 0.0, open: Open::default() }
    }

    fn write(&mut self, line: Line<'_>) -> io::Result<()> {
        let line = serde_json::to_string(&About { path: &self.path, line })? + "\n";
        self.to.write_all(line.as_bytes())?;
        self.to.flush()
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.open.text += text;
        self.write(Line::Partial { at_s: self.done_s, text })
    }

    fn word(&mut self, word: &Word) -> io::Result<()> {
        self.write(Line::Word(word))
    }

    fn endpoint(&mut self, at_s: f64) -> io::Result<()> {
        let segment = self.open.end(at_s);
        self.write(Line::Final { segment, cut_short: false })
    }

    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.write(Line::Damage(damage))
    }

    fn progress(&mut self, done_s: f64, _: Option<f64>) -> io::Result<()> {
        self.done_s = done_s;
        Ok(())
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        let segment = self.open.end(end.summary.audio_s);
        self.write(Line::Final { segment, cut_short: end.cut_short.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::Alternative;

    #[test]
    fn every_event_is_a_line() {
        let mut out = Vec::new();
        let mut lines = JsonLines::new(&mut out, "a\n.wav".into());
        lines.progress(0.96, None).unwrap();
        lines.text("four").unwrap();
        lines.damage(&Damage { at_s: 0.5, lost_s: 0.25, what: "bad".into() }).unwrap();
        let alternatives = vec![Alternative { instead_of: " four".into(), text: " for".into(), logprob: -2.0 }];
        let word =
            Word { text: "four".into(), start_s: 0.4, end_s: 0.88, logprob: -0.5, alternatives, after_space: false };
        lines.word(&word).unwrap();
        lines.endpoint(1.38).unwrap();
        lines.text(" seven").unwrap();
        lines.end(&testing::end(&testing::summary("four"), true)).unwrap();
        let expected = [
            r#"{"path":"a\n.wav","type":"partial","at_s":0.96,"text":"four"}"#,
            r#"{"path":"a\n.wav","type":"damage","at_s":0.5,"lost_s":0.25,"what":"bad"}"#,
            concat!(
                r#"{"path":"a\n.wav","type":"word","text":"four","start_s":0.4,"end_s":0.88,"logprob":-0.5,"#,
                r#""alternatives":[{"instead_of":" four","text":" for","logprob":-2.0}]}"#
            ),
            r#"{"path":"a\n.wav","type":"final","start_s":0.0,"end_s":1.38,"text":"four","cut_short":false}"#,
            r#"{"path":"a\n.wav","type":"partial","at_s":0.96,"text":" seven"}"#,
            r#"{"path":"a\n.wav","type":"final","start_s":1.38,"end_s":8.195,"text":"seven","cut_short":true}"#,
        ];
        assert_eq!(String::from_utf8(out).unwrap().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_number_that_json_has_not_is_an_error() {
        let word = Word {
            text: "a".into(),
            start_s: 0.0,
            end_s: 0.1,
            logprob: f32::NAN,
            alternatives: Vec::new(),
            after_space: false,
        };
        let error = JsonLines::new(Vec::new(), "a".into()).word(&word).unwrap_err();
        assert!(error.to_string().contains("NaN cannot be written"), "{error}");
    }
}
