//! The JSON of one input.
//!
//! Fields come out in the order of these structs. Times are rounded to milliseconds, the figures in milliseconds to
//! microseconds, log-probabilities and the real-time factor to six decimals. JSON has no NaN and no infinity, and
//! serde_json would write `null` for them: here they are an error instead, for no sound run produces one.

use serde::{Deserialize, Serialize, Serializer, ser::Error};
use voxtral_audio::Damage;

use crate::Word;

/// Everything there is to say about one transcribed input.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// The model's name, or its folder.
    pub model: String,
    /// `cpu` or `cuda`.
    pub backend: String,
    /// The CPU or GPU, by its own name.
    pub device: String,
    /// What was transcribed.
    pub audio: Audio,
    /// The delay that the model was conditioned on.
    pub delay_ms: u32,
    /// [`Transcript::text`](crate::Transcript::text).
    pub text: String,
    /// [`Transcript::words`](crate::Transcript::words).
    pub words: Vec<Word>,
    /// The text between pauses; `None`, where pauses were not asked for, leaves the field out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<Segment>>,
    /// The generated tokens from the first after the prompt; `None`, when they were not asked for, leaves the field out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<TokenRecord>>,
    /// What it took.
    pub stats: Stats,
}

impl Report {
    /// The report as one line of JSON, without the line's end.
    ///
    /// # Errors
    /// A number in it is not finite; the error says which kind and its value.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The reports in a text that [`to_json`](Self::to_json) wrote, one after the other. Fields that are not known are passed over.
    ///
    /// # Errors
    /// The text holds something else; the error says where.
    pub fn read_all(text: &str) -> serde_json::Result<Vec<Self>> {
        serde_json::Deserializer::from_str(text).into_iter().collect()
    }
}

/// The input of a [`Report`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Audio {
    /// As the user gave it; `-` for standard input.
    pub path: String,
    /// Length in seconds, without the padding that the model is given.
    #[serde(serialize_with = "decimals3")]
    pub duration_s: f64,
    /// What of it is missing or wrong, in the order of its times.
    #[serde(default)]
    pub damage: Vec<Damage>,
}

/// What was said between two pauses.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Segment {
    /// Seconds of audio where the segment before ended.
    #[serde(serialize_with = "decimals3")]
    pub start_s: f64,
    /// Seconds of audio where the pause after it had lasted long enough, or where the audio ended.
    #[serde(serialize_with = "decimals3")]
    pub end_s: f64,
    /// Without white space around it.
    pub text: String,
}

/// One generated token.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct TokenRecord {
    /// Index into the model's vocabulary.
    pub id: u32,
    /// Natural logarithm of the probability that the model gave it.
    #[serde(serialize_with = "decimals6")]
    pub logprob: f32,
}

/// What one input took. All times are wall clock.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Stats {
    /// Loading the model; 0 for inputs after the first.
    #[serde(serialize_with = "decimals3")]
    pub load_ms: f64,
    /// Mel, convolutions, encoder and adapter.
    #[serde(serialize_with = "decimals3")]
    pub encode_ms: f64,
    /// Decoder passes, the prompt's included.
    #[serde(serialize_with = "decimals3")]
    pub decode_ms: f64,
    /// From the first byte read to the last text, loading not included.
    #[serde(serialize_with = "decimals3")]
    pub total_ms: f64,
    /// From the first byte read to the first text; `null` when there was no text.
    #[serde(serialize_with = "optional_decimals3")]
    pub first_text_ms: Option<f64>,
    /// Decoder positions of the result.
    pub positions: u64,
    /// Decoder passes that produced them; fewer than positions when decoding in parallel.
    pub passes: u64,
    /// Generated tokens over passes: 1 where they are decoded one by one.
    #[serde(serialize_with = "decimals3")]
    pub tokens_per_pass: f64,
    /// `total_ms` over the audio's length: below 1 is faster than real time. 0 for empty audio.
    #[serde(serialize_with = "decimals6")]
    pub rtf: f64,
    /// The most memory that the process has held, in units of 10⁶ bytes.
    #[serde(serialize_with = "decimals3")]
    pub peak_rss_mb: f64,
    /// The most device memory held, in units of 10⁶ bytes; 0 on a CPU.
    #[serde(serialize_with = "decimals3")]
    pub device_mb: f64,
}

pub(crate) fn decimals3<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*value, 1e3)?)
}

fn optional_decimals3<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => decimals3(value, serializer),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn decimals6<T: Copy + Into<f64>, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded((*value).into(), 1e6)?)
}

/// `value` to the nearest 1/`unit`, -0 becoming 0.
fn rounded<E: Error>(value: f64, unit: f64) -> Result<f64, E> {
    if !value.is_finite() {
        return Err(E::custom(format_args!("{value} cannot be written as a JSON number")));
    }
    Ok((value * unit).round() / unit + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Alternative;

    fn report() -> Report {
        Report {
            model: "digits".into(),
            backend: "cpu".into(),
            device: "a \"CPU\"".into(),
            audio: Audio { path: "a.wav".into(), duration_s: 8.195, damage: Vec::new() },
            delay_ms: 480,
            text: "four".into(),
            words: vec![Word {
                text: "four".into(),
                start_s: f64::from(0.48_f32),
                end_s: 0.1 + 0.78,
                logprob: -0.01,
                alternatives: Vec::new(),
                after_space: true,
            }],
            segments: None,
            tokens: Some(vec![TokenRecord { id: 32, logprob: -0.001 }, TokenRecord { id: 33, logprob: -1e-9 }]),
            stats: Stats {
                total_ms: 12.3456,
                rtf: 0.0015064,
                positions: 113,
                passes: 11,
                tokens_per_pass: 6.8182,
                ..Stats::default()
            },
        }
    }

    #[test]
    fn the_json_is_the_documented_one_on_one_line() {
        let expected = concat!(
            r#"{"model":"digits","backend":"cpu","device":"a \"CPU\"","audio":{"path":"a.wav","duration_s":8.195,"damage":[]},"#,
            r#""delay_ms":480,"text":"four","words":[{"text":"four","start_s":0.48,"end_s":0.88,"logprob":-0.01}],"#,
            r#""tokens":[{"id":32,"logprob":-0.001},{"id":33,"logprob":0.0}],"#,
            r#""stats":{"load_ms":0.0,"encode_ms":0.0,"decode_ms":0.0,"total_ms":12.346,"first_text_ms":null,"#,
            r#""positions":113,"passes":11,"tokens_per_pass":6.818,"rtf":0.001506,"peak_rss_mb":0.0,"device_mb":0.0}}"#,
        );
        assert_eq!(report().to_json().unwrap(), expected);
    }

    #[test]
    fn alternatives_and_segments_are_where_they_were_asked_for() {
        let mut asked = report();
        let (instead_of, text) = ("our".to_owned(), "or".to_owned());
        asked.words[0].alternatives = vec![Alternative { instead_of, text, logprob: -1.5 }];
        asked.segments = Some(vec![Segment { start_s: 0.0, end_s: 1.38, text: "four".into() }]);
        let json = asked.to_json().unwrap();
        let expected = r#""logprob":-0.01,"alternatives":[{"instead_of":"our","text":"or","logprob":-1.5}]}],"segments":[{"start_s":0.0,"end_s":1.38,"text":"four"}],"tokens":"#;
        assert!(json.contains(expected), "{json}");
        assert_eq!(Report::read_all(&json).unwrap()[0].to_json().unwrap(), json);
        let json = report().to_json().unwrap();
        assert!(!json.contains("alternatives") && !json.contains("segments"), "{json}");
    }

    #[test]
    fn tokens_that_were_not_asked_for_leave_no_trace() {
        let json = Report { tokens: None, ..report() }.to_json().unwrap();
        assert!(!json.contains("\"tokens\":"), "{json}");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let json = report().to_json().unwrap();
        let all = Report::read_all(&format!("{json}\n{json}\n")).unwrap();
        assert_eq!(
            all.iter().map(|report| report.to_json().unwrap()).collect::<Vec<_>>(),
            [json.clone(), json.clone()]
        );
        let without_tokens = Report { tokens: None, ..report() }.to_json().unwrap();
        assert_eq!(Report::read_all(&without_tokens).unwrap()[0].tokens, None);
        assert!(Report::read_all("").unwrap().is_empty());
        for (text, says) in [("{\"text\":\"four\"}", "missing field"), (&json[..90], "EOF"), ("four", "line 1")] {
            let error = Report::read_all(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_an_error_and_never_null() {
        let mut bad = report();
        bad.words[0].logprob = f32::NEG_INFINITY;
        assert!(bad.to_json().unwrap_err().to_string().starts_with("-inf cannot be written"));
        let mut bad = report();
        bad.stats.rtf = f64::NAN;
        assert!(bad.to_json().is_err());
        let mut bad = report();
        bad.stats.first_text_ms = Some(f64::INFINITY);
        assert!(bad.to_json().is_err());
    }
}
