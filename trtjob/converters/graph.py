"""What a model is built into, or wrapped with: an ONNX graph that grows node by node."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from trtjob.converters.spill import SPILLED_BYTES, Spill

_SHARED_BYTES = 4096  # smaller constants that are equal become one


class Graph:
    """Nodes and constants; the names of values say in which layer they are. spill: takes the large constants."""

    def __init__(self, spill: Spill | None = None) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.scope = "input"
        self._spill = spill
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._names: dict[str, int] = {}

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        output = output or self._name(op.lower())
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def top_k(self, scores: str, k: int, axis: int = 1) -> tuple[str, str]:
        """Append a TopK and return the names of the values and of the indices, int64, best first."""
        best = self._name("best"), self._name("indices")
        self.nodes.append(helper.make_node("TopK", [scores, self.integers(k)], best, name=best[1], axis=axis, sorted=1))
        return best

    def constant(self, array: NDArray[Any], name: str = "constant") -> str:
        """Add a constant and return its name."""
        if self._spill is not None and array.nbytes >= SPILLED_BYTES:
            self.constants.append(self._spill.tensor(array, full_name := self._name(name)))
            return full_name
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes <= _SHARED_BYTES else None
        if key is not None and key in self._shared:
            return self._shared[key]
        full_name = self._name(name)
        self.constants.append(numpy_helper.from_array(array, full_name))
        if key is not None:
            self._shared[key] = full_name
        return full_name

    def integers(self, *values: int) -> str:
        """Add a constant, int64 of one axis, and return its name."""
        return self.constant(np.array(values, np.int64), "integers")

    def _name(self, what: str) -> str:
        name = f"{self.scope}/{what}"
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"
