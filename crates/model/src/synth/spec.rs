//! Descriptions of models to generate, as they are typed: a size, and fields that differ from it.

use crate::{ConfigError, ModelConfig, TransformerConfig};

/// Why a description was not understood.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// There is no such size.
    #[error("there is no size {size:?}: the sizes are {}", SIZES.join(" and "))]
    Size {
        /// What was typed.
        size: String,
    },
    /// Not `FIELD=VALUE`.
    #[error("{0:?} is not of the form FIELD=VALUE, where VALUE is a whole number")]
    Form(String),
    /// There is no such field.
    #[error("there is no field {field:?}: the fields are {}", known_fields())]
    Field {
        /// What was typed.
        field: String,
    },
    /// The fields do not make a model.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

const SIZES: [&str; 2] = ["full", "small"];
const STACKS: [&str; 2] = ["encoder", "decoder"];
const OF_STACK: [&str; 7] = ["dim", "layers", "heads", "kv_heads", "head_dim", "ffn_dim", "window"];
const OTHERS: [&str; 4] = ["vocab", "ada_dim", "downsample", "audio.mel_bins"];

fn known_fields() -> String {
    let stacks = STACKS.iter().flat_map(|stack| OF_STACK.iter().map(move |field| format!("{stack}.{field}")));
    stacks.chain(OTHERS.map(str::to_owned)).collect::<Vec<_>>().join(", ")
}

impl ModelConfig {
    /// A model to generate: `size` is "full", the released dimensions, or "small", 27 million parameters; each override
    /// `FIELD=VALUE` changes one dimension of it, as in `decoder.layers=4`.
    ///
    /// # Errors
    /// When a size or field is not known (the message lists those that are) or the result makes no sense.
    pub fn synthetic(size: &str, overrides: &[impl AsRef<str>]) -> Result<Self, SpecError> {
        let mut config = match size {
            "full" => Self::released(),
            "small" => Self::small(),
            _ => return Err(SpecError::Size { size: size.to_owned() }),
        };
        for text in overrides.iter().map(AsRef::as_ref) {
            let form = || SpecError::Form(text.to_owned());
            let (field, value) = text.split_once('=').ok_or_else(form)?;
            let value = value.trim().parse().map_err(|_| form())?;
            let field = field.trim();
            *config.field(field).ok_or_else(|| SpecError::Field { field: field.to_owned() })? = value;
        }
        config.validate()?;
        Ok(config)
    }

    /// Large enough to need every kernel, small enough for tests.
    fn small() -> Self {
        let released = Self::released();
        let shape = |stack: &TransformerConfig, dim, layers, heads, kv_heads, ffn_dim, window| TransformerConfig {
            dim,
            layers,
            heads,
            kv_heads,
            ffn_dim,
            window,
            ..stack.clone()
        };
        Self {
            encoder: shape(&released.encoder, 256, 4, 4, 4, 1024, 100),
            decoder: shape(&released.decoder, 512, 6, 4, 1, 1536, 256),
            vocab: 8192,
            ..released
        }
    }

    fn field(&mut self, name: &str) -> Option<&mut usize> {
        match name {
            "vocab" => return Some(&mut self.vocab),
            "ada_dim" => return Some(&mut self.ada_dim),
            "downsample" => return Some(&mut self.downsample),
            "audio.mel_bins" => return Some(&mut self.audio.mel_bins),
            _ => {}
        }
        let (stack, field) = name.split_once('.')?;
        let stack = match stack {
            "encoder" => &mut self.encoder,
            "decoder" => &mut self.decoder,
            _ => return None,
        };
        match field {
            "dim" => Some(&mut stack.dim),
            "layers" => Some(&mut stack.layers),
            "heads" => Some(&mut stack.heads),
            "kv_heads" => Some(&mut stack.kv_heads),
            "head_dim" => Some(&mut stack.head_dim),
            "ffn_dim" => Some(&mut stack.ffn_dim),
            "window" => Some(&mut stack.window),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_field_that_it_lists() {
        for field in known_fields().split(", ") {
            let mut config = ModelConfig::small();
            *config.field(field).unwrap() += 1;
            assert_ne!(config, ModelConfig::small(), "{field}");
        }
        let config = ModelConfig::synthetic("small", &["decoder.layers=2", "encoder.window=30"]).unwrap();
        assert_eq!((config.decoder.layers, config.encoder.window), (2, 30));
        assert_eq!(ModelConfig::synthetic("full", &[""; 0]).unwrap(), ModelConfig::released());
    }

    #[test]
    fn says_what_is_known() {
        let fail = |size, text| ModelConfig::synthetic(size, &[text]).unwrap_err().to_string();
        assert_eq!(fail("huge", ""), "there is no size \"huge\": the sizes are full and small");
        assert!(fail("small", "layers=3").starts_with("there is no field \"layers\": the fields are encoder.dim, "));
        assert!(fail("small", "vocab=many").starts_with("\"vocab=many\" is not of the form FIELD=VALUE"));
        assert!(fail("small", "decoder.kv_heads=3").starts_with("decoder.kv_heads is 3: "));
    }
}
