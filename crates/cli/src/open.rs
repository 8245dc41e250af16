//! Opening what the flags name, and the words about it.

use anyhow::Context;
use voxtral::{Backend, BackendChoice as Choice, Config, Decoding, Error, Isa, ModelRef, Precision, Progress, Voxtral};
use voxtral_cuda::CudaBackend;

use crate::args::{BackendChoice, DecodeChoice, IsaChoice, PrecisionChoice, Setup, name};
use crate::output::{Unmet, say};
use crate::{beside, models, progress, wsl};

/// Tells which model it is, where nobody chose one.
pub(crate) fn tell_of_default(setup: &Setup) {
    if setup.model.is_some() {
        return;
    }
    match models::resolved(None) {
        ModelRef::Digits => {
            say("using the built-in demo model, which knows spoken English digits only; for everything else get the \
                                 real one with `voxtral download`, or name a folder with -d or VOXTRAL_MODEL")
        }
        _ => say(&format!("using {}, which was downloaded; -d names another", models::FULL)),
    }
}

/// Opens what the flags name; `around` may put something around what computes.
pub(crate) fn open(
    setup: &Setup,
    silent: bool,
    around: impl FnOnce(Box<dyn Backend>) -> Box<dyn Backend>,
) -> anyhow::Result<Voxtral> {
    let config = setup.config()?;
    if let ModelRef::Folder(dir) = &config.model
        && let Some(drive) = wsl::windows_drive(dir)
    {
        tracing::warn!(
            "{}: the model is on a Windows drive ({}), which Linux reads slowly: copy the folder to the Linux file system, such \
             as ~/models",
            dir.display(),
            drive.display()
        );
    }
    let model = models::open(&config.model)?;
    let mut line = progress::Progress::new("loading", !silent);
    let opened = config.open_backend(&model, &mut |progress| {
        if let Progress::Loading { done, total } = progress {
            line.show(done, total);
        }
    });
    drop(line);
    let opened = match opened {
        Err(error @ Error::Backend(_)) if config.backend == Choice::Cuda => {
            if let Error::Backend(why) = &error {
                beside::advise(why, &config.model, &model);
            }
            Err(error).context("--backend cuda")
        }
        opened => Ok(opened?),
    }?;
    if let Some(why) = opened.fallback.as_ref().filter(|_| !silent) {
        say(&format!("running on the CPU: {why}"));
        beside::advise(why, &config.model, &model);
    }
    Ok(Voxtral::with_backend(&config, model, around(opened.backend))?)
}

/// Whether the backend that a measurement names is there, to say so before others are measured for minutes.
pub(crate) fn expect(setup: &Setup) -> anyhow::Result<()> {
    if setup.backend == BackendChoice::Cuda {
        CudaBackend::probe(setup.device).context("--backend cuda").context(nothing_to_measure())?;
    }
    Ok(())
}

/// The same as [`open`], for a measurement: it does not hold where the backend that it names is not there.
pub(crate) fn to_measure(
    setup: &Setup,
    around: impl FnOnce(Box<dyn Backend>) -> Box<dyn Backend>,
) -> anyhow::Result<Voxtral> {
    open(setup, false, around).map_err(|error| match error.downcast_ref() {
        Some(Error::Backend(_)) => error.context(nothing_to_measure()),
        _ => error,
    })
}

fn nothing_to_measure() -> Unmet {
    Unmet("nothing to measure".to_owned())
}

impl Setup {
    /// What the flags come to.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        Ok(Config {
            model: models::resolved(self.model.as_ref()),
            backend: self.backend.into(),
            device: self.device,
            precision: match self.precision {
                PrecisionChoice::Auto => Precision::Auto,
                PrecisionChoice::F32 => Precision::F32,
            },
            isa: isa(self.isa)?,
            threads: self.threads.map_or(0, usize::from),
            decoding: match self.decode {
                DecodeChoice::Auto => Decoding::Auto,
                DecodeChoice::Sequential => Decoding::Sequential,
                DecodeChoice::Parallel => Decoding::Parallel { lookahead: usize::from(self.lookahead) },
            },
            delay: self.delay,
            ..Config::default()
        })
    }
}

impl From<BackendChoice> for Choice {
    fn from(choice: BackendChoice) -> Self {
        match choice {
            BackendChoice::Auto => Self::Auto,
            BackendChoice::Cpu => Self::Cpu,
            BackendChoice::Cuda => Self::Cuda,
        }
    }
}

fn isa(choice: IsaChoice) -> anyhow::Result<Option<Isa>> {
    if choice == IsaChoice::Auto {
        return Ok(None);
    }
    let available = Isa::available();
    let found = available.iter().copied().find(|isa| isa.name() == name(choice));
    let found = found.with_context(|| {
        let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
        format!("--isa {}: this CPU has {}", name(choice), names.join(", "))
    })?;
    Ok(Some(found))
}
