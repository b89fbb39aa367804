"""Small Darknet networks, written as Darknet has them, and the means to run what they are converted to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from trtjob.converters.artefact import IR_VERSION, OPSET, serialised
from trtjob.converters.darknet.cfg import parse_cfg
from trtjob.converters.darknet.convert import convert
from trtjob.converters.darknet.decode import decode_heads
from trtjob.converters.darknet.layers import LAYERS
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.darknet.weights import WeightsReader
from trtjob.converters.graph import Graph
from trtjob.converters.output import write_atomically
from trtjob.converters.request import USUAL_CANDIDATES, ConversionRequest
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import BOXES_NAME, SCORES_NAME, ModelSpec
from trtjob.errors import DarknetParseError

HEADER = np.array([0, 2, 5, 0, 0], "<i4").tobytes()  # version 0.2.5, and no image seen

# Layer 0 makes 7 channels of 3, for one anchor of 2 classes; layer 1 is the head.
CFG = """\
[net]
width=6
height=4
channels=3

[convolutional]
filters=7
size=1
stride=2
pad=1
activation=linear

[yolo]
mask=0
anchors=3,5
classes=2
num=1
"""
CFG_NUMBERS = 7 + 7 * 3


def write_weights(path: Path, *parts: FloatArray, header: bytes = HEADER) -> Path:
    """Write a weights file of all numbers in order."""
    path.write_bytes(header + b"".join(part.astype("<f4").tobytes() for part in parts))
    return path


def write_model(folder: Path, *, cfg: str = CFG, numbers: int = CFG_NUMBERS, labels: str = "cat\ndog\n") -> Path:
    """Write a small detector: `net.cfg`, `net.names` and `net.weights` with random numbers; return the weights."""
    (folder / "net.cfg").write_text(cfg)
    (folder / "net.names").write_text(labels)
    return write_weights(folder / "net.weights", normal(numbers))


def onnx_from_darknet(
    weights: Path,
    out: Path,
    *,
    cfg: Path | None = None,
    labels: Path | None = None,
    size: tuple[int, int] | None = None,
) -> ModelSpec:
    """Convert a Darknet model into a file, and return its spec."""
    converted = convert(ConversionRequest(model=weights, cfg=cfg, labels=labels, size=size))
    write_atomically(out, serialised(converted.model, converted.spec))
    return converted.spec


def normal(*shape: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def build_layers(
    folder: Path,
    layers: str,
    inputs: Sequence[FloatArray],
    numbers: FloatArray | None = None,
    *,
    input_scale: float = 1.0,
    input_hw: tuple[int, int] = (32, 32),
    label_count: int = 0,
) -> Network:
    """Build a cfg's layers behind given outputs of earlier layers, float32 [channels, height, width] each.

    A weights file always holds a number, so without `numbers` one is left over, which nobody asks about.
    """
    weights = write_weights(folder / "layers.weights", np.zeros(1, np.float32) if numbers is None else numbers)
    net = Network(Graph(), WeightsReader(weights), input_hw, input_scale, label_count)
    net.outputs = [Tensor(f"in_{index}", *array.shape) for index, array in enumerate(inputs)]
    for section in parse_cfg(f"[net]\n{layers}")[1:]:
        net.graph.scope = f"{len(net.outputs):03d}_{section.kind}"
        net.outputs.append(LAYERS[section.kind](net, section, net.outputs[-1]))
    return net


def run_layers(
    folder: Path, layers: str, inputs: Sequence[FloatArray], numbers: FloatArray | None = None
) -> FloatArray:
    """Return the last layer's output, after a check that it has the shape that the converter believes."""
    net = build_layers(folder, layers, inputs, numbers)
    if numbers is not None:
        net.weights.finish(len(net.outputs) - 1)
    last = net.outputs[-1]
    feeds = {f"in_{index}": array for index, array in enumerate(inputs)}
    (output,) = run_graph(net.graph, feeds, [last.name])
    assert output.shape == (last.channels, last.height, last.width)
    return output


def run_graph(graph: Graph, feeds: dict[str, FloatArray], wanted: Sequence[str]) -> list[FloatArray]:
    """Run a graph on one image's values and return the wanted ones, all of them without the batch's dimension."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *array.shape]) for name, array in feeds.items()]
    # An output that is an input is no node's output, which ONNX wants.
    nodes = [*graph.nodes, *(helper.make_node("Identity", [name], [f"out_{name}"]) for name in wanted)]
    outputs = [helper.make_tensor_value_info(f"out_{name}", TensorProto.FLOAT, None) for name in wanted]
    document = helper.make_graph(nodes, "layers", given, outputs, graph.constants)
    model = helper.make_model(document, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, {name: array[None] for name, array in feeds.items()})
    return [np.asarray(result[0], np.float32) for result in results]


def sigmoid(x: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x.astype(np.float64))), np.float64)


def refusal(folder: Path, layers: str, *inputs: FloatArray, numbers: FloatArray | None = None) -> str:
    """Return the text with which layers are refused; their first line is line 2, their options begin in line 3."""
    with pytest.raises(DarknetParseError) as caught:
        build_layers(folder, layers, inputs, numbers)
    return str(caught.value)


def windows(
    x: FloatArray, size: int, strides: tuple[int, int], before: int, out_hw: tuple[int, int], fill: float
) -> FloatArray:
    """Return each window of a padded input: [channels, out height, out width, size, size]."""
    after = size + max(strides) * max(out_hw)
    padded = np.pad(x, ((0, 0), (before, after), (before, after)), constant_values=np.float32(fill))
    rows = [
        [padded[:, i : i + size, j : j + size] for j in range(0, out_hw[1] * strides[1], strides[1])]
        for i in range(0, out_hw[0] * strides[0], strides[0])
    ]
    return np.array(rows).transpose(2, 0, 1, 3, 4)


def best_first(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows[np.argsort(-rows[:, 4:].max(1), kind="stable")]


def decode(
    folder: Path, layers: str, *inputs: FloatArray, input_hw: tuple[int, int] = (32, 32), label_count: int = 0
) -> NDArray[np.float64]:
    """Return rows of the converted graph's boxes and scores."""
    net = build_layers(folder, layers, inputs, input_hw=input_hw, label_count=label_count)
    k = decode_heads(net, USUAL_CANDIDATES)
    feeds = {f"in_{index}": array for index, array in enumerate(inputs)}
    boxes, scores = run_graph(net.graph, feeds, [BOXES_NAME, SCORES_NAME])
    assert len(boxes) == len(scores) == k
    return np.concatenate([boxes, scores], 1).astype(np.float64)


def assert_same(found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
