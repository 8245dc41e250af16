//! `params.json` (native) and `config.json` (Hugging Face) as a [`ModelConfig`].
//!
//! `params.json` must say all that the arithmetic depends on; what `config.json` does not say is as in transformers. What a file says
//! and this engine has not is refused.

use serde_json::{Map, Value, json};

use super::{AudioConfig, ConfigError, ModelConfig, TransformerConfig};
use crate::{JsonError, error::brief};

impl ModelConfig {
    /// From the contents of `params.json`.
    ///
    /// # Errors
    /// Names the field that is malformed, out of bounds or asks for what this engine has not.
    pub fn from_params_json(json: &[u8]) -> Result<Self, ConfigError> {
        let json: Value = serde_json::from_slice(json).map_err(JsonError)?;
        let top = Object::root(&json)?;
        let whisper = top.object("multimodal")?.object("whisper_model_args")?;
        let encoder = whisper.object("encoder_args")?;
        let audio = encoder.object("audio_encoding_args")?;

        top.is("use_biases", json!(false))?;
        top.is("causal", json!(true))?;
        top.is("tied_embeddings", json!(true))?;
        top.is("ada_rms_norm_t_cond", json!(true))?;
        top.without(&["rope_scaling", "yarn", "moe", "quantization", "q_lora_rank"])?;
        encoder.is("use_biases", json!(true))?;
        encoder.is("causal", json!(true))?;
        encoder.is("pos_embed", json!("rope"))?;
        encoder.is("ffn_type", json!("swiglu"))?;
        encoder.is("norm_type", json!("rms_norm"))?;
        encoder.without(&["rope_scaling"])?;
        audio.is("transcription_format", json!("streaming"))?;

        let sample_rate = audio.size("sampling_rate")?;
        AudioConfig::check_rate(audio.path("sampling_rate"), sample_rate)?;
        let config = Self {
            audio: AudioConfig {
                sample_rate,
                mel_bins: audio.size("num_mel_bins")?,
                hop: audio.size("hop_length")?,
                window: audio.size("window_size")?,
                log_mel_max: audio.number("global_log_mel_max")? as f32,
                samples_per_token: samples_per_token(sample_rate, audio.number("frame_rate")?)?,
            },
            encoder: encoder.native_stack()?,
            downsample: whisper.object("downsample_args")?.size("downsample_factor")?,
            decoder: top.native_stack()?,
            vocab: top.size("vocab_size")?,
            ada_dim: top.size("ada_rms_norm_t_cond_dim")?,
        };
        config.validate()?;
        Ok(config)
    }

    /// From the contents of `config.json`. The file does not say `ada_dim`; the tensors do.
    ///
    /// # Errors
    /// Names the field that is malformed, out of bounds or asks for what this engine has not.
    pub fn from_hf_json(json: &[u8]) -> Result<Self, ConfigError> {
        let json: Value = serde_json::from_slice(json).map_err(JsonError)?;
        let top = Object::root(&json)?;
        let (text, audio) = (top.object("text_config")?, top.object("audio_config")?);

        top.only("model_type", json!("voxtral_realtime"))?;
        top.only("projector_hidden_act", json!("gelu"))?;
        top.only("tie_word_embeddings", json!(true))?;
        text.only("tie_word_embeddings", json!(true))?;
        top.without(&["quantization_config"])?;
        audio.only("activation_function", json!("gelu"))?;
        for stack in [&text, &audio] {
            stack.only("hidden_act", json!("silu"))?;
            stack.only("attention_bias", json!(false))?;
            stack.only("mlp_bias", json!(false))?;
            stack.object("rope_parameters")?.only("rope_type", json!("default"))?;
            stack.without(&["rope_scaling"])?;
        }

        let mut config = Self::released();
        config.audio.mel_bins = audio.size_or("num_mel_bins", config.audio.mel_bins)?;
        config.downsample = top.size_or("downsample_factor", config.downsample)?;
        // All heads of the encoder have keys of their own unless it says otherwise; the decoder has a fixed number.
        let kv_heads = audio.size_or("num_attention_heads", config.encoder.heads)?;
        config.encoder = audio.hf_stack(&TransformerConfig { kv_heads, ..config.encoder })?;
        config.decoder = text.hf_stack(&config.decoder)?;
        config.vocab = text.size_or("vocab_size", config.vocab)?;
        config.validate()?;
        top.only("audio_length_per_tok", json!(config.frames_per_token()))?;
        Ok(config)
    }
}

fn samples_per_token(sample_rate: usize, frame_rate: f64) -> Result<usize, ConfigError> {
    let samples = sample_rate as f64 / frame_rate;
    if samples.fract() == 0.0 && (1.0..=1e6).contains(&samples) {
        return Ok(samples as usize);
    }
    let why = format!("the sample rate, {sample_rate}, must be a multiple of it");
    Err(ConfigError::value("audio_encoding_args.frame_rate", format!("{frame_rate:?}"), why))
}

/// A JSON object and its place in the file, so that errors can name their field. `null` counts as absent.
struct Object<'a> {
    place: String,
    fields: Option<&'a Map<String, Value>>,
}

impl<'a> Object<'a> {
    fn root(json: &'a Value) -> Result<Self, ConfigError> {
        let fields = json.as_object().ok_or_else(|| ConfigError::value("root", brief(json), "it must be an object"))?;
        Ok(Self { place: String::new(), fields: Some(fields) })
    }

    fn path(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields?.get(name).filter(|value| !value.is_null())
    }

    fn object(&self, name: &str) -> Result<Self, ConfigError> {
        let place = self.path(name);
        let fields = match self.get(name) {
            None => None,
            Some(Value::Object(fields)) => Some(fields),
            Some(other) => return Err(ConfigError::value(place, brief(other), "it must be an object")),
        };
        Ok(Self { place, fields })
    }

    fn needed(&self, name: &str) -> Result<&'a Value, ConfigError> {
        self.get(name).ok_or_else(|| ConfigError::Missing { field: self.path(name) })
    }

    /// A whole number, or a string of one: `sliding_window` has been seen as both.
    fn size(&self, name: &str) -> Result<usize, ConfigError> {
        let value = self.needed(name)?;
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_u64().and_then(|n| usize::try_from(n).ok()),
        };
        number.ok_or_else(|| ConfigError::value(self.path(name), brief(value), "it must be a whole number"))
    }

    fn size_or(&self, name: &str, default: usize) -> Result<usize, ConfigError> {
        if self.get(name).is_some() { self.size(name) } else { Ok(default) }
    }

    fn number(&self, name: &str) -> Result<f64, ConfigError> {
        let value = self.needed(name)?;
        value.as_f64().ok_or_else(|| ConfigError::value(self.path(name), brief(value), "it must be a number"))
    }

    fn number_or(&self, name: &str, default: f64) -> Result<f64, ConfigError> {
        if self.get(name).is_some() { self.number(name) } else { Ok(default) }
    }

    /// Refuses another value than `only`, and none.
    fn is(&self, name: &str, only: Value) -> Result<(), ConfigError> {
        self.needed(name)?;
        self.only(name, only)
    }

    /// Refuses another value than `only`.
    fn only(&self, name: &str, only: Value) -> Result<(), ConfigError> {
        match self.get(name) {
            Some(value) if *value != only => {
                Err(ConfigError::Unsupported { field: self.path(name), value: brief(value), only: only.to_string() })
            }
            _ => Ok(()),
        }
    }

    fn without(&self, names: &[&str]) -> Result<(), ConfigError> {
        names.iter().try_for_each(|name| self.only(name, Value::Null))
    }

    fn native_stack(&self) -> Result<TransformerConfig, ConfigError> {
        Ok(TransformerConfig {
            dim: self.size("dim")?,
            layers: self.size("n_layers")?,
            heads: self.size("n_heads")?,
            kv_heads: self.size("n_kv_heads")?,
            head_dim: self.size("head_dim")?,
            ffn_dim: self.size("hidden_dim")?,
            window: self.size("sliding_window")?,
            rope_theta: self.number("rope_theta")?,
            norm_eps: self.number("norm_eps")? as f32,
        })
    }

    fn hf_stack(&self, default: &TransformerConfig) -> Result<TransformerConfig, ConfigError> {
        let older_theta = self.number_or("rope_theta", default.rope_theta)?;
        // Where it is there and null, transformers attends to everything.
        if self.fields.is_some_and(|fields| fields.get("sliding_window") == Some(&Value::Null)) {
            return Err(ConfigError::value(self.path("sliding_window"), "null", "it must be a whole number"));
        }
        Ok(TransformerConfig {
            dim: self.size_or("hidden_size", default.dim)?,
            layers: self.size_or("num_hidden_layers", default.layers)?,
            heads: self.size_or("num_attention_heads", default.heads)?,
            kv_heads: self.size_or("num_key_value_heads", default.kv_heads)?,
            head_dim: self.size_or("head_dim", default.head_dim)?,
            ffn_dim: self.size_or("intermediate_size", default.ffn_dim)?,
            window: self.size_or("sliding_window", default.window)?,
            rope_theta: self.object("rope_parameters")?.number_or("rope_theta", older_theta)?,
            norm_eps: self.number_or("rms_norm_eps", default.norm_eps.into())? as f32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The description of the released model, as its documentation has it, less the fields that nothing depends on.
    const RELEASED: &str = r#"{
        "dim":3072,"n_layers":26,"head_dim":128,"hidden_dim":9216,"n_heads":32,"n_kv_heads":8,"use_biases":false,"causal":true,
        "rope_theta":1e6,"norm_eps":1e-5,"vocab_size":131072,"tied_embeddings":true,"sliding_window":8192,
        "ada_rms_norm_t_cond":true,"ada_rms_norm_t_cond_dim":32,
        "multimodal":{"whisper_model_args":{
            "encoder_args":{"dim":1280,"n_layers":32,"head_dim":64,"hidden_dim":5120,"n_heads":32,"n_kv_heads":32,
                "use_biases":true,"rope_theta":1e6,"causal":true,"norm_eps":1e-5,"pos_embed":"rope","ffn_type":"swiglu",
                "norm_type":"rms_norm","sliding_window":750,
                "audio_encoding_args":{"sampling_rate":16000,"frame_rate":12.5,"num_mel_bins":128,"hop_length":160,
                    "window_size":400,"global_log_mel_max":1.5,"transcription_format":"streaming"}},
            "downsample_args":{"downsample_factor":4}}}}"#;

    /// It, less what is at a path, or with another value there.
    fn released(path: &str, value: Option<Value>) -> Vec<u8> {
        let mut json: Value = serde_json::from_str(RELEASED).unwrap();
        let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut object = &mut json;
        for parent in parents.split('.').filter(|name| !name.is_empty()) {
            object = &mut object[parent];
        }
        let fields = object.as_object_mut().unwrap();
        match value {
            Some(value) => drop(fields.insert(name.to_owned(), value)),
            None => drop(fields.remove(name).unwrap()),
        }
        json.to_string().into_bytes()
    }

    /// Paths of all that is no object.
    fn leaves(json: &Value, place: &str, paths: &mut Vec<String>) {
        for (name, value) in json.as_object().unwrap() {
            let path = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
            if value.is_object() { leaves(value, &path, paths) } else { paths.push(path) }
        }
    }

    #[test]
    fn nothing_that_a_native_description_leaves_out_is_guessed() {
        assert_eq!(ModelConfig::from_params_json(RELEASED.as_bytes()).unwrap(), ModelConfig::released());
        let mut paths = Vec::new();
        leaves(&serde_json::from_str(RELEASED).unwrap(), "", &mut paths);
        assert_eq!(paths.len(), 15 + 14 + 7 + 1);
        for path in paths {
            for value in [None, Some(Value::Null)] {
                let said = ModelConfig::from_params_json(&released(&path, value)).unwrap_err().to_string();
                assert_eq!(said, format!("{path} is missing, and every result depends on it"));
            }
        }
    }

    #[test]
    fn an_empty_file_of_transformers_describes_the_released_model() {
        assert_eq!(ModelConfig::from_hf_json(b"{}").unwrap(), ModelConfig::released());
        let said = ModelConfig::from_hf_json(br#"{"text_config":{"sliding_window":null}}"#).unwrap_err().to_string();
        assert_eq!(said, "text_config.sliding_window is null: it must be a whole number");
    }

    #[test]
    fn takes_every_spelling_of_window_and_theta() {
        let native = ModelConfig::from_params_json(&released("sliding_window", Some(json!("77")))).unwrap();
        assert_eq!(native.decoder.window, 77);
        let older = br#"{"text_config":{"rope_theta":5e5,"sliding_window":9}}"#;
        let newer = br#"{"text_config":{"rope_theta":1.0,"rope_parameters":{"rope_theta":5e5},"sliding_window":"9"}}"#;
        for json in [&older[..], newer] {
            let config = ModelConfig::from_hf_json(json).unwrap();
            assert_eq!((config.decoder.rope_theta, config.decoder.window), (5e5, 9));
        }
    }

    #[test]
    fn refuses_what_it_has_not_and_what_it_cannot_read() {
        const ENCODER: &str = "multimodal.whisper_model_args.encoder_args";
        let encoder = |name: &str| format!("{ENCODER}.{name}");
        let native = [
            ("use_biases", json!(true), "use_biases is true: this engine runs only models where it is false"),
            ("tied_embeddings", json!(false), "tied_embeddings is false"),
            ("rope_scaling", json!({"factor": 8}), r#"rope_scaling is {"factor":8}"#),
            (&encoder("causal"), json!(false), &encoder("causal is false")),
            (&encoder("audio_encoding_args.frame_rate"), json!(0), "audio_encoding_args.frame_rate is 0.0"),
            ("dim", json!(-1), "dim is -1: it must be a whole number"),
            ("dim", json!("many"), "dim is \"many\": it must be a whole number"),
            ("n_layers", json!(1e30), "n_layers is 1e+30: it must be a whole number"),
            ("multimodal", json!(3), "multimodal is 3: it must be an object"),
            ("norm_eps", json!(-1), "decoder.norm_eps is -1"),
        ];
        for (path, value, message) in native {
            let said = ModelConfig::from_params_json(&released(path, Some(value))).unwrap_err().to_string();
            assert!(said.starts_with(message), "{said}");
        }
        for (json, message) in [("[]", "root is []: it must be an object"), ("{", "not valid JSON: EOF")] {
            let said = ModelConfig::from_params_json(json.as_bytes()).unwrap_err().to_string();
            assert!(said.starts_with(message), "{said}");
        }
        let hf = [
            (r#"{"model_type":"whisper"}"#, r#"model_type is "whisper""#),
            (r#"{"audio_length_per_tok":4}"#, "audio_length_per_tok is 4"),
            (r#"{"text_config":{"hidden_act":"gelu"}}"#, r#"text_config.hidden_act is "gelu""#),
            (r#"{"text_config":{"rope_parameters":{"rope_type":"yarn"}}}"#, "text_config.rope_parameters.rope_type is"),
        ];
        for (json, message) in hf {
            let said = ModelConfig::from_hf_json(json.as_bytes()).unwrap_err().to_string();
            assert!(said.starts_with(message), "{said}");
        }
    }
}
