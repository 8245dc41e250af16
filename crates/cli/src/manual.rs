//! What the program says of itself: `voxtral completions`, `voxtral man`, and its version.

use std::sync::LazyLock;

use anyhow::Context;
use clap::Args;
use clap::error::ErrorKind;
use clap_complete::Shell;
use voxtral::Isa;
use voxtral_cuda::CudaBackend;

use crate::args::{self, usage};
use crate::output::Output;

#[derive(Args)]
#[command(after_help = "\
Examples:
  voxtral completions bash > ~/.local/share/bash-completion/completions/voxtral
  voxtral completions zsh > ~/.zfunc/_voxtral        where ~/.zfunc is in fpath
  voxtral completions fish > ~/.config/fish/completions/voxtral.fish")]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  voxtral man > ~/.local/share/man/man1/voxtral.1
  voxtral man bench | man -l -")]
pub(crate) struct Man {
    /// The command that the page is about [default: the program]
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

/// Version, commit, and what there is to compute with.
pub(crate) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let isas: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let images: Vec<&str> = CudaBackend::images().collect();
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("VOXTRAL_COMMIT"));
    let (isas, images) = (isas.join(", "), images.join(", "));
    format!(
        "{version}\ncommit {commit}\nbackend cpu, kernels for this CPU: {isas}\nbackend cuda, kernels for: {images}"
    )
});

pub(crate) fn completions(args: &Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "voxtral", &mut script);
    write(&script)
}

pub(crate) fn man(args: &Man) -> anyhow::Result<()> {
    let mut command = args::command();
    command.build();
    let about = match &args.command {
        None => command,
        Some(name) => {
            let named = command.find_subcommand(name).map(|named| named.clone().version(env!("CARGO_PKG_VERSION")));
            named.unwrap_or_else(|| usage(ErrorKind::InvalidValue, format!("there is no command {name}")))
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(about).render(&mut page).context("the manual page cannot be written")?;
    write(&page)
}

fn write(text: &[u8]) -> anyhow::Result<()> {
    Output::open(None)?.write(&String::from_utf8_lossy(text))
}
