//! What the fields of a form ask for.

use voxtral::Delay;

use super::upload::Field;
use crate::app::App;
use crate::error::ApiError;

/// All but the file.
#[derive(Default)]
pub(crate) struct Form {
    has_model: bool,
    pub(crate) format: Format,
    /// Text as it is heard, as server-sent events.
    pub(crate) stream: bool,
    words: bool,
    segments: bool,
    pub(crate) logprobs: bool,
    /// What the client says is spoken. The model finds out by itself.
    pub(crate) language: Option<String>,
    pub(crate) delay: Option<Delay>,
    pub(crate) dialect: Dialect,
    ignored: Vec<&'static str>,
}

/// What is written into the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Json,
    VerboseJson,
    Text,
    Srt,
    Vtt,
}

/// Whose clients the answer is for, where they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[default]
    OpenAi,
    Mistral,
    Vllm {
        /// The stream ends with what it took.
        usage: bool,
    },
}

impl Form {
    /// Nothing yet, from a client that calls itself so.
    pub(crate) fn of_client(user_agent: &str) -> Self {
        let mistral = user_agent.starts_with("mistral-client-");
        Self { dialect: if mistral { Dialect::Mistral } else { Dialect::OpenAi }, ..Self::default() }
    }

    /// Takes a field. Those that nobody knows here are passed over.
    pub(crate) async fn take(&mut self, field: Field<'_>, app: &App) -> Result<(), ApiError> {
        match field.name() {
            "model" => {
                app.check_model(&field.text().await?)?;
                self.has_model = true;
            }
            "response_format" => self.format = Format::named(&field.text().await?)?,
            "stream" => self.stream = flag("stream", &field.text().await?)?,
            "timestamp_granularities[]" | "timestamp_granularities" => match field.text().await?.as_str() {
                "word" => self.words = true,
                "segment" => self.segments = true,
                other => {
                    let message =
                        format!("there are no times of each {other:?}: `word` and `segment` can be asked for");
                    return Err(ApiError::bad_field("timestamp_granularities[]", message));
                }
            },
            "include[]" | "include" => match field.text().await?.as_str() {
                "logprobs" => self.logprobs = true,
                other => {
                    let message = format!("{other:?} cannot be included: `logprobs` can");
                    return Err(ApiError::bad_field("include[]", message));
                }
            },
            "delay_ms" => self.delay = Some(delay(&field.text().await?)?),
            "diarize" => {
                self.dialect = Dialect::Mistral;
                if flag("diarize", &field.text().await?)? {
                    let message = "this model does not tell speakers apart: leave `diarize` out";
                    return Err(ApiError::bad_field("diarize", message));
                }
            }
            "stream_include_usage" => {
                let usage = flag("stream_include_usage", &field.text().await?)?;
                self.dialect = Dialect::Vllm { usage };
            }
            "language" => {
                let language = field.text().await?;
                self.ignore("language", &language);
                self.language = Some(language).filter(|language| !language.is_empty());
            }
            "prompt" => self.ignore("prompt", &field.text().await?),
            "temperature" => self.ignore("temperature", &field.text().await?),
            "chunking_strategy" => self.ignore("chunking_strategy", &field.text().await?),
            "context_bias" => self.ignore("context_bias", &field.text().await?),
            _ => field.skip().await?,
        }
        Ok(())
    }

    fn ignore(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() && !self.ignored.contains(&name) {
            self.ignored.push(name);
        }
    }

    /// Whether what was asked for goes together, and nothing is missing.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if !self.has_model {
            return Err(ApiError::bad_field("model", "there is no field `model`: /v1/models lists what it can be"));
        }
        if (self.words || self.segments) && self.format != Format::VerboseJson && self.dialect != Dialect::Mistral {
            let message = "times are for `response_format=verbose_json` only";
            return Err(ApiError::bad_field("timestamp_granularities[]", message));
        }
        if self.logprobs && self.format != Format::Json {
            return Err(ApiError::bad_field("include[]", "`logprobs` are for `response_format=json` only"));
        }
        if self.stream && !matches!(self.format, Format::Json | Format::Text) {
            let message = "only `response_format=json` and `text` can be streamed: leave `stream` out";
            return Err(ApiError::bad_field("stream", message));
        }
        Ok(())
    }

    /// Whether the times of words are to be told.
    pub(crate) fn words(&self) -> bool {
        self.words
    }

    /// Whether the times of segments are to be told; if no times were asked for, those who expect some get these.
    pub(crate) fn segments(&self) -> bool {
        self.segments || (!self.words && self.dialect != Dialect::Mistral)
    }

    /// Fields that were understood and have no effect.
    pub(crate) fn ignored(&self) -> &[&'static str] {
        &self.ignored
    }
}

impl Format {
    fn named(name: &str) -> Result<Self, ApiError> {
        let refused = |message| Err(ApiError::bad_field("response_format", message));
        match name {
            "json" => Ok(Self::Json),
            "verbose_json" => Ok(Self::VerboseJson),
            "text" => Ok(Self::Text),
            "srt" => Ok(Self::Srt),
            "vtt" => Ok(Self::Vtt),
            "diarized_json" => refused("this model does not tell speakers apart: `verbose_json` has times".to_owned()),
            _ => {
                refused(format!("there is no format {name:?}: json, verbose_json, text, srt and vtt can be asked for"))
            }
        }
    }
}

fn flag(param: &'static str, value: &str) -> Result<bool, ApiError> {
    match value {
        "true" | "True" | "1" => Ok(true),
        "false" | "False" | "0" | "" => Ok(false),
        _ => Err(ApiError::bad_field(param, format!("`{param}` is {value:?}: it can be true or false"))),
    }
}

fn delay(value: &str) -> Result<Delay, ApiError> {
    let refused = |message| ApiError::bad_field("delay_ms", message);
    let ms =
        value.parse().map_err(|_| refused(format!("`delay_ms` is {value:?}: it must be milliseconds, such as 480")))?;
    Delay::from_ms(ms).map_err(|error| refused(error.to_string()))
}
