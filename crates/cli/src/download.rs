//! `voxtral download`.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use indicatif::DecimalBytes;
use voxtral::Model;
use voxtral_hub::{Event, Hub};

use crate::models;
use crate::output::{Output, escaped, say};
use crate::progress::Transfer;

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
  SSL_CERT_FILE    certificates to believe, where a proxy opens TLS

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
        let mut hub = Hub::new(&endpoint.to_string_lossy(), token()?.as_deref(), cache)?;
        if let Some(path) = models::set("SSL_CERT_FILE").map(PathBuf::from) {
            let told = || format!("SSL_CERT_FILE={}", path.display());
            hub = hub.with_certificates(&std::fs::read(&path).with_context(told)?).with_context(told)?;
        }
        let mut report = Report::default();
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
    // Editors of Windows put a mark before the first letter.
    let token = token.trim_start_matches('\u{feff}').trim();
    Ok(Some(token.to_owned()).filter(|token| !token.is_empty()))
}

/// A line for each file, and its progress for somebody who watches.
#[derive(Default)]
struct Report {
    transfer: Option<Transfer>,
}

impl Report {
    fn tell(&mut self, event: Event) {
        match (event, &self.transfer) {
            (Event::File { name, size, have }, _) => {
                self.transfer = None;
                let there = match have {
                    0 => String::new(),
                    have if have == size => ", there already".to_owned(),
                    have => format!(", {} of them there already", DecimalBytes(have)),
                };
                say(&format!("{name}: {}{there}", DecimalBytes(size)));
                self.transfer = (have < size).then(|| Transfer::new(&escaped(&name), size, have));
            }
            (Event::Have(have), Some(transfer)) => transfer.show(have),
            (Event::Checking, Some(transfer)) => transfer.checking(),
            (Event::Locked, _) => say("another program downloads this file: waiting for it"),
            (Event::Waiting { why, wait }, _) => {
                say(&format!("{why}; the next try is in {:.1} s", wait.as_secs_f64()));
            }
            _ => {}
        }
    }
}
