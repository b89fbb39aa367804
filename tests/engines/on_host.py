"""A pytest plugin: the engines for GPUs, on the stand-in for CUDA's driver, whose GPU's memory is the host's.

In place of ONNX Runtime's CUDA provider and of TensorRT its CPU provider computes, in the same memory and of the same
batches. So all that our lanes do with images, buffers and outputs is seen on any machine.
"""

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from trtjob.engines.onnxruntime import cuda, cuda_model
from trtjob.engines.onnxruntime.session import CPU_PROVIDER, open_session
from trtjob.engines.spec import INPUT_NAME
from trtjob.engines.tensorrt import engine, runtime
from trtjob.engines.tensorrt.messages import Messages


class _Session:
    """A session on the CPU that takes itself for one on a GPU."""

    def __init__(self, path: Path, *_: object, is_fused: bool) -> None:
        self._session = open_session(path, [(CPU_PROVIDER, {})])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def io_binding(self) -> "_Binding":
        return _Binding(self._session.io_binding())

    def run_with_iobinding(self, binding: "_Binding") -> None:
        self._session.run_with_iobinding(binding.binding)


class _Binding:
    def __init__(self, binding: Any) -> None:
        self.binding = binding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.binding, name)

    def bind_input(self, name: str, _device: str, gpu: int, *buffer: Any) -> None:
        self.binding.bind_input(name, "cpu", gpu, *buffer)

    def bind_output(self, name: str, _device: str, gpu: int, *buffer: Any) -> None:
        self.binding.bind_output(name, "cpu", gpu, *buffer)


class _Plan:
    """TensorRT's engine, of a plan that is the model itself; its execution contexts are `_Context`."""

    def __init__(self, model: bytes) -> None:
        self.session = onnxruntime.InferenceSession(model, providers=[CPU_PROVIDER])
        self.shapes: dict[str, list[int | str]] = {
            value.name: value.shape for value in (*self.session.get_inputs(), *self.session.get_outputs())
        }

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in self.shapes[name])

    def create_execution_context(self) -> "_Context":
        return _Context(self)


class _Context:
    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._plan.shapes

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return True

    def execute_async_v3(self, _stream: int) -> bool:
        assert self._addresses.keys() == self._plan.shapes.keys()  # TensorRT wants a place for each
        images = _memory(self._addresses[INPUT_NAME], self._shape, np.uint8)
        names = [value.name for value in self._plan.session.get_outputs()]
        for name, values in zip(names, self._plan.session.run(names, {INPUT_NAME: images}), strict=True):
            _memory(self._addresses[name], values.shape, np.float32)[...] = values
        return True


def _memory(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


@pytest.fixture(autouse=True)
def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_on_host(monkeypatch)


def compute_on_host(patch: pytest.MonkeyPatch) -> None:
    """Have both engines compute on the host."""
    patch.setattr(cuda, "check_usable", lambda _gpus=(): "ONNX Runtime on the host")
    patch.setattr(cuda_model, "session_of", _Session)
    trt = SimpleNamespace(Runtime=lambda _logger: SimpleNamespace(deserialize_cuda_engine=_Plan))
    patch.setattr(runtime, "flavour", lambda: SimpleNamespace(title="TensorRT on the host", trt=trt))
    messages = Messages()
    patch.setattr(runtime, "logger", lambda: (None, messages))
    patch.setattr(engine, "plan_of", lambda path, *_: path.read_bytes())
