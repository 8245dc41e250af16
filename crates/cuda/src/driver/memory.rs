//! Memory of the device and of the host, and the copies between them.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cudarc::driver::sys;

use super::{Device, Event, Result, Stream};

/// A place in device memory. A kernel believes what it is given, so launching one with addresses is unsafe.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
pub struct Address(pub(super) u64);

impl Address {
    /// No place: what kernels take for "there is none".
    pub const NONE: Self = Self(0);

    /// Whether it is no place.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Bytes from `base`, which does not lie behind it, to here.
    pub fn offset_from(self, base: Self) -> usize {
        (self.0 - base.0) as usize
    }
}

impl std::ops::Add<usize> for Address {
    type Output = Self;

    fn add(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// A part of live device memory.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    pub(super) address: Address,
    pub(super) bytes: usize,
    _memory: PhantomData<&'a ()>,
}

impl Region<'_> {
    /// Part of `all` bytes of live memory at `base`.
    fn new(base: Address, all: usize, at: usize, bytes: usize) -> Self {
        assert!(at.checked_add(bytes).is_some_and(|end| end <= all), "{at} + {bytes} bytes of {all}");
        Self { address: base + at, bytes, _memory: PhantomData }
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Device memory of one length.
#[derive(Debug)]
pub struct Buffer {
    address: Address,
    bytes: usize,
    _device: Arc<Device>,
}

impl Buffer {
    /// `bytes` of device memory, of no particular contents.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        let mut address = 0;
        // SAFETY: `address` is a place for a device pointer; the driver refuses a size of zero.
        unsafe { driver!(cuMemAlloc_v2(&mut address, bytes.max(1))) }.map_err(|e| e.asking(bytes))?;
        Ok(Self { address: Address(address), bytes, _device: device.clone() })
    }

    /// Where it begins; 256-byte aligned.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `bytes` of it, from byte `at` on.
    pub fn region(&self, at: usize, bytes: usize) -> Region<'_> {
        Region::new(self.address, self.bytes, at, bytes)
    }

    /// All of it.
    pub fn all(&self) -> Region<'_> {
        self.region(0, self.bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once; the driver waits for work that may still use it.
        unsafe { sys::cuMemFree_v2(self.address.0) };
    }
}

/// Device memory that grows where it is: a range of addresses, reserved once, into which physical memory is mapped from its start on.
///
/// Where the device cannot do that it is one allocation of its full length, made when it first grows.
#[derive(Debug)]
pub struct Growable {
    backing: Backing,
    reserved: usize,
    mapped: usize,
    device: Arc<Device>,
}

#[derive(Debug)]
enum Backing {
    /// Where the reserved range begins.
    Range(Address),
    /// One allocation, once there is one.
    Plain(Option<Buffer>),
}

/// Physical memory by which a [`Growable`] may grow. Dropping it gives the memory back.
#[derive(Debug)]
pub struct Growth {
    /// Where it will be mapped.
    at: usize,
    bytes: usize,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Physical(Physical),
    Plain(Buffer),
}

/// A handle to physical memory, which lives as long as the handle or a mapping.
#[derive(Debug)]
struct Physical {
    raw: sys::CUmemGenericAllocationHandle,
    _device: Arc<Device>,
}

impl Drop for Physical {
    fn drop(&mut self) {
        // SAFETY: created in `Growable::allocate` and released once.
        unsafe { sys::cuMemRelease(self.raw) };
    }
}

impl Growable {
    /// Addresses for `bytes`, no memory yet.
    pub fn reserve(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        if !device.maps_memory() {
            return Ok(Self::plain(device, bytes));
        }
        let reserved = device.whole_granules(bytes.max(1));
        let mut address = 0;
        // SAFETY: `address` is a place for a device pointer; zeros leave alignment and place to the driver.
        unsafe { driver!(cuMemAddressReserve(&mut address, reserved, 0, 0, 0))? };
        Ok(Self { backing: Backing::Range(Address(address)), reserved, mapped: 0, device: device.clone() })
    }

    /// One for `bytes` of a device that cannot map memory.
    pub fn plain(device: &Arc<Device>, bytes: usize) -> Self {
        Self { backing: Backing::Plain(None), reserved: bytes.max(1), mapped: 0, device: device.clone() }
    }

    /// Where it begins; [`Address::NONE`] perhaps before it has grown.
    pub fn address(&self) -> Address {
        match &self.backing {
            Backing::Range(address) => *address,
            Backing::Plain(buffer) => buffer.as_ref().map_or(Address::NONE, Buffer::address),
        }
    }

    /// How much memory it has; as much can be used.
    pub fn bytes(&self) -> usize {
        self.mapped
    }

    /// `bytes` of what it has, from byte `at` on.
    pub fn region(&self, at: usize, bytes: usize) -> Region<'_> {
        Region::new(self.address(), self.mapped, at, bytes)
    }

    /// Takes the memory that it lacks to have at least `bytes`, if it lacks any, for [`Growable::add`]; until then nothing changes.
    ///
    /// # Panics
    /// When `bytes` is more than was reserved.
    pub fn allocate(&self, bytes: usize) -> Result<Option<Growth>> {
        assert!(bytes <= self.reserved, "{bytes} bytes of {}", self.reserved);
        if bytes <= self.mapped {
            return Ok(None);
        }
        let (bytes, memory) = match self.backing {
            Backing::Range(_) => {
                let bytes = self.device.whole_granules(bytes) - self.mapped;
                (bytes, Memory::Physical(self.physical(bytes)?))
            }
            Backing::Plain(_) => (self.reserved, Memory::Plain(Buffer::new(&self.device, self.reserved)?)),
        };
        Ok(Some(Growth { at: self.mapped, bytes, memory }))
    }

    fn physical(&self, bytes: usize) -> Result<Physical> {
        let mut raw = 0;
        let properties = self.device.allocation_properties();
        // SAFETY: `raw` is a place for a handle, the properties are a local, and the size is whole granules.
        unsafe { driver!(cuMemCreate(&mut raw, bytes, &properties, 0)) }.map_err(|e| e.asking(bytes))?;
        Ok(Physical { raw, _device: self.device.clone() })
    }

    /// Adds what [`Growable::allocate`] took, filled with zeros by work queued on `stream`. After an error it is as it was.
    ///
    /// # Panics
    /// When it has grown since.
    pub fn add(&mut self, growth: Growth, stream: &Stream) -> Result<()> {
        let Growth { at, bytes, memory } = growth;
        assert_eq!(at, self.mapped, "grown meanwhile");
        match (memory, &mut self.backing) {
            (Memory::Physical(physical), Backing::Range(base)) => {
                let to = *base + at;
                // SAFETY: so many bytes from there on are reserved and not mapped, and the handle has as many.
                unsafe { driver!(cuMemMap(to.0, bytes, 0, physical.raw, 0))? };
                let access = self.device.access();
                // SAFETY: the range was mapped just now.
                let usable = unsafe { driver!(cuMemSetAccess(to.0, bytes, &access, 1)) };
                let zeroed = usable.and_then(|()| stream.zero(Region::new(to, bytes, 0, bytes)));
                if let Err(error) = zeroed {
                    // SAFETY: mapped above, and no work that uses it was queued.
                    unsafe { sys::cuMemUnmap(to.0, bytes) };
                    return Err(error);
                }
            }
            (Memory::Plain(buffer), Backing::Plain(place)) => {
                stream.zero(buffer.all())?;
                *place = Some(buffer);
            }
            _ => unreachable!("memory of another device"),
        }
        self.mapped += bytes;
        Ok(())
    }

    /// Grows to at least `bytes`; the rest as [`Growable::allocate`] and [`Growable::add`].
    pub fn grow(&mut self, bytes: usize, stream: &Stream) -> Result<()> {
        match self.allocate(bytes)? {
            Some(growth) => self.add(growth, stream),
            None => Ok(()),
        }
    }
}

impl Drop for Growable {
    fn drop(&mut self) {
        let Backing::Range(address) = self.backing else { return };
        // SAFETY: the range was reserved in `reserve` and is freed once; what is mapped of it is mapped from its start on. No work uses
        // it any more: the driver is waited for first. Errors have been or will be reported by the call that matters.
        unsafe {
            if self.mapped > 0 {
                sys::cuCtxSynchronize();
                sys::cuMemUnmap(address.0, self.mapped);
            }
            sys::cuMemAddressFree(address.0, self.reserved);
        }
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
    /// Of `bytes`.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        Ok(Self { pinned: Pinned::new(device, bytes)?, sent: Event::new(device)? })
    }

    /// The memory, once the last [`Upload::send`] is through.
    pub fn fill(&mut self) -> Result<&mut [u8]> {
        self.sent.wait()?;
        // SAFETY: the memory is initialised and ours alone: the only copy that reads it has finished.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.pinned.data, self.pinned.bytes) })
    }

    /// Queues a copy of its first bytes to `to`, as many as that has.
    pub fn send(&mut self, stream: &Stream, to: Region<'_>) -> Result<()> {
        assert!(to.bytes <= self.pinned.bytes);
        // SAFETY: both ranges lie inside their allocations; the host does not write before `sent` has passed.
        unsafe { driver!(cuMemcpyHtoDAsync_v2(to.address.0, self.pinned.data.cast(), to.bytes, stream.raw))? };
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
    /// Of `bytes`.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        Ok(Self { pinned: Pinned::new(device, bytes)? })
    }

    /// Waits for all queued work and returns what is in `from`.
    pub fn fetch(&mut self, stream: &Stream, from: Region<'_>) -> Result<&[u8]> {
        assert!(from.bytes <= self.pinned.bytes);
        // SAFETY: both ranges lie inside their allocations; `&mut self` keeps the host away until the copy is through.
        unsafe { driver!(cuMemcpyDtoHAsync_v2(self.pinned.data.cast(), from.address.0, from.bytes, stream.raw))? };
        stream.wait()?;
        // SAFETY: initialised, and no copy writes it any more.
        Ok(unsafe { std::slice::from_raw_parts(self.pinned.data, from.bytes) })
    }
}
