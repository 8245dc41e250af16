//! Whatever number a description has: the model is refused when it is opened, by a sentence that names the field, or it runs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use voxtral_cpu::{CpuBackend, CpuOptions};
use voxtral_engine::{Engine, EngineOptions, Event, SessionOptions};
use voxtral_model::testing::golden;
use voxtral_model::{AudioConfig, Model, ModelConfig, ModelError};

// What the model hears is what audio is resampled to.
const _: () = assert!(AudioConfig::SAMPLE_RATE == voxtral_audio::SAMPLE_RATE as usize);

/// A second of audio, some of it sound.
fn second() -> Vec<f32> {
    (0..16_000).map(|i| if i < 4000 { 0.0 } else { (i as f32 * 0.07).sin() * 0.3 }).collect()
}

/// Runs a second of audio, whose length is announced or not.
fn run(label: &str, model: &Model, announced: bool) {
    let backend = CpuBackend::new(model, CpuOptions { threads: 1, ..CpuOptions::default() }).unwrap();
    let engine = Engine::new(model, Box::new(backend), EngineOptions::default()).unwrap();
    let options = SessionOptions { samples: announced.then_some(16_000), ..SessionOptions::default() };
    let mut session = engine.session(options).unwrap();
    session.push_samples(&second()).unwrap();
    session.finish();
    let mut done = false;
    while let Some(event) = session.next_event() {
        done = matches!(event.unwrap_or_else(|e| panic!("{label}: {e}")), Event::Done(_));
    }
    assert!(done, "{label}");
}

/// JSON pointers to all numbers but those of long lists.
fn numbers(json: &Value, place: &str, found: &mut Vec<String>) {
    match json {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| numbers(value, &format!("{place}/{name}"), found))
        }
        Value::Number(_) => found.push(place.to_owned()),
        _ => {}
    }
}

/// Numbers that something may break at: small ones, huge ones, and those next to what is there.
fn edges(now: f64) -> Vec<Value> {
    let mut edges: Vec<Value> =
        [-1i64, 0, 1, 2, 3, 31, 33, 256, 257, 2880, 2881, 8192, 65_537, 1 << 31, i64::MAX].map(Value::from).into();
    edges.extend([0.5, 1e-300, 1e-40, -0.0, 1e12, 1e13, 1e30, 1e300].map(Value::from));
    edges.extend([u64::MAX.into(), json!("1")]);
    if now.fract() == 0.0 {
        edges.extend([now as i64 - 1, now as i64 + 1, now as i64 / 2, now as i64 * 2].map(Value::from));
    } else {
        edges.extend([now / 2.0, now * 2.0].map(Value::from));
    }
    edges
}

/// How the errors call a field of `params.json` or `config.json`.
fn names(field: &str) -> &[&str] {
    match field {
        "frame_rate" => &["samples_per_token"],
        "num_mel_bins" => &["mel_bins"],
        "hop_length" => &["hop"],
        "window_size" => &["audio.window"],
        "global_log_mel_max" => &["log_mel_max"],
        "downsample_factor" => &["downsample"],
        "hidden_size" => &["dim"],
        "n_layers" | "num_hidden_layers" => &["layers"],
        "n_heads" | "num_attention_heads" => &["heads"],
        "n_kv_heads" | "num_key_value_heads" => &["kv_heads"],
        "hidden_dim" | "intermediate_size" => &["ffn_dim"],
        "sliding_window" => &["coder.window"],
        "rms_norm_eps" => &["norm_eps"],
        "vocab_size" => &["vocab"],
        "default_num_special_tokens" => &["vocab", "special token"],
        "ada_rms_norm_t_cond_dim" => &["ada_dim"],
        _ => &[],
    }
}

/// Every number of `file` of the model in `folder`, at every edge. Tells how many models were refused, and how many ran.
fn at_every_edge(folder: &str, others: &[&str], file: &str) -> (usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    for path in others.iter().map(|name| golden(name).unwrap()) {
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let whole: Value =
        serde_json::from_slice(&fs::read(golden(&format!("{folder}/{file}")).unwrap()).unwrap()).unwrap();
    let mut places = Vec::new();
    numbers(&whole, "", &mut places);
    let (mut refused, mut ran) = (0, 0);
    for place in places {
        for edge in edges(whole.pointer(&place).unwrap().as_f64().unwrap()) {
            let label = format!("{file}{place} = {edge}");
            let mut json = whole.clone();
            *json.pointer_mut(&place).unwrap() = edge;
            fs::write(dir.path().join(file), json.to_string()).unwrap();
            match Model::open(dir.path()) {
                Ok(model) => {
                    run(&label, &model, ran % 2 == 0);
                    ran += 1;
                }
                // The weights are of other dimensions.
                Err(ModelError::Shape { .. } | ModelError::MissingTensor { .. } | ModelError::UnknownTensor { .. }) => {
                    refused += 1
                }
                Err(error) => {
                    let (said, field) = (error.to_string(), place.rsplit('/').next().unwrap());
                    let named = names(field).iter().any(|name| said.contains(name)) || said.contains(field);
                    // Of what is not of its type, the parser tells where it is.
                    let named = named || said.contains("not a tekken.json: invalid ") && said.contains(" column ");
                    assert!(named && said.len() < 400, "{label}: {said}");
                    refused += 1;
                }
            }
        }
    }
    (refused, ran)
}

#[test]
fn numbers_of_a_native_description() {
    let others = ["tiny/tekken.json", "tiny/consolidated.safetensors"];
    let (refused, ran) = at_every_edge("tiny", &others, "params.json");
    assert!(refused > 500 && ran > 50, "{refused} were refused, {ran} ran");
}

#[test]
fn numbers_of_a_description_of_transformers() {
    let others = ["tiny/tekken.json", "tiny_hf/model.safetensors"];
    let (refused, ran) = at_every_edge("tiny_hf", &others, "config.json");
    assert!(refused > 300 && ran > 50, "{refused} were refused, {ran} ran");
}

#[test]
fn numbers_of_a_vocabulary() {
    let others = ["tiny/params.json", "tiny/consolidated.safetensors"];
    let (refused, ran) = at_every_edge("tiny", &others, "tekken.json");
    assert!(refused > 100 && ran > 20, "{refused} were refused, {ran} ran");
}

fn small() -> ModelConfig {
    let mut config = ModelConfig::released();
    for stack in [&mut config.encoder, &mut config.decoder] {
        (stack.dim, stack.layers, stack.heads, stack.kv_heads) = (32, 1, 2, 1);
        (stack.head_dim, stack.ffn_dim, stack.window) = (16, 48, 20);
    }
    ModelConfig { vocab: 1300, ada_dim: 4, ..config }
}

/// The smallest and oddest models that a description may ask for, whose weights fit.
#[test]
fn every_description_that_is_accepted_runs() {
    let small = small();
    type Change = fn(&mut ModelConfig);
    let changes: [(&str, Change); 22] = [
        ("as it is", |_| {}),
        ("least window", |c| c.audio.window = 160),
        ("odd window", |c| c.audio.window = 161),
        ("largest window", |c| c.audio.window = 2880),
        ("one mel bin", |c| c.audio.mel_bins = 1),
        ("most mel bins", |c| c.audio.mel_bins = 512),
        ("least log_mel_max", |c| c.audio.log_mel_max = -10.0),
        ("largest log_mel_max", |c| c.audio.log_mel_max = 10.0),
        ("one encoder position a token", |c| (c.downsample, c.audio.hop, c.audio.window) = (1, 640, 640)),
        ("its largest window", |c| (c.downsample, c.audio.hop, c.audio.window) = (1, 640, 3840)),
        ("64 encoder positions a token", |c| (c.downsample, c.audio.hop, c.audio.window) = (64, 10, 10)),
        ("its largest window", |c| (c.downsample, c.audio.hop, c.audio.window) = (64, 10, 2580)),
        ("encoder that looks at one position", |c| c.encoder.window = 1),
        ("decoder that looks at one position", |c| c.decoder.window = 1),
        ("windows as wide as they may be", |c| (c.encoder.window, c.decoder.window) = (1 << 17, 1 << 17)),
        ("narrow heads", |c| (c.encoder.head_dim, c.decoder.head_dim) = (2, 2)),
        ("wide heads", |c| (c.encoder.head_dim, c.decoder.head_dim) = (512, 512)),
        ("least widths", |c| (c.encoder.dim, c.decoder.dim) = (2, 2)),
        ("least feed-forward", |c| (c.encoder.ffn_dim, c.decoder.ffn_dim) = (1, 1)),
        ("least bottleneck", |c| c.ada_dim = 1),
        ("least theta", |c| (c.encoder.rope_theta, c.decoder.rope_theta) = (1.0, 1.0)),
        ("least eps", |c| (c.encoder.norm_eps, c.decoder.norm_eps) = (1e-30, 1e-30)),
    ];
    for (label, change) in changes {
        let mut config = small.clone();
        change(&mut config);
        let model = Model::synthetic(&config, 1).unwrap_or_else(|e| panic!("{label}: {e}"));
        run(label, &model, true);
    }
}

/// The least and the most padding, which `tekken.json` may ask for.
#[test]
fn padding_from_two_tokens_on() {
    let dir = tempfile::tempdir().unwrap();
    let from = |name: &str| golden(&format!("tiny/{name}")).unwrap();
    for name in ["params.json", "consolidated.safetensors"] {
        fs::copy(from(name), dir.path().join(name)).unwrap();
    }
    let open = |tokens: u64, dir: &Path| {
        let mut json: Value = serde_json::from_slice(&fs::read(from("tekken.json")).unwrap()).unwrap();
        json["audio"]["streaming_n_left_pad_tokens"] = tokens.into();
        fs::write(dir.join("tekken.json"), json.to_string()).unwrap();
        Model::open(dir)
    };
    for tokens in [2, 3, 255, 256] {
        run(&format!("{tokens} tokens"), &open(tokens, dir.path()).unwrap(), false);
    }
    for tokens in [0, 1, 257] {
        let said = open(tokens, dir.path()).unwrap_err().to_string();
        assert!(said.ends_with(&format!("streaming_n_left_pad_tokens is {tokens}: it must be 2 to 256")), "{said}");
    }
}
