//! Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use voxtral::Stop;

/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// The first Ctrl-C ends the audio, so that what was heard is printed; the second, or one while no audio is heard, ends the program.
pub(crate) fn stops(stop: &Stop) -> anyhow::Result<()> {
    let stop = stop.clone();
    listen(move || {
        if stop.is_stopped() || stop.stop() == 0 {
            end();
        }
    })
}

/// The first Ctrl-C is noted, so that what is half done can be taken away; the second ends the program.
pub(crate) fn noted() -> anyhow::Result<Arc<AtomicBool>> {
    let noted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&noted);
    listen(move || {
        if seen.swap(true, Ordering::Relaxed) {
            end();
        }
    })?;
    Ok(noted)
}

/// Ends the program as one that Ctrl-C ended.
pub(crate) fn end() -> ! {
    // Without the clean-up of other libraries, which may wait for the very thing that hangs: a driver's waits for its device.
    signal_hook::low_level::exit(INTERRUPTED)
}

fn listen(interrupted: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    ctrlc::set_handler(interrupted).context("cannot listen for Ctrl-C")
}
