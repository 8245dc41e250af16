//! SIGBUS.

use std::ptr;
use std::sync::OnceLock;

use libc::{c_int, c_void, siginfo_t};

use super::line_for;

/// What was done about SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

pub(super) fn install() {
    // SAFETY: all zeros are a valid sigaction. The handler has the signature that SA_SIGINFO asks for and calls nothing but what
    // may be called in a handler. Both pointers are to values of this function; the call keeps neither.
    let before = unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = on_bus_error as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut ours.sa_mask);
        libc::sigaction(libc::SIGBUS, &ours, &mut before);
        before
    };
    let _ = BEFORE.set(before); // it is installed once
}

extern "C" fn on_bus_error(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: with SA_SIGINFO the system passes a siginfo_t, of SIGBUS, which has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if let Some(line) = line_for(address) {
        // SAFETY: write and _exit may be called in a handler, and the line is as long as it says.
        unsafe {
            libc::write(2, line.as_ptr().cast(), line.len());
            libc::_exit(1);
        }
    }
    // Another's fault. On return the instruction runs again and meets what was there before us.
    // SAFETY: sigaction may be called in a handler; what it reads is a sigaction of the system, or, in the moment before that is
    // kept, all zeros, which is the default action.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, BEFORE.get().unwrap_or(&default), ptr::null_mut());
    }
}
