//! Kernels, and the streams and graphs that order them.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::sys;

use super::{Device, DriverError, Region, Result};

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
    ///
    /// An SM changes how it divides its memory into shared memory and first-level cache only while it is empty, so kernels that are
    /// to overlap should all want the same: as much shared memory as there is.
    pub fn function(self: &Arc<Self>, name: &str, shared: u32) -> Result<Function> {
        let symbol = CString::new(name).unwrap_or_default();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the module lives, the name ends in a zero.
        unsafe { driver!(cuModuleGetFunction(&mut raw, self.raw, symbol.as_ptr()))? };
        use sys::CUfunction_attribute as A;
        let attributes = [
            (A::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared as i32),
            (A::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100), // percent; a wish, not an order
        ];
        for (attribute, value) in attributes {
            // SAFETY: the function belongs to a live module.
            unsafe { driver!(cuFuncSetAttribute(raw, attribute, value))? };
        }
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
    pub(super) raw: sys::CUstream,
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

    /// Queues a recorded graph.
    ///
    /// # Safety
    /// What its launches point to, and what that points to, is live memory, large enough, until the work is done.
    pub unsafe fn replay(&self, graph: &mut Graph) -> Result<()> {
        // SAFETY: graph and stream live; the caller vouches for what the launches use.
        unsafe { driver!(cuGraphLaunch(graph.exec, self.raw)) }
    }

    /// Queues a copy within the device, between regions of one length that do not overlap.
    pub fn copy(&self, to: Region<'_>, from: Region<'_>) -> Result<()> {
        assert_eq!(to.bytes, from.bytes, "a copy of another length");
        assert!(to.address.0.abs_diff(from.address.0) >= to.bytes as u64, "a copy onto itself");
        // SAFETY: both regions are live and apart from each other.
        unsafe { driver!(cuMemcpyDtoDAsync_v2(to.address.0, from.address.0, to.bytes, self.raw)) }
    }

    /// Queues filling a region with zeros.
    pub fn zero(&self, region: Region<'_>) -> Result<()> {
        // SAFETY: the region is live.
        unsafe { driver!(cuMemsetD8Async(region.address.0, 0, region.bytes, self.raw)) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once; the driver finishes what is queued.
        unsafe { sys::cuStreamDestroy_v2(self.raw) };
    }
}
