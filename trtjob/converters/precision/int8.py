"""int8: pairs of QuantizeLinear and DequantizeLinear around what shall compute with 8 bits.

Engines take the pairs away and compute between them in integers. What TensorRT and ONNX Runtime on a CPU both take, and
what is fast on both, is narrow:
- Activations are int8 with zero point 0: TensorRT's parser refuses any other, and uint8.
- Biases stay float32: TensorRT has no DequantizeLinear of int32; ONNX Runtime makes its integers by itself.
- Weights are int8 by output channel, but of 7 bits. A CPU without VNNI adds pairs of products of 8 bits in 16, which
  saturates (vpmaddubsw of AVX2): 2 * 255 * 127 does not fit, 2 * 255 * 64 does.
- The result of each layer has a pair of its own, although TensorRT does not need it: without, ONNX Runtime computes the
  layer in float32.
- The first layer and the last ones stay float32, with what comes before and behind them. Of YOLOv3-tiny the first
  takes a CPU twice as long in int8; the last ones in int8 move boxes by 11 pixels instead of 3, and save 1% of time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtjob.converters.precision.flow import WEIGHTED, Flow
from trtjob.engines.protocol import FloatArray
from trtjob.errors import ConversionError

ACTIVATION_STEPS = 127
WEIGHT_STEPS = 64

# Operators that ONNX Runtime computes with 8 bits, and how many of their inputs are values of the network.
_ALL = 1_000_000
_VALUES_READ = {
    **dict.fromkeys(("Conv", "Gemm", "MatMul"), 1),
    **dict.fromkeys(("LeakyRelu", "Sigmoid", "AveragePool", "GlobalAveragePool"), 1),
    **dict.fromkeys(("Add", "Mul"), 2),
    "Concat": _ALL,
    **dict.fromkeys(("MaxPool", "Resize", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"), 1),
    **dict.fromkeys(("Slice", "Split"), 1),
}
# Those that only move values: what they give has the steps of what they take, so nothing is rounded anew.
_MOVING = frozenset(("MaxPool", "Resize", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split"))
_RISING = frozenset(("Relu", "LeakyRelu"))

# ONNX Runtime turns biases into int32 steps of (activation step * weight step); a channel whose weights are next to
# nothing would have steps too small for its bias. Half of the range is left to the products.
_BIAS_STEPS = 2**30
_LEAST_STEP = float(np.finfo(np.float32).tiny)  # a smaller one may be 0 where it is written, or divided by


@dataclass(frozen=True, slots=True)
class Int8Plan:
    """What becomes int8. The model computes what the original does; `values`: those whose ranges are needed."""

    flow: Flow
    nodes: frozenset[int]
    values: tuple[str, ...]

    @property
    def model(self) -> ModelProto:
        return self.flow.model


def int8_plan(model: ModelProto) -> Int8Plan:
    """Choose what becomes int8. Raises ConversionError where that is nothing."""
    flow = Flow(_pooled_first(model))
    floats = flow.float_values()
    layers = flow.layers()
    inner = {index for index in layers & flow.after(layers) & flow.before(layers) if _is_quantizable(flow, index)}
    nodes = frozenset(
        index
        for index in flow.between(inner)
        if (index in inner or flow.nodes[index].op_type not in WEIGHTED)
        and (read := _values_of(flow, index))
        and all(name in floats and name not in flow.constants for name in read)
    )
    if not nodes:
        raise ConversionError(
            "nothing in this model can become int8: it has no convolution or matrix product between its first one and "
            "its last ones, which stay float32. Use fp32, or fp16 on a GPU"
        )
    values = dict.fromkeys(
        name for index in sorted(nodes) for name in (*_values_of(flow, index), *flow.nodes[index].output)
    )
    return Int8Plan(flow, nodes, tuple(values))


def _values_of(flow: Flow, index: int) -> list[str]:
    """Return the values of the network that a node reads; none where it is of no kind that can be int8."""
    node = flow.nodes[index]
    return list(node.input[: _VALUES_READ.get(node.op_type, 0)])


def _is_quantizable(flow: Flow, index: int) -> bool:
    """Tell whether a layer's weights can be int8: some forms of matrix products are too rare to be worth it."""
    node = flow.nodes[index]
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Gemm":
        return options.get("alpha", 1.0) == 1.0 and options.get("beta", 1.0) == 1.0 and not options.get("transA", 0)
    if node.op_type == "MatMul":
        return len(flow.constants[node.input[1]].dims) == 2
    return node.op_type == "Conv"


def _pooled_first(model: ModelProto) -> ModelProto:
    """Return a model that computes the same, with each pooling before the rising activation that it follows.

    The largest of several values stays the largest. ONNX Runtime pulls a QuantizeLinear in front of a MaxPool, which it
    computes slowly in int8 there; an activation between them keeps the first layer and its pooling float32, and fast.
    """
    flow = Flow(model)
    nodes = list(flow.nodes)
    first = flow.layers() - flow.after(flow.layers())
    for index, node in enumerate(nodes):
        source = flow.makers.get(node.input[0]) if node.op_type == "MaxPool" and len(node.output) == 1 else None
        if source is None or not _follows(flow, index, source, first):
            continue
        activation = nodes[source]
        before, result = activation.input[0], node.output[0]
        pooled = f"{result}/first"
        nodes[source], nodes[index] = NodeProto(), NodeProto()
        nodes[source].CopyFrom(node)
        nodes[index].CopyFrom(activation)
        nodes[source].input[0], nodes[source].output[0] = before, pooled
        nodes[index].input[0], nodes[index].output[0] = pooled, result
    return flow.with_nodes(nodes, [])


def _follows(flow: Flow, pool: int, source: int, first: set[int]) -> bool:
    """Tell whether a pooling follows a first layer's activation, and alone reads it."""
    activation = flow.nodes[source]
    return (
        activation.op_type in _RISING
        and all(attribute.f >= 0 for attribute in activation.attribute if attribute.name == "alpha")
        and flow.makers.get(activation.input[0]) in first
        and flow.readers[activation.output[0]] == [pool]
        and activation.output[0] not in flow.outputs
    )


def quantized(plan: Int8Plan, largest: Mapping[str, float]) -> ModelProto:
    """Return the model in int8; it takes and gives what it did.

    largest: the magnitude at which each of the plan's values may be cut off.
    """
    return _Quantizing(plan, largest).model()


class _Quantizing:
    """Puts a pair of QuantizeLinear and DequantizeLinear behind each of a plan's values, and int8 weights into layers.

    largest: as of `quantized`.
    """

    def __init__(self, plan: Int8Plan, largest: Mapping[str, float]) -> None:
        self._plan, self._flow = plan, plan.flow
        self._steps = {name: _step(value, ACTIVATION_STEPS) for name, value in largest.items()}
        for index in sorted(plan.nodes):
            node = plan.flow.nodes[index]
            if node.op_type in _MOVING:
                self._steps.update(dict.fromkeys(node.output, self._steps[node.input[0]]))
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._zero = self._constant("int8/zero", np.zeros((), np.int8))

    def model(self) -> ModelProto:
        values = set(self._plan.values)
        for name in (value.name for value in self._flow.model.graph.input):
            self._pair(name, values)
        for index, node in enumerate(self._flow.nodes):
            rewired = NodeProto()
            rewired.CopyFrom(node)
            rewired.input[:] = [f"{name}/dequantized" if name in values else name for name in node.input]
            if index in self._plan.nodes and node.op_type in WEIGHTED:
                self._weights(rewired, self._steps[node.input[0]])
            self._nodes.append(rewired)
            for name in node.output:
                self._pair(name, values)
        return self._flow.with_nodes(self._nodes, self._constants)

    def _pair(self, name: str, values: set[str]) -> None:
        if name in values:
            step = self._constant(f"{name}/step", np.array(self._steps[name], np.float32))
            self._node("QuantizeLinear", f"{name}/quantized", name, step, self._zero)
            self._node("DequantizeLinear", f"{name}/dequantized", f"{name}/quantized", step, self._zero)

    def _weights(self, node: NodeProto, activation_step: float) -> None:
        """Have a layer read int8 weights. The steps are each output channel's own."""
        name = node.input[1]
        weights = self._flow.constant(name)
        axis = _output_axis(node)
        has_bias = len(node.input) > 2 and node.input[2] in self._flow.constants
        bias = self._flow.constant(node.input[2]).ravel() if has_bias else np.zeros(1, np.float32)
        least = np.asarray(np.abs(bias) / (_BIAS_STEPS * activation_step), np.float32)
        integers, steps = _quantized_weights(weights, axis, least)
        # Two layers may share weights, but not the steps, on which their biases have a say.
        own = f"{node.output[0]}/weights"
        self._node(
            "DequantizeLinear",
            f"{own}/dequantized",
            self._constant(f"{own}/quantized", integers),
            self._constant(f"{own}/steps", steps),
            self._constant(f"{own}/zeros", np.zeros(len(steps), np.int8)),
            axis=axis,
        )
        node.input[1] = f"{own}/dequantized"

    def _node(self, op: str, output: str, *inputs: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))

    def _constant(self, name: str, array: NDArray[np.float32] | NDArray[np.int8]) -> str:
        self._constants.append(numpy_helper.from_array(array, name))
        return name


def _quantized_weights(
    weights: FloatArray, axis: int, least: FloatArray
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integers and the steps of each channel along an axis, which are no smaller than `least`."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    steps = np.maximum(np.abs(weights).max(others) / WEIGHT_STEPS, least).astype(np.float32)
    steps = np.where(steps > 0, steps, np.float32(1))
    shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
    integers = np.rint(weights / steps.reshape(shape)).clip(-WEIGHT_STEPS, WEIGHT_STEPS).astype(np.int8)
    return integers, steps


def _output_axis(node: NodeProto) -> int:
    """Return the axis of a layer's weights that counts what it gives."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.i for attribute in node.attribute if attribute.name == "transB")
    return 0 if transposed else 1


def _step(largest: float, steps: int) -> float:
    """Return what an integer stands for; 1 where all that was seen is zero, or as good as that."""
    return step if (step := largest / steps) >= _LEAST_STEP else 1.0
