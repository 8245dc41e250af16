//! A model at work.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use voxtral::{
    About, BackendChoice, Config, CueFormat, Delay, Error, Json, ModelRef, Notice, Options, Sink, Subtitles,
    TokenRecord, Voxtral,
};

use crate::audio::Recording;
use crate::errors::{closed, exception};
use crate::process::OfProcess;
use crate::stream::Stream;
use crate::wait::{Stop, aside};

/// A model on a device, for any number of transcriptions and streams at a time.
#[pyclass(frozen, module = "voxtral_rs._voxtral")]
pub(crate) struct Model {
    open: OfProcess<Open>,
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    backend: String,
    #[pyo3(get)]
    device: String,
    #[pyo3(get)]
    fallback: Option<String>,
    #[pyo3(get)]
    delay_ms: u32,
}

/// JSON, SRT, WebVTT, notices.
type Heard = (String, String, String, Vec<String>);

#[pymethods]
impl Model {
    #[new]
    fn new(py: Python<'_>, path_or_name: OsString, device: &str, threads: usize) -> PyResult<Self> {
        let start = Instant::now();
        let (backend, device) = choice(device)?;
        let config = Config { model: ModelRef::from(path_or_name), backend, device, threads, ..Config::default() };
        let open = move || Voxtral::open(&config, &mut |_| {});
        let voxtral = aside(py, &voxtral::Stop::new(), open)?.map_err(|error| exception(py, &error, None))?;
        let info = voxtral.info();
        Ok(Self {
            name: voxtral.model().name.clone(),
            backend: info.backend.to_owned(),
            device: info.device,
            fallback: voxtral.fallback().map(ToString::to_string),
            delay_ms: voxtral.delay().ms(),
            open: OfProcess::new(Open::new(voxtral, start.elapsed())),
        })
    }

    #[pyo3(signature = (recording, stop, *, delay_ms, endpoint_ms, tokens, channel))]
    #[expect(clippy::too_many_arguments, reason = "Python names them")]
    fn transcribe(
        &self,
        py: Python<'_>,
        recording: Recording,
        stop: &Stop,
        delay_ms: Option<u32>,
        endpoint_ms: Option<u64>,
        tokens: bool,
        channel: Option<usize>,
    ) -> PyResult<Heard> {
        let open = self.open.get()?.clone();
        let (stop, options) = (stop.0.clone(), options(delay_ms, endpoint_ms)?);
        let name = recording.name();
        let work = {
            let (name, stop) = (name.clone(), stop.clone());
            move || {
                let Some(_entry) = open.enter(&stop) else { return Ok(None) };
                // Where that waits for a pipe, closing the model does not.
                let source = recording.open(channel)?;
                let mut outputs = Outputs::default();
                let path = name.unwrap_or_else(|| "-".to_owned());
                let options = Options { stop: Some(stop.clone()), ..options };
                let heard = open.with(|voxtral| {
                    let about = About { tokens, ..voxtral.about(path, &options, open.take_load()) };
                    outputs.hear(about, &stop, |sink| voxtral.transcribe(source, &options, sink))
                });
                Ok(heard.transpose()?.map(|_| outputs))
            }
        };
        match aside(py, &stop, work)? {
            Ok(Some(outputs)) => Ok(outputs.heard()),
            Ok(None) => Err(closed("model")),
            Err(Error::Sink(_)) if stop.is_stopped() => Err(closed("model")),
            Err(error) => Err(exception(py, &error, name.as_deref())),
        }
    }

    #[pyo3(signature = (sample_rate, *, delay_ms, endpoint_ms))]
    fn stream(
        &self,
        py: Python<'_>,
        sample_rate: u32,
        delay_ms: Option<u32>,
        endpoint_ms: Option<u64>,
    ) -> PyResult<Stream> {
        let (open, options) = (self.open.get()?, options(delay_ms, endpoint_ms)?);
        let session = py.detach(|| open.with(|voxtral| voxtral.session(&options)));
        let session = session.ok_or_else(|| closed("model"))?.map_err(|error| exception(py, &error, None))?;
        Stream::new(py, session, sample_rate)
    }

    /// Bytes that weights and streams take on a GPU.
    #[getter]
    fn device_bytes(&self, py: Python<'_>) -> PyResult<u64> {
        let open = self.open.get()?;
        Ok(py.detach(|| open.with(|voxtral| voxtral.info().device_bytes)).unwrap_or(0))
    }

    fn close(&self, py: Python<'_>) {
        // A fork has nothing to close.
        if let Ok(open) = self.open.get() {
            py.detach(|| open.close());
        }
    }
}

/// What computes, and which GPU.
fn choice(device: &str) -> PyResult<(BackendChoice, usize)> {
    let gpu = device.strip_prefix("cuda:").and_then(|number| number.parse().ok());
    match (device, gpu) {
        ("auto", _) => Ok((BackendChoice::Auto, 0)),
        ("cpu", _) => Ok((BackendChoice::Cpu, 0)),
        ("cuda", _) => Ok((BackendChoice::Cuda, 0)),
        (_, Some(gpu)) => Ok((BackendChoice::Cuda, gpu)),
        _ => {
            Err(PyValueError::new_err(format!("device {device:?}: expected \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"")))
        }
    }
}

fn options(delay_ms: Option<u32>, endpoint_ms: Option<u64>) -> PyResult<Options> {
    let delay = delay_ms.map(Delay::from_ms).transpose().map_err(|error| PyValueError::new_err(error.to_string()))?;
    if endpoint_ms.is_some_and(|ms| !(200..=60_000).contains(&ms)) {
        return Err(PyValueError::new_err("endpoint_ms is from 200 to 60000"));
    }
    Ok(Options { delay, endpoint: endpoint_ms.map(Duration::from_millis), ..Options::default() })
}

/// A model until it is closed.
struct Open {
    /// Those who transcribe read; who closes it writes, and so waits for them.
    voxtral: RwLock<Option<Voxtral>>,
    running: Mutex<Running>,
    /// What opening took, for the first transcript.
    load: Mutex<Duration>,
}

#[derive(Default)]
struct Running {
    closed: bool,
    begun: u64,
    stops: BTreeMap<u64, voxtral::Stop>,
}

impl Open {
    fn new(voxtral: Voxtral, load: Duration) -> Self {
        Self { voxtral: RwLock::new(Some(voxtral)), running: Mutex::default(), load: Mutex::new(load) }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, closing stops `stop`, as long as the entry lives. `None` where it is closed.
    fn enter(&self, stop: &voxtral::Stop) -> Option<Entry<'_>> {
        let mut running = self.running();
        if running.closed {
            return None;
        }
        running.begun += 1;
        let number = running.begun;
        running.stops.insert(number, stop.clone());
        Some(Entry { open: self, number })
    }

    /// Works with it; closing waits for that. `None` where it is closed.
    fn with<T>(&self, work: impl FnOnce(&Voxtral) -> T) -> Option<T> {
        self.voxtral.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(work)
    }

    fn take_load(&self) -> Duration {
        std::mem::take(&mut *self.load.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops what is running, waits for it, and frees the device's memory.
    fn close(&self) {
        let mut running = self.running();
        running.closed = true;
        for stop in running.stops.values() {
            stop.stop();
        }
        drop(running);
        drop(self.voxtral.write().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A transcription that closing stops.
struct Entry<'a> {
    open: &'a Open,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.open.running().stops.remove(&self.number);
    }
}

/// A transcript in all forms that Python may ask for.
#[derive(Default)]
struct Outputs {
    json: Vec<u8>,
    srt: Vec<u8>,
    vtt: Vec<u8>,
    notices: Vec<String>,
}

impl Outputs {
    /// Takes what is told to a sink, until it is stopped.
    fn hear<T>(&mut self, about: About, stop: &voxtral::Stop, tell: impl FnOnce(&mut dyn Sink) -> T) -> T {
        let mut notices = Notices { stop: stop.clone(), all: &mut self.notices };
        let mut json = Json::new(&mut self.json, about);
        let mut srt = Subtitles::new(&mut self.srt, CueFormat::Srt, false);
        let mut vtt = Subtitles::new(&mut self.vtt, CueFormat::Vtt, false);
        let mut all: Vec<&mut dyn Sink> = vec![&mut notices, &mut json, &mut srt, &mut vtt];
        tell(&mut all)
    }

    fn heard(self) -> Heard {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (text(self.json), text(self.srt), text(self.vtt), self.notices)
    }
}

/// Keeps notices, and ends a transcription that was stopped.
struct Notices<'a> {
    stop: voxtral::Stop,
    all: &'a mut Vec<String>,
}

impl Sink for Notices<'_> {
    fn token(&mut self, _: &TokenRecord) -> io::Result<()> {
        if self.stop.is_stopped() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        self.all.push(notice.to_string());
        Ok(())
    }
}
