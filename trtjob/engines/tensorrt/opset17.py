"""How each operator that changed after opset 17 is said in opset 17, or why it cannot be.

The rules are the "Changes" of ONNX's operator pages.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPSET = 17  # of TensorRT 8.6's parser
NEWEST = 25  # of the rules below; what a later opset changes nobody has looked at

# What changed after opset 17 but for the types that an operator takes, or in ways that no node of ours can be written:
# a node of these that opset 17 allows means the same in both.
_SAME = frozenset(
    {
        *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Bernoulli", "Cast", "CastLike", "Constant"),
        *("ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Cosh", "DequantizeLinear", "Det", "Dropout", "Elu"),
        *("Equal", "EyeLike", "Flatten", "GRU", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "HardSigmoid"),
        *("HardSwish", "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN", "LSTM", "Loop"),
        *("LpNormalization", "MaxPool", "MaxRoiPool", "MaxUnpool", "QuantizeLinear", "RNN", "Reshape", "RoiAlign"),
        *("Round", "Scan", "Selu", "Shape", "Sin", "Sinh", "Size", "Softplus", "Softsign", "Squeeze", "Tan"),
        *("ThresholdedRelu", "TopK", "Transpose", "Unsqueeze"),
    }
)


class CannotLowerError(Exception):
    """A node means something that cannot be said in opset 17; the text says which and what."""


@dataclass(slots=True)
class Lowering:
    """A model on its way down. shapes: of its values, as far as they are known; constants: those that are known, by
    name; added: new ones of the graph at hand.
    """

    shapes: dict[str, tuple[int | None, ...]]
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    added: list[TensorProto] = field(default_factory=list)

    @classmethod
    def of(cls, model: ModelProto) -> "Lowering":
        """Begin with a model that is as it was: what is rewritten already has no shapes."""
        needs_shapes = any(node.op_type in _NEED_SHAPES for node in model.graph.node)
        return cls(_shapes_of(model) if needs_shapes else {})

    def constant(self, node: NodeProto, what: str, array: NDArray[Any]) -> str:
        """Add a constant for a node, and return its name."""
        name = f"{node.output[0]}/{what}"
        self.added.append(numpy_helper.from_array(array, name))
        return name


_Rule = Callable[[Lowering, NodeProto], list[NodeProto]]
# Whose axes, or number of parts, is only understood with the shape of what they read.
_NEED_SHAPES = frozenset({"Split", "Pad", "Resize"})


def lower_node(lowering: Lowering, node: NodeProto, opset: int) -> list[NodeProto]:
    """Return the nodes that stand for one of a newer opset. Raises CannotLowerError where there are none."""
    if node.domain not in ("", "ai.onnx") or not _has_changed(node, opset):
        return [node]
    if (rule := _RULES.get(node.op_type)) is not None:
        return rule(lowering, node)
    if node.op_type not in _SAME:
        raise _cannot(node, "opset 17 has no such operator, or another of this name")
    return _same(node)


def _has_changed(node: NodeProto, opset: int) -> bool:
    if not onnx.defs.has(node.op_type, opset, ""):
        return False  # the parser says that it does not know it
    return int(onnx.defs.get_schema(node.op_type, opset, "").since_version) > OPSET


def _cannot(node: NodeProto, why: str) -> CannotLowerError:
    return CannotLowerError(f"node '{node.name or (node.output[0] if node.output else '')}' ({node.op_type}): {why}")


def _same(node: NodeProto) -> list[NodeProto]:
    """Return a node that opset 17 has as it is; one that it would not allow is refused."""
    schema = onnx.defs.get_schema(node.op_type, OPSET, "")
    for attribute in node.attribute:
        if attribute.name not in schema.attributes:
            raise _cannot(node, f"opset 17 has no '{attribute.name}' of it")
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise _cannot(node, f"opset 17 has it with {schema.min_input} to {schema.max_input} inputs")
    return [node]


def _without(node: NodeProto, name: str, *harmless: Any) -> None:
    """Take an attribute away; refuse a value of it other than the harmless ones."""
    value = _attribute(node, name)
    if value is not None and value not in harmless:
        raise _cannot(node, f"{name}={value} is not in opset 17")
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _attribute(node: NodeProto, name: str) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return None


def _constant_input(lowering: Lowering, node: NodeProto, index: int, what: str) -> NDArray[Any] | None:
    """Return a constant that a node reads, None where it reads none there. Refuses one that is computed."""
    if len(node.input) <= index or not node.input[index]:
        return None
    found = lowering.constants.get(node.input[index])
    if found is None:
        raise _cannot(node, f"its {what} are computed in the graph, and opset 17 wants them as numbers")
    return found


# -- rules -------------------------------------------------------------------------------------------------------------


def _mish(_lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """x * tanh(softplus(x))."""
    (x,), (y,) = node.input, node.output
    return [
        helper.make_node("Softplus", [x], [f"{y}/softplus"], name=f"{y}/softplus"),
        helper.make_node("Tanh", [f"{y}/softplus"], [f"{y}/tanh"], name=f"{y}/tanh"),
        helper.make_node("Mul", [x, f"{y}/tanh"], [y], name=node.name or y),
    ]


def _reduction(lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """18: the axes are an input. An empty one means all, unless noop_with_empty_axes says none."""
    axes = _constant_input(lowering, node, 1, "axes")
    is_empty = axes is None or axes.size == 0
    if is_empty and _attribute(node, "noop_with_empty_axes"):
        raise _cannot(node, "a reduction over no axes is not in opset 17")
    _without(node, "noop_with_empty_axes", 0, 1)
    if axes is not None and not is_empty:
        node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes.ravel()]))
    del node.input[1:]
    return _same(node)


def _split(lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """18: num_outputs, of which the last may be smaller; before, equal parts or their sizes."""
    count = _attribute(node, "num_outputs")
    if count is None:
        return _same(node)
    shape = lowering.shapes.get(node.input[0])
    axis = _attribute(node, "axis") or 0
    size = None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]
    if size is None:
        raise _cannot(node, "the size of what it splits is not known, and opset 17 wants that of each part")
    part = -(-size // count)
    sizes = [min(part, size - part * index) for index in range(count)]
    if min(sizes) < 0:
        raise _cannot(node, f"{size} cannot be split into {count} parts")
    _without(node, "num_outputs", count)
    node.input[:] = [node.input[0], lowering.constant(node, "sizes", np.array(sizes, np.int64))]
    return _same(node)


def _pad(lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """18: axes, those that are padded; 19: the mode wrap."""
    if _attribute(node, "mode") == "wrap":
        raise _cannot(node, "mode=wrap is not in opset 17")
    axes = _constant_input(lowering, node, 3, "axes")
    if axes is None:
        del node.input[3:]
        return _same(node)
    rank = _rank(lowering, node)
    given = _constant_input(lowering, node, 1, "pads")
    assert given is not None
    pads = np.zeros((2, rank), np.int64)
    pads[:, _positive(axes, rank)] = given.reshape(2, -1)
    node.input[1] = lowering.constant(node, "pads", pads.ravel())
    del node.input[3:]
    if not node.input[-1]:  # no value was given
        del node.input[-1:]
    return _same(node)


def _resize(lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """18: antialias, axes, keep_aspect_ratio_policy; 19: half_pixel_symmetric."""
    _without(node, "antialias", 0)
    _without(node, "keep_aspect_ratio_policy", "stretch")
    if _attribute(node, "coordinate_transformation_mode") == "half_pixel_symmetric":
        raise _cannot(node, "coordinate_transformation_mode=half_pixel_symmetric is not in opset 17")
    if (axes := _attribute(node, "axes")) is None:
        return _same(node)
    if (
        len(node.input) > 1
        and node.input[1]
        and _attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize"
    ):
        raise _cannot(node, "a region together with axes is not in opset 17")
    scales = np.ones(_rank(lowering, node), np.float32)
    scales[_positive(np.array(axes), len(scales))] = _scales(lowering, node, list(axes))
    _without(node, "axes", axes)
    node.input[:] = [node.input[0], "", lowering.constant(node, "scales", scales)]
    return _same(node)


def _scales(lowering: Lowering, node: NodeProto, axes: list[int]) -> NDArray[np.float32]:
    """Return the scale of each axis; of sizes only whole multiples, whose scale gives the same size whatever rounds."""
    scales = _constant_input(lowering, node, 2, "scales")
    if scales is not None and scales.size:
        return scales.astype(np.float32)
    sizes = _constant_input(lowering, node, 3, "sizes")
    shape = lowering.shapes.get(node.input[0])
    assert sizes is not None
    before = [None if shape is None else shape[axis] for axis in axes]
    if any(old is None or int(new) % old for old, new in zip(before, sizes, strict=True)):
        raise _cannot(node, "sizes of some axes alone are not in opset 17")
    return np.array([int(new) // (old or 1) for old, new in zip(before, sizes, strict=True)], np.float32)


def _average_pool(_lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """19: dilations, and windows that begin beyond the padding are left out with ceil_mode."""
    dilations = _attribute(node, "dilations")
    if dilations is not None:
        _without(node, "dilations", [1] * len(dilations))
    if _attribute(node, "ceil_mode") and _attribute(node, "count_include_pad"):
        raise _cannot(node, "ceil_mode together with count_include_pad had another meaning in opset 17")
    return _same(node)


def _scatter(_lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """18: the reductions max and min."""
    if _attribute(node, "reduction") in ("max", "min"):
        raise _cannot(node, "its reduction is not in opset 17")
    return _same(node)


def _grid_sample(_lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """20: the modes have other names."""
    mode = _attribute(node, "mode") or "linear"
    _without(node, "mode", mode)
    node.attribute.append(helper.make_attribute("mode", {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)))
    return _same(node)


def _cast(_lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """19: saturate, which is about eight-bit floats alone; 24: round_mode, likewise."""
    _without(node, "saturate", 0, 1)
    _without(node, "round_mode", _attribute(node, "round_mode"))
    return _same(node)


def _quantize(_lowering: Lowering, node: NodeProto) -> list[NodeProto]:
    """19: saturate; 21: blocks and an output's type by attribute; 23: a precision."""
    _without(node, "saturate", 0, 1)
    for name in ("block_size", "output_dtype", "precision"):
        _without(node, name, 0)
    return _same(node)


_RULES: dict[str, _Rule] = {
    "Mish": _mish,
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"), _reduction
    ),
    **dict.fromkeys(("ReduceProd", "ReduceSumSquare"), _reduction),
    "Split": _split,
    "Pad": _pad,
    "Resize": _resize,
    "AveragePool": _average_pool,
    **dict.fromkeys(("ScatterElements", "ScatterND"), _scatter),
    "GridSample": _grid_sample,
    **dict.fromkeys(("Cast", "CastLike"), _cast),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantize),
}


def _rank(lowering: Lowering, node: NodeProto) -> int:
    if (shape := lowering.shapes.get(node.input[0])) is None:
        raise _cannot(node, "it names axes, and how many there are is not known")
    return len(shape)


def _positive(axes: NDArray[Any], rank: int) -> list[int]:
    return [int(axis) % rank for axis in axes.ravel()]


def _shapes_of(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
