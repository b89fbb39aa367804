"""What pycuda raises becomes ours: pycuda needs a GPU and is built from source, so a module with its names is here."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from trtjob.engines.cuda.interface import Driver
from trtjob.errors import DeviceLostError


class Error(Exception):
    """As pycuda.driver.Error."""


class OutOfMemory(Error):
    """As pycuda.driver.MemoryError."""


class LostContext:
    """Of a GPU that has fallen off the bus."""

    @staticmethod
    def pop() -> None:
        raise Error("cuCtxPopCurrent failed: the device is lost")

    def push(self) -> None: ...

    def detach(self) -> None:
        raise Error("cuDevicePrimaryCtxRelease failed: the device is lost")


class LostDevice:
    def __init__(self, index: int) -> None: ...

    @staticmethod
    def count() -> int:
        raise Error("cuDeviceGetCount failed: the device is lost")

    def retain_primary_context(self) -> LostContext:
        return LostContext()


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Driver:
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
    names: dict[str, Any] = {"Error": Error, "MemoryError": OutOfMemory, "Device": LostDevice, "Context": LostContext}
    vars(driver).update(names | {"init": lambda: None})
    vars(package)["driver"] = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    from trtjob.engines.cuda.pycuda import PycudaDriver

    return PycudaDriver()


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda driver: driver.gpus(), id="gpus"),
        pytest.param(lambda driver: driver.retain(0).pop(), id="pop"),
        pytest.param(lambda driver: driver.retain(0).release(), id="release"),
    ],
)
def test_a_lost_gpu_is_told_by_our_error(lost: Driver, call: Callable[[Driver], object]) -> None:
    """Whoever opens an engine waits for its thread, which lets go of the context under nothing but our errors."""
    with pytest.raises(DeviceLostError, match="the device is lost"):
        call(lost)
