//! Generated models open, are the same on disk and in memory, and leave nothing behind when they cannot be written.

mod common;

use std::fs;

use voxtral_model::{Kind, Model, ModelConfig, ModelError, Recipe, write_synthetic};

use common::{assert_same, tensors};

fn tiny() -> ModelConfig {
    let fields = [
        "encoder.dim=48",
        "encoder.layers=2",
        "encoder.heads=6",
        "encoder.kv_heads=2",
        "encoder.head_dim=16",
        "encoder.ffn_dim=80",
        "decoder.dim=96",
        "decoder.layers=2",
        "decoder.heads=3",
        "decoder.kv_heads=1",
        "decoder.head_dim=32",
        "decoder.ffn_dim=160",
        "vocab=1536",
        "ada_dim=8",
    ];
    ModelConfig::synthetic("small", &fields).unwrap()
}

#[test]
fn on_disk_and_in_memory_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made/for/this");
    let config = tiny();
    let mut last = (0, 0);
    write_synthetic(&folder, &config, 5, |written, total| last = (written, total)).unwrap();
    assert_eq!(last, (2 * config.parameters(), 2 * config.parameters()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);

    let (disk, memory) = (Model::open(&folder).unwrap(), Model::synthetic(&config, 5).unwrap());
    assert_eq!((&disk.config, &disk.tokenizer), (&config, &memory.tokenizer));
    assert_same(&disk.weights, &memory.weights);
    let other = Model::synthetic(&config, 6).unwrap();
    let differ =
        tensors(&memory.weights).iter().zip(tensors(&other.weights)).all(|(a, b)| a.as_bytes() != b.as_bytes());
    assert!(differ, "another seed gives other values");
    assert!(matches!(memory.tokenizer.kind(1256), Kind::Text(text) if text.starts_with(b" ")));

    let again = write_synthetic(&folder, &config, 5, |_, _| {}).unwrap_err();
    assert!(matches!(again, ModelError::Exists { .. }), "{again}");
}

#[test]
fn more_weight_of_the_audio_is_more_of_the_adapters_output_and_nothing_else() {
    let deviation = |audio| {
        let model = Model::synthetic(&tiny(), Recipe { seed: 5, audio }).unwrap();
        tensors(&model.weights)
            .into_iter()
            .map(|t| t.to_f32().iter().map(|v| v * v).sum::<f32>().sqrt())
            .collect::<Vec<_>>()
    };
    let (usual, loud) = (deviation(Recipe::AUDIO), deviation(2.0 * Recipe::AUDIO));
    let ratios: Vec<f32> = loud.iter().zip(&usual).map(|(l, u)| l / u).filter(|ratio| *ratio != 1.0).collect();
    assert!(matches!(ratios[..], [ratio] if (ratio - 2.0).abs() < 0.01), "{ratios:?}");
}

#[test]
fn one_thread_makes_the_same_values_as_many() {
    let config = ModelConfig::synthetic("small", &["decoder.layers=1", "encoder.layers=1"]).unwrap();
    let threads = |n| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| Model::synthetic(&config, 1).unwrap())
    };
    assert_same(&threads(1).weights, &threads(5).weights);
}

#[test]
fn nothing_stays_of_what_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    // A folder in the way of the weights' temporary file.
    fs::create_dir(dir.path().join("consolidated.safetensors.partial")).unwrap();
    let said = write_synthetic(dir.path(), &tiny(), 0, |_, _| {}).unwrap_err().to_string();
    assert!(said.contains("consolidated.safetensors.partial: "), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    #[cfg(target_os = "linux")]
    {
        let full = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", full.path().join("consolidated.safetensors.partial")).unwrap();
        let said = write_synthetic(full.path(), &tiny(), 0, |_, _| {}).unwrap_err().to_string();
        assert!(said.contains("consolidated.safetensors.partial: No space left on device"), "{said}");
        assert_eq!(fs::read_dir(full.path()).unwrap().count(), 0);
    }

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let said = write_synthetic(&file.join("folder"), &tiny(), 0, |_, _| {}).unwrap_err().to_string();
    assert!(said.contains("folder: "), "{said}");

    let mut config = tiny();
    config.vocab = 1255;
    let said = Model::synthetic(&config, 0).unwrap_err().to_string();
    assert_eq!(said, "vocab is 1255: it must be 1256 to 1048576");
}
