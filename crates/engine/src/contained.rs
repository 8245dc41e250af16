//! A backend whose panics are errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use voxtral_model::{Backend, BackendError, BackendInfo, DecodeSpan, Delay, EncodeSpan, Prediction, StreamId};

/// Passes every call on. A panic in one becomes an error, and the backend, whose state is then unknown, is not called again.
pub(crate) struct Contained {
    backend: Box<dyn Backend>,
    info: BackendInfo,
    panicked: Option<BackendError>,
}

type Result<T> = std::result::Result<T, BackendError>;

impl Contained {
    pub(crate) fn new(backend: Box<dyn Backend>) -> Self {
        Self { info: backend.info(), backend, panicked: None }
    }

    /// The error of the call that panicked.
    pub(crate) fn panicked(&self) -> Option<&BackendError> {
        self.panicked.as_ref()
    }

    fn call<T>(&mut self, work: impl FnOnce(&mut dyn Backend) -> Result<T>) -> Result<T> {
        if let Some(error) = &self.panicked {
            return Err(error.clone());
        }
        let backend = &mut *self.backend;
        // What a panic leaves behind is not looked at.
        catch_unwind(AssertUnwindSafe(|| work(backend))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
            let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            let what = format!("the backend broke off: {words}");
            Err(self.panicked.insert(BackendError::Device { device: self.info.device.clone(), what }).clone())
        })
    }

    /// As of now, or of the last call before a panic.
    pub(crate) fn info(&mut self) -> BackendInfo {
        if let Ok(info) = self.call(|backend| Ok(backend.info())) {
            self.info = info;
        }
        self.info.clone()
    }

    pub(crate) fn stream_bytes(&mut self, span: usize, tokens: usize) -> Result<u64> {
        self.call(|backend| Ok(backend.stream_bytes(span, tokens)))
    }

    pub(crate) fn free_bytes(&mut self) -> Result<u64> {
        self.call(|backend| backend.free_bytes())
    }

    pub(crate) fn open(&mut self, delay: Delay, span: usize) -> Result<StreamId> {
        self.call(|backend| backend.open(delay, span))
    }

    pub(crate) fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId> {
        self.call(|backend| backend.fork(of, span))
    }

    pub(crate) fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<()> {
        self.call(|backend| backend.grow(stream, tokens))
    }

    pub(crate) fn close(&mut self, stream: StreamId) {
        // Where it fails, the next call says so.
        let _ = self.call(|backend| {
            backend.close(stream);
            Ok(())
        });
    }

    pub(crate) fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<()> {
        self.call(|backend| backend.encode(batch))
    }

    pub(crate) fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<()> {
        self.call(|backend| backend.decode(batch, out))
    }
}
