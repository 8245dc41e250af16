//! Opening the model that the flags name.

use std::path::Path;

use voxtral_model::Model;

use crate::output::say;
use crate::wsl;

/// The folder that was named, if it is one and not the built-in model.
pub(crate) fn folder(chosen: Option<&Path>) -> Option<&Path> {
    chosen.filter(|dir| *dir != Path::new("digits"))
}

/// The model in a folder, or the built-in one; where nobody chose that, a line says so.
pub(crate) fn open(chosen: Option<&Path>, silent: bool) -> anyhow::Result<Model> {
    match folder(chosen) {
        Some(dir) => {
            if let Some(drive) = wsl::windows_drive(dir) {
                tracing::warn!(
                    "{}: the model is on a Windows drive ({}), which Linux reads slowly: copy the folder to the Linux file \
                     system, such as ~/models",
                    dir.display(),
                    drive.display()
                );
            }
            Ok(Model::open(dir)?)
        }
        None => {
            if chosen.is_none() && !silent {
                say("using the built-in demo model, which knows spoken English digits only; for everything else get \
                     mistralai/Voxtral-Mini-4B-Realtime-2602 and name its folder with -d or VOXTRAL_MODEL");
            }
            Ok(Model::digits())
        }
    }
}
