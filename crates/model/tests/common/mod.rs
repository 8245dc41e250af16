//! The tiny random checkpoint that an independent implementation's goldens are about, and folders to break it in.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use voxtral_model::{LayerWeights, Linear, Tensor, Weight, Weights};

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens")
}

/// A copy of the checkpoint in the native layout.
pub fn native() -> TempDir {
    copy(&["tiny/params.json", "tiny/tekken.json", "tiny/consolidated.safetensors"])
}

/// A copy of the same checkpoint in the Hugging Face layout.
pub fn hf() -> TempDir {
    copy(&["tiny_hf/config.json", "tiny/tekken.json", "tiny_hf/model.safetensors"])
}

fn copy(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = goldens().join(file);
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// A safetensors file taken apart: its header, and the bytes after it.
pub struct Parts {
    pub header: serde_json::Map<String, serde_json::Value>,
    pub data: Vec<u8>,
}

impl Parts {
    pub fn of(path: &Path) -> Self {
        let file = fs::read(path).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        Self { header: serde_json::from_slice(&file[8..8 + length]).unwrap(), data: file[8 + length..].to_vec() }
    }

    pub fn bytes(&self, name: &str) -> &[u8] {
        let range = self.header[name]["data_offsets"].as_array().unwrap();
        let at = |i: usize| range[i].as_u64().unwrap() as usize;
        &self.data[at(0)..at(1)]
    }

    pub fn write(&self, path: &Path) {
        let header = serde_json::to_vec(&self.header).unwrap();
        let length = (header.len() as u64).to_le_bytes();
        fs::write(path, [&length[..], &header, &self.data].concat()).unwrap();
    }
}

/// A file of these tensors: name, type, shape, bytes.
pub fn parts(tensors: &[(String, &str, Vec<u64>, Vec<u8>)]) -> Parts {
    let mut parts = Parts { header: serde_json::Map::new(), data: Vec::new() };
    for (name, dtype, shape, bytes) in tensors {
        let start = parts.data.len();
        parts.data.extend_from_slice(bytes);
        let info = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, parts.data.len()]});
        parts.header.insert(name.clone(), info);
    }
    parts
}

fn dense(weight: &Weight) -> &Tensor {
    let Weight::Dense(tensor) = weight else { panic!("{weight:?} is packed") };
    tensor
}

/// All tensors, in an order that is the same for every model of the same dimensions.
pub fn tensors(weights: &Weights) -> Vec<&Tensor> {
    fn linear(linear: &Linear) -> impl Iterator<Item = &Tensor> {
        [dense(&linear.weight)].into_iter().chain(&linear.bias)
    }
    fn layer(layer: &LayerWeights) -> impl Iterator<Item = &Tensor> {
        let linears = [&layer.wq, &layer.wk, &layer.wv, &layer.wo, &layer.gate, &layer.up, &layer.down];
        let ada = layer.ada.iter().flat_map(|ada| [&ada.down, &ada.up]);
        [&layer.attention_norm, &layer.ffn_norm].into_iter().chain(linears.into_iter().flat_map(linear)).chain(ada)
    }
    let singles = [&weights.encoder_norm, dense(&weights.embedding), &weights.decoder_norm];
    let linears = weights.conv.iter().chain(&weights.adapter).flat_map(linear);
    let layers = weights.encoder.iter().chain(&weights.decoder).flat_map(layer);
    singles.into_iter().chain(linears).chain(layers).collect()
}

/// Whether two models have the same values in the same types.
pub fn assert_same(a: &Weights, b: &Weights) {
    let (a, b) = (tensors(a), tensors(b));
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert_eq!(a.shape(), b.shape(), "tensor {i}");
        assert!(a.as_bytes() == b.as_bytes(), "tensor {i}, {a:?}, differs");
    }
}
