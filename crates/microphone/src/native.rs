//! Recording through the system's own interface: WASAPI on Windows, CoreAudio on macOS.
//!
//! Nobody has run this yet: it is only known to compile.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{ErrorKind, StreamConfig};
use voxtral_audio::Resampler;

use crate::backlog::Backlog;
use crate::clock::Clock;
use crate::device::choose;
use crate::{Device, Error, Microphone};

pub(crate) fn devices() -> Result<Vec<Device>, Error> {
    Ok(inputs()?.into_iter().map(|(device, _)| device).collect())
}

fn inputs() -> Result<Vec<(Device, cpal::Device)>, Error> {
    let host = cpal::default_host();
    let default = host.default_input_device().and_then(|device| device.id().ok());
    let input = |input: cpal::Device| {
        let id = input.id()?;
        let description = input.description()?.name().to_owned();
        let is_default = default.as_ref() == Some(&id);
        Ok((Device { name: id.to_string(), description, is_default, is_monitor: false }, input))
    };
    host.input_devices()?.map(input).collect()
}

pub(crate) fn open(wanted: Option<&str>) -> Result<Microphone, Error> {
    let inputs = inputs()?;
    let devices: Vec<Device> = inputs.iter().map(|(device, _)| device.clone()).collect();
    let device = choose(&devices, wanted)?;
    let input = inputs.iter().find(|(listed, _)| listed == device).map(|(_, input)| input).ok_or(Error::NoDevice)?;

    let config: StreamConfig = input.default_input_config()?.into();
    let channels = usize::from(config.channels).max(1);
    let mut resampler = Resampler::new(config.sample_rate).map_err(|_| Error::Rate(config.sample_rate))?;
    let backlog = Arc::new(Backlog::default());
    let (heard, failed) = (Arc::clone(&backlog), Arc::clone(&backlog));
    let mut clock = None;
    let hear = move |frames: &[f32], _: &cpal::InputCallbackInfo| {
        let mono: Vec<f32> =
            frames.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
        let mut samples = Vec::new();
        resampler.push(&mono, &mut samples);
        let now = Instant::now();
        let lost = clock.get_or_insert_with(|| Clock::new(now)).arrived(samples.len(), now);
        heard.push_after(lost, &samples);
    };
    let name = device.description.clone();
    let fail = move |error: cpal::Error| match error.kind() {
        ErrorKind::DeviceChanged | ErrorKind::Xrun | ErrorKind::RealtimeDenied => {}
        ErrorKind::DeviceNotAvailable => failed.end(Some(Error::DeviceGone { name: name.clone() })),
        _ => failed.end(Some(error.into())),
    };
    let stream = input.build_input_stream(config, hear, fail, None)?;
    stream.play()?;

    let (end, ended) = mpsc::channel();
    let end = Mutex::new(end);
    let end = move || {
        // It may have ended before.
        let _ = end.lock().unwrap_or_else(PoisonError::into_inner).send(());
    };
    Microphone::start(device.clone(), backlog, end, move |_| {
        // Whatever it is told, and also if nobody can tell it any more.
        let _ = ended.recv();
        drop(stream);
    })
}
