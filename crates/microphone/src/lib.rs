//! Live audio from a microphone: 16 kHz, mono, f32.
//!
//! ```no_run
//! use voxtral_microphone::{Heard, Microphone};
//!
//! for heard in Microphone::open(None)? {
//!     match heard? {
//!         Heard::Samples(samples) => println!("{} samples", samples.len()),
//!         Heard::Gap(samples) => println!("{samples} samples were lost"),
//!     }
//! }
//! # Ok::<_, voxtral_microphone::Error>(())
//! ```
//!
//! On Linux this speaks the protocol of PulseAudio, which PipeWire and WSLg speak too, so nothing needs to be installed or linked. The
//! server is found as all programs find it: `PULSE_SERVER`, `PULSE_COOKIE` and the usual places. It also mixes and resamples. On Windows
//! and macOS the system's own interface is used.
//!
//! # What happens when …
//!
//! * **the reader is slow**: recording never waits for it. Ten minutes of audio are kept. What comes after that is a [`Heard::Gap`], until
//!   half of it has been taken.
//! * **the program is stopped for a while** (Ctrl-Z), or the device pauses: the server keeps about two minutes of audio. What did not
//!   arrive is a gap, too: the time that passed and the samples that came are compared. So time is kept.
//! * **the device is unplugged, or the server ends**: what was heard before is given out first, then the error, then nothing more.
//! * **it is [stopped](Control::stop)**: what was heard before is given out first, then nothing more.
//! * **it is dropped**: the recording ends, and its thread with it.

#![forbid(unsafe_code)]

mod backlog;
mod clock;
mod device;
mod error;
#[cfg(any(windows, target_vendor = "apple"))]
mod native;
#[cfg(not(any(windows, target_vendor = "apple")))]
mod pulse;
#[cfg(all(test, not(any(windows, target_vendor = "apple"))))]
mod testing;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use backlog::Heard;
pub use device::Device;
pub use error::Error;

use backlog::Backlog;
#[cfg(any(windows, target_vendor = "apple"))]
use native as system;
#[cfg(not(any(windows, target_vendor = "apple")))]
use pulse as system;

/// All devices that can be recorded from, in the order of the system.
///
/// # Errors
/// When there is no sound server, or it does not let us in.
pub fn devices() -> Result<Vec<Device>, Error> {
    system::devices()
}

/// A device that is being recorded from. It gives out what was heard, in order, and waits for more.
pub struct Microphone {
    device: Device,
    control: Control,
    thread: Option<JoinHandle<()>>,
}

impl Microphone {
    /// Starts to record from a device: by its name, its number in [`devices`] counted from 1, or a part of its description; the default
    /// one if none.
    ///
    /// # Errors
    /// When there is no such device, or it cannot be recorded from.
    pub fn open(device: Option<&str>) -> Result<Self, Error> {
        system::open(device)
    }

    /// Starts the thread that fills the backlog: `record` does so until `end` is called.
    fn start(
        device: Device,
        backlog: Arc<Backlog>,
        end: impl Fn() + Send + Sync + 'static,
        record: impl FnOnce(&Backlog) + Send + 'static,
    ) -> Result<Self, Error> {
        let filled = Arc::clone(&backlog);
        let thread = std::thread::Builder::new().name("voxtral-microphone".into()).spawn(move || record(&filled));
        let thread = Some(thread.map_err(Error::Thread)?);
        Ok(Self { device, control: Control { backlog, end: Arc::new(end) }, thread })
    }

    /// What it records from.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Ends it, and tells how it is, from any thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

impl Iterator for Microphone {
    type Item = Result<Heard, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.control.backlog.take()
    }
}

impl Drop for Microphone {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of its has been told, and ended the audio.
            let _ = thread.join();
        }
    }
}

/// A handle of a [`Microphone`] for other threads.
#[derive(Clone)]
pub struct Control {
    backlog: Arc<Backlog>,
    end: Arc<dyn Fn() + Send + Sync>,
}

impl Control {
    /// Ends the recording. What was heard before can still be taken.
    pub fn stop(&self) {
        self.backlog.end(None);
        (self.end)();
    }

    /// How much was heard and waits to be taken.
    pub fn backlog(&self) -> Duration {
        self.backlog.length()
    }
}
