//! `voxtral --list-devices`, and opening a microphone.

use anyhow::Context;
use voxtral::Source;
use voxtral::microphone::{self, Device, Microphone, MicrophoneError};

use crate::output::{Output, escaped, say};

/// What it is called where other inputs have a path.
pub(crate) const NAME: &str = "microphone";

/// Writes a line for each device.
pub(crate) fn list() -> anyhow::Result<()> {
    let devices = microphone::devices()?;
    if devices.is_empty() {
        return Err(MicrophoneError::NoDevice.into());
    }
    let width = devices.iter().map(|device| escaped(&device.name).chars().count()).max().unwrap_or_default();
    let line = |(i, device): (usize, &Device)| {
        let default = if device.is_default { " (default)" } else { "" };
        format!("{:2}  {:width$}  {}{default}\n", i + 1, escaped(&device.name), escaped(&device.description))
    };
    let lines: String = devices.iter().enumerate().map(line).collect();
    Output::open(None)?.write(&lines)
}

/// Starts to record.
pub(crate) fn open(device: Option<&str>) -> anyhow::Result<Microphone> {
    Microphone::open(device).context(NAME)
}

/// What is to be heard, for somebody who wants to speak.
pub(crate) fn announce(source: &Source) {
    if let Some(device) = source.device() {
        say(&format!("listening to {}; Ctrl-C ends it", device.description));
    }
}
