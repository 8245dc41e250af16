//! Generated models open, are the same on disk and in memory, and leave nothing behind when they cannot be written.

mod common;

use std::fs;
use std::io::ErrorKind;

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
    write_synthetic(&folder, &config, 5, None, |written, total| {
        last = (written, total);
        Ok(())
    })
    .unwrap();
    assert_eq!(last, (2 * config.parameters(), 2 * config.parameters()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);

    let (disk, memory) = (Model::open(&folder).unwrap(), Model::synthetic(&config, 5).unwrap());
    assert_eq!((&disk.config, &disk.tokenizer), (&config, &memory.tokenizer));
    assert_same(&disk.weights, &memory.weights);
    let bytes = fs::metadata(folder.join("consolidated.safetensors")).unwrap().len();
    assert!((bytes - 100_000..bytes).contains(&disk.weights.bytes()), "{} of {bytes}", disk.weights.bytes());
    let other = Model::synthetic(&config, 6).unwrap();
    let differ =
        tensors(&memory.weights).iter().zip(tensors(&other.weights)).all(|(a, b)| a.as_bytes() != b.as_bytes());
    assert!(differ, "another seed gives other values");
    assert!(matches!(memory.tokenizer.kind(1256), Kind::Text(text) if text.starts_with(b" ")));

    let again = write_synthetic(&folder, &config, 5, None, |_, _| Ok(())).unwrap_err();
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
    let said = write_synthetic(dir.path(), &tiny(), 0, None, |_, _| Err(ErrorKind::Interrupted.into()))
        .unwrap_err()
        .to_string();
    assert!(said.ends_with("consolidated.safetensors: operation interrupted"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    // What comes in the way of the last file takes the others back.
    let path = dir.path().join("consolidated.safetensors");
    let in_the_way = |_, _| fs::write(&path, "another's");
    let said = write_synthetic(dir.path(), &tiny(), 0, None, in_the_way).unwrap_err();
    assert!(matches!(&said, ModelError::Exists { path: p } if *p == path), "{said}");
    assert_eq!((fs::read_dir(dir.path()).unwrap().count(), fs::read(&path).unwrap()), (1, b"another's".to_vec()));

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let said = write_synthetic(&file.join("folder"), &tiny(), 0, None, |_, _| Ok(())).unwrap_err().to_string();
    assert!(said.contains("folder: "), "{said}");

    let mut config = tiny();
    config.vocab = 1255;
    let said = Model::synthetic(&config, 0).unwrap_err().to_string();
    assert_eq!(said, "vocab is 1255: it must be 1256 to 1048576");
}

/// Two that began before either had a file in place, and who left a link at a name that might have been the temporary one.
#[test]
fn of_several_at_once_one_is_written_whole() {
    let (dir, config) = (tempfile::tempdir().unwrap(), tiny());
    #[cfg(unix)]
    std::os::unix::fs::symlink("victim", dir.path().join("consolidated.safetensors.partial")).unwrap();
    let all_began = std::sync::Barrier::new(3);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let run = |seed: u64| {
            let (dir, config, all_began) = (dir.path(), &config, &all_began);
            let mut first = true;
            scope.spawn(move || {
                write_synthetic(dir, config, seed, None, |_, _| {
                    if std::mem::take(&mut first) {
                        all_began.wait();
                    }
                    Ok(())
                })
            })
        };
        let running = [1, 2, 3].map(run);
        running.map(|thread| thread.join().unwrap()).into()
    });
    let winners: Vec<u64> = (1..).zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(seed, _)| seed).collect();
    let lost = outcomes.iter().filter(|outcome| matches!(outcome, Err(ModelError::Exists { .. }))).count();
    assert_eq!((winners.len(), lost), (1, 2), "{outcomes:?}");
    let written = Model::open(dir.path()).unwrap();
    assert_same(&written.weights, &Model::synthetic(&config, winners[0]).unwrap().weights);
    #[cfg(unix)]
    fs::remove_file(dir.path().join("consolidated.safetensors.partial")).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}
