"""Run a model in ONNX Runtime while it is converted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from trtjob.converters.texts import one_line
from trtjob.engines.onnxruntime.package import onnxruntime
from trtjob.errors import ConversionError

_LOG_ERRORS_ONLY = 4  # ONNX Runtime's severities: 0 verbose .. 4 fatal; what matters is in the exception


class Session:
    """One model, one thread: the numbers do not depend on how many cores there are."""

    def __init__(self, model: ModelProto, what: str) -> None:
        """Load a model. what: how a message names it. Raises ConversionError, MissingDependencyError."""
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS_ONLY
        self._what = what
        try:
            self._session: Any = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as err:
            raise ConversionError(f"ONNX Runtime {ort.__version__} cannot load {what}: {one_line(err)}") from err

    def run(self, name: str, value: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the outputs. Raises ConversionError."""
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, {name: value})
        except Exception as err:
            raise ConversionError(
                f"ONNX Runtime cannot run {self._what} on an input of {list(value.shape)}: {one_line(err)}"
            ) from err
        return outputs


def numpy_type(elem_type: int) -> np.dtype[Any]:
    """Return the NumPy type of a TensorProto's."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
