//! What tensors are called in the two layouts. Inside, everything goes by its native name.

use crate::ModelConfig;

/// How the files of a model are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Mistral's own: `params.json`, `consolidated.safetensors`.
    Native,
    /// Hugging Face transformers: `config.json`, `model.safetensors`.
    HuggingFace,
}

impl Layout {
    /// The tensor whose rows are `ada_dim`.
    pub(crate) const ADA_DOWN: &str = "layers.0.ada_rms_norm_t_cond.0.weight";

    /// The files of the description and of the weights.
    pub(crate) fn files(self) -> [&'static str; 2] {
        match self {
            Self::Native => ["params.json", "consolidated.safetensors"],
            Self::HuggingFace => ["config.json", "model.safetensors"],
        }
    }

    /// What a native name is called here, less what [`Layout::normal`] takes off.
    pub(crate) fn name(self, native: &str) -> String {
        if self == Self::Native {
            return native.to_owned();
        }
        let streams = native.strip_prefix("mm_streams_embeddings.embedding_module.");
        match (streams, streams.and_then(|rest| rest.strip_prefix("whisper_encoder."))) {
            (_, Some(encoder)) => format!(
                "audio_tower.{}",
                encoder
                    .replace("conv_layers.0.conv.", "embedder.conv1.")
                    .replace("conv_layers.1.conv.", "embedder.conv2.")
                    .replace("transformer.", "")
                    .replace("attention_norm.", "self_attn_layer_norm.")
                    .replace("ffn_norm.", "final_layer_norm.")
                    .hf_linears()
            ),
            (Some(adapter), None) => match adapter {
                "audio_language_projection.0.weight" => "multi_modal_projector.linear_1.weight".to_owned(),
                "audio_language_projection.2.weight" => "multi_modal_projector.linear_2.weight".to_owned(),
                embedding => format!("language_model.{}", embedding.replace("tok_embeddings.", "embed_tokens.")),
            },
            (None, _) => format!(
                "language_model.{}",
                native
                    .replace("attention_norm.", "input_layernorm.")
                    .replace("ffn_norm.", "post_attention_layernorm.")
                    .replace("ada_rms_norm_t_cond.0.", "ada_rms_norm.linear1.")
                    .replace("ada_rms_norm_t_cond.2.", "ada_rms_norm.linear2.")
                    .hf_linears()
            ),
        }
    }

    /// A file's name without what versions of transformers disagree on.
    pub(crate) fn normal(self, name: &str) -> String {
        if self == Self::Native {
            return name.to_owned();
        }
        let name = name.strip_prefix("model.").unwrap_or(name);
        match name.strip_prefix("language_model.") {
            Some(rest) => format!("language_model.{}", rest.strip_prefix("model.").unwrap_or(rest)),
            None => name.to_owned(),
        }
    }

    /// Whether a file may hold this besides the model: the head, which is the embedding again, and tables that follow from the
    /// description.
    pub(crate) fn ignores(self, name: &str) -> bool {
        matches!(self.normal(name).as_str(), "output.weight" | "lm_head.weight" | "language_model.lm_head.weight")
            || name.ends_with(".inv_freq")
    }

    /// The head width of a tensor whose rows this layout stores with split halves instead of interleaved pairs.
    pub(crate) fn split_halves(self, native: &str, config: &ModelConfig) -> Option<usize> {
        let rotated = ["attention.wq.weight", "attention.wq.bias", "attention.wk.weight"];
        if self == Self::Native || !rotated.iter().any(|end| native.ends_with(end)) {
            return None;
        }
        let stack = if native.starts_with("layers.") { &config.decoder } else { &config.encoder };
        Some(stack.head_dim)
    }
}

trait HfLinears {
    fn hf_linears(&self) -> String;
}

impl HfLinears for String {
    fn hf_linears(&self) -> String {
        self.replace("attention.w", "self_attn.")
            .replace("self_attn.q.", "self_attn.q_proj.")
            .replace("self_attn.k.", "self_attn.k_proj.")
            .replace("self_attn.v.", "self_attn.v_proj.")
            .replace("self_attn.o.", "self_attn.o_proj.")
            .replace("feed_forward.w1.", "mlp.gate_proj.")
            .replace("feed_forward.w2.", "mlp.down_proj.")
            .replace("feed_forward.w3.", "mlp.up_proj.")
    }
}
