"""Bare loops over the libraries' own calls, with as little around them as can be: what our engines are measured by.

Their images lie in page-locked memory already, and nobody takes the answers out of it.
"""

import threading
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from trtjob.engines.cuda.device import Device
from trtjob.engines.onnxruntime.package import onnxruntime
from trtjob.engines.spec import INPUT_NAME
from trtjob.engines.tensorrt.flavour import flavour
from trtjob.engines.tensorrt.messages import logger

THREADS = STREAMS = 2
WARM_UP_CALLS = 4

# Runs for so many seconds, and returns images per second.
Loop = Callable[[float], float]


def _session(path: Path, *, tf32: bool) -> Any:
    ort = onnxruntime()
    ort.preload_dlls()
    cuda = ("CUDAExecutionProvider", {"device_id": 0, "use_tf32": int(tf32)})
    return ort.InferenceSession(str(path), providers=[cuda, "CPUExecutionProvider"])


def onnxruntime_loops(path: Path, images: "np.ndarray[Any, Any]", device: Device, *, tf32: bool) -> dict[str, Loop]:
    """Return ONNX Runtime's two ways, each called from two threads: bound memory, and plain arrays."""
    session = _session(path, tf32=tf32)
    bindings = [_bound(session, images, device) for _ in range(THREADS)]

    def plain() -> None:
        session.run(None, {INPUT_NAME: images})

    return {
        "run_with_iobinding": lambda seconds: in_threads(bindings, len(images), seconds),
        "run": lambda seconds: in_threads([plain] * THREADS, len(images), seconds),
    }


def _bound(session: Any, images: "np.ndarray[Any, Any]", device: Device) -> Callable[[], object]:
    binding = session.io_binding()
    with device.current():
        host = device.pinned(images.shape, images.dtype)
        host[:] = images
        outputs = {
            output.name: device.pinned(values.shape, values.dtype)
            for output, values in zip(session.get_outputs(), session.run(None, {INPUT_NAME: host}), strict=True)
        }
    binding.bind_cpu_input(INPUT_NAME, host)
    for name, values in outputs.items():
        binding.bind_output(name, "cpu", 0, values.dtype.type, list(values.shape), values.ctypes.data)

    def call() -> "dict[str, np.ndarray[Any, Any]]":
        session.run_with_iobinding(binding)
        return outputs  # and so they live as long as what is written into them

    return call


def in_threads(calls: list[Callable[[], object]], batch: int, seconds: float) -> float:
    """Return images per second of calls of a batch, each in a thread of its own."""
    for call in calls:
        for _ in range(WARM_UP_CALLS):
            call()
    counts = [0] * len(calls)
    started = time.perf_counter()

    def run(number: int) -> None:
        while time.perf_counter() < started + seconds:
            calls[number]()
            counts[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * batch / (time.perf_counter() - started)


def tensorrt_loop(plan: bytes, images: "np.ndarray[Any, Any]", device: Device) -> Loop:
    """Return TensorRT's way: two streams, each with a context; while one computes, the other copies."""
    with device.current():
        runtime = flavour().trt.Runtime(logger()[0])
        engine = runtime.deserialize_cuda_engine(plan)
        lanes = [_lane(engine, images, device) for _ in range(STREAMS)]

    def loop(seconds: float) -> float:
        with device.current():
            turns = cycle(lanes)
            for _ in range(WARM_UP_CALLS):
                next(turns)()
            calls, started = 0, time.perf_counter()
            while time.perf_counter() < started + seconds:
                next(turns)()
                calls += 1
            device.synchronize()
            elapsed_s = time.perf_counter() - started
        assert runtime is not None  # it must outlive what it has loaded
        return calls * len(images) / elapsed_s

    return loop


def _lane(engine: Any, images: "np.ndarray[Any, Any]", device: Device) -> Callable[[], None]:
    stream, context = device.stream(), engine.create_execution_context()
    stream.mark()
    context.set_input_shape(INPUT_NAME, images.shape)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    outputs = [name for name in names if name != INPUT_NAME]
    hosts = {name: device.pinned(tuple(context.get_tensor_shape(name)), np.float32) for name in outputs}
    hosts[INPUT_NAME] = device.pinned(images.shape, images.dtype)
    hosts[INPUT_NAME][:] = images
    buffers = {name: device.alloc(host.nbytes) for name, host in hosts.items()}
    for name, buffer in buffers.items():
        context.set_tensor_address(name, int(buffer))

    def call() -> None:
        stream.wait()
        stream.copy_in(buffers[INPUT_NAME], hosts[INPUT_NAME])
        context.execute_async_v3(stream.handle)
        for name in outputs:
            stream.copy_out(hosts[name], buffers[name])
        stream.mark()

    return call
