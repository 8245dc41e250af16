//! What a client of OpenAI has said how it wants to be transcribed.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use voxtral::{Delay, Options, SampleFormat};

use super::super::audio::AudioFormat;
use super::super::dialect::{Body, Fault};
use crate::app::App;
use crate::id;

/// Samples a second, where a client does not say.
const RATE: u32 = 24_000;

/// Longest text of a session.
const MAX_BYTES: usize = 64 << 10;

/// Most that is kept of what came before speech.
const MAX_PREFIX: Duration = Duration::from_secs(10);

/// Asks for log-probabilities.
const LOGPROBS: &str = "item.input_audio_transcription.logprobs";

/// As the client sees it, and what follows from that.
pub(super) struct Session {
    object: Value,
    settings: Settings,
}

/// What a session's object comes to.
pub(super) struct Settings {
    pub(super) format: AudioFormat,
    /// How turns are found; without, the client says where they end.
    pub(super) detection: Option<Detection>,
    pub(super) options: Options,
    pub(super) logprobs: bool,
    pub(super) words: bool,
    pub(super) segments: bool,
}

/// How turns are found. What OpenAI calls semantic is done in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Detection {
    r#type: DetectionKind,
    threshold: Option<f32>,
    prefix_padding_ms: Option<u32>,
    silence_duration_ms: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DetectionKind {
    ServerVad,
    SemanticVad,
}

impl Detection {
    /// The score from which sound is speech.
    pub(super) fn threshold(&self) -> f32 {
        self.threshold.unwrap_or(0.5)
    }

    /// How much of what was heard before speech belongs to it.
    pub(super) fn prefix(&self) -> Duration {
        Duration::from_millis(self.prefix_padding_ms.unwrap_or(300).into())
    }

    /// How long a pause ends a turn.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_duration_ms.unwrap_or(500).into())
    }

    fn is_possible(&self) -> bool {
        (0.0..=1.0).contains(&self.threshold()) && self.prefix() <= MAX_PREFIX
    }
}

#[derive(Deserialize)]
struct Object {
    audio: Audio,
    include: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Audio {
    input: Input,
}

#[derive(Deserialize)]
struct Input {
    format: Format,
    transcription: Option<Transcription>,
    turn_detection: Option<Detection>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Format {
    #[serde(rename = "audio/pcm")]
    Pcm { rate: Option<u32> },
    #[serde(rename = "audio/pcmu")]
    Pcmu,
    #[serde(rename = "audio/pcma")]
    Pcma,
}

#[derive(Default, Deserialize)]
struct Transcription {
    model: Option<String>,
    delay: Option<Effort>,
    /// Of ours: OpenAI has it for files.
    timestamp_granularities: Option<Vec<Granularity>>,
}

/// How long the model may wait, in OpenAI's words.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Granularity {
    Word,
    Segment,
}

impl Effort {
    fn delay(self) -> Option<Delay> {
        let ms = match self {
            Self::Minimal => 160,
            Self::Low => 240,
            Self::Medium => 480,
            Self::High => 960,
            Self::Xhigh => 2400,
        };
        Delay::from_ms(ms).ok()
    }
}

impl Session {
    /// A session as it is by default, but for what the query of its address says.
    ///
    /// # Errors
    /// When that cannot be.
    pub(super) fn new(app: &App, query: &HashMap<String, String>) -> Result<Self, Fault> {
        let input = json!({
            "format": { "type": "audio/pcm", "rate": RATE },
            "transcription": { "model": app.voxtral.model().name },
            "noise_reduction": null,
            "turn_detection": {
                "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
            },
        });
        let mut object = json!({
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": id::new("sess"),
            "audio": { "input": input },
            "include": null,
        });
        merge(&mut object, of_query(query)?);
        let settings = Settings::of(&object, app)?;
        Ok(Self { object, settings })
    }

    pub(super) fn object(&self) -> &Value {
        &self.object
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes what `change` names, in the GA's shape or the beta's, and leaves the rest as it is.
    ///
    /// # Errors
    /// When it would be no session. It stays as it was then.
    pub(super) fn update(&mut self, change: Body, app: &App) -> Result<(), Fault> {
        let mut object = self.object.clone();
        merge(&mut object, nested(change)?);
        if object.to_string().len() > MAX_BYTES {
            return Err(Fault::invalid_event(format!("a session has at most {MAX_BYTES} bytes")).about("session"));
        }
        self.settings = Settings::of(&object, app)?;
        self.object = object;
        Ok(())
    }

    /// In the beta's shape.
    pub(super) fn flat(&self) -> Value {
        let input = &self.object["audio"]["input"];
        let format = match self.settings.format.sample {
            SampleFormat::MuLaw => "g711_ulaw",
            SampleFormat::ALaw => "g711_alaw",
            _ => "pcm16",
        };
        json!({
            "id": self.object["id"],
            "object": self.object["object"],
            "input_audio_format": format,
            "input_audio_transcription": input["transcription"],
            "input_audio_noise_reduction": input["noise_reduction"],
            "turn_detection": input["turn_detection"],
            "include": self.object["include"],
        })
    }
}

impl Settings {
    fn of(object: &Value, app: &App) -> Result<Self, Fault> {
        let invalid = |e: serde_json::Error| Fault::invalid_event(format!("the session cannot be so: {e}"));
        let Object { audio: Audio { input }, include } = Object::deserialize(object).map_err(invalid)?;
        let format = match input.format {
            Format::Pcm { rate } => AudioFormat::new(SampleFormat::S16, rate.unwrap_or(RATE)),
            Format::Pcmu => AudioFormat::new(SampleFormat::MuLaw, 8_000),
            Format::Pcma => AudioFormat::new(SampleFormat::ALaw, 8_000),
        };
        let transcription = input.transcription.unwrap_or_default();
        if let Some(model) = &transcription.model {
            let not_found = |error| Fault::from(error).about("session.audio.input.transcription.model");
            app.check_model(model).map_err(not_found)?;
        }
        if input.turn_detection.is_some_and(|detection| !detection.is_possible()) {
            let what = format!("`threshold` is 0 to 1, and `prefix_padding_ms` at most {}", MAX_PREFIX.as_millis());
            return Err(Fault::invalid_event(what).about("session.audio.input.turn_detection"));
        }
        let granularities = transcription.timestamp_granularities.unwrap_or_default();
        Ok(Self {
            format: format.map_err(|fault| fault.about("session.audio.input.format"))?,
            detection: input.turn_detection,
            options: Options { delay: transcription.delay.and_then(Effort::delay), ..Options::default() },
            logprobs: include.is_some_and(|include| include.iter().any(|field| field == LOGPROBS)),
            words: granularities.contains(&Granularity::Word),
            segments: granularities.contains(&Granularity::Segment),
        })
    }
}

/// Puts `change` into `value`: members one by one, unless the object becomes one of another type.
fn merge(value: &mut Value, change: Value) {
    match (value, change) {
        (Value::Object(value), Value::Object(change))
            if change.get("type").is_none_or(|kind| value.get("type") == Some(kind)) =>
        {
            for (name, change) in change {
                merge(value.entry(name).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change,
    }
}

/// A session's members where the GA has them, wherever the client put them. What it cannot change is left out.
fn nested(mut session: Body) -> Result<Value, Fault> {
    for fixed in ["type", "id", "object"] {
        session.remove(fixed);
    }
    let mut input = Map::new();
    let places = [
        ("input_audio_transcription", "transcription"),
        ("input_audio_noise_reduction", "noise_reduction"),
        ("turn_detection", "turn_detection"),
    ];
    for (flat, place) in places {
        input.extend(session.remove(flat).map(|value| (place.to_owned(), value)));
    }
    match session.remove("input_audio_format") {
        Some(Value::String(name)) => input.extend([("format".to_owned(), format_of(&name)?)]),
        Some(other) => input.extend([("format".to_owned(), other)]),
        None => {}
    }
    let mut session = Value::Object(session);
    if !input.is_empty() {
        merge(&mut session, json!({ "audio": { "input": input } }));
    }
    Ok(session)
}

/// What the query of an address says, in the GA's shape.
fn of_query(query: &HashMap<String, String>) -> Result<Value, Fault> {
    let mut session = Map::new();
    let transcription: Map<String, Value> = ["model", "language", "delay"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), Value::from(query.get(name)?.as_str()))))
        .collect();
    session.insert("input_audio_transcription".to_owned(), transcription.into());
    if let Some(format) = query.get("input_audio_format") {
        session.insert("input_audio_format".to_owned(), Value::from(format.as_str()));
    }
    match query.get("turn_detection").map(String::as_str) {
        Some("none" | "null") => _ = session.insert("turn_detection".to_owned(), Value::Null),
        Some(kind) => _ = session.insert("turn_detection".to_owned(), json!({ "type": kind })),
        None => {}
    }
    nested(session)
}

/// A format by its name: the beta's, or Together's, which ends in the rate.
fn format_of(name: &str) -> Result<Value, Fault> {
    match (name, name.strip_prefix("pcm_s16le_").and_then(|rate| rate.parse::<u32>().ok())) {
        ("pcm16", _) => Ok(json!({ "type": "audio/pcm", "rate": RATE })),
        ("g711_ulaw", _) => Ok(json!({ "type": "audio/pcmu" })),
        ("g711_alaw", _) => Ok(json!({ "type": "audio/pcma" })),
        (_, Some(rate)) => Ok(json!({ "type": "audio/pcm", "rate": rate })),
        _ => {
            let what =
                format!("{name:?} is not a format that is taken: pcm16, g711_ulaw, g711_alaw and pcm_s16le_RATE are");
            Err(Fault::invalid_event(what).about("input_audio_format"))
        }
    }
}
