//! A small safe layer over the CUDA driver, which is loaded when it is first asked for.
//!
//! cudarc panics where the library or a symbol is missing, so [`Device::open`] looks first; every other function needs a [`Device`]
//! and therefore a driver that has all of `SYMBOLS`.

use std::ffi::CStr;
use std::sync::Arc;

use cudarc::driver::sys;

/// Calls a function of the driver and names it where it fails.
macro_rules! driver {
    ($function:ident($($argument:expr),* $(,)?)) => {
        $crate::driver::check(stringify!($function), cudarc::driver::sys::$function($($argument),*))
    };
}

mod memory;
mod work;

pub use memory::{Address, Buffer, Download, Growable, Growth, Region, Upload};
pub use work::{Event, Function, Graph, Module, Stream};

/// Why the driver did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// No NVIDIA driver on this machine.
    #[error("no NVIDIA driver: libcuda (nvcuda.dll) was not found")]
    NoLibrary,
    /// The program is linked statically with musl, and such a program loads no library.
    #[error("a static build, as this one is, cannot load the NVIDIA driver")]
    StaticBuild,
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
    /// Memory ran out, on the device or page-locked.
    #[error("{call}: {} (CUDA error {})", "out of memory", sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32)]
    OutOfMemory {
        /// The driver's function.
        call: &'static str,
        /// Bytes asked for; 0 where the driver asked for memory of its own.
        bytes: u64,
    },
    /// A call failed for any other reason; after most of these the device does nothing more for this program.
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
    /// The same, of a call that asked for so many bytes.
    fn asking(self, asked: usize) -> Self {
        match self {
            Self::OutOfMemory { call, .. } => Self::OutOfMemory { call, bytes: asked as u64 },
            other => other,
        }
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
    "cuCtxSynchronize",
    "cuGetErrorString",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetAllocationGranularity",
    "cuMemAddressReserve",
    "cuMemAddressFree",
    "cuMemCreate",
    "cuMemRelease",
    "cuMemMap",
    "cuMemSetAccess",
    "cuMemUnmap",
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
    if status == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Err(DriverError::OutOfMemory { call, bytes: 0 });
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

/// Loads the driver's library.
///
/// # Errors
/// [`DriverError::NoLibrary`], or [`DriverError::StaticBuild`].
pub fn load() -> Result<()> {
    // There `dlopen` refuses every library, whether it is there or not.
    if cfg!(all(target_env = "musl", target_feature = "crt-static")) {
        return Err(DriverError::StaticBuild);
    }
    // SAFETY: loading the driver library runs its initialisers, which is what loading it is for.
    if unsafe { sys::is_culib_present() } { Ok(()) } else { Err(DriverError::NoLibrary) }
}

fn probe() -> Result<()> {
    load()?;
    // SAFETY: the library is present, so `culib` does not panic; the symbols are only looked up, not called.
    let missing = |name: &&&str| unsafe { sys::culib().get::<*const ()>(name.as_bytes()).is_err() };
    match SYMBOLS.iter().find(missing) {
        Some(name) => Err(DriverError::MissingSymbol(name)),
        // SAFETY: the symbol was found; zero is the only flag there is.
        None => unsafe { driver!(cuInit(0)) },
    }
}

fn location(device: sys::CUdevice) -> sys::CUmemLocation {
    sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device }
}

/// Plain memory of a device, for this program alone.
fn allocation_properties(device: sys::CUdevice) -> sys::CUmemAllocationProp {
    sys::CUmemAllocationProp {
        type_: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
        location: location(device),
        win32HandleMetaData: std::ptr::null_mut(),
        allocFlags: sys::CUmemAllocationProp_st__bindgen_ty_1 {
            compressionType: 0,
            gpuDirectRDMACapable: 0,
            usage: 0,
            reserved: [0; 4],
        },
    }
}

/// In units of how many bytes every GPU so far maps memory.
pub const TYPICAL_GRANULARITY: usize = 2 << 20;

/// A GPU and its primary context.
#[derive(Debug)]
pub struct Device {
    context: sys::CUcontext,
    raw: sys::CUdevice,
    /// The device's own name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub sms: u32,
    /// The CUDA version of the driver, such as 12.8.
    pub cuda_version: String,
    /// In units of how many bytes physical memory is mapped to addresses, if the device can do that.
    granularity: Option<usize>,
}

// SAFETY: a context may be current in any number of threads, and the driver's functions are thread-safe.
unsafe impl Send for Device {}
// SAFETY: as above; nothing in it changes after `open`.
unsafe impl Sync for Device {}

impl Device {
    /// The device with that ordinal; its context becomes this thread's.
    pub fn open(ordinal: usize) -> Result<Arc<Self>> {
        probe()?;
        let (mut raw, mut context, mut count, mut version, mut granularity) = (0, std::ptr::null_mut(), 0, 0, 0);
        let mut name = [0; 256];
        let mut attributes = [0; 4];
        use sys::CUdevice_attribute as A;
        let wanted = [
            A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            A::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
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
            if attributes[3] != 0 {
                let least = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
                driver!(cuMemGetAllocationGranularity(&mut granularity, &allocation_properties(raw), least))?;
            }
            driver!(cuDevicePrimaryCtxRetain(&mut context, raw))?;
        }
        let name: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        let [major, minor, sms, _] = attributes.map(|v: i32| v as u32);
        let device = Self {
            context,
            raw,
            name: String::from_utf8_lossy(&name).into_owned(),
            capability: (major, minor),
            sms,
            // The driver says 12080.
            cuda_version: format!("{}.{}", version / 1000, version % 1000 / 10),
            granularity: (granularity > 0).then_some(granularity),
        };
        device.bind()?;
        Ok(Arc::new(device))
    }

    /// Makes the context this thread's. Whoever may have come to another thread calls it first.
    pub fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { driver!(cuCtxSetCurrent(self.context)) }
    }

    /// Whether it can map physical memory to addresses.
    pub fn maps_memory(&self) -> bool {
        self.granularity.is_some()
    }

    /// `bytes` rounded up to the units of [`Growable`].
    pub fn whole_granules(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(self.granularity())
    }

    /// The units of [`Growable`], bytes.
    pub fn granularity(&self) -> usize {
        self.granularity.unwrap_or(TYPICAL_GRANULARITY)
    }

    fn allocation_properties(&self) -> sys::CUmemAllocationProp {
        allocation_properties(self.raw)
    }

    /// That this device may read and write.
    fn access(&self) -> sys::CUmemAccessDesc {
        let flags = sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        sys::CUmemAccessDesc { location: location(self.raw), flags }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_ran_out_is_an_error_of_its_own() {
        let error = check("cuMemCreate", sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY).unwrap_err();
        assert_eq!(error, DriverError::OutOfMemory { call: "cuMemCreate", bytes: 0 });
        assert_eq!(error.to_string(), "cuMemCreate: out of memory (CUDA error 2)");
        assert_eq!(error.asking(7), DriverError::OutOfMemory { call: "cuMemCreate", bytes: 7 });
    }

    /// A symbol that is called but not looked for would end the program where it is missing.
    #[test]
    fn every_function_that_is_called_is_looked_for() {
        let sources = [include_str!("mod.rs"), include_str!("memory.rs"), include_str!("work.rs")];
        for source in sources.map(|source| source.split("#[cfg(test)]").next().unwrap()) {
            for (at, _) in source.match_indices("driver!(cu").chain(source.match_indices("sys::cu")) {
                let name = source[at..].trim_start_matches("driver!(").trim_start_matches("sys::");
                let name = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
                assert!(SYMBOLS.contains(&name) || name == "culib", "{name}");
            }
        }
    }
}
