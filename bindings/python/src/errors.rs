//! Errors as Python's exceptions: by their kind, in the library's words.

use std::error::Error as _;
use std::io;

use pyo3::import_exception;
use pyo3::prelude::*;
use voxtral::{BackendError, EngineError, Error};

import_exception!(voxtral_rs._errors, VoxtralError);
import_exception!(voxtral_rs._errors, AudioError);
import_exception!(voxtral_rs._errors, ModelError);
import_exception!(voxtral_rs._errors, DeviceError);
import_exception!(voxtral_rs._errors, OutOfMemory);

/// The exception of an error, about `input` if that has a name. Where the system refused something, its `OSError` is the cause.
pub(crate) fn exception(py: Python<'_>, error: &Error, input: Option<&str>) -> PyErr {
    let mut message = input.map_or_else(String::new, |input| format!("{input}: "));
    message += &error.to_string();
    let mut os_error = None;
    let mut cause = error.source();
    // A transparent error is its own cause.
    if let Error::Audio(voxtral::AudioError::Io(error)) = error {
        os_error = error.raw_os_error();
    }
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        os_error = os_error.or_else(|| error.downcast_ref::<io::Error>()?.raw_os_error());
        cause = error.source();
    }
    let exception = of_kind(error, message);
    if let Some(code) = os_error {
        exception.set_cause(py, Some(io::Error::from_raw_os_error(code).into()));
    }
    exception
}

fn of_kind(error: &Error, message: String) -> PyErr {
    match error {
        Error::Model(_) | Error::Engine(EngineError::FrontEnd(_)) => ModelError::new_err(message),
        Error::Audio(_) | Error::BrokeOff => AudioError::new_err(message),
        Error::Backend(error) => of_backend(error, message),
        Error::Engine(EngineError::Backend(error)) => of_backend(error, message),
        Error::Engine(EngineError::NotFinite { .. }) | Error::CpuOnly(_) => DeviceError::new_err(message),
        _ => VoxtralError::new_err(message),
    }
}

fn of_backend(error: &BackendError, message: String) -> PyErr {
    match error {
        BackendError::OutOfMemory { .. } => OutOfMemory::new_err(message),
        BackendError::Device { .. } | BackendError::Unsupported(_) => DeviceError::new_err(message),
        BackendError::Contract(_) => VoxtralError::new_err(message),
    }
}

/// The exception of using what was closed.
pub(crate) fn closed(what: &str) -> PyErr {
    VoxtralError::new_err(format!("the {what} is closed"))
}
