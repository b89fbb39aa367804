"""Run a model in ONNX Runtime while it is converted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from trtjob.converters.texts import one_line
from trtjob.engines.onnxruntime.package import LOG_FATAL_ONLY, onnxruntime
from trtjob.errors import ConversionError

_EXPORT_AGAIN = "Export it again, where that does not help with another opset, such as 17"


class Session:
    """One model, one thread: the numbers do not depend on how many cores there are."""

    def __init__(self, model: ModelProto, what: str, advice: str = _EXPORT_AGAIN) -> None:
        """Load a model. Raises ConversionError, MissingDependencyError.

        what: how a message names it; advice: what to do where it does not run.
        """
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_FATAL_ONLY
        self._what, self._advice = what, advice
        try:
            self._session: Any = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as err:
            raise ConversionError(
                f"ONNX Runtime {ort.__version__} cannot load {what}: {one_line(err)}. {advice}"
            ) from err

    def run(self, name: str, value: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the outputs. Raises ConversionError."""
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, {name: value})
        except Exception as err:
            raise ConversionError(
                f"ONNX Runtime cannot run {self._what} on an input of {list(value.shape)}: {one_line(err)}. "
                f"{self._advice}"
            ) from err
        return outputs


def numpy_type(elem_type: int) -> np.dtype[Any]:
    """Return the NumPy type of a TensorProto's."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
