"""Which of two packages reaches CUDA's driver: pycuda or cuda-bindings."""

import ctypes
from importlib.util import find_spec

from trtjob.engines.cuda.interface import Driver
from trtjob.errors import EngineError


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
        from trtjob.engines.cuda.pycuda import PycudaDriver

        return PycudaDriver()
    return threaded_driver()


def threaded_driver() -> Driver:
    """Return CUDA's driver by cuda-bindings, for contexts that several threads use. Raises as `driver` does."""
    try:
        from trtjob.engines.cuda.bindings import BindingsDriver
    except ModuleNotFoundError as err:
        # Not by an extra's name: one that brings ONNX Runtime too could bring a second one.
        raise EngineError(
            "CUDA cannot be used: the package 'cuda-bindings' is not installed. "
            "Install it with: pip install 'cuda-bindings>=12.8,<14'"
        ) from err
    return BindingsDriver()
