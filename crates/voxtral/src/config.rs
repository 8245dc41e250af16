//! What to open: a model, and what computes.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use voxtral_cpu::{CpuBackend, CpuOptions, Isa, Precision};
use voxtral_cuda::{CudaBackend, CudaOptions};
use voxtral_engine::{Decoding, EngineOptions};
use voxtral_model::{Backend, BackendError, Delay, Model, ModelError};

use crate::{Error, Progress};

/// What to open and how to run it. The default is the demo model on the GPU if there is one that can be used, else on the CPU.
#[derive(Clone, Debug)]
pub struct Config {
    /// The model.
    pub model: ModelRef,
    /// What computes.
    pub backend: BackendChoice,
    /// Which GPU, counted from 0.
    pub device: usize,
    /// What the CPU computes in.
    pub precision: Precision,
    /// Instructions of the CPU's kernels; the best that it has if none.
    pub isa: Option<Isa>,
    /// Threads on the CPU; 0 means one for each that it runs at once.
    pub threads: usize,
    /// How tokens are found; the text is the same.
    pub decoding: Decoding,
    /// How long after a word it is written; what the model recommends if none.
    pub delay: Option<Delay>,
    /// How many sessions there may be, and how long they are expected to be.
    pub engine: EngineOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: ModelRef::default(),
            backend: BackendChoice::default(),
            device: 0,
            precision: Precision::default(),
            isa: None,
            threads: 0,
            decoding: Decoding::Auto,
            delay: None,
            engine: EngineOptions::default(),
        }
    }
}

/// A model, by where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelRef {
    /// The demo model, which is part of the program and knows spoken English digits only.
    #[default]
    Digits,
    /// A folder with the files of a model, as [`Model::open`] takes it.
    Folder(PathBuf),
}

impl ModelRef {
    const DIGITS: &str = "digits";

    /// As it is typed.
    pub fn as_os_str(&self) -> &OsStr {
        match self {
            Self::Digits => Self::DIGITS.as_ref(),
            Self::Folder(dir) => dir.as_os_str(),
        }
    }

    /// Opens it. The files of a folder must not be changed as long as anything of the model is in use.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn open(&self) -> Result<Model, ModelError> {
        match self {
            Self::Digits => Ok(voxtral_digits::model()),
            Self::Folder(dir) => Model::open(dir),
        }
    }
}

/// As it is typed: "digits", or a folder.
impl From<OsString> for ModelRef {
    fn from(typed: OsString) -> Self {
        if typed == Self::DIGITS { Self::Digits } else { Self::Folder(typed.into()) }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().display().fmt(f)
    }
}

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The GPU if one can be used, else the CPU. Where the configuration says how the CPU is to compute, that.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// A backend that holds a model.
pub struct Opened {
    /// What computes.
    pub backend: Box<dyn Backend>,
    /// Why it is not the GPU, where [`BackendChoice::Auto`] tried that.
    pub fallback: Option<BackendError>,
}

impl Config {
    /// Puts a model on the backend that this asks for, whatever model this names.
    ///
    /// # Errors
    /// When that backend cannot be used: no driver, not enough memory, a setting that it does not have.
    pub fn open_backend(&self, model: &Model, progress: &mut dyn FnMut(Progress)) -> Result<Opened, Error> {
        let opened = |backend| Opened { backend, fallback: None };
        match (self.backend, self.cpu_only()) {
            (BackendChoice::Cuda, Some(setting)) => Err(Error::CpuOnly(setting)),
            (BackendChoice::Cuda, None) => Ok(opened(self.cuda(model, progress)?)),
            (BackendChoice::Auto, None) => match self.cuda(model, progress) {
                Ok(backend) => Ok(opened(backend)),
                Err(why) => Ok(Opened { fallback: Some(why), ..opened(self.cpu(model)?) }),
            },
            (BackendChoice::Auto, Some(_)) | (BackendChoice::Cpu, _) => Ok(opened(self.cpu(model)?)),
        }
    }

    /// A setting that a GPU does not have.
    fn cpu_only(&self) -> Option<&'static str> {
        match (self.precision, self.isa) {
            (Precision::Auto, None) => None,
            (Precision::F32, _) => Some("precision f32"),
            (Precision::Auto, Some(_)) => Some("an instruction set"),
        }
    }

    fn cuda(&self, model: &Model, progress: &mut dyn FnMut(Progress)) -> Result<Box<dyn Backend>, BackendError> {
        let options = CudaOptions { device: self.device, ..CudaOptions::default() };
        let mut loading = |done, total| progress(Progress::Loading { done, total });
        Ok(Box::new(CudaBackend::new(model, &options, &mut loading)?))
    }

    fn cpu(&self, model: &Model) -> Result<Box<dyn Backend>, BackendError> {
        let isa = self.isa.unwrap_or_else(Isa::detect);
        let options = CpuOptions { threads: self.threads, precision: self.precision, isa };
        Ok(Box::new(CpuBackend::new(model, options)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_digits_or_a_folder() {
        assert_eq!(ModelRef::from(OsString::from("digits")), ModelRef::Digits);
        for folder in ["models/digits", "./digits", "x"] {
            assert_eq!(ModelRef::from(OsString::from(folder)), ModelRef::Folder(folder.into()));
        }
        assert_eq!(
            [ModelRef::Digits, ModelRef::Folder("a/b".into())].map(|model| model.to_string()),
            ["digits", "a/b"]
        );
    }

    #[test]
    fn what_only_the_cpu_has_is_computed_there_or_refused() {
        let model = voxtral_digits::model();
        let f32 = Config { precision: Precision::F32, ..Config::default() };
        let portable = Config { isa: Some(Isa::PORTABLE), ..Config::default() };
        for (config, setting) in [(f32, "precision f32"), (portable, "an instruction set")] {
            let opened = config.open_backend(&model, &mut |_| {}).unwrap();
            assert_eq!((opened.backend.info().backend, opened.fallback.is_none()), ("cpu", true), "{setting}");
            let config = Config { backend: BackendChoice::Cuda, ..config };
            let error = config.open_backend(&model, &mut |_| {}).err().unwrap();
            assert!(error.to_string().starts_with(&format!("{setting} is for the CPU")), "{error}");
        }
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_a_reason_or_an_error() {
        // No machine has so many.
        let config = Config { device: 1000, ..Config::default() };
        let opened = config.open_backend(&voxtral_digits::model(), &mut |_| {}).unwrap();
        assert_eq!(opened.backend.info().backend, "cpu");
        let why = opened.fallback.unwrap().to_string();
        let config = Config { backend: BackendChoice::Cuda, ..config };
        let error = config.open_backend(&voxtral_digits::model(), &mut |_| {}).err().unwrap();
        assert!(matches!(&error, Error::Backend(error) if error.to_string() == why), "{error}, {why}");
    }
}
