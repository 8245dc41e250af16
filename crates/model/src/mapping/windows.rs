//! The exception of a page that cannot be read.

use std::io::Write;

use windows_sys::Win32::Foundation::{EXCEPTION_ACCESS_VIOLATION, EXCEPTION_IN_PAGE_ERROR};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess};

use super::line_for;

/// What was tried, as such exceptions tell it before the address.
const READ: usize = 0;

pub(super) fn install() {
    // SAFETY: the handler has the signature that the system asks for, and is there as long as the program.
    unsafe { AddVectoredExceptionHandler(1, Some(on_exception)) };
}

unsafe extern "system" fn on_exception(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system passes a record of the exception that is there until this returns.
    let record = unsafe { &*(*exception).ExceptionRecord };
    // What can be read while it is mapped can only fail to be read where it is gone. Wine calls that a violation.
    if let (EXCEPTION_IN_PAGE_ERROR | EXCEPTION_ACCESS_VIOLATION, [READ, address, ..]) =
        (record.ExceptionCode, record.ExceptionInformation)
        && let Some(line) = line_for(address)
    {
        // It was reading weights, so it was not writing, and holds no lock of standard error.
        let _ = std::io::stderr().write_all(line);
        // SAFETY: the handle that stands for this process needs not be closed.
        unsafe { TerminateProcess(GetCurrentProcess(), 1) };
    }
    EXCEPTION_CONTINUE_SEARCH
}
