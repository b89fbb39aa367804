"""Which of two packages reaches CUDA's driver: pycuda or cuda-bindings."""

import ctypes
import os
from importlib.util import find_spec

from trtjob.engines.cuda.interface import Driver
from trtjob.errors import EngineError

# CUDA's own variable, read when a context is made: how many queues of work the GPU has for it. By default they are 8,
# and streams that share one wait for each other: beside an engine that did all it could a decoder did 7,200 images/s,
# and with 32 queues, which is the most, 16,500 (an H200).
_QUEUES = ("CUDA_DEVICE_MAX_CONNECTIONS", "32")


def has_driver() -> bool:
    """Tell whether NVIDIA's driver is installed, whatever Python packages are."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def driver() -> Driver:
    """Return CUDA's driver, initialised: by pycuda where someone has built it, else by cuda-bindings.

    For one thread that makes every call; see `threaded_driver`.
    Raises EngineError where neither is installed, or there is no driver or no GPU.
    """
    if find_spec("pycuda") is not None:
        os.environ.setdefault(*_QUEUES)
        from trtjob.engines.cuda.pycuda import PycudaDriver

        return PycudaDriver()
    return threaded_driver()


def threaded_driver() -> Driver:
    """Return CUDA's driver by cuda-bindings, for contexts that several threads use. Raises as `driver` does."""
    os.environ.setdefault(*_QUEUES)
    try:
        from trtjob.engines.cuda.bindings import BindingsDriver
    except ModuleNotFoundError as err:
        # Not by an extra's name: one that brings ONNX Runtime too could bring a second one.
        raise EngineError(
            "CUDA cannot be used: the package 'cuda-bindings' is not installed. "
            "Install it with: pip install 'cuda-bindings>=12.8,<14'"
        ) from err
    return BindingsDriver()
