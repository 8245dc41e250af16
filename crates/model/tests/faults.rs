//! Damaged and foreign files: one clear line that names the file, whatever is wrong with it, and never a panic.

mod common;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;
use voxtral_model::{Model, ModelConfig, Tokenizer};

use common::{Parts, goldens, hf, native};

const WEIGHTS: &str = "consolidated.safetensors";

/// What opening a folder comes to, in one line.
fn said(dir: &Path) -> String {
    let said = Model::open(dir).expect_err("it must not open").to_string();
    assert!(said.starts_with(dir.to_str().unwrap()) && !said.contains('\n'), "{said}");
    said
}

/// A copy of the native checkpoint after `damage`, and what opening it comes to.
fn after(damage: impl FnOnce(&Path)) -> String {
    let dir = native();
    damage(dir.path());
    said(dir.path())
}

/// The same after a change to the header or the data of the weights.
fn after_parts(change: impl FnOnce(&mut Parts)) -> String {
    after(|dir| {
        let mut parts = Parts::of(&dir.join(WEIGHTS));
        change(&mut parts);
        parts.write(&dir.join(WEIGHTS));
    })
}

fn has(said: &str, part: &str) {
    assert!(said.contains(part), "{said:?} does not say {part:?}");
}

#[test]
fn files_that_are_not_there() {
    let empty = tempfile::tempdir().unwrap();
    has(
        &said(empty.path()),
        "no model here: looked for params.json with consolidated.safetensors, and for config.json",
    );
    has(&said(&empty.path().join("nowhere")), &format!("nowhere: {}", std::io::Error::from_raw_os_error(2)));
    let remove = |name: &'static str| after(|dir| fs::remove_file(dir.join(name)).unwrap());
    for name in ["params.json", "tekken.json", WEIGHTS] {
        has(&remove(name), &format!("{name}: there is no such file"));
    }
    for name in ["config.json", "model.safetensors"] {
        let dir = hf();
        fs::remove_file(dir.path().join(name)).unwrap();
        has(&said(dir.path()), &format!("{name}: there is no such file"));
    }
    let dir = native();
    has(&said(&dir.path().join("params.json")), "not a folder");
}

#[test]
#[cfg(unix)]
fn files_that_cannot_be_reached() {
    for name in ["params.json", "tekken.json", WEIGHTS] {
        // A link to itself: it is there, and cannot be opened.
        let said = after(|dir| {
            fs::remove_file(dir.join(name)).unwrap();
            std::os::unix::fs::symlink(name, dir.join(name)).unwrap();
        });
        has(&said, &format!("{name}: Too many levels of symbolic links"));
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("config.json", dir.path().join("config.json")).unwrap();
    has(&said(dir.path()), "config.json: Too many levels of symbolic links");
    has(&said(&dir.path().join("config.json")), "config.json: Too many levels of symbolic links");
}

#[test]
fn files_larger_than_any_of_their_kind() {
    let grow = |name: &'static str, bytes: u64| {
        after(move |dir| fs::File::options().write(true).open(dir.join(name)).unwrap().set_len(bytes).unwrap())
    };
    has(
        &grow("params.json", 240 << 20),
        "params.json: 251658240 bytes are more than the 1048576 that such a file can have",
    );
    has(&grow("tekken.json", 1 << 40), "tekken.json: 1099511627776 bytes are more than the 67108864 that");
    let dir = hf();
    let index = dir.path().join("model.safetensors.index.json");
    fs::rename(dir.path().join("model.safetensors"), &index).unwrap();
    fs::File::options().write(true).open(&index).unwrap().set_len(5 << 20).unwrap();
    has(&said(dir.path()), "5242880 bytes are more than the 4194304 that");
    has(
        &after(|dir| fs::write(dir.join(WEIGHTS), [&(5u64 << 20).to_le_bytes()[..], &[0; 64]].concat()).unwrap()),
        "not a safetensors file: its header would have 5242880 bytes",
    );
}

/// However much a file says, a message is a short line.
#[test]
fn names_of_any_length_are_told_in_short() {
    let long: &'static str = "x\u{1b}[31m\n".repeat(20_000).leak();
    let norm = "layers.1.ffn_norm.weight";
    let short = |said: String, part: &str| {
        has(&said, part);
        assert!(said.len() < 600 && !said.contains(char::is_control), "{} bytes: {said:.800}", said.len());
    };
    let header = |change: &dyn Fn(&mut Parts)| after_parts(change);
    let renamed = |parts: &mut Parts| {
        let info = parts.header[norm].clone();
        parts.header.insert(long.to_owned(), info);
    };
    // Two tensors on one place are refused with the header.
    header(&renamed);
    let added = |info: serde_json::Value, data: &'static [u8]| {
        after_parts(move |parts| {
            let (start, end) = (parts.data.len(), parts.data.len() + data.len());
            parts.data.extend_from_slice(data);
            let mut info = info;
            info["data_offsets"] = json!([start, end]);
            parts.header.insert(long.to_owned(), info);
        })
    };
    short(added(json!({"dtype": "BF16", "shape": [2]}), &[0; 4]), "has no place in this model");
    short(added(json!({"dtype": "I16", "shape": [2]}), &[0; 4]), "is stored as I16");
    short(header(&|parts| parts.header[norm]["dtype"] = json!(long)), "not a safetensors header: unknown variant");
    short(header(&|parts| parts.header[norm]["shape"] = json!(long)), "not a safetensors header: invalid type");
    let ones: Vec<u64> = std::iter::repeat_n(1, 50_000).chain([96]).collect();
    short(header(&|parts| parts.header[norm]["shape"] = json!(ones)), "ffn_norm.weight: expected [96], file has [1, 1");
    let tekken = |change: &dyn Fn(&mut serde_json::Value)| {
        after(|dir| {
            let mut json = serde_json::from_slice(&fs::read(dir.join("tekken.json")).unwrap()).unwrap();
            change(&mut json);
            fs::write(dir.join("tekken.json"), json.to_string()).unwrap();
        })
    };
    short(tekken(&|json| json["special_tokens"][0] = json!({"rank": 9999, "token_str": long})), "special token");
    short(tekken(&|json| json["special_tokens"][32]["token_str"] = json!(long)), "there is no special token");
    short(tekken(&|json| json["audio"]["transcription_format"] = json!(long)), "audio.transcription_format is");
    short(tekken(&|json| json["vocab"] = json!(long)), "not a tekken.json: invalid type");
    for name in [long.replace(char::is_control, ""), "../".repeat(30_000)] {
        let dir = hf();
        fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        let index = json!({"weight_map": {"x": name}}).to_string();
        fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        short(said(dir.path()), "is not a file of this folder");
    }
}

#[test]
fn files_that_are_something_else() {
    for name in ["params.json", "tekken.json", WEIGHTS] {
        let file = |content: &[u8]| after(|dir| fs::write(dir.join(name), content).unwrap());
        for content in [&b""[..], b"\0", b"<html>Not found</html>", &[0xFF; 5000], b"{}garbage", b"[1,2"] {
            has(&file(content), &format!("{name}: "));
        }
        has(&file(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "a Git LFS pointer");
        let folder = after(|dir| {
            fs::remove_file(dir.join(name)).unwrap();
            fs::create_dir(dir.join(name)).unwrap();
        });
        has(&folder, &format!("{name}: not a file"));
    }
    has(&after(|dir| fs::write(dir.join(WEIGHTS), "").unwrap()), "the file is empty");
    has(&after(|dir| fs::write(dir.join("params.json"), "").unwrap()), "not valid JSON: EOF");
}

#[test]
fn files_that_were_cut_short() {
    let whole = fs::read(goldens().join("tiny").join(WEIGHTS)).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in [1, 7, 8, 9, header / 2, header - 1, header, header + 1, whole.len() / 2, whole.len() - 1] {
        has(&after(|dir| fs::write(dir.join(WEIGHTS), &whole[..length]).unwrap()), WEIGHTS);
    }
    has(&after(|dir| fs::write(dir.join(WEIGHTS), &whole[..header + 9]).unwrap()), "cut short: the tensors have 1491");
    let longer = [&whole[..], b"x"].concat();
    has(&after(|dir| fs::write(dir.join(WEIGHTS), longer).unwrap()), "follow the header");
    for name in ["params.json", "tekken.json"] {
        let whole = fs::read(goldens().join("tiny").join(name)).unwrap();
        for length in [1, whole.len() / 3, whole.len() - 1] {
            has(&after(|dir| fs::write(dir.join(name), &whole[..length]).unwrap()), name);
        }
    }
}

#[test]
fn headers_that_lie() {
    let whole = fs::read(goldens().join("tiny").join(WEIGHTS)).unwrap();
    for length in [0, 1, 10_775, 10_777, whole.len() as u64 - 8, whole.len() as u64, 1 << 40, i64::MAX as u64, u64::MAX]
    {
        let lie = [&length.to_le_bytes()[..], &whole[8..]].concat();
        has(&after(|dir| fs::write(dir.join(WEIGHTS), lie).unwrap()), WEIGHTS);
    }
    let name = "layers.1.attention.wo.weight";
    let change =
        |field: &'static str, value: serde_json::Value| after_parts(move |parts| parts.header[name][field] = value);
    has(&change("shape", json!([u64::MAX, u64::MAX])), "not a safetensors header");
    has(&change("shape", json!([1u64 << 40, 96])), "not a safetensors header");
    has(&change("shape", json!([192, 96])), "wo.weight: expected [96, 192], file has [192, 96]");
    has(&change("shape", json!([-1, 96])), "not a safetensors header");
    has(&change("data_offsets", json!([0, 10])), "not a safetensors header");
    has(&change("data_offsets", json!([u64::MAX - 1, u64::MAX])), "not a safetensors header");
    has(&change("data_offsets", json!([10, 0])), "not a safetensors header");
    has(&change("dtype", json!("Q4_0")), "not a safetensors header: unknown variant `Q4_0`");
    has(&change("dtype", json!("I16")), "wo.weight is stored as I16: this engine reads BF16, F16 and F32");
    has(&change("dtype", json!("F32")), "not a safetensors header");
}

#[test]
fn tensors_that_do_not_fit() {
    let name = "layers.1.ffn_norm.weight";
    let rename = |to: &'static str| {
        after_parts(move |parts| {
            let info = parts.header.remove(name).unwrap();
            parts.header.insert(to.to_owned(), info);
        })
    };
    has(&rename("layers.1.ffn_nrom.weight"), "layers.1.ffn_norm.weight is missing");
    let fewer = after(|dir| {
        let params = fs::read_to_string(dir.join("params.json")).unwrap();
        fs::write(dir.join("params.json"), params.replacen("\"n_layers\": 3", "\"n_layers\": 2", 1)).unwrap();
    });
    has(&fewer, "layers.2.ada_rms_norm_t_cond.0.weight has no place in this model");
    for (value, place) in [(0x7F80u16, 0), (0xFF80, 40), (0x7FC0, 95), (0xFFFF, 1)] {
        let damaged = after_parts(|parts| {
            let start = parts.header[name]["data_offsets"][0].as_u64().unwrap() as usize;
            parts.data[start + 2 * place..][..2].copy_from_slice(&value.to_le_bytes());
        });
        has(&damaged, "consolidated.safetensors: layers.1.ffn_norm.weight holds a value that is not finite");
    }
}

#[test]
fn descriptions_that_make_no_sense() {
    let field = |from: &str, to: &str| {
        after(|dir| {
            let params = fs::read_to_string(dir.join("params.json")).unwrap();
            let changed = params.replacen(from, to, 1);
            assert_ne!(params, changed);
            fs::write(dir.join("params.json"), changed).unwrap();
        })
    };
    has(&field("\"dim\": 96", "\"dim\": 0"), "params.json: decoder.dim is 0: ");
    has(&field("\"dim\": 96", "\"dim\": 98"), "expected [98, 256], file has [96, 256]");
    has(&field("\"n_kv_heads\": 2", "\"n_kv_heads\": 4"), "decoder.kv_heads is 4: it must divide");
    has(&field("\"vocab_size\": 1536", "\"vocab_size\": 4294967296"), "vocab is 4294967296: ");
    has(&field("\"vocab_size\": 1536", "\"vocab_size\": 1601"), "vocab has 600 entries, the model writes 601");
    has(&field("\"rope_theta\": 1000000.0", "\"rope_theta\": 0"), "decoder.rope_theta is 0.0: ");
    has(&field("\"sampling_rate\": 16000", "\"sampling_rate\": 8000"), "audio_encoding_args.sampling_rate is 8000: ");
    has(&field("\"window_size\": 400", "\"window_size\": 2881"), "audio.window is 2881: it must be 160 to 2880");
    has(
        &field("\"window_size\": 400", "\"window_size\": 512"),
        "tekken.json: audio.audio_encoding_config.window_size is 400.0, but",
    );
    has(
        &field("  \"sliding_window\": 20,\n", ""),
        "params.json: sliding_window is missing, and every result depends on it",
    );
    has(&field("\"causal\": true", "\"causal\": false"), "causal is false: ");
}

#[test]
fn the_delay_conditioning_of_the_hugging_face_layout_is_as_wide_as_its_tensors() {
    let dir = hf();
    let path = dir.path().join("model.safetensors");
    let mut parts = Parts::of(&path);
    parts.header["language_model.model.layers.0.ada_rms_norm.linear1.weight"]["shape"] = json!([16, 192]);
    parts.write(&path);
    has(&said(dir.path()), "linear1.weight: expected [16, 96], file has [16, 192]");
}

#[test]
fn indexes_that_lead_elsewhere() {
    let index = |content: &str| {
        let dir = hf();
        fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        fs::write(dir.path().join("model.safetensors.index.json"), content).unwrap();
        said(dir.path())
    };
    for name in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "C:\\x", "a\\b"] {
        let content = json!({"weight_map": {"x": name}}).to_string();
        has(&index(&content), "is not a file of this folder");
    }
    has(&index(r#"{"weight_map":{"x":"absent.safetensors"}}"#), "absent.safetensors: there is no such file");
    has(&index(r#"{"weight_map":{}}"#), "it names no files");
    has(&index(r#"{}"#), "not an index: missing field `weight_map`");
    has(&index(r#"{"weight_map":{"x":""}}"#), ": not a file");
}

/// A file with bytes changed, cut out or put in.
fn mutated(whole: Vec<u8>, part: usize) -> impl Strategy<Value = Vec<u8>> {
    let change = (0..part, any::<u8>(), 0..4u8, 0..30usize);
    proptest::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut bytes = whole.clone();
        for (at, byte, kind, count) in changes {
            let at = at.min(bytes.len() - 1);
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => drop(bytes.drain(at..(at + count).min(bytes.len() - 1))),
                _ => bytes.insert(at, b"0123456789-,]}[{\"e."[byte as usize % 19]),
            }
        }
        bytes
    })
}

fn tiny(name: &str) -> Vec<u8> {
    fs::read(goldens().join(name)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn descriptions_never_panic(
        native in mutated(tiny("tiny/params.json"), 1323), hf in mutated(tiny("tiny_hf/config.json"), 1592),
    ) {
        for config in [ModelConfig::from_params_json(&native), ModelConfig::from_hf_json(&hf)].into_iter().flatten() {
            prop_assert!(config.validate().is_ok());
        }
    }

    #[test]
    fn vocabularies_never_panic(json in mutated(tiny("tiny/tekken.json"), 99_669), vocab in 0..2000usize) {
        if let Ok(tokenizer) = Tokenizer::from_json(&json, vocab) {
            prop_assert_eq!(tokenizer.vocab(), vocab);
            for id in 0..vocab as u32 + 2 {
                prop_assert_eq!(tokenizer.bytes(id).is_some(), (tokenizer.num_special()..vocab as u32).contains(&id));
                tokenizer.kind(id);
            }
        }
    }

    #[test]
    fn weights_never_panic(file in mutated(tiny("tiny/consolidated.safetensors"), 10_800)) {
        let dir: TempDir = native();
        fs::write(dir.path().join(WEIGHTS), file).unwrap();
        if let Err(e) = Model::open(dir.path()) {
            prop_assert!(e.to_string().contains(WEIGHTS), "{}", e);
        }
    }
}
