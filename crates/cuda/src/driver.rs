//! A small safe layer over the CUDA driver, which is loaded when it is first asked for.
//!
//! cudarc panics where the library or a symbol is missing, so [`Device::open`] looks first; every other function needs a [`Device`]
//! and therefore a driver that has all of [`SYMBOLS`].

use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::sys;

/// Why the driver did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// No NVIDIA driver on this machine.
    #[error("no NVIDIA driver: libcuda (nvcuda.dll) was not found")]
    NoLibrary,
    /// The driver lacks a function.
    #[error("the NVIDIA driver is too old: it has no {0} (drivers of CUDA 12.0, 525, and newer do)")]
    MissingSymbol(&'static str),
    /// The ordinal names no device.
    #[error("there is no CUDA device {asked}: the driver shows {found}")]
    NoDevice {
        /// What was asked for.
        asked: usize,
        /// Number of devices.
        found: usize,
    },
    /// A call failed.
    #[error("{call}: {words} (CUDA error {code})")]
    Call {
        /// The driver's function.
        call: &'static str,
        /// The driver's words.
        words: String,
        /// The driver's number.
        code: u32,
    },
}

impl DriverError {
    /// Whether memory ran out.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Call { code, .. } if *code == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32)
    }
}

type Result<T> = std::result::Result<T, DriverError>;

/// Every function of the driver that this module calls.
const SYMBOLS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuGetErrorString",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuEventDestroy_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernelEx",
];

fn check(call: &'static str, status: sys::CUresult) -> Result<()> {
    if status == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut words = std::ptr::null();
    // SAFETY: `words` is a valid place for a pointer; for a status it does not know the driver leaves null there.
    unsafe { sys::cuGetErrorString(status, &mut words) };
    let words = if words.is_null() {
        "unknown error".to_owned()
    } else {
        // SAFETY: the driver's strings are constants that end in a zero.
        unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
    };
    Err(DriverError::Call { call, words, code: status as u32 })
}

/// Calls a function of the driver and names it where it fails.
macro_rules! driver {
    ($function:ident($($argument:expr),* $(,)?)) => {
        check(stringify!($function), sys::$function($($argument),*))
    };
}

fn probe() -> Result<()> {
    // SAFETY: loading the driver library runs its initialisers, which is what loading it is for.
    if !unsafe { sys::is_culib_present() } {
        return Err(DriverError::NoLibrary);
    }
    // SAFETY: the library is present, so `culib` does not panic; the symbols are only looked up, not called.
    let missing = |name: &&&str| unsafe { sys::culib().get::<*const ()>(name.as_bytes()).is_err() };
    match SYMBOLS.iter().find(missing) {
        Some(name) => Err(DriverError::MissingSymbol(name)),
        // SAFETY: the symbol was found; zero is the only flag there is.
        None => unsafe { driver!(cuInit(0)) },
    }
}

/// A GPU and its primary context.
#[derive(Debug)]
pub struct Device {
    context: sys::CUcontext,
    raw: sys::CUdevice,
    /// The device's own name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub processors: u32,
    /// Shared memory that a block can ask for, bytes.
    pub shared_per_block: u32,
    /// CUDA version of the driver: 12080 is 12.8.
    pub driver_version: u32,
}

// SAFETY: a context may be current in any number of threads, and the driver's functions are thread-safe.
unsafe impl Send for Device {}
// SAFETY: as above; nothing in it changes after `open`.
unsafe impl Sync for Device {}

impl Device {
    /// The device with that ordinal; its context becomes this thread's.
    pub fn open(ordinal: usize) -> Result<Arc<Self>> {
        probe()?;
        let (mut raw, mut context, mut count, mut version) = (0, std::ptr::null_mut(), 0, 0);
        let mut name = [0; 256];
        let mut attributes = [0; 4];
        use sys::CUdevice_attribute as A;
        let wanted = [
            A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        ];
        // SAFETY: `probe` found every symbol and initialised the driver; all pointers are to locals of the right type and length.
        unsafe {
            driver!(cuDeviceGetCount(&mut count))?;
            if ordinal >= count as usize {
                return Err(DriverError::NoDevice { asked: ordinal, found: count as usize });
            }
            driver!(cuDriverGetVersion(&mut version))?;
            driver!(cuDeviceGet(&mut raw, ordinal as i32))?;
            driver!(cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, raw))?;
            for (value, attribute) in attributes.iter_mut().zip(wanted) {
                driver!(cuDeviceGetAttribute(value, attribute, raw))?;
            }
            driver!(cuDevicePrimaryCtxRetain(&mut context, raw))?;
        }
        let name: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        let [major, minor, processors, shared_per_block] = attributes.map(|v: i32| v as u32);
        let device = Self {
            context,
            raw,
            name: String::from_utf8_lossy(&name).into_owned(),
            capability: (major, minor),
            processors,
            shared_per_block,
            driver_version: version as u32,
        };
        device.bind()?;
        Ok(Arc::new(device))
    }

    /// Makes the context this thread's. Whoever may have come to another thread calls it first.
    pub fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { driver!(cuCtxSetCurrent(self.context)) }
    }

    /// Free and total bytes of device memory.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both are places for a usize.
        unsafe { driver!(cuMemGetInfo_v2(&mut free, &mut total))? };
        Ok((free as u64, total as u64))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained in `open`; everything made in the context holds the device, so it is gone by now.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.raw) };
    }
}

/// Device memory.
#[derive(Debug)]
pub struct Buffer {
    address: u64,
    bytes: usize,
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

    fn range(&self, at: usize, bytes: usize) -> u64 {
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

/// A point in a stream's work.
#[derive(Debug)]
pub struct Event {
    raw: sys::CUevent,
    _device: Arc<Device>,
}

// SAFETY: events may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// An event that counts as passed until it is recorded.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is a place for a handle; flag 0 is the default event.
        unsafe { driver!(cuEventCreate(&mut raw, 0))? };
        Ok(Self { raw, _device: device.clone() })
    }

    /// Puts the event after the work queued so far.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both handles live.
        unsafe { driver!(cuEventRecord(self.raw, stream.raw)) }
    }

    /// Returns when the event has passed.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the handle lives.
        unsafe { driver!(cuEventSynchronize(self.raw)) }
    }

    /// Milliseconds from `earlier` to this one; both have passed.
    pub fn since(&self, earlier: &Self) -> Result<f32> {
        let mut ms = 0.0;
        // SAFETY: both handles live, and `ms` is a place for an f32.
        unsafe { driver!(cuEventElapsedTime(&mut ms, earlier.raw, self.raw))? };
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { sys::cuEventDestroy_v2(self.raw) };
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

/// Compiled kernels on the device.
#[derive(Debug)]
pub struct Module {
    raw: sys::CUmodule,
    _device: Arc<Device>,
}

// SAFETY: modules may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: nothing changes after loading.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin, or PTX, which the driver then compiles.
    pub fn load(device: &Arc<Device>, image: &[u8]) -> Result<Arc<Self>> {
        let mut ended = image.to_vec(); // PTX must end in a zero; a cubin knows its own length
        ended.push(0);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the image is complete and the driver copies what it needs.
        unsafe { driver!(cuModuleLoadData(&mut raw, ended.as_ptr().cast()))? };
        Ok(Arc::new(Self { raw, _device: device.clone() }))
    }

    /// A kernel that will ask for up to `shared` bytes of dynamic shared memory.
    pub fn function(self: &Arc<Self>, name: &str, shared: u32) -> Result<Function> {
        let symbol = CString::new(name).unwrap_or_default();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the module lives, the name ends in a zero.
        unsafe { driver!(cuModuleGetFunction(&mut raw, self.raw, symbol.as_ptr()))? };
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to a live module.
        unsafe { driver!(cuFuncSetAttribute(raw, attribute, shared as i32))? };
        Ok(Function { raw, shared, _module: self.clone() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded in `load`, unloaded once; its functions hold it.
        unsafe { sys::cuModuleUnload(self.raw) };
    }
}

/// A kernel.
#[derive(Debug)]
pub struct Function {
    raw: sys::CUfunction,
    shared: u32,
    _module: Arc<Module>,
}

// SAFETY: functions may be launched from any thread.
unsafe impl Send for Function {}

/// A recorded sequence of launches.
#[derive(Debug)]
pub struct Graph {
    raw: sys::CUgraph,
    exec: sys::CUgraphExec,
    _device: Arc<Device>,
}

// SAFETY: a graph may be launched from any thread, one at a time, which `Stream::replay` by `&mut` sees to.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: both were made in `Stream::record` and are destroyed once.
        unsafe {
            sys::cuGraphExecDestroy(self.exec);
            sys::cuGraphDestroy(self.raw);
        }
    }
}

/// Work in order.
#[derive(Debug)]
pub struct Stream {
    raw: sys::CUstream,
    device: Arc<Device>,
}

// SAFETY: streams may be used from any thread.
unsafe impl Send for Stream {}

impl Stream {
    /// A stream of its own, which does not wait for others.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is a place for a handle.
        unsafe { driver!(cuStreamCreate(&mut raw, sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32))? };
        Ok(Self { raw, device: device.clone() })
    }

    /// Returns when all queued work is done; reports what went wrong in it.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives.
        unsafe { driver!(cuStreamSynchronize(self.raw)) }
    }

    /// Queues a launch; `overlap` lets it start before its predecessor has ended (compute capability 9.0, kernels that wait).
    ///
    /// # Safety
    /// `parameters` is what the kernel takes, and its addresses lead to live memory, large enough, until the work is done.
    pub unsafe fn launch<P: Pod>(
        &self,
        function: &Function,
        grid: (u32, u32),
        threads: u32,
        parameters: &P,
        overlap: bool,
    ) -> Result<()> {
        // SAFETY: a C structure of numbers and pointers, for all of which zero is a value.
        let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
        attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attribute.value.programmaticStreamSerializationAllowed = 1;
        let config = sys::CUlaunchConfig {
            gridDimX: grid.0,
            gridDimY: grid.1,
            gridDimZ: 1,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: function.shared,
            hStream: self.raw,
            attrs: &mut attribute,
            numAttrs: overlap.into(),
        };
        let mut arguments = [std::ptr::from_ref(parameters).cast_mut().cast::<c_void>()];
        // SAFETY: the driver copies configuration and parameters before it returns; the caller vouches for the rest.
        unsafe { driver!(cuLaunchKernelEx(&config, function.raw, arguments.as_mut_ptr(), std::ptr::null_mut())) }
    }

    /// Records what `work` queues instead of running it.
    pub fn record<E: From<DriverError>>(
        &self,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives and is not recording yet.
        unsafe { driver!(cuStreamBeginCapture_v2(self.raw, mode))? };
        let worked = work();
        let (mut raw, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: recording was begun above; `raw` is a place for a handle.
        let ended = unsafe { driver!(cuStreamEndCapture(self.raw, &mut raw)) };
        worked?;
        ended?;
        // SAFETY: `raw` is the graph just recorded.
        let instantiated = unsafe { driver!(cuGraphInstantiateWithFlags(&mut exec, raw, 0)) };
        if let Err(error) = instantiated {
            // SAFETY: nothing else holds the graph.
            unsafe { sys::cuGraphDestroy(raw) };
            return Err(error.into());
        }
        Ok(Graph { raw, exec, _device: self.device.clone() })
    }

    /// Queues a recorded graph. What its launches point to must still live.
    pub fn replay(&self, graph: &mut Graph) -> Result<()> {
        // SAFETY: graph and stream live; who recorded the graph keeps what it points to.
        unsafe { driver!(cuGraphLaunch(graph.exec, self.raw)) }
    }

    /// Queues a copy within the device; the ranges do not overlap.
    pub fn copy(&self, to: &Buffer, at: usize, from: &Buffer, from_at: usize, bytes: usize) -> Result<()> {
        // SAFETY: both ranges lie inside their allocations.
        unsafe { driver!(cuMemcpyDtoDAsync_v2(to.range(at, bytes), from.range(from_at, bytes), bytes, self.raw)) }
    }

    /// Queues filling a whole buffer with zeros.
    pub fn zero(&self, buffer: &Buffer) -> Result<()> {
        // SAFETY: the range is the allocation.
        unsafe { driver!(cuMemsetD8Async(buffer.address, 0, buffer.bytes, self.raw)) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once; the driver finishes what is queued.
        unsafe { sys::cuStreamDestroy_v2(self.raw) };
    }
}
