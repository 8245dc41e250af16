//! Opening the model that the flags name.

use std::path::Path;

use voxtral_model::{Model, ModelError};

use crate::output::say;
use crate::wsl;

/// The folder that was named, if it is one and not the built-in model.
pub(crate) fn folder(chosen: Option<&Path>) -> Option<&Path> {
    chosen.filter(|dir| *dir != Path::new("digits"))
}

/// The model in a folder, or the built-in one.
pub(crate) fn load(chosen: Option<&Path>) -> Result<Model, ModelError> {
    folder(chosen).map_or_else(|| Ok(voxtral_digits::model()), Model::open)
}

/// The same, with a line about a folder on a Windows drive, and about the built-in model where nobody chose that.
pub(crate) fn open(chosen: Option<&Path>, silent: bool) -> Result<Model, ModelError> {
    if let Some((dir, drive)) = folder(chosen).and_then(|dir| Some((dir, wsl::windows_drive(dir)?))) {
        tracing::warn!(
            "{}: the model is on a Windows drive ({}), which Linux reads slowly: copy the folder to the Linux file system, such \
             as ~/models",
            dir.display(),
            drive.display()
        );
    }
    if chosen.is_none() && !silent {
        say("using the built-in demo model, which knows spoken English digits only; for everything else get \
             mistralai/Voxtral-Mini-4B-Realtime-2602 and name its folder with -d or VOXTRAL_MODEL");
    }
    load(chosen)
}
