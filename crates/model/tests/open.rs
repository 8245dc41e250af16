//! Models open from every layout that they are published in, and come to the same.

mod common;

use std::fs;

use half::{bf16, f16};
use voxtral_model::{Model, ModelConfig, TensorData};

use common::{Parts, assert_same, goldens, hf, native, parts, tensors};

#[test]
fn both_layouts_come_to_the_same() {
    let (native_dir, hf_dir) = (native(), hf());
    let (native, hf) = (Model::open(native_dir.path()).unwrap(), Model::open(hf_dir.path()).unwrap());
    assert_eq!(native.config, hf.config);
    assert_eq!(native.tokenizer, hf.tokenizer);
    assert_eq!(tensors(&native.weights).len(), 81);
    assert_same(&native.weights, &hf.weights);
    let count: usize = tensors(&native.weights).iter().map(|t| t.data().len()).sum();
    assert_eq!(native.config.parameters(), count as u64);
    assert_eq!(native.name, native_dir.path().file_name().unwrap().to_str().unwrap());
}

#[test]
fn the_description_is_read_field_by_field() {
    let config = ModelConfig::from_params_json(&fs::read(goldens().join("tiny/params.json")).unwrap()).unwrap();
    let (enc, dec) = (&config.encoder, &config.decoder);
    assert_eq!((enc.dim, enc.layers, enc.heads, enc.kv_heads, enc.head_dim, enc.ffn_dim), (64, 3, 6, 6, 16, 160));
    assert_eq!((dec.dim, dec.layers, dec.heads, dec.kv_heads, dec.head_dim, dec.ffn_dim), (96, 3, 6, 2, 32, 224));
    assert_eq!((enc.window, dec.window, config.vocab, config.ada_dim, config.downsample), (30, 20, 1536, 32, 4));
    assert_eq!((enc.rope_theta, dec.norm_eps, config.audio.samples_per_token), (1e6, 1e-5, 1280));
}

#[test]
fn the_native_layout_is_preferred() {
    let dir = hf();
    for file in ["params.json", "consolidated.safetensors"] {
        fs::copy(goldens().join("tiny").join(file), dir.path().join(file)).unwrap();
    }
    fs::write(dir.path().join("config.json"), "garbage").unwrap();
    Model::open(dir.path()).unwrap();
}

#[test]
fn shards_with_any_spelling_of_names() {
    let reference = native();
    let reference = Model::open(reference.path()).unwrap();
    let spellings: [fn(&str) -> String; 4] = [
        str::to_owned,
        |name| format!("model.{name}"),
        |name| format!("model.{}", name.replace("language_model.model.", "language_model.")),
        |name| name.replace("language_model.model.", "language_model."),
    ];
    for (i, spell) in spellings.into_iter().enumerate() {
        let dir = hf();
        let single = dir.path().join("model.safetensors");
        let whole = Parts::of(&single);
        fs::remove_file(single).unwrap();
        let (mut shards, mut map) = ([Vec::new(), Vec::new(), Vec::new()], serde_json::Map::new());
        for (n, (name, info)) in whole.header.iter().filter(|(name, _)| *name != "__metadata__").enumerate() {
            let shape = info["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
            let tensor = (spell(name), "BF16", shape, whole.bytes(name).to_vec());
            map.insert(tensor.0.clone(), format!("model-{}-of-3.safetensors", n % 3).into());
            shards[n % 3].push(tensor);
        }
        let head = ("lm_head.weight".to_owned(), "BF16", vec![1536, 96], vec![0xFF; 1536 * 96 * 2]);
        shards[1].push(head);
        for (n, shard) in shards.iter().enumerate() {
            parts(shard).write(&dir.path().join(format!("model-{n}-of-3.safetensors")));
        }
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let model = Model::open(dir.path()).unwrap_or_else(|e| panic!("spelling {i}: {e}"));
        assert_same(&model.weights, &reference.weights);
    }
}

#[test]
fn every_tensor_may_have_its_own_type() {
    let (dir, reference) = (native(), native());
    let path = dir.path().join("consolidated.safetensors");
    let reference = Model::open(reference.path()).unwrap();
    let whole = Parts::of(&path);
    let mut converted = Vec::new();
    for (i, (name, info)) in whole.header.iter().enumerate() {
        let shape: Vec<u64> = info["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        let values: Vec<f32> =
            whole.bytes(name).as_chunks::<2>().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect();
        let (dtype, bytes) = match i % 3 {
            0 => ("F32", values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            1 => ("F16", values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
            _ => ("BF16", whole.bytes(name).to_vec()),
        };
        converted.push((name.clone(), dtype, shape, bytes));
    }
    // A header of odd length: nothing promises that tensors are aligned.
    let mut parts = parts(&converted);
    parts.header.insert("__metadata__".to_owned(), serde_json::json!({"format": "pt"}));
    if serde_json::to_vec(&parts.header).unwrap().len().is_multiple_of(2) {
        parts.header["__metadata__"]["format"] = "odd".into();
    }
    parts.write(&path);
    let model = Model::open(dir.path()).unwrap();
    for (tensor, was) in tensors(&model.weights).into_iter().zip(tensors(&reference.weights)) {
        // Half precision loses a little below its normal range.
        let close = tensor.to_f32().iter().zip(was.to_f32()).all(|(a, b)| (a - b).abs() <= 6e-8);
        assert!(close && tensor.shape() == was.shape(), "{tensor:?}");
    }
    let types = tensors(&model.weights).iter().fold([0; 3], |mut count, tensor| {
        count[match tensor.data() {
            TensorData::Bf16(_) => 0,
            TensorData::F16(_) => 1,
            TensorData::F32(_) => 2,
        }] += 1;
        count
    });
    assert_eq!(types, [27, 27, 27]);
}

#[test]
fn decodes_as_the_reference_does() {
    let dir = native();
    let tokenizer = Model::open(dir.path()).unwrap().tokenizer;
    let golden: serde_json::Value =
        serde_json::from_slice(&fs::read(goldens().join("mistral_common.json")).unwrap()).unwrap();
    for case in golden["decode"].as_array().unwrap() {
        for (id, hex) in case["ids"].as_array().unwrap().iter().zip(case["bytes_hex"].as_array().unwrap()) {
            let id = id.as_u64().unwrap() as u32;
            let text: String = tokenizer.bytes(id).unwrap_or_default().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(text, hex.as_str().unwrap(), "id {id}");
        }
    }
}
