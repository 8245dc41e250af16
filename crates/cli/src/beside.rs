//! A form of a model in fewer bits, in a folder beside it: for who has packed it already and names the large one.

use std::fs;
use std::path::{Path, PathBuf};

use voxtral::{BackendError, Model, ModelRef};
use voxtral_cuda::CudaBackend;

use crate::models::files_in;
use crate::output::say;

/// Of the folders beside a model's, the one with the most bytes that holds the same model in fewer, and for which `fits` holds.
fn smaller(dir: &Path, model: &Model, fits: impl Fn(&Model) -> bool) -> Option<PathBuf> {
    let dir = fs::canonicalize(dir).ok()?;
    let beside = fs::read_dir(dir.parent()?).ok()?.flatten().map(|entry| entry.path());
    // What is as large as the model cannot be it in fewer bits, and opening reads dense weights whole.
    let light =
        beside.filter(|other| *other != dir && weights(other).is_some_and(|bytes| bytes < model.weights.bytes()));
    let same = light.filter_map(|other| {
        let packed = Model::open(&other).ok().filter(|packed| packed.config == model.config && fits(packed))?;
        Some((packed.weights.bytes(), other))
    });
    same.max().map(|(_, other)| other)
}

/// Bytes of the files of weights in a folder of a model.
fn weights(dir: &Path) -> Option<u64> {
    let files = files_in(dir).into_iter().filter(|name| name.ends_with(".safetensors"));
    let sizes: Vec<u64> = files.map(|name| Some(fs::metadata(dir.join(name)).ok()?.len())).collect::<Option<_>>()?;
    (!sizes.is_empty()).then(|| sizes.iter().sum())
}

/// Which folder to name instead, where a model needs more of a GPU than the `free` bytes.
pub(crate) fn advice(reference: &ModelRef, model: &Model, free: u64) -> Option<String> {
    let ModelRef::Folder(dir) = reference else { return None };
    let fits =
        |packed: &Model| CudaBackend::needs(packed, CudaBackend::LEAST_POSITIONS).is_ok_and(|needed| needed <= free);
    let folder = smaller(dir, model, fits)?;
    Some(format!("take the same model in fewer bits, which has room on the GPU: -d {}", folder.display()))
}

/// Tells which folder to name instead, if that is the answer to what a GPU lacks.
pub(crate) fn advise(why: &BackendError, reference: &ModelRef, model: &Model) {
    if let BackendError::OutOfMemory { free, .. } = why
        && let Some(advice) = advice(reference, model, free * 1_000_000)
    {
        say(&advice);
    }
}

#[cfg(test)]
mod tests {
    use voxtral_model::{Encoding, Group, ModelConfig, Plan, Recipe, write_synthetic};

    use super::*;

    #[test]
    fn the_largest_form_that_has_room_is_found_and_no_other_model() {
        let folder = tempfile::tempdir().unwrap();
        let config = ModelConfig::synthetic("small", &[] as &[&str]).unwrap();
        let write = |name: &str, config: &ModelConfig, encoding: Option<Encoding>| {
            let dir = folder.path().join(name);
            let recipe = Recipe { seed: 0, audio: 3.0 };
            write_synthetic(&dir, config, recipe, encoding.map(Plan::all).as_ref(), |_, _| Ok(())).unwrap();
            dir
        };
        let dense = write("dense", &config, None);
        let [int8, int4] = [Encoding::Int8, Encoding::Int4]
            .map(|encoding| encoding(Group::default()))
            .map(|encoding| write(encoding.name(), &config, Some(encoding)));
        let shallow = ModelConfig::synthetic("small", &["decoder.layers=1"]).unwrap();
        write("another", &shallow, Some(Encoding::Int8(Group::default())));
        fs::write(folder.path().join("a file"), "").unwrap();

        let model = Model::open(&dense).unwrap();
        let of = |model: &Model, fits: &dyn Fn(&Model) -> bool| {
            smaller(&folder.path().join(&model.name), model, fits).map(|dir| dir.file_name().unwrap().to_owned())
        };
        let most = Model::open(&int8).unwrap().weights.bytes();
        assert_eq!(of(&model, &|_| true).unwrap(), int8.file_name().unwrap());
        assert_eq!(of(&model, &|packed| packed.weights.bytes() < most).unwrap(), int4.file_name().unwrap());
        assert_eq!(of(&model, &|_| false), None);
        assert_eq!(of(&Model::open(&int4).unwrap(), &|_| true), None);
    }
}
