//! `tekken.json`: what the ids that a model writes stand for. Only decoding; the prompt of a transcription is ids alone.
//!
//! Ids below `num_special` are special; id `num_special + i` is the i-th entry of the vocabulary, some bytes that need not be whole
//! characters. The file lists more entries than a model uses; the rest is ignored.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::brief;
use crate::{AudioConfig, Delay, DelayError, JsonError, ModelConfig};

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// `[STREAMING_PAD]`: nothing to write yet.
    Pad,
    /// `[STREAMING_WORD]`: a word has been spoken to its end, and its text begins.
    WordStart,
    /// `</s>`: the model thinks that this is all.
    Eos,
    /// Another special id, which no text comes from.
    OtherSpecial,
    /// Bytes of text; a character may be spread over several ids.
    Text(&'a [u8]),
}

/// The vocabulary of a model and how it wants to be prompted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    /// The texts of all entries, one after the other.
    text: Vec<u8>,
    /// Entry `i` is `text[ends[i]..ends[i + 1]]`.
    ends: Vec<usize>,
    num_special: u32,
    bos: u32,
    eos: u32,
    pad: u32,
    word: u32,
    default_delay: Delay,
    left_pad_tokens: usize,
}

/// Why a `tekken.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is not JSON, or a field is not of its type.
    #[error("not a tekken.json: {0}")]
    Json(#[from] JsonError),
    /// The special ids leave no room for text, or do not hold those that transcription needs.
    #[error("config.default_num_special_tokens is {num_special}: with a vocabulary of {vocab} it must be 34 to {}", vocab.saturating_sub(1))]
    NumSpecial {
        /// What the file says.
        num_special: usize,
        /// Ids of the model.
        vocab: usize,
    },
    /// The model can write ids that the file does not list.
    #[error("vocab has {listed} entries, the model writes {needed}: is it the file of another model?")]
    TooShort {
        /// Entries in the file.
        listed: usize,
        /// Text ids of the model.
        needed: usize,
    },
    /// Entries are not in order, or one is missing or there twice.
    #[error("vocab entry {index} has rank {rank}: ranks must count up from 0")]
    Rank {
        /// Place in the array.
        index: usize,
        /// Its rank.
        rank: u64,
    },
    /// The bytes of an entry cannot be read.
    #[error("vocab entry {index} has bytes that are not base64: {source}")]
    Base64 {
        /// Place in the array.
        index: usize,
        /// What is wrong with them.
        source: base64::DecodeError,
    },
    /// A special token has an id that is taken or out of bounds.
    #[error("special token {:?} has rank {rank}, which is not below {num_special} or is taken", brief(name))]
    SpecialRank {
        /// Its name.
        name: String,
        /// Its rank.
        rank: u64,
        /// Number of special ids.
        num_special: usize,
    },
    /// A special token that transcription needs is not there and its usual id means something else.
    #[error("there is no special token {name}, and its usual id {id} is {:?}", brief(taken))]
    NoSpecial {
        /// The missing name.
        name: &'static str,
        /// Its id in the released model.
        id: u32,
        /// What the file calls that id.
        taken: String,
    },
    /// The model is not for streaming.
    #[error("audio.transcription_format is {:?}: this engine runs only models where it is \"streaming\"", brief(.0))]
    Format(String),
    /// The default delay is not one that the model knows.
    #[error("audio.transcription_delay_ms: {0}")]
    Delay(#[from] DelayError),
    /// The padding before the audio is absurd, or too short to begin with.
    #[error("audio.streaming_n_left_pad_tokens is {0}: it must be 2 to 256")]
    LeftPad(usize),
    /// The file is of another front-end than the description of the model.
    #[error("audio.{field} is {value:?}, but the model's description says {expected:?}")]
    FrontEnd {
        /// What they disagree on.
        field: &'static str,
        /// What the file says.
        value: f64,
        /// What the description says.
        expected: f64,
    },
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    config: Settings,
    #[serde(borrow)]
    vocab: Vec<Entry<'a>>,
    #[serde(borrow, default)]
    special_tokens: Vec<Special<'a>>,
    #[serde(borrow, default)]
    audio: Audio<'a>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    default_num_special_tokens: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { default_num_special_tokens: 1000 }
    }
}

/// Its `token_str` is left alone: it is the same bytes again where they are text, and the larger part of the file.
#[derive(Deserialize)]
struct Entry<'a> {
    rank: u64,
    #[serde(borrow)]
    token_bytes: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Special<'a> {
    rank: u64,
    #[serde(borrow)]
    token_str: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Audio<'a> {
    #[serde(borrow)]
    transcription_format: Cow<'a, str>,
    transcription_delay_ms: u32,
    streaming_n_left_pad_tokens: usize,
    sampling_rate: Option<f64>,
    frame_rate: Option<f64>,
    audio_encoding_config: Encoding,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Encoding {
    num_mel_bins: Option<f64>,
    hop_length: Option<f64>,
    window_size: Option<f64>,
}

impl Default for Audio<'_> {
    fn default() -> Self {
        Self {
            transcription_format: "streaming".into(),
            transcription_delay_ms: 480,
            streaming_n_left_pad_tokens: 32,
            sampling_rate: None,
            frame_rate: None,
            audio_encoding_config: Encoding::default(),
        }
    }
}

impl Audio<'_> {
    /// Whether what the file says of the front-end is what the description says.
    fn agrees(&self, described: &AudioConfig) -> Result<(), TokenizerError> {
        let &AudioConfig { sample_rate, mel_bins, hop, window, samples_per_token, .. } = described;
        let encoding = &self.audio_encoding_config;
        let fields = [
            ("sampling_rate", self.sampling_rate, sample_rate as f64),
            ("frame_rate", self.frame_rate, sample_rate as f64 / samples_per_token as f64),
            ("audio_encoding_config.num_mel_bins", encoding.num_mel_bins, mel_bins as f64),
            ("audio_encoding_config.hop_length", encoding.hop_length, hop as f64),
            ("audio_encoding_config.window_size", encoding.window_size, window as f64),
        ];
        for (field, value, expected) in fields {
            if let Some(value) = value.filter(|value| *value != expected) {
                return Err(TokenizerError::FrontEnd { field, value, expected });
            }
        }
        Ok(())
    }
}

impl Tokenizer {
    /// From the contents of `tekken.json`, for a model that writes ids below `vocab`.
    ///
    /// # Errors
    /// When the file does not describe all these ids, or describes them twice.
    pub fn from_json(json: &[u8], vocab: usize) -> Result<Self, TokenizerError> {
        Self::of_file(&serde_json::from_slice(json).map_err(JsonError)?, vocab)
    }

    /// The same, for the model that `config` describes.
    ///
    /// # Errors
    /// As [`Tokenizer::from_json`], and when the file is of another front-end.
    pub fn for_model(json: &[u8], config: &ModelConfig) -> Result<Self, TokenizerError> {
        let file: File<'_> = serde_json::from_slice(json).map_err(JsonError)?;
        file.audio.agrees(&config.audio)?;
        Self::of_file(&file, config.vocab)
    }

    fn of_file(file: &File<'_>, vocab: usize) -> Result<Self, TokenizerError> {
        let num_special = file.config.default_num_special_tokens;
        if num_special < 34 || num_special >= vocab {
            return Err(TokenizerError::NumSpecial { num_special, vocab });
        }
        let specials = Specials::new(&file.special_tokens, num_special)?;
        let (text, ends) = join(&file.vocab, vocab - num_special)?;
        let &Audio { ref transcription_format, transcription_delay_ms, streaming_n_left_pad_tokens, .. } = &file.audio;
        if transcription_format != "streaming" {
            return Err(TokenizerError::Format(transcription_format.clone().into_owned()));
        }
        // The last of them is heard with the audio, and one before it has the first id.
        if !(2..=256).contains(&streaming_n_left_pad_tokens) {
            return Err(TokenizerError::LeftPad(streaming_n_left_pad_tokens));
        }
        Ok(Self {
            text,
            ends,
            num_special: num_special as u32,
            bos: specials.id("<s>", 1)?,
            eos: specials.id("</s>", 2)?,
            pad: specials.id("[STREAMING_PAD]", 32)?,
            word: specials.id("[STREAMING_WORD]", 33)?,
            default_delay: Delay::from_ms(transcription_delay_ms)?,
            left_pad_tokens: streaming_n_left_pad_tokens,
        })
    }

    /// What `id` stands for; ids beyond the vocabulary count as [`Kind::OtherSpecial`].
    pub fn kind(&self, id: u32) -> Kind<'_> {
        match id {
            _ if id == self.pad => Kind::Pad,
            _ if id == self.word => Kind::WordStart,
            _ if id == self.eos => Kind::Eos,
            _ => self.bytes(id).map_or(Kind::OtherSpecial, Kind::Text),
        }
    }

    /// The bytes of a text id; `None` for special ids and ids beyond the vocabulary.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let entry = id.checked_sub(self.num_special)? as usize;
        Some(&self.text[*self.ends.get(entry)?..*self.ends.get(entry + 1)?])
    }

    /// Ids of the model, special and text.
    pub fn vocab(&self) -> usize {
        self.num_special as usize + self.ends.len() - 1
    }

    /// Ids below it are special.
    pub fn num_special(&self) -> u32 {
        self.num_special
    }

    /// `<s>`, the first id of every prompt.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// `</s>`
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// `[STREAMING_PAD]`, the other ids of every prompt.
    pub fn streaming_pad(&self) -> u32 {
        self.pad
    }

    /// `[STREAMING_WORD]`
    pub fn streaming_word(&self) -> u32 {
        self.word
    }

    /// The delay to use where none is asked for.
    pub fn default_delay(&self) -> Delay {
        self.default_delay
    }

    /// Tokens of silence before the audio, and of `[STREAMING_PAD]` in the prompt before those of the delay.
    pub fn left_pad_tokens(&self) -> usize {
        self.left_pad_tokens
    }
}

/// The first `count` entries as one text and where each ends.
fn join(vocab: &[Entry<'_>], count: usize) -> Result<(Vec<u8>, Vec<usize>), TokenizerError> {
    if vocab.len() < count {
        return Err(TokenizerError::TooShort { listed: vocab.len(), needed: count });
    }
    let (mut text, mut ends) = (Vec::with_capacity(8 * count), Vec::with_capacity(count + 1));
    ends.push(0);
    for (index, entry) in vocab[..count].iter().enumerate() {
        if entry.rank != index as u64 {
            return Err(TokenizerError::Rank { index, rank: entry.rank });
        }
        let decoded = STANDARD.decode_vec(entry.token_bytes.as_bytes(), &mut text);
        decoded.map_err(|source| TokenizerError::Base64 { index, source })?;
        ends.push(text.len());
    }
    Ok((text, ends))
}

/// The special tokens that the file names; ids without a name are allowed.
struct Specials<'a>(&'a [Special<'a>]);

impl<'a> Specials<'a> {
    fn new(listed: &'a [Special<'a>], num_special: usize) -> Result<Self, TokenizerError> {
        let mut taken = HashSet::new();
        for special in listed {
            if special.rank >= num_special as u64 || !taken.insert(special.rank) {
                let (name, rank) = (special.token_str.to_string(), special.rank);
                return Err(TokenizerError::SpecialRank { name, rank, num_special });
            }
        }
        Ok(Self(listed))
    }

    /// By name, or else the id of the released model, unless the file gives that another meaning.
    fn id(&self, name: &'static str, usual: u32) -> Result<u32, TokenizerError> {
        if let Some(special) = self.0.iter().find(|special| special.token_str == name) {
            return Ok(special.rank as u32);
        }
        match self.0.iter().find(|special| special.rank == u64::from(usual)) {
            Some(other) if !other.token_str.starts_with("<SPECIAL_") => {
                Err(TokenizerError::NoSpecial { name, id: usual, taken: other.token_str.to_string() })
            }
            _ => Ok(usual),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `vocab`, `special_tokens` and `audio` for a model of 34 special ids.
    fn file(vocab: &str, specials: &str, audio: &str) -> String {
        format!(
            r#"{{"config":{{"default_num_special_tokens":34}},"vocab":[{vocab}],"special_tokens":[{specials}],"audio":{{{audio}}}}}"#
        )
    }

    const AB: &str =
        r#"{"rank":0,"token_bytes":"YQ==","token_str":"a"},{"rank":1,"token_bytes":"YmM=","token_str":null}"#;

    #[test]
    fn falls_back_to_the_released_ids_and_settings() {
        let tokenizer = Tokenizer::from_json(format!(r#"{{"vocab":[{AB}]}}"#).as_bytes(), 1002).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.streaming_pad()), (1, 2, 32));
        assert_eq!((tokenizer.default_delay().ms(), tokenizer.left_pad_tokens()), (480, 32));
        let kinds: Vec<Kind<'_>> = [32, 33, 2, 1, 999, 1000, 1001, 1002, u32::MAX].map(|id| tokenizer.kind(id)).into();
        use Kind::*;
        let other = OtherSpecial;
        assert_eq!(kinds, [Pad, WordStart, Eos, other, other, Text(b"a"), Text(b"bc"), other, other]);
        assert_eq!((tokenizer.vocab(), tokenizer.num_special()), (1002, 1000));
    }

    #[test]
    fn takes_ids_by_name_and_ignores_entries_that_the_model_does_not_use() {
        let specials = r#"{"rank":5,"token_str":"[STREAMING_PAD]"},{"rank":7,"token_str":"<s>"}"#;
        let tokenizer = Tokenizer::from_json(file(AB, specials, "").as_bytes(), 35).unwrap();
        assert_eq!((tokenizer.streaming_pad(), tokenizer.bos(), tokenizer.streaming_word()), (5, 7, 33));
        assert_eq!((tokenizer.bytes(34), tokenizer.bytes(35)), (Some(&b"a"[..]), None));
    }

    #[test]
    fn refuses_the_file_of_another_front_end() {
        let said = |audio: &str| {
            let config = ModelConfig { vocab: 36, ..ModelConfig::released() };
            Tokenizer::for_model(file(AB, "", audio).as_bytes(), &config).map_err(|e| e.to_string())
        };
        said(r#""sampling_rate":16000,"frame_rate":12.5,"audio_encoding_config":{"hop_length":160}"#).unwrap();
        let wrong = "audio.sampling_rate is 8000.0, but the model's description says 16000.0";
        assert_eq!(said(r#""sampling_rate":8000"#).unwrap_err(), wrong);
        let wrong = "audio.audio_encoding_config.window_size is 512.0, but the model's description says 400.0";
        assert_eq!(said(r#""audio_encoding_config":{"window_size":512}"#).unwrap_err(), wrong);
    }

    #[test]
    fn says_what_is_wrong() {
        let twice = r#"{"rank":0,"token_bytes":"YQ=="},{"rank":0,"token_bytes":"YQ=="}"#;
        let cases = [
            (file("", "", ""), "vocab has 0 entries, the model writes 2"),
            (file(twice, "", ""), "vocab entry 1 has rank 0"),
            (file(&AB.replace("YQ==", "Y?"), "", ""), "vocab entry 0 has bytes that are not base64"),
            (file(AB, r#"{"rank":34,"token_str":"x"}"#, ""), "special token \"x\" has rank 34"),
            (
                file(AB, r#"{"rank":3,"token_str":"x"},{"rank":3,"token_str":"y"}"#, ""),
                "special token \"y\" has rank 3",
            ),
            (
                file(AB, r#"{"rank":32,"token_str":"x"}"#, ""),
                "there is no special token [STREAMING_PAD], and its usual",
            ),
            (file(AB, "", r#""transcription_delay_ms":500"#), "audio.transcription_delay_ms: a delay of 500 ms"),
            (file(AB, "", r#""transcription_format":"instruct""#), "audio.transcription_format is \"instruct\""),
            (
                file(AB, "", r#""streaming_n_left_pad_tokens":4000000000"#),
                "audio.streaming_n_left_pad_tokens is 4000000000",
            ),
            (
                file(AB, "", r#""streaming_n_left_pad_tokens":0"#),
                "audio.streaming_n_left_pad_tokens is 0: it must be 2",
            ),
            (
                file(AB, "", r#""streaming_n_left_pad_tokens":1"#),
                "audio.streaming_n_left_pad_tokens is 1: it must be 2",
            ),
            (
                file(AB, "", "").replace("34", "36"),
                "config.default_num_special_tokens is 36: with a vocabulary of 36 it",
            ),
            (file(AB, "", "").replace("34", "-1"), "not a tekken.json: invalid value: integer `-1`"),
            ("{}".to_owned(), "not a tekken.json: missing field `vocab`"),
        ];
        for (json, message) in cases {
            let said = Tokenizer::from_json(json.as_bytes(), 36).unwrap_err().to_string();
            assert!(said.starts_with(message), "{said}");
        }
    }
}
