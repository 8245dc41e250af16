//! `voxtral download`.

use std::io::{self, IsTerminal};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use voxtral::Model;
use voxtral_hub::{Event, Hub};

use crate::models;
use crate::output::{Output, escaped, say};

const HUGGING_FACE: &str = "https://huggingface.co";

const NOTES: &str = "\
The files go to Hugging Face's own cache, where other programs find them too, and where this one finds what those downloaded. \
An interrupted download goes on where it stopped. The folder is printed on standard output.

Environment, as for Hugging Face's programs:
  HF_HUB_CACHE     the cache [default: $HF_HOME/hub]
  HF_HOME          [default: ~/.cache/huggingface]
  HF_TOKEN         for models with conditions or private ones [default: what `hf auth login` saved]
  HF_ENDPOINT      another hub [default: https://huggingface.co]
  HF_HUB_OFFLINE   1 forbids the network
  HTTPS_PROXY      a proxy

Examples:
  voxtral download
  voxtral talk.mp3                                   the downloaded model is the default from now on
  voxtral download OWNER/NAME && voxtral -d OWNER/NAME talk.mp3";

#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct Download {
    /// The model: its name at Hugging Face, OWNER/NAME; or voxtral-mini for mistralai/Voxtral-Mini-4B-Realtime-2602
    #[arg(value_name = "NAME", default_value = models::SHORT)]
    pub name: String,
}

pub(crate) fn run(args: &Download) -> anyhow::Result<()> {
    let repo = models::repo(&args.name)?;
    let cache = models::cache()?;
    let mut output = Output::open(None)?;
    let folder = if models::is_true("HF_HUB_OFFLINE") {
        models::complete(&cache, &repo)
            .with_context(|| format!("{repo}: not downloaded, and HF_HUB_OFFLINE forbids the network"))?
    } else {
        let endpoint = models::set("HF_ENDPOINT").unwrap_or_else(|| HUGGING_FACE.into());
        let hub = Hub::new(&endpoint.to_string_lossy(), token()?.as_deref(), cache)?;
        let mut report = Report::new();
        hub.download(&repo, &Model::files_among, &mut |event| report.tell(event))?
    };
    output.write(&format!("{}\n", folder.display()))
}

/// Who asks, if anybody said so here or to Hugging Face's own programs.
fn token() -> anyhow::Result<Option<String>> {
    let token = match models::set("HF_TOKEN") {
        Some(token) => token.to_string_lossy().into_owned(),
        None => {
            let path = models::hugging_face()?.join("token");
            match std::fs::read_to_string(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
                read => read.with_context(|| path.display().to_string())?,
            }
        }
    };
    Ok(Some(token.trim().to_owned()).filter(|token| !token.is_empty()))
}

/// A bar for somebody who watches, else a line for each file.
struct Report {
    bar: Option<ProgressBar>,
}

impl Report {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta}";
            bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar }
    }

    fn tell(&mut self, event: Event) {
        match (event, &self.bar) {
            (Event::File { name, size, have }, bar) => {
                let there = match have {
                    0 => String::new(),
                    have if have == size => ", there already".to_owned(),
                    have => format!(", {} of them there already", bytes(have)),
                };
                self.line(&format!("{}: {}{there}", escaped(&name), bytes(size)));
                if let Some(bar) = bar {
                    bar.reset();
                    bar.set_length(size);
                    bar.set_position(have);
                    bar.reset_eta();
                    bar.set_message(escaped(&name).into_owned());
                }
            }
            (Event::Have(have), Some(bar)) => bar.set_position(have),
            (Event::Checking, Some(bar)) => bar.set_message("checking"),
            (Event::Locked, _) => self.line("another program downloads this file: waiting for it"),
            (Event::Waiting { why, wait }, _) => {
                self.line(&format!("{why}; the next try is in {:.1} s", wait.as_secs_f64()));
            }
            _ => {}
        }
    }

    /// Above the bar, where there is one.
    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}
