//! `params.json` and `tekken.json` of a generated model.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{ModelConfig, TransformerConfig};

/// Special ids of every vocabulary.
pub(super) const SPECIAL_IDS: usize = 1000;
/// Special ids and the 256 bytes.
pub(super) const FEWEST_IDS: usize = SPECIAL_IDS + 256;
/// Ids of `</s>`, `[STREAMING_PAD]` and `[STREAMING_WORD]`.
pub(super) const EOS: usize = 2;
pub(super) const PAD: usize = 32;
pub(super) const WORD: usize = 33;

/// A description that parses to `config`.
pub(super) fn params(config: &ModelConfig) -> String {
    let audio = &config.audio;
    let mut encoder = stack(&config.encoder);
    encoder["use_biases"] = json!(true);
    encoder["pos_embed"] = json!("rope");
    encoder["ffn_type"] = json!("swiglu");
    encoder["norm_type"] = json!("rms_norm");
    encoder["audio_encoding_args"] = json!({
        "sampling_rate": audio.sample_rate,
        "frame_rate": audio.sample_rate as f64 / audio.samples_per_token as f64,
        "num_mel_bins": audio.mel_bins,
        "hop_length": audio.hop,
        "window_size": audio.window,
        "global_log_mel_max": audio.log_mel_max,
        "transcription_format": "streaming",
    });
    let mut params = stack(&config.decoder);
    params["use_biases"] = json!(false);
    params["tied_embeddings"] = json!(true);
    params["vocab_size"] = json!(config.vocab);
    params["ada_rms_norm_t_cond"] = json!(true);
    params["ada_rms_norm_t_cond_dim"] = json!(config.ada_dim);
    params["multimodal"] = json!({"whisper_model_args": {
        "encoder_args": encoder,
        "downsample_args": {"downsample_factor": config.downsample},
    }});
    format!("{params:#}\n")
}

fn stack(stack: &TransformerConfig) -> Value {
    json!({
        "dim": stack.dim,
        "n_layers": stack.layers,
        "head_dim": stack.head_dim,
        "hidden_dim": stack.ffn_dim,
        "n_heads": stack.heads,
        "n_kv_heads": stack.kv_heads,
        "sliding_window": stack.window,
        "rope_theta": stack.rope_theta,
        "norm_eps": stack.norm_eps,
        "causal": true,
    })
}

/// A vocabulary of `vocab` ids: special ones, the 256 bytes, invented words.
pub(super) fn tekken(vocab: usize) -> String {
    let entries = vocab - SPECIAL_IDS;
    let mut json = format!(
        r#"{{"config":{{"pattern":".+","num_vocab_tokens":{entries},"default_vocab_size":{vocab},"default_num_special_tokens":{SPECIAL_IDS},"version":"v7"}},"vocab":["#
    );
    for rank in 0..entries {
        let separator = if rank == 0 { "" } else { "," };
        let bytes = u8::try_from(rank).map_or_else(|_| word(rank - 256).into_bytes(), |byte| vec![byte]);
        let base64 = STANDARD.encode(bytes);
        write!(json, r#"{separator}{{"rank":{rank},"token_bytes":"{base64}","token_str":null}}"#)
            .expect("a string takes any text");
    }
    let special = |rank| match rank {
        0 => "<unk>".to_owned(),
        1 => "<s>".to_owned(),
        EOS => "</s>".to_owned(),
        11 => "<pad>".to_owned(),
        PAD => "[STREAMING_PAD]".to_owned(),
        WORD => "[STREAMING_WORD]".to_owned(),
        _ => format!("<SPECIAL_{rank}>"),
    };
    let specials: Vec<Value> =
        (0..SPECIAL_IDS).map(|rank| json!({"rank": rank, "token_str": special(rank), "is_control": true})).collect();
    let audio = json!({
        "transcription_format": "streaming",
        "transcription_delay_ms": 480,
        "streaming_n_left_pad_tokens": 32,
    });
    json + &format!(r#"],"special_tokens":{},"audio":{audio}}}"#, Value::Array(specials))
}

/// The `n`-th word: a space and its number in digits that can be spoken, so that no two are the same.
fn word(mut n: usize) -> String {
    const ONSETS: [&str; 16] = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "sh", "st"];
    const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];
    let mut word = " ".to_owned();
    loop {
        let syllable = n % (ONSETS.len() * VOWELS.len());
        word += ONSETS[syllable / VOWELS.len()];
        word += VOWELS[syllable % VOWELS.len()];
        n /= ONSETS.len() * VOWELS.len();
        if n == 0 {
            return word;
        }
        n -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_words_are_the_same() {
        let words: HashSet<String> = (0..200_000).map(word).collect();
        assert_eq!(words.len(), 200_000);
    }

    #[test]
    fn the_description_parses_to_what_it_describes() {
        for size in ["full", "small"] {
            let config = ModelConfig::synthetic(size, &["vocab=5000", "ada_dim=7"]).unwrap();
            assert_eq!(ModelConfig::from_params_json(params(&config).as_bytes()).unwrap(), config);
        }
    }
}
