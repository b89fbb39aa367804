"""fp16 and bf16: the layers and what lies between them compute with 16 bits; both ends of the graph stay float32.

The float ends are the cast and scaling of the input's bytes, and what makes boxes and scores of the last layers'
values: a box's edge of 1000 pixels has steps of half a pixel in fp16, and of four in bf16.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from trtjob.converters.precision.flow import Flow, has_graph
from trtjob.engines.bf16_opset import BF16_OPSET, as_before_bf16
from trtjob.engines.graph_walk import values_read
from trtjob.errors import ConversionError

# Sums of exponentials and of squares, small differences of large values, and orders: they need the bits.
FLOAT_OPS = frozenset(
    {
        *("Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "CumSum"),
        *("ReduceL2", "ReduceLogSumExp", "ReduceSumSquare", "LpNormalization"),
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
        "Celu",  # whatever it takes, TensorRT's gives float32
        *("TopK", "NonMaxSuppression", "RoiAlign", "Range", "Cast", "QuantizeLinear", "DequantizeLinear"),
        # The type of what these give is in an attribute.
        *("ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli"),
    }
)

FP16_MAX = float(np.finfo(np.float16).max)  # 65504
# Values are seen on a few images only: others may well be twice as large.
FP16_SAFE = FP16_MAX / 2


@dataclass(frozen=True, slots=True)
class _Kind:
    """A type of 16 bits: in ONNX, in its schemas, and in NumPy.

    refused: operators that TensorRT does not build with it, seen with TensorRT-RTX 1.7.
    """

    suffix: str
    onnx: int
    schema: str
    numpy: type
    refused: frozenset[str]


_KINDS = {
    "fp16": _Kind("fp16", TensorProto.FLOAT16, "tensor(float16)", np.float16, frozenset()),
    "bf16": _Kind(
        "bf16",
        TensorProto.BFLOAT16,
        "tensor(bfloat16)",
        ml_dtypes.bfloat16,
        frozenset({"Mish", "HardSwish", "ConvTranspose"}),
    ),
}


def values_to_observe(model: ModelProto) -> list[str]:
    """Return the names of the values that would become 16 bits."""
    flow = Flow(model)
    floats = flow.float_values()
    names = (
        name
        for index in sorted(_lowered_nodes(flow, floats, _KINDS["fp16"]))
        for name in (*flow.nodes[index].input, *flow.nodes[index].output)
    )
    return [name for name in dict.fromkeys(names) if name in floats and name in flow.makers]


def fp16(model: ModelProto, largest: Mapping[str, float]) -> tuple[ModelProto, tuple[str, ...]]:
    """Return the model in fp16, which takes and gives what it did, and notes of what stays float32.

    largest: the largest magnitude that was seen of each of `values_to_observe`. What would overflow stays float32.
    """
    rewriting = _Rewriting(Flow(model), _KINDS["fp16"], largest)
    return rewriting.model(), tuple(rewriting.notes)


def bf16(model: ModelProto) -> ModelProto:
    """Return the model in bf16; it takes and gives what it did. bf16 reaches as far as float32: nothing overflows."""
    return _Rewriting(Flow(_upgraded(model)), _KINDS["bf16"], {}).model()


def rounded_to_bf16(model: ModelProto) -> ModelProto:
    """Return a float32 model that rounds wherever `bf16` would: what runs bf16 gives the same, but for its sums."""
    rounded = _Rewriting(Flow(_upgraded(model)), _KINDS["bf16"], {}, is_emulation=True).model()
    as_before_bf16(rounded)
    return rounded


def _upgraded(model: ModelProto) -> ModelProto:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= BF16_OPSET:
        return model
    try:
        return version_converter.convert_version(model, BF16_OPSET)
    except Exception as err:  # the converter's errors are plain RuntimeErrors of many kinds
        raise ConversionError(
            f"bf16 needs ONNX opset {BF16_OPSET}, and this graph cannot be brought there: {err}. Use fp16"
        ) from err


def _lowered_nodes(flow: Flow, floats: set[str], kind: _Kind) -> set[int]:
    """Return the nodes that can compute in 16 bits."""
    return {
        index
        for index in flow.between(flow.layers())
        if _can_be_lowered(flow.nodes[index], floats, kind, _opset(flow.model, flow.nodes[index].domain))
    }


def _opset(model: ModelProto, domain: str) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain == domain), 0)


def _can_be_lowered(node: NodeProto, floats: set[str], kind: _Kind, opset: int) -> bool:
    if (
        node.op_type in FLOAT_OPS | kind.refused
        or has_graph(node)
        or not onnx.defs.has(node.op_type, opset, node.domain)
    ):
        return False
    types = _types_of(node, opset)
    values = [*node.input, *node.output]
    return any(name in floats for name in node.output) and all(
        kind.schema in allowed or allowed == ["tensor(float)"]
        for name, allowed in zip(values, types, strict=True)
        if name in floats
    )


def _types_of(node: NodeProto, opset: int) -> list[list[str]]:
    """Return which types the operator's schema allows for each input, then each output of a node."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    constraints = {entry.type_param_str: list(entry.allowed_type_strs) for entry in schema.type_constraints}
    lists = ((schema.inputs, len(node.input)), (schema.outputs, len(node.output)))
    # The last parameter may stand for any number of values.
    parameters = [formal[min(index, len(formal) - 1)] for formal, count in lists for index in range(count)]
    return [constraints.get(parameter.type_str, [parameter.type_str]) for parameter in parameters]


class _Rewriting:
    """Gives values a second name, for their 16 bits; the first one stays their name as float32.

    So whatever reads a value as float32 is left as it is, and finds it after a cast back.
    """

    def __init__(self, flow: Flow, kind: _Kind, largest: Mapping[str, float], *, is_emulation: bool = False) -> None:
        self._flow, self._kind, self._is_emulation = flow, kind, is_emulation
        self._floats = flow.float_values()
        self.notes: list[str] = []
        self._lowered = self._without_overflow(_lowered_nodes(flow, self._floats, kind), largest)
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._known: set[str] = set()  # values that have 16 bits by now

    def _without_overflow(self, lowered: set[int], largest: Mapping[str, float]) -> set[int]:
        if self._kind.numpy is not np.float16:
            return lowered
        over = {name: value for name, value in largest.items() if value > FP16_SAFE}
        for name in sorted(self._floats & self._flow.constants.keys()):
            if (array := self._flow.constant(name)).size and (value := float(np.abs(array).max())) > FP16_MAX:
                over[name] = value
        kept = {
            index
            for index in lowered
            if not over.keys().isdisjoint((*self._flow.nodes[index].input, *self._flow.nodes[index].output))
        }
        for index in sorted(kept):
            node = self._flow.nodes[index]
            value = max(over.get(name, 0.0) for name in (*node.input, *node.output))
            self.notes.append(
                f"'{node.output[0]}' stays float32: its values reach {value:.3g}, and fp16 ends at {FP16_MAX:g}."
            )
        return lowered - kept

    def model(self) -> ModelProto:
        if not self._lowered:
            raise ConversionError(f"nothing in this model can be computed in {self._kind.suffix}. Use fp32")
        flow = self._flow
        kept = (node for index, node in enumerate(flow.nodes) if index not in self._lowered)
        needed = {*flow.outputs, *(name for node in kept for name in values_read(node))}
        needed |= {name for index in self._lowered for name in self._read_as_float(flow.nodes[index])}
        for index, node in enumerate(flow.nodes):
            if index in self._lowered:
                self._lower(node, needed)
            else:
                self._nodes.append(node)
        return flow.with_nodes(self._nodes, self._constants)

    def _read_as_float(self, node: NodeProto) -> set[str]:
        """Return which inputs are float32 in any case, as the scales of a Resize are."""
        types = _types_of(node, _opset(self._flow.model, node.domain))
        return {name for name, allowed in zip(node.input, types, strict=False) if allowed == ["tensor(float)"]}

    def _lower(self, node: NodeProto, needed: set[str]) -> None:
        """Append a node that computes in 16 bits, and casts of what others read as float32."""
        fixed = self._read_as_float(node)
        lowered = NodeProto()
        lowered.CopyFrom(node)
        lowered.input[:] = [self._sixteen(x) if x in self._floats and x not in fixed else x for x in node.input]
        results = [name for name in node.output if name in self._floats]
        made = {name: self._name(name) + ("/exact" if self._is_emulation else "") for name in results}
        lowered.output[:] = [made.get(name, name) for name in node.output]
        self._nodes.append(lowered)
        for name in results:
            self._known.add(name)
            if self._is_emulation:
                self._round(made[name], self._name(name))
            if name in needed:
                self._cast(self._name(name), name, TensorProto.FLOAT)

    def _sixteen(self, name: str) -> str:
        """Return the name of a float32 value's 16 bits, which are made where they are not there yet."""
        if name not in self._known:
            self._known.add(name)
            if name in self._flow.constants:
                array: NDArray[Any] = self._flow.constant(name).astype(self._kind.numpy)
                array = array.astype(np.float32) if self._is_emulation else array
                self._constants.append(numpy_helper.from_array(array, self._name(name)))
            elif self._is_emulation:
                self._round(name, self._name(name))
            else:
                self._cast(name, self._name(name), self._kind.onnx)
        return self._name(name)

    def _name(self, name: str) -> str:
        return f"{name}/{self._kind.suffix}"

    def _round(self, source: str, target: str) -> None:
        self._cast(source, f"{target}/rounded", self._kind.onnx)
        self._cast(f"{target}/rounded", target, TensorProto.FLOAT)

    def _cast(self, source: str, target: str, to: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=to))
