"""Small ONNX files with the outputs and the metadata of the tools that write large ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import UInt8Array

HW = (16, 24)
CELLS = 6  # of 8 pixels
NAMES = ("cat", "dog", "cow")

Size = int | str
ULTRALYTICS = {
    "description": "Ultralytics model",
    "author": "Ultralytics",
    "task": "detect",
    "stride": "8",
    "imgsz": str(list(HW)),
    "names": str(dict(enumerate(NAMES))),
    "end2end": "False",
    "args": "{'batch': 1, 'nms': None}",
    "channels": "3",
}
YOLOV5 = {"stride": "8", "names": str(dict(enumerate(NAMES)))}
CLASSIFIER = {**ULTRALYTICS, "task": "classify", "stride": "1", "imgsz": "[16, 16]"}


def weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def images(count: int, hw: tuple[int, int] = HW, channels: int = 3) -> UInt8Array:
    return np.random.default_rng(1).integers(0, 256, (count, *hw, channels), np.uint8)


def constant(name: str, values: Any, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def value(name: str, shape: Sequence[Size | None] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """inputs, outputs: names, with spaces between them."""
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def model(
    nodes: list[NodeProto],
    constants: list[TensorProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    *,
    metadata: dict[str, str] | None = None,
    opset: int = 17,
    ir_version: int = 8,
) -> ModelProto:
    document = helper.make_graph(nodes, "foreign", inputs, outputs, constants)
    made = helper.make_model(document, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    helper.set_model_props(made, metadata or {})
    return made


def save(made: ModelProto, path: Path, **options: Any) -> ConversionRequest:
    """Write a model, and return a request to convert it."""
    path.write_bytes(made.SerializeToString())
    return ConversionRequest(model=path, **options)


# -- detectors ---------------------------------------------------------------------------------------------------------


def detector(
    layout: str = "columns",
    *,
    batch: Size = "batch",
    hw: tuple[Size, Size] = HW,
    metadata: dict[str, str] | None = None,
    classes: int = len(NAMES),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    fixed_reshape: bool = False,
    image: str = "images",
    extras: int = 0,
    prototypes: int = 0,
) -> ModelProto:
    """A convolution that looks at one pixel in each cell of 8, and what its values are made into.

    fixed_reshape: the batch stands as 1, a number, in the graph; extras: numbers of each box behind its classes;
    prototypes: of masks, a second output that looks at one pixel in each cell of 4.
    """
    number = {"columns": 4, "objectness": 5, "final": 4}[layout] + classes + extras
    first = 1 if fixed_reshape else 0
    nodes = [
        node("Conv", f"{image} kernel bias", "map", kernel_shape=[1, 1], strides=[8, 8]),
        node("Reshape", "map flat_shape", "flat"),
        node("Split", "flat split", "centre side classes", axis=1),
        node("Sigmoid", "classes", "scores"),  # a name that is ours
        node("Exp", "side", "sides"),
        node("Mul", "centre scale", "centres"),
        node("Concat", "centres sides scores", "output0" if layout == "columns" else "rows", axis=1),
    ]
    if layout != "columns":
        nodes.append(node("Transpose", "rows", "output0" if layout == "objectness" else "turned", perm=[0, 2, 1]))
    if layout == "final":
        nodes += [
            node("Slice", "turned zero four two", "corners"),
            node("Slice", "turned four end two", "each_class"),
            node("ReduceMax", "each_class", "best", axes=[2], keepdims=1),
            node("ArgMax", "each_class", "class_ids", axis=2, keepdims=1),
            node("Cast", "class_ids", "float_ids", to=kind),
            *([node("Slice", "turned end last two", "extras")] if extras else []),
            node("Concat", f"corners best float_ids{' extras' if extras else ''}", "output0", axis=2),
        ]
    if prototypes:
        nodes.append(node("Conv", f"{image} prototype_kernel", "output1", kernel_shape=[1, 1], strides=[4, 4]))
    floats = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    constants = [
        numpy_helper.from_array(weights(number, 3, 1, 1).astype(floats), "kernel"),
        numpy_helper.from_array(weights(number, seed=1).astype(floats), "bias"),
        constant("flat_shape", [first, number, -1], np.int64),
        constant("split", [2, 2, number - 4], np.int64),
        constant("scale", 10, floats),
        *(constant(name, [at], np.int64) for name, at in (("zero", 0), ("four", 4), ("two", 2), ("last", 99))),
        constant("end", [4 + classes], np.int64),
        *([numpy_helper.from_array(weights(prototypes, 3, 1, 1, seed=2), "prototype_kernel")] if prototypes else []),
    ]
    rows = {
        "columns": [batch, number, "boxes"],
        "objectness": [batch, "boxes", number],
        "final": [batch, "boxes", 6 + extras],
    }
    outputs = [value("output0", rows[layout], kind)]
    if prototypes:
        outputs.append(value("output1", [batch, prototypes, "height", "width"]))
    return model(
        nodes,
        constants,
        [value(image, [batch, 3, *hw], kind)],
        outputs,
        metadata=ULTRALYTICS if metadata is None else metadata,
        opset=opset,
    )


def detector_values(pixels: UInt8Array, number: int) -> NDArray[np.float64]:
    """What `detector` computes, by hand: centre, side, scores, as float64 [N, cells, number]."""
    seen = pixels[:, ::8, ::8].astype(np.float64).reshape(len(pixels), -1, 3) / 255
    values = seen @ weights(number, 3, 1, 1)[:, :, 0, 0].T + weights(number, seed=1)
    return np.concatenate([values[..., :2] * 10, np.exp(values[..., 2:4]), 1 / (1 + np.exp(-values[..., 4:]))], axis=2)


# -- classifiers -------------------------------------------------------------------------------------------------------


def classifier(
    ending: str = "Softmax",
    *,
    shape: Sequence[Size | None] = ("N", 3, 16, 16),
    kind: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
    is_nchw: bool = True,
    channels: int = 3,
    opset: int = 17,
    image: str = "pixels",
) -> ModelProto:
    """The mean of each colour, times a matrix, and an ending: an operator, or nothing for logits."""
    nodes = [
        node("Cast", image, "floats", to=TensorProto.FLOAT),
        node("ReduceMean", "floats", "means", axes=[2, 3] if is_nchw else [1, 2], keepdims=0),
        node("MatMul", "means matrix", "logits" if ending else "answer"),
    ]
    if ending == "by hand":
        nodes += [
            node("Exp", "logits", "powers"),
            node("ReduceSum", "powers axes", "sum", keepdims=1),
            node("Div", "powers sum", "answer"),
        ]
    elif ending:
        nodes.append(node(ending, "logits", "answer"))
    return model(
        nodes,
        [numpy_helper.from_array(weights(channels, len(NAMES)), "matrix"), constant("axes", [1], np.int64)],
        [value(image, shape, kind)],
        [value("answer", [shape[0], len(NAMES)])],
        metadata=metadata,
        opset=opset,
    )


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def labels_file(folder: Path) -> Path:
    path = folder / "labels.txt"
    path.write_text("".join(f"{name}\n" for name in NAMES))
    return path
