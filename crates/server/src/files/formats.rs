//! A transcription that has ended, in the format that was asked for.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use voxtral::{CueFormat, Cues, Damage, End, Model, Sink, Subtitles, Summary, TOKEN_MS, TokenRecord, Word};

use super::form::{Dialect, Form, Format};
use super::transcription::Heard;
use crate::error::ApiError;

/// Tells of damage where the body cannot.
const DAMAGE: &str = "x-voxtral-damage";
/// Damages that a header names; then it says how many more there are.
const MOST_NAMED: usize = 10;

/// The answer to a client that waited for all of it.
pub(crate) fn answer(model: &Model, heard: &Heard, summary: &Summary, form: &Form) -> Result<Response, ApiError> {
    let (kind, body) = match (form.format, form.dialect) {
        (Format::Json, Dialect::Mistral) => return Ok(Json(mistral(model, heard, summary, form)).into_response()),
        (Format::Json, _) => return Ok(Json(json(model, heard, summary, form)).into_response()),
        (Format::VerboseJson, _) => return Ok(Json(verbose(model, heard, summary, form)).into_response()),
        (Format::Text, _) => ("text/plain; charset=utf-8", format!("{}\n", summary.text).into_bytes()),
        (Format::Srt, _) => ("application/x-subrip; charset=utf-8", subtitles(CueFormat::Srt, heard, summary)?),
        (Format::Vtt, _) => ("text/vtt; charset=utf-8", subtitles(CueFormat::Vtt, heard, summary)?),
    };
    let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(damage) = damage_header(&heard.damage) {
        response.headers_mut().insert(DAMAGE, damage);
    }
    Ok(response)
}

fn json(model: &Model, heard: &Heard, summary: &Summary, form: &Form) -> Value {
    let seconds = summary.audio_s.ceil() as u64;
    let mut json = json!({ "text": summary.text, "usage": { "type": "duration", "seconds": seconds } });
    if form.logprobs {
        json["logprobs"] = logprobs(model, &heard.tokens);
    }
    with_damage(json, heard)
}

fn verbose(model: &Model, heard: &Heard, summary: &Summary, form: &Form) -> Value {
    let mut json = json!({
        "task": "transcribe",
        "language": form.language.as_deref().unwrap_or("unknown"),
        "duration": ms(summary.audio_s),
        "text": summary.text,
    });
    if form.segments() {
        json["segments"] = segments(&heard.words, model, &heard.tokens).into();
    }
    if form.words() {
        json["words"] = heard.words.iter().map(word).collect();
    }
    with_damage(json, heard)
}

/// What Mistral's client takes for an answer; also what ends a stream of it.
pub(crate) fn mistral(model: &Model, heard: &Heard, summary: &Summary, form: &Form) -> Value {
    let (input, output) = tokens(summary);
    let json = json!({
        "model": model.name,
        "text": summary.text,
        "language": form.language,
        "segments": mistral_segments(heard, form, "transcription_segment"),
        "usage": {
            "prompt_audio_seconds": summary.audio_s.ceil() as u64,
            "prompt_tokens": input,
            "completion_tokens": output,
            "total_tokens": input + output,
        },
    });
    with_damage(json, heard)
}

/// What has times, as Mistral's client wants them: words, if their times were asked for, else segments if those were.
pub(crate) fn mistral_segments(heard: &Heard, form: &Form, kind: &str) -> Vec<Value> {
    let timed = |words: &[Word]| {
        let (start, end) = span(words);
        json!({ "type": kind, "text": text(words).trim_start(), "start": start, "end": end, "speaker_id": null })
    };
    if form.words() {
        heard.words.chunks(1).map(timed).collect()
    } else if form.segments() {
        groups(&heard.words).into_iter().map(timed).collect()
    } else {
        Vec::new()
    }
}

/// Tokens that went in, one for each 80 ms of audio, and that came out.
pub(crate) fn tokens(summary: &Summary) -> (u64, u64) {
    let token_s = f64::from(TOKEN_MS) / 1e3;
    ((summary.audio_s / token_s).ceil() as u64, summary.stats.tokens as u64)
}

/// Adds the damage of the audio, if there is some.
pub(crate) fn with_damage(mut json: Value, heard: &Heard) -> Value {
    if !heard.damage.is_empty() {
        json["damage"] = json!(heard.damage);
    }
    json
}

fn damage_header(damage: &[Damage]) -> Option<HeaderValue> {
    let mut named: Vec<String> = damage.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    if damage.len() > MOST_NAMED {
        named.push(format!("and {} more", damage.len() - MOST_NAMED));
    }
    // Other characters have no place in a header.
    let text = named.join(", ").replace(|c: char| !(' '..='~').contains(&c), "?");
    HeaderValue::from_str(&text).ok().filter(|_| !damage.is_empty())
}

/// The tokens that carry text, and that text.
fn of_text<'a>(model: &'a Model, tokens: &'a [TokenRecord]) -> impl Iterator<Item = (&'a TokenRecord, &'a [u8])> {
    tokens.iter().filter_map(|token| Some((token, model.tokenizer.bytes(token.id)?)))
}

/// The tokens that carry text, and how sure the model was of each.
pub(crate) fn logprobs(model: &Model, tokens: &[TokenRecord]) -> Value {
    let logprob = |(token, bytes): (&TokenRecord, &[u8])| json!({ "token": String::from_utf8_lossy(bytes), "logprob": token.logprob, "bytes": bytes });
    of_text(model, tokens).map(logprob).collect()
}

/// A word, where it was spoken, and how sure the model was: the geometric mean of its tokens' probabilities.
pub(crate) fn word(word: &Word) -> Value {
    let probability = (f64::from(word.logprob).exp() * 1e4).round() / 1e4;
    json!({ "word": word.text, "start": ms(word.start_s), "end": ms(word.end_s), "probability": probability })
}

/// The words of each cue that subtitles of them would have.
fn groups(words: &[Word]) -> Vec<&[Word]> {
    let (mut cues, mut groups, mut from) = (Cues::new(0.0), Vec::new(), 0);
    for (i, word) in words.iter().enumerate() {
        // The cue before is complete when a word has no place in it.
        if !cues.push(word).is_empty() && i > from {
            groups.push(&words[from..i]);
            from = i;
        }
    }
    groups.extend((from < words.len()).then(|| &words[from..]));
    groups
}

/// Start, end and text of each cue that subtitles of these words would have.
pub(crate) fn cues(words: &[Word]) -> impl Iterator<Item = (f64, f64, String)> {
    groups(words).into_iter().map(|words| {
        let (start_s, end_s) = span(words);
        (start_s, end_s, text(words))
    })
}

/// As it stands in the text, with the space before it.
fn text(words: &[Word]) -> String {
    words.iter().flat_map(|word| [if word.after_space { " " } else { "" }, &word.text]).collect()
}

fn span(words: &[Word]) -> (f64, f64) {
    let ends = words.first().zip(words.last());
    ends.map_or((0.0, 0.0), |(first, last)| (ms(first.start_s), ms(last.end_s)))
}

/// All of the text, in pieces that have times and tokens. The other members are there for clients that insist on them.
fn segments(words: &[Word], model: &Model, tokens: &[TokenRecord]) -> Vec<Value> {
    let mut of_text = of_text(model, tokens).peekable();
    let visible = |bytes: &[u8]| bytes.iter().filter(|byte| !byte.is_ascii_whitespace()).count();
    let (mut at, mut end) = (0, 0);
    let segment = |(id, words): (usize, &[Word])| {
        end += words.iter().map(|word| word.text.len()).sum::<usize>();
        let (mut ids, mut logprob) = (Vec::new(), 0.0);
        while let Some((token, bytes)) = of_text.next_if(|(_, bytes)| at + visible(bytes) <= end) {
            at += visible(bytes);
            ids.push(token.id);
            logprob += f64::from(token.logprob);
        }
        let (start_s, end_s) = span(words);
        json!({
            "id": id,
            "seek": 0,
            "start": start_s,
            "end": end_s,
            "text": text(words),
            "tokens": ids,
            "temperature": 0.0,
            "avg_logprob": logprob / ids.len().max(1) as f64,
            "compression_ratio": 1.0,
            "no_speech_prob": 0.0,
        })
    };
    groups(words).into_iter().enumerate().map(segment).collect()
}

fn subtitles(format: CueFormat, heard: &Heard, summary: &Summary) -> Result<Vec<u8>, ApiError> {
    let mut written = Vec::new();
    let mut sink = Subtitles::new(&mut written, format, false);
    let end = End { summary, cut_short: None, total: Duration::ZERO, peak_rss_bytes: 0, peak_device_bytes: 0 };
    let outcome = heard.words.iter().try_for_each(|word| sink.word(word)).and_then(|()| sink.end(&end));
    outcome.map_err(|error| ApiError::internal(&error))?;
    Ok(written)
}

/// Seconds, to the millisecond.
pub(crate) fn ms(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_few_damages_and_holds_no_character_that_it_cannot() {
        let damage = |i: u32| Damage { at_s: f64::from(i), lost_s: 0.5, what: "a bad\r\npage é".into() };
        assert_eq!(damage_header(&[]), None);
        assert_eq!(damage_header(&[damage(1)]).unwrap(), "damaged at 1.00 s: a bad??page ?; 0.50 s lost");
        let many = damage_header(&(0..25).map(damage).collect::<Vec<_>>()).unwrap();
        assert!(many.to_str().unwrap().ends_with("damaged at 9.00 s: a bad??page ?; 0.50 s lost, and 15 more"));
    }
}
