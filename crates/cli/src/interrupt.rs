//! Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use voxtral::Stop;

use crate::screen;

/// The exit code of a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// The first Ctrl-C ends the audio, so that what was heard is printed; the second, or one while no audio is heard, ends the program.
/// The latter saves with `save` what was heard before.
pub(crate) fn stops(stop: &Stop, save: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let stop = stop.clone();
    listen(move || {
        let second = stop.is_stopped();
        if second || stop.stop() == 0 {
            if !second {
                save();
            }
            end();
        }
    })
}

/// The first Ctrl-C is noted, so that what is half done can be taken away; the second ends the program.
pub(crate) fn noted() -> anyhow::Result<Arc<AtomicBool>> {
    let noted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&noted);
    twice(move || seen.store(true, Ordering::Relaxed))?;
    Ok(noted)
}

/// The first Ctrl-C, or other signal to end, calls `first`; the second ends the program.
pub(crate) fn twice(first: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let mut first = Some(first);
    listen(move || match first.take() {
        Some(first) => first(),
        None => end(),
    })
}

/// Ends the program as one that Ctrl-C ended.
pub(crate) fn end() -> ! {
    screen::leave();
    // Without the clean-up of other libraries, which may wait for the very thing that hangs: a driver's waits for its device.
    signal_hook::low_level::exit(INTERRUPTED.into())
}

fn listen(interrupted: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    voxtral_files::heed_nohup(|| ctrlc::set_handler(interrupted)).context("cannot listen for Ctrl-C")
}

/// Ctrl-C came before a recording had ended.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}
