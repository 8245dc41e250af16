//! Packed models: what they hold, on disk and in memory, from either layout, and what is refused.

mod common;

use std::fs;
use std::path::Path;

use half::bf16;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use voxtral_model::{
    Encoding, Group, Model, ModelConfig, ModelError, Plan, Quantised, Tensor, Weight, Weights, quantise,
    write_synthetic,
};

use common::{Parts, hf, native};

const WEIGHTS: &str = "consolidated.safetensors";

const ALL: [Encoding; 8] = [
    Encoding::Bf16,
    Encoding::Bf12,
    Encoding::Int8(Group::Of32),
    Encoding::Int8(Group::Of64),
    Encoding::Int8(Group::Of128),
    Encoding::Int4(Group::Of32),
    Encoding::Int4(Group::Of64),
    Encoding::Int4(Group::Of128),
];

fn config() -> ModelConfig {
    let fields = ["vocab=1300", "decoder.dim=80", "decoder.ffn_dim=176", "encoder.dim=48", "encoder.ffn_dim=100"];
    ModelConfig::synthetic("small", &fields).unwrap()
}

fn matrices(weights: &Weights) -> Vec<&Weight> {
    let layers = weights.encoder.iter().chain(&weights.decoder);
    let linears = layers.flat_map(|l| [&l.wq, &l.wk, &l.wv, &l.wo, &l.gate, &l.up, &l.down]);
    linears.chain(&weights.adapter).map(|linear| &linear.weight).chain([&weights.embedding]).collect()
}

fn values(weight: &Weight) -> Vec<f32> {
    let mut values = vec![0.0; weight.n() * weight.k()];
    values.chunks_exact_mut(weight.k()).enumerate().for_each(|(row, out)| weight.row(row, out));
    values
}

fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    (squares(&mut got.iter().zip(want).map(|(g, w)| g - w)) / squares(&mut want.iter().copied())).sqrt()
}

/// A matrix of a model that is otherwise anything.
fn embedding(values: &[f32], k: usize, encoding: Encoding) -> Weight {
    let mut model = Model::synthetic(&config(), 1).unwrap();
    model.weights.embedding = Weight::Dense(Tensor::from_f32_as_bf16(values, &[values.len() / k, k]));
    model.packed(&Plan::all(encoding)).weights.embedding
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn on_disk_and_in_memory_are_the_same() {
    let model = Model::synthetic(&config(), 3).unwrap();
    for encoding in ALL {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::all(encoding);
        write_synthetic(dir.path(), &config(), 3, Some(&plan), |_, _| Ok(())).unwrap();
        let (disk, memory) = (Model::open(dir.path()).unwrap(), model.packed(&plan));
        for (disk, memory) in matrices(&disk.weights).into_iter().zip(matrices(&memory.weights)) {
            assert_eq!((disk.type_name(), disk.shape()), (encoding.name(), memory.shape()));
            assert!(disk.as_bytes() == memory.as_bytes(), "{encoding:?}");
            // Mapped as it lies, for the widest vectors.
            assert!((disk.as_bytes().as_ptr() as usize).is_multiple_of(64), "{encoding:?}");
        }
    }
}

#[test]
fn values_are_as_near_as_their_bits_allow() {
    let model = Model::synthetic(&config(), 3).unwrap();
    for (encoding, most) in ALL.into_iter().zip([0.0, 0.0, 0.006, 0.007, 0.008, 0.085, 0.1, 0.11]) {
        let packed = model.packed(&Plan::all(encoding));
        for (packed, dense) in matrices(&packed.weights).into_iter().zip(matrices(&model.weights)) {
            let (got, want) = (values(packed), values(dense));
            if most == 0.0 {
                assert_eq!(bits(&got), bits(&want), "{encoding:?}");
            }
            let error = relative_error(&got, &want);
            assert!(error <= most, "{encoding:?} {packed:?}: {error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn twelve_bits_hold_every_number(
        n in 1usize..40, k in 1usize..80, seed: u64, planted in proptest::collection::vec((any::<u32>(), any::<u16>()), 0..5),
    ) {
        // Of about one magnitude, but for a few that may be anything: zeros, denormals, the largest.
        let mut rng = seed;
        let mut values: Vec<f32> = (0..n * k).map(|_| {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bf16::from_f32(((rng >> 40) as f32 / 1e6 - 8.0) * 0.01 + 0.001).to_f32()
        }).collect();
        for (place, bits) in planted {
            let value = bf16::from_bits(bits);
            let place = place as usize % values.len();
            values[place] = if value.is_finite() { value.to_f32() } else { 0.0 };
        }
        let packed = embedding(&values, k, Encoding::Bf12);
        prop_assert_eq!(bits(&self::values(&packed)), bits(&values));
    }
}

#[test]
fn exponents_that_are_rare_are_listed_and_many_keep_bf16() {
    let (n, k) = (64, 96);
    let mut values: Vec<f32> = (0..n * k).map(|i| 0.5 + (i % 100) as f32 / 256.0).collect();
    // More exponents than the table has, each once.
    let planted =
        [0.0, -0.0, f32::from_bits(1 << 16), -1e-38, 3e38, -1e30, 1e-20, 1e-15, 1e-10, 1e-5, 1e5, 1e10, 1e15, 1e20];
    let planted = planted.into_iter().chain((0..10).map(|i| 2f32.powi(40 + i)));
    planted.enumerate().for_each(|(i, v)| values[i * 255] = bf16::from_f32(v).to_f32());
    let packed = embedding(&values, k, Encoding::Bf12);
    assert_eq!(packed.type_name(), "bf12");
    assert_eq!(bits(&self::values(&packed)), bits(&values));
    let Weight::Packed(view) = &packed else { panic!("packed") };
    assert!((0..view.panels()).any(|panel| !view.panel(panel).escapes.is_empty()));

    // A tensor of wild range stays what it is.
    let wild: Vec<f32> = (0..n * k).map(|i| bf16::from_f32(2f32.powi(i as i32 % 200 - 100)).to_f32()).collect();
    let dense = embedding(&wild, k, Encoding::Bf12);
    assert_eq!(dense.type_name(), "bf16");
    assert!(matches!(dense, Weight::Dense(_)));
}

#[test]
fn both_layouts_are_packed_to_the_same() {
    for encoding in ALL {
        let opened = [native(), hf()].map(|from| {
            let to = tempfile::tempdir().unwrap();
            let report = quantise(from.path(), to.path(), &Plan::all(encoding), |_, _| Ok(())).unwrap();
            let told = |q: &Quantised| q.encoding == Some(encoding) && (q.deviation.relative() < 0.12);
            assert!(report.iter().all(told), "{report:?}");
            (Model::open(to.path()).unwrap(), to)
        });
        let [(native, _a), (hf, _b)] = &opened;
        for (a, b) in matrices(&native.weights).into_iter().zip(matrices(&hf.weights)) {
            assert!(a.as_bytes() == b.as_bytes() && a.shape() == b.shape(), "{encoding:?}: {a:?}");
        }
        assert_eq!(native.config, hf.config);
    }
}

#[test]
fn a_packed_file_says_what_it_was_made_of() {
    let (from, to) = (native(), tempfile::tempdir().unwrap());
    let plan = Plan { head: Encoding::Int8(Group::Of64), ..Plan::all(Encoding::Int4(Group::Of32)) };
    quantise(from.path(), to.path(), &plan, |_, _| Ok(())).unwrap();
    let parts = Parts::of(&to.path().join(WEIGHTS));
    let said: Value = serde_json::from_str(parts.header["__metadata__"]["voxtral.packed"].as_str().unwrap()).unwrap();
    let head = json!({"encoding": "int8", "group": 64, "scale": "f16", "shape": [1536, 96]});
    assert_eq!(said["tensors"]["mm_streams_embeddings.embedding_module.tok_embeddings.weight"], head);
    assert_eq!(said["tensors"]["layers.0.attention.wq.weight"]["encoding"], "int4");
    assert_eq!(said["version"], 1);
    // As sha256sum says of goldens/tiny/consolidated.safetensors.
    let sum = "e1f20e99649ff05d8be6e15eb46b195a094ec7346f59135187fcbc2cfc6289db";
    assert_eq!(said["source_sha256"], json!({WEIGHTS: sum}));
    for name in ["params.json", "tekken.json"] {
        assert_eq!(fs::read(from.path().join(name)).unwrap(), fs::read(to.path().join(name)).unwrap());
    }
}

#[test]
fn what_cannot_be_packed_stays_out_of_the_way() {
    let (from, to) = (native(), tempfile::tempdir().unwrap());
    let plan = Plan::all(Encoding::Int4(Group::Of32));
    let pack = |from: &Path, to: &Path| quantise(from, to, &plan, |_, _| Ok(())).unwrap_err();
    // Interrupted, nothing stays.
    let stop = |done, _| if done > 50_000 { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) };
    quantise(from.path(), to.path(), &plan, stop).unwrap_err();
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    // Not over the source, not over another model.
    assert!(matches!(pack(from.path(), from.path()), ModelError::Exists { .. }));
    quantise(from.path(), to.path(), &plan, |_, _| Ok(())).unwrap();
    assert!(matches!(pack(from.path(), to.path()), ModelError::Exists { .. }));
    // Not what is packed.
    let again = tempfile::tempdir().unwrap();
    let said = pack(to.path(), again.path());
    assert!(matches!(said, ModelError::PackedAlready { .. }), "{said}");
}

/// A folder with a packed model, its file taken apart.
fn packed(encoding: Encoding) -> (TempDir, Parts) {
    let (from, to) = (native(), tempfile::tempdir().unwrap());
    quantise(from.path(), to.path(), &Plan::all(encoding), |_, _| Ok(())).unwrap();
    let parts = Parts::of(&to.path().join(WEIGHTS));
    (to, parts)
}

#[test]
fn damage_is_told() {
    let name = "layers.1.attention.wo.weight";
    let said = |encoding, change: &dyn Fn(&mut Parts)| {
        let (dir, mut parts) = packed(encoding);
        change(&mut parts);
        parts.write(&dir.path().join(WEIGHTS));
        match Model::open(dir.path()) {
            Ok(_) => "opened".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let described = |change: &dyn Fn(&mut Value)| {
        said(Encoding::Int8(Group::Of32), &|parts| {
            let metadata = &mut parts.header["__metadata__"]["voxtral.packed"];
            let mut description = serde_json::from_str(metadata.as_str().unwrap()).unwrap();
            change(&mut description);
            *metadata = json!(description.to_string());
        })
    };
    assert_eq!(described(&|_| ()), "opened");
    let has = |said: &str, part: &str| assert!(said.contains(part), "{said:?} without {part:?}");
    has(&described(&|d| d["version"] = json!(2)), "packed in version 2 of the layout, this program knows version 1");
    has(&described(&|d| d["tensors"] = json!(3)), "not a description of packed weights: ");
    has(&described(&|d| d["tensors"][name]["encoding"] = json!("int3")), "does not know how they are stored");
    has(&described(&|d| d["tensors"][name]["group"] = json!(33)), "does not know how they are stored");
    has(&described(&|d| d["tensors"][name]["scale"] = json!("f32")), "does not know how they are stored");
    has(&described(&|d| d["tensors"][name]["group"] = json!(64)), "it has not as many bytes as its shape asks for");
    has(&described(&|d| d["tensors"][name]["shape"] = json!([96, 191])), "expected [96, 192], file has [96, 191]");
    has(
        &described(&|d| d["tensors"]["layers.9.nothing"] = d["tensors"][name].clone()),
        "layers.9.nothing, which is not",
    );
    let norm = json!({"encoding": "bf16", "shape": [96]});
    has(&described(&|d| d["tensors"]["norm.weight"] = norm.clone()), "they are not a row of bytes (U8)");
    has(&described(&|d| drop(d["tensors"].as_object_mut().unwrap().remove(name))), "is stored as U8");

    // The bytes of a tensor.
    let at = |parts: &Parts| parts.header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    let infinite = |offset: usize, byte: u8| {
        move |parts: &mut Parts| {
            let at = at(parts) + offset;
            parts.data[at] = byte;
        }
    };
    has(&said(Encoding::Int8(Group::Of32), &infinite(1, 0x7C)), "holds a value that is not finite");
    has(&said(Encoding::Int4(Group::Of32), &infinite(3, 0x7E)), "holds a value that is not finite");
    has(&said(Encoding::Bf12, &infinite(5, 0xFF)), "holds a value that is not finite");
    let both = |parts: &mut Parts| {
        let at = at(parts);
        parts.data[at..at + 2].copy_from_slice(&[0x80, 0x7F]);
    };
    has(&said(Encoding::Bf16, &both), "holds a value that is not finite");
    // The lists of exponents are behind the panels: 6 panels of 6 blocks of 768 bytes, and the table.
    let lists = 64 + 6 * 6 * 768;
    has(&said(Encoding::Bf12, &infinite(lists, 1)), "its list of exponents is damaged");
    has(&said(Encoding::Bf12, &infinite(lists + 6 * 4 + 3, 1)), "its list of exponents is damaged");
}
