//! Models by their names: where Hugging Face's cache is, and what is in it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use voxtral::{Model, ModelError, ModelRef};
use voxtral_hub::{Cache, Repo};

/// What the model that this program is for is called for short, and in full.
pub(crate) const SHORT: &str = "voxtral-mini";
pub(crate) const FULL: &str = "mistralai/Voxtral-Mini-4B-Realtime-2602";

/// The repository of a name as it is typed.
pub(crate) fn repo(name: &str) -> Result<Repo, voxtral_hub::Error> {
    Repo::parse(if name == SHORT { FULL } else { name })
}

/// What is opened: a name of a model that was downloaded stands for its folder, unless there is a folder of that name. Where nothing
/// was named it is the model that this program is for, if that was downloaded, else the built-in demo.
pub(crate) fn resolved(named: Option<&ModelRef>) -> ModelRef {
    match named {
        Some(ModelRef::Folder(dir)) if !dir.exists() => {
            ModelRef::Folder(downloaded(dir).unwrap_or_else(|| dir.to_owned()))
        }
        Some(model) => model.clone(),
        None => downloaded(Path::new(FULL)).map_or_else(ModelRef::default, ModelRef::Folder),
    }
}

/// Opens what [`resolved`] gives.
pub(crate) fn open(model: &ModelRef) -> anyhow::Result<Model> {
    model.open().map_err(|error| match (&error, model) {
        (ModelError::Io { path, source }, ModelRef::Folder(dir))
            if path == dir && source.kind() == ErrorKind::NotFound && named(dir).is_some() =>
        {
            let name = dir.display();
            anyhow::anyhow!("{error}; if it is the name of a model, get it with: voxtral download {name}")
        }
        _ => error.into(),
    })
}

/// The folder of a model that was downloaded as a whole.
fn downloaded(name: &Path) -> Option<PathBuf> {
    complete(&cache().ok()?, &named(name)?)
}

/// The folder of a model in the cache, if all of its files are there.
pub(crate) fn complete(cache: &Cache, repo: &Repo) -> Option<PathBuf> {
    let dir = cache.snapshot(repo)?;
    (!files_in(&dir).is_empty()).then_some(dir)
}

/// The names of the files in a folder that make a model: none if one of them is missing, or the folder cannot be read.
pub(crate) fn files_in(dir: &Path) -> Vec<String> {
    // Links that lead nowhere are no files.
    let files = fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    Model::files_among(&names)
}

fn named(name: &Path) -> Option<Repo> {
    repo(name.to_str()?).ok()
}

/// The cache that Hugging Face's own programs use.
pub(crate) fn cache() -> anyhow::Result<Cache> {
    let dir = match set("HF_HUB_CACHE") {
        Some(dir) => at_home(dir)?,
        None => hugging_face()?.join("hub"),
    };
    let cache = Cache::new(dir);
    Ok(if is_true("HF_HUB_DISABLE_SYMLINKS") { cache.without_links() } else { cache })
}

/// The folder of all that those programs keep.
pub(crate) fn hugging_face() -> anyhow::Result<PathBuf> {
    if let Some(dir) = set("HF_HOME") {
        return at_home(dir);
    }
    let caches = set("XDG_CACHE_HOME").map_or_else(|| Ok(home()?.join(".cache")), |dir| anyhow::Ok(dir.into()))?;
    Ok(caches.join("huggingface"))
}

/// A path that may begin with `~`, as in variables that no shell has seen.
fn at_home(dir: OsString) -> anyhow::Result<PathBuf> {
    match Path::new(&dir).strip_prefix("~") {
        Ok(rest) => Ok(home()?.join(rest)),
        Err(_) => Ok(dir.into()),
    }
}

fn home() -> anyhow::Result<PathBuf> {
    env::home_dir().context("there is no home folder for downloads: set HF_HUB_CACHE to a folder")
}

/// An environment variable; one that is empty is as good as not set.
pub(crate) fn set(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

pub(crate) fn is_true(variable: &str) -> bool {
    let value = set(variable).unwrap_or_default().to_string_lossy().to_uppercase();
    matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
}
