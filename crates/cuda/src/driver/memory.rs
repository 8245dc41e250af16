//! Memory of the device and of the host, and the copies between them.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys;

use super::{Device, Event, Result, Stream};

/// Device memory.
#[derive(Debug)]
pub struct Buffer {
    pub(super) address: u64,
    pub(super) bytes: usize,
    _device: Arc<Device>,
}

impl Buffer {
    /// `bytes` of device memory, of no particular contents.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        let mut address = 0;
        // SAFETY: `address` is a place for a device pointer; the driver refuses a size of zero.
        unsafe { driver!(cuMemAlloc_v2(&mut address, bytes.max(1)))? };
        Ok(Self { address, bytes, _device: device.clone() })
    }

    /// Where it begins; 256-byte aligned.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn range(&self, at: usize, bytes: usize) -> u64 {
        assert!(at.checked_add(bytes).is_some_and(|end| end <= self.bytes), "{at} + {bytes} bytes of {}", self.bytes);
        self.address + at as u64
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once; the driver waits for work that may still use it.
        unsafe { sys::cuMemFree_v2(self.address) };
    }
}

/// Page-locked host memory.
#[derive(Debug)]
struct Pinned {
    data: *mut u8,
    bytes: usize,
    _device: Arc<Device>,
}

// SAFETY: it owns its memory, like a Vec.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        let mut data: *mut c_void = std::ptr::null_mut();
        // SAFETY: `data` is a place for a pointer; no flags: cached, so that the host may read it.
        unsafe { driver!(cuMemHostAlloc(&mut data, bytes.max(1), 0))? };
        // SAFETY: the driver just handed out that many bytes. Zeroed, so that they are initialised.
        unsafe { std::ptr::write_bytes(data.cast::<u8>(), 0, bytes) };
        Ok(Self { data: data.cast(), bytes, _device: device.clone() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once; its owners wait for copies before they drop it.
        unsafe { sys::cuMemFreeHost(self.data.cast()) };
    }
}

/// Page-locked memory on its way to the device: written by the host only while no copy reads it.
#[derive(Debug)]
pub struct Upload {
    pinned: Pinned,
    sent: Event,
}

impl Upload {
    /// Room for `bytes`.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        Ok(Self { pinned: Pinned::new(device, bytes)?, sent: Event::new(device)? })
    }

    /// The memory, once the last [`Upload::send`] is through.
    pub fn fill(&mut self) -> Result<&mut [u8]> {
        self.sent.wait()?;
        // SAFETY: the memory is initialised and ours alone: the only copy that reads it has finished.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.pinned.data, self.pinned.bytes) })
    }

    /// Queues a copy of the first `bytes` to `to`, from byte `at` on.
    pub fn send(&mut self, stream: &Stream, to: &Buffer, at: usize, bytes: usize) -> Result<()> {
        assert!(bytes <= self.pinned.bytes);
        // SAFETY: both ranges lie inside their allocations; the host does not write before `sent` has passed.
        unsafe { driver!(cuMemcpyHtoDAsync_v2(to.range(at, bytes), self.pinned.data.cast(), bytes, stream.raw))? };
        self.sent.record(stream)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // An error here has been or will be reported by the call that matters.
        let _ = self.sent.wait();
    }
}

/// Page-locked memory for what comes back.
#[derive(Debug)]
pub struct Download {
    pinned: Pinned,
}

impl Download {
    /// Room for `bytes`.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        Ok(Self { pinned: Pinned::new(device, bytes)? })
    }

    /// Waits for all queued work and returns `bytes` of `from`, from byte `at` on.
    pub fn fetch(&mut self, stream: &Stream, from: &Buffer, at: usize, bytes: usize) -> Result<&[u8]> {
        assert!(bytes <= self.pinned.bytes);
        // SAFETY: both ranges lie inside their allocations; `&mut self` keeps the host away until the copy is through.
        unsafe { driver!(cuMemcpyDtoHAsync_v2(self.pinned.data.cast(), from.range(at, bytes), bytes, stream.raw))? };
        stream.wait()?;
        // SAFETY: initialised, and no copy writes it any more.
        Ok(unsafe { std::slice::from_raw_parts(self.pinned.data, bytes) })
    }
}
