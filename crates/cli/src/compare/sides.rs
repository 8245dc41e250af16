//! The transcripts to compare: saved ones, references, or what the program writes now.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::error::ErrorKind;
use voxtral::ModelRef;
use voxtral_transcript::{Report, TokenRecord, Word};

use crate::args::{BackendChoice, Compare, Setup, name, usage};
use crate::input::read_text;
use crate::open;
use crate::recording::{Heard, Recording};

/// Two transcripts of each recording.
pub(super) struct Sides {
    /// What the left side is, and the right.
    pub names: [String; 2],
    /// Each recording's name and transcripts.
    pub pairs: Vec<(String, [Transcript; 2])>,
}

/// What one side made of a recording. A reference has text and nothing else.
#[derive(Default)]
pub(super) struct Transcript {
    pub text: String,
    pub words: Vec<Word>,
    pub tokens: Option<Vec<TokenRecord>>,
}

impl Sides {
    pub(super) fn gather(args: &Compare) -> anyhow::Result<Self> {
        if let Some(refs) = &args.sides.refs {
            Self::with_references(refs, &args.setup)
        } else if let Some(setups) = setups(args) {
            Self::with_each_other(setups, &Recording::all(&args.files)?)
        } else if let [left, right] = &args.files[..] {
            Self::saved([left, right])
        } else {
            usage(
                ErrorKind::MissingRequiredArgument,
                "what is to be compared? Name two JSON files, or one of --backends, --decodes, --isas, --precisions, --models, \
                 --refs",
            )
        }
    }

    fn with_references(refs: &Path, setup: &Setup) -> anyhow::Result<Self> {
        let shown = refs.display();
        let text = read_text(refs)?;
        let folder = refs.parent().unwrap_or(Path::new(""));
        let (mut recordings, mut said) = (Vec::new(), Vec::new());
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let at = || format!("{shown}, line {number}");
            let parts = line.split_once('\t').filter(|(audio, _)| !audio.trim().is_empty());
            let (audio, words) =
                parts.context("expected a recording, a tab and what is said in it").with_context(at)?;
            recordings.push(Recording::open(&folder.join(audio)).with_context(at)?);
            said.push(Transcript { text: words.trim().to_owned(), ..Transcript::default() });
        }
        if recordings.is_empty() {
            anyhow::bail!("there is nothing to compare in {shown}");
        }
        let (device, heard) = transcribe(setup, &recordings)?;
        Ok(Self::of([shown.to_string(), device], recordings.into_iter().map(|r| r.name).collect(), [said, heard]))
    }

    fn with_each_other(setups: [(String, Setup); 2], recordings: &[Recording]) -> anyhow::Result<Self> {
        setups.iter().try_for_each(|(_, setup)| open::expect(setup))?;
        let side = |(name, setup): &(String, Setup)| {
            let (device, heard) = transcribe(setup, recordings)?;
            anyhow::Ok((format!("{name}: {device}"), heard))
        };
        let ((left, of_left), (right, of_right)) = (side(&setups[0])?, side(&setups[1])?);
        let audio = recordings.iter().map(|recording| recording.name.clone()).collect();
        Ok(Self::of([left, right], audio, [of_left, of_right]))
    }

    fn saved(paths: [&PathBuf; 2]) -> anyhow::Result<Self> {
        let names = paths.map(|path| path.display().to_string());
        let read = |path: &PathBuf| {
            let shown = path.display();
            Report::read_all(&read_text(path)?)
                .with_context(|| format!("{shown} is not what voxtral --format json writes"))
        };
        let (left, right) = (read(paths[0])?, read(paths[1])?);
        if left.is_empty() && right.is_empty() {
            anyhow::bail!("there is nothing to compare in {}", names[0]);
        }
        if left.len() != right.len() {
            anyhow::bail!(
                "the numbers of transcripts differ: {} in {}, {} in {}",
                left.len(),
                names[0],
                right.len(),
                names[1]
            );
        }
        let audio = left.iter().zip(&right).map(|(left, right)| {
            let (left, right) = (&left.audio.path, &right.audio.path);
            if left == right { left.clone() } else { format!("{left}, {right}") }
        });
        let audio = audio.collect();
        let of = |report: Report| Transcript { text: report.text, words: report.words, tokens: report.tokens };
        Ok(Self::of(names, audio, [left, right].map(|side| side.into_iter().map(of).collect())))
    }

    fn of(names: [String; 2], audio: Vec<String>, [left, right]: [Vec<Transcript>; 2]) -> Self {
        let pairs = audio.into_iter().zip(left.into_iter().zip(right).map(|(left, right)| [left, right])).collect();
        Self { names, pairs }
    }
}

/// The two setups that a flag names, and what tells them apart.
fn setups(args: &Compare) -> Option<[(String, Setup); 2]> {
    let sides = &args.sides;
    let base = || args.setup.clone();
    let backends = two("--backends", &sides.backends, |&backend| (name(backend), Setup { backend, ..base() }));
    let decodes = || two("--decodes", &sides.decodes, |&decode| (name(decode), Setup { decode, ..base() }));
    // What is told apart is the CPU's, so that is what computes, unless something else was asked for.
    let on_cpu = || match args.setup.backend {
        BackendChoice::Auto => Setup { backend: BackendChoice::Cpu, ..base() },
        BackendChoice::Cpu | BackendChoice::Cuda => base(),
    };
    let isas = || two("--isas", &sides.isas, |&isa| (name(isa), Setup { isa, ..on_cpu() }));
    let precisions =
        || two("--precisions", &sides.precisions, |&precision| (name(precision), Setup { precision, ..on_cpu() }));
    let models = || {
        let of = |model: &ModelRef| (model.to_string(), Setup { model: Some(model.clone()), ..base() });
        two("--models", &sides.models, of)
    };
    backends.or_else(decodes).or_else(isas).or_else(precisions).or_else(models)
}

/// A flag that takes two values, if it was given.
fn two<T>(flag: &str, values: &[T], of: impl Fn(&T) -> (String, Setup)) -> Option<[(String, Setup); 2]> {
    match values {
        [] => None,
        [left, right] => Some([of(left), of(right)]),
        _ => usage(ErrorKind::WrongNumberOfValues, format!("{flag} takes two, as in {flag} A,B; got {}", values.len())),
    }
}

/// Transcribes all recordings, one after the other; also tells on what.
fn transcribe(setup: &Setup, recordings: &[Recording]) -> anyhow::Result<(String, Vec<Transcript>)> {
    let voxtral = open::to_measure(setup, |backend| backend)?;
    let one = |recording: &Recording| {
        let Heard { summary, tokens, words } = recording.hear(&voxtral, None)?;
        anyhow::Ok(Transcript { text: summary.text, words, tokens: Some(tokens) })
    };
    let transcripts = recordings.iter().map(one).collect::<Result<_, _>>()?;
    let info = voxtral.info();
    Ok((format!("{} on {}, {}", voxtral.model().name, info.backend, info.device), transcripts))
}
