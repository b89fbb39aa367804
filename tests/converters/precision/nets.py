"""Small networks to lower, and the means to run them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from converters.darknet import networks
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtjob.converters.artefact import Converted
from trtjob.converters.darknet.convert import convert
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import INPUT_NAME, SCORES_NAME

HW = (16, 16)

# Six convolutions; the third's result goes two ways, and one of them is taken twice as large.
DARKNET_CFG = """\
[net]
width=32
height=32
channels=3

[convolutional]
filters=8
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=8
size=1
stride=1
pad=1
activation=leaky

[upsample]
stride=2

[route]
layers=-1,-4

[convolutional]
filters=8
size=3
stride=1
pad=1
activation=leaky

[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=0,1
anchors=8,8, 14,10
classes=2
num=2
"""
LAYERS = ((8, 3, 3), (8, 8, 3), (8, 8, 1), (8, 16, 3), (14, 8, 1))  # filters, channels, size
DARKNET_NUMBERS = sum(filters * (1 + channels * size * size) for filters, channels, size in LAYERS)


def write_darknet(folder: Path, *, scale: float = 0.3, seed: int = 3) -> Path:
    """Write a detector of random weights whose values stay small, and return its weights file."""
    (folder / "net.cfg").write_text(DARKNET_CFG)
    (folder / "net.names").write_text("cat\ndog\n")
    return networks.write_weights(folder / "net.weights", networks.normal(DARKNET_NUMBERS, seed=seed) * scale)


def detector(folder: Path) -> Converted:
    return convert(ConversionRequest(model=write_darknet(folder)))


def layer(op: str, inputs: Sequence[str], output: str, **attributes: int | float | list[int]) -> NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)  # type: ignore[arg-type]


def classifier(nodes: Sequence[NodeProto], constants: dict[str, NDArray[np.generic]], classes: int) -> ModelProto:
    """Return a model of nodes that read `pixels`, float32 [N, 3, 16, 16] of 0 to 1, and give `scores`."""
    start = [
        layer("Cast", [INPUT_NAME], "floats", to=TensorProto.FLOAT),
        layer("Transpose", ["floats"], "moved", perm=[0, 3, 1, 2]),
        layer("Mul", ["moved", "unit"], "pixels"),
    ]
    tensors = [
        numpy_helper.from_array(np.asarray(array), name)
        for name, array in {"unit": np.array(1 / 255, np.float32), **constants}.items()
    ]
    graph = helper.make_graph(
        [*start, *nodes],
        "small",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", *HW, 3])],
        [helper.make_tensor_value_info(SCORES_NAME, TensorProto.FLOAT, ["N", classes])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def kernel(filters: int, channels: int, size: int = 1, seed: int = 0) -> FloatArray:
    scale = np.float32((2 / (channels * size * size)) ** 0.5)
    return networks.normal(filters, channels, size, size, seed=seed) * scale


def plain_classifier(*, activation: str = "Relu", alpha: float | None = None) -> ModelProto:
    """Return three convolutions with an activation each, and a matrix product to four classes."""
    options = {} if alpha is None else {"alpha": alpha}
    nodes, value = [], "pixels"
    for index in range(3):
        nodes += [
            layer("Conv", [value, f"kernel{index}"], f"conv{index}"),
            layer(activation, [f"conv{index}"], f"act{index}", **options),
        ]
        value = f"act{index}"
    nodes += [
        layer("GlobalAveragePool", [value], "mean"),
        layer("Flatten", ["mean"], "flat"),
        layer("Gemm", ["flat", "matrix", "offset"], "logits"),
        layer("Softmax", ["logits"], SCORES_NAME, axis=1),
    ]
    constants: dict[str, NDArray[np.generic]] = {
        "kernel0": kernel(6, 3),
        "kernel1": kernel(6, 6, seed=1),
        "kernel2": kernel(6, 6, seed=2),
        "matrix": networks.normal(6, 4, seed=4),
        "offset": networks.normal(4, seed=5),
    }
    return classifier(nodes, constants, 4)


def write_foreign(path: Path) -> Path:
    """Write a classifier as another tool would: float32 [N, 3, 16, 16] to probabilities, without a description."""
    graph = plain_classifier().graph
    nodes = list(graph.node)[3:]
    nodes[-1].name = nodes[-1].output[0] = "probabilities"
    document = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, *HW])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 4])],
        [tensor for tensor in graph.initializer if tensor.name != "unit"],
    )
    onnx.save(helper.make_model(document, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    path.with_suffix(".txt").write_text("a\nb\nc\nd\n")
    return path


def images(count: int, hw: tuple[int, int] = HW, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *hw, 3), np.uint8)


def run(model: ModelProto, batch: UInt8Array) -> dict[str, FloatArray]:
    """Run a model in ONNX Runtime and return its outputs by name."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT_NAME: batch}), strict=True))


def types_of(model: ModelProto) -> dict[str, int]:
    """Return the element type of every value and constant."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }
    return values | {tensor.name: tensor.data_type for tensor in graph.initializer}


def constant(model: ModelProto, name: str) -> NDArray[np.generic]:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    return numpy_helper.to_array(tensor)


def nodes_of(model: ModelProto, op: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == op]
