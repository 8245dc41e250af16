"""Compiles a CUDA source with NVRTC: nvrtc.py LIBNVRTC SOURCE INCLUDE_DIR OUT_DIR ARCH..."""
import ctypes
import pathlib
import sys

library, source, include, out, *archs = sys.argv[1:]
nvrtc = ctypes.CDLL(library)
text = pathlib.Path(source).read_bytes()


def check(status):
    if status != 0:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        sys.exit("NVRTC: " + nvrtc.nvrtcGetErrorString(status).decode())


for arch in archs:
    program = ctypes.c_void_p()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"voxtral.cu", 0, None, None))
    options = [f"--gpu-architecture={arch}", "--std=c++17", f"-I{include}"]
    array = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    status = nvrtc.nvrtcCompileProgram(program, len(options), array)
    size = ctypes.c_size_t()
    check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetProgramLog(program, log))
    if log.value.strip():
        print(f"{arch}:\n{log.value.decode()}", file=sys.stderr)
    check(status)
    kind, get_size, get = (
        ("cubin", nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        if arch.startswith("sm_")
        else ("ptx", nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
    )
    check(get_size(program, ctypes.byref(size)))
    image = ctypes.create_string_buffer(size.value)
    check(get(program, image))
    image = image.raw[: size.value].rstrip(b"\0") + b"\n" if kind == "ptx" else image.raw
    (pathlib.Path(out) / f"{arch}.{kind}").write_bytes(image)
    check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
