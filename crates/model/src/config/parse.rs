//! `params.json` (native) and `config.json` (Hugging Face) as a [`ModelConfig`].
//!
//! What a file does not say is as in the released model. What it says and this engine has not is refused.

use serde_json::{Map, Value, json};

use super::{ConfigError, ModelConfig, TransformerConfig};

impl ModelConfig {
    /// From the contents of `params.json`.
    ///
    /// # Errors
    /// Names the field that is malformed, out of bounds or asks for what this engine has not.
    pub fn from_params_json(json: &[u8]) -> Result<Self, ConfigError> {
        let json: Value = serde_json::from_slice(json)?;
        let top = Object::root(&json)?;
        let whisper = top.object("multimodal")?.object("whisper_model_args")?;
        let encoder = whisper.object("encoder_args")?;
        let audio = encoder.object("audio_encoding_args")?;

        top.only("use_biases", json!(false))?;
        top.only("causal", json!(true))?;
        top.only("tied_embeddings", json!(true))?;
        top.only("ada_rms_norm_t_cond", json!(true))?;
        top.without(&["rope_scaling", "yarn", "moe", "quantization", "q_lora_rank"])?;
        encoder.only("use_biases", json!(true))?;
        encoder.only("causal", json!(true))?;
        encoder.only("pos_embed", json!("rope"))?;
        encoder.only("ffn_type", json!("swiglu"))?;
        encoder.only("norm_type", json!("rms_norm"))?;
        encoder.without(&["rope_scaling"])?;
        audio.only("transcription_format", json!("streaming"))?;

        let mut config = Self::released();
        let rate = audio.number("frame_rate", 12.5)?;
        config.audio.sample_rate = audio.size("sampling_rate", config.audio.sample_rate)?;
        config.audio.mel_bins = audio.size("num_mel_bins", config.audio.mel_bins)?;
        config.audio.hop = audio.size("hop_length", config.audio.hop)?;
        config.audio.window = audio.size("window_size", config.audio.window)?;
        config.audio.log_mel_max = audio.number("global_log_mel_max", config.audio.log_mel_max.into())? as f32;
        config.audio.samples_per_token = samples_per_token(config.audio.sample_rate, rate)?;
        config.downsample = whisper.object("downsample_args")?.size("downsample_factor", config.downsample)?;
        config.encoder = encoder.native_stack(&config.encoder)?;
        config.decoder = top.native_stack(&config.decoder)?;
        config.vocab = top.size("vocab_size", config.vocab)?;
        config.ada_dim = top.size("ada_rms_norm_t_cond_dim", config.ada_dim)?;
        config.validate()?;
        Ok(config)
    }

    /// From the contents of `config.json`. The file does not say `ada_dim`; the tensors do.
    ///
    /// # Errors
    /// Names the field that is malformed, out of bounds or asks for what this engine has not.
    pub fn from_hf_json(json: &[u8]) -> Result<Self, ConfigError> {
        let json: Value = serde_json::from_slice(json)?;
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
        config.audio.mel_bins = audio.size("num_mel_bins", config.audio.mel_bins)?;
        config.downsample = top.size("downsample_factor", config.downsample)?;
        config.encoder = audio.hf_stack(&config.encoder)?;
        config.decoder = text.hf_stack(&config.decoder)?;
        config.vocab = text.size("vocab_size", config.vocab)?;
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
    Err(ConfigError::value("audio_encoding_args.frame_rate", frame_rate, why))
}

/// A JSON object and its place in the file, so that errors can name their field. `null` counts as absent.
struct Object<'a> {
    place: String,
    fields: Option<&'a Map<String, Value>>,
}

impl<'a> Object<'a> {
    fn root(json: &'a Value) -> Result<Self, ConfigError> {
        let fields = json.as_object().ok_or_else(|| ConfigError::value("root", shown(json), "it must be an object"))?;
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
            Some(other) => return Err(ConfigError::value(place, shown(other), "it must be an object")),
        };
        Ok(Self { place, fields })
    }

    /// A whole number, or a string of one: `sliding_window` has been seen as both.
    fn size(&self, name: &str, default: usize) -> Result<usize, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_u64().and_then(|n| usize::try_from(n).ok()),
        };
        number.ok_or_else(|| ConfigError::value(self.path(name), shown(value), "it must be a whole number"))
    }

    fn number(&self, name: &str, default: f64) -> Result<f64, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.as_f64().ok_or_else(|| ConfigError::value(self.path(name), shown(value), "it must be a number"))
    }

    /// Refuses another value than `only`.
    fn only(&self, name: &str, only: Value) -> Result<(), ConfigError> {
        match self.get(name) {
            Some(value) if *value != only => {
                Err(ConfigError::Unsupported { field: self.path(name), value: shown(value), only: only.to_string() })
            }
            _ => Ok(()),
        }
    }

    fn without(&self, names: &[&str]) -> Result<(), ConfigError> {
        names.iter().try_for_each(|name| self.only(name, Value::Null))
    }

    fn native_stack(&self, default: &TransformerConfig) -> Result<TransformerConfig, ConfigError> {
        let heads = self.size("n_heads", default.heads)?;
        Ok(TransformerConfig {
            dim: self.size("dim", default.dim)?,
            layers: self.size("n_layers", default.layers)?,
            heads,
            kv_heads: self.size("n_kv_heads", heads)?,
            head_dim: self.size("head_dim", default.head_dim)?,
            ffn_dim: self.size("hidden_dim", default.ffn_dim)?,
            window: self.size("sliding_window", default.window)?,
            rope_theta: self.number("rope_theta", default.rope_theta)?,
            norm_eps: self.number("norm_eps", default.norm_eps.into())? as f32,
        })
    }

    fn hf_stack(&self, default: &TransformerConfig) -> Result<TransformerConfig, ConfigError> {
        let heads = self.size("num_attention_heads", default.heads)?;
        let older_theta = self.number("rope_theta", default.rope_theta)?;
        Ok(TransformerConfig {
            dim: self.size("hidden_size", default.dim)?,
            layers: self.size("num_hidden_layers", default.layers)?,
            heads,
            kv_heads: self.size("num_key_value_heads", heads)?,
            head_dim: self.size("head_dim", default.head_dim)?,
            ffn_dim: self.size("intermediate_size", default.ffn_dim)?,
            window: self.size("sliding_window", default.window)?,
            rope_theta: self.object("rope_parameters")?.number("rope_theta", older_theta)?,
            norm_eps: self.number("rms_norm_eps", default.norm_eps.into())? as f32,
        })
    }
}

/// The start of a value: a file may hold anything.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_describes_the_released_model() {
        let mut released = ModelConfig::released();
        // But for this: a file without it is of a model that shares no key heads.
        released.decoder.kv_heads = 32;
        assert_eq!(ModelConfig::from_params_json(b"{}").unwrap(), released);
        assert_eq!(ModelConfig::from_hf_json(b"{}").unwrap(), released);
    }

    #[test]
    fn takes_every_spelling_of_window_theta_and_heads() {
        let native = ModelConfig::from_params_json(br#"{"sliding_window":"77","n_heads":6,"head_dim":32}"#).unwrap();
        assert_eq!((native.decoder.window, native.decoder.heads, native.decoder.kv_heads), (77, 6, 6));
        let older = br#"{"text_config":{"rope_theta":5e5,"sliding_window":9}}"#;
        let newer = br#"{"text_config":{"rope_theta":1.0,"rope_parameters":{"rope_theta":5e5},"sliding_window":"9"}}"#;
        for json in [&older[..], newer] {
            let config = ModelConfig::from_hf_json(json).unwrap();
            assert_eq!((config.decoder.rope_theta, config.decoder.window), (5e5, 9));
        }
    }

    #[test]
    fn refuses_what_it_has_not_and_what_it_cannot_read() {
        let native = [
            (r#"{"use_biases":true}"#, "use_biases is true: this engine runs only models where it is false"),
            (r#"{"tied_embeddings":false}"#, "tied_embeddings is false"),
            (r#"{"rope_scaling":{"factor":8}}"#, r#"rope_scaling is {"factor":8}"#),
            (
                r#"{"multimodal":{"whisper_model_args":{"encoder_args":{"causal":false}}}}"#,
                "multimodal.whisper_model_args.encoder_args.causal is false",
            ),
            (
                r#"{"multimodal":{"whisper_model_args":{"encoder_args":{"audio_encoding_args":{"frame_rate":0}}}}}"#,
                "audio_encoding_args.frame_rate is 0",
            ),
            (r#"{"dim":-1}"#, "dim is -1: it must be a whole number"),
            (r#"{"dim":"many"}"#, "dim is \"many\": it must be a whole number"),
            (r#"{"n_layers":1e30}"#, "n_layers is 1e+30: it must be a whole number"),
            (r#"{"multimodal":3}"#, "multimodal is 3: it must be an object"),
            (r#"{"norm_eps":-1}"#, "decoder.norm_eps is -1"),
            ("[]", "root is []: it must be an object"),
            ("{", "not valid JSON: EOF"),
        ];
        for (json, message) in native {
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
