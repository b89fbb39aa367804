"""What our converters make, of every kind that the tests can make, and how ONNX Runtime runs it."""

import re
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from converters.darknet import test_random_networks as darknet
from converters.darknet.reference import ACTIVATIONS as ACTIVATION_NAMES
from converters.onnx import graphs
from converters.precision import nets
from onnx import ModelProto
from terminal import DIGITS

from trtjob.converters.artefact import Converted, serialised
from trtjob.converters.darknet.convert import convert as convert_darknet
from trtjob.converters.onnx.convert import convert as convert_onnx
from trtjob.converters.precision.lower import lowered as in_precision
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import FloatArray, Outputs, UInt8Array
from trtjob.engines.spec import INPUT_NAME, ModelSpec

FOREIGN = {
    "columns": graphs.ULTRALYTICS,
    "objectness": graphs.YOLOV5,
    "final": {**graphs.ULTRALYTICS, "end2end": "True"},
}
HEADS = darknet.HEAD_EXAMPLES
LAYERS = darknet.LAYER_EXAMPLES
ACTIVATIONS = ACTIVATION_NAMES


def of_darknet(cfg: str) -> Converted:
    """Convert a Darknet network of random weights."""
    return of_example(darknet.example_of(cfg))


def of_example(example: darknet.Example) -> Converted:
    net = example.net
    labels = net.heads[0].scores.shape[1] if net.heads else net.probabilities().size
    with tempfile.TemporaryDirectory(prefix="trtjob-test-") as folder:
        for name, content in darknet.FILES.items():
            (Path(folder) / name).write_text(content)
        weights = Path(folder) / "net.weights"
        weights.write_bytes(example.numbers.content())
        weights.with_suffix(".cfg").write_text(example.cfg)
        weights.with_suffix(".names").write_text("".join(f"class {number}\n" for number in range(labels)))
        return convert_darknet(ConversionRequest(model=weights))


def of_head(head: str) -> Converted:
    return of_darknet(f"{darknet.INPUT}{head}")


def of_layers(layers: str) -> Converted:
    return of_darknet(f"{darknet.INPUT}{layers}\n{darknet.HEAD}")


def of_activation(activation: str) -> Converted:
    return of_layers(darknet.conv(8, 1, activation))


def of_foreign(layout: str, opset: int, folder: Path, hw: tuple[int, int] = graphs.HW) -> Converted:
    """Convert a detector as Ultralytics exports it."""
    metadata = {**FOREIGN[layout], "imgsz": str(list(hw))}
    made = graphs.detector(layout, metadata=metadata, opset=opset, hw=hw)
    return convert_onnx(graphs.save(made, folder / "net.onnx"))


def digits() -> Converted:
    """Convert the sample model."""
    return convert_darknet(ConversionRequest(model=DIGITS / "digits.weights"))


def of_zoo(name: str, source: Path, folder: Path, *, side: int | None = None) -> Converted:
    """Convert a network of Darknet's, with the weights that its recording was made with.

    side: width and height of its input, where they are not to be its own.
    """
    weights, data = folder / f"{name}.weights", np.load(source / f"{name}.npz")
    darknet.weights_builder(source).build(source / f"{name}.npz", weights)
    classes = data["probs"].size if "probs" in data.files else data["boxes"].shape[1] - 5
    weights.with_suffix(".names").write_text("".join(f"class {number}\n" for number in range(classes)))
    cfg = (source / "cfg" / f"{name}.cfg").read_text()
    if side is not None:
        cfg = re.sub(r"^(width|height)=\d+", rf"\1={side}", cfg, flags=re.MULTILINE)
    weights.with_suffix(".cfg").write_text(cfg)
    return convert_darknet(ConversionRequest(model=weights))


def lower_precision(converted: Converted, precision: str, images: UInt8Array) -> ModelProto:
    """Return a model in fp16, bf16 or int8, its ranges those of the images."""
    request = ConversionRequest.model_validate({"model": "any.onnx", "precision": precision})
    return in_precision(converted.model, request, list(images)).model


def small_detector(folder: Path) -> Converted:
    """Return a Darknet detector with routes and an upsampling, whose values stay small."""
    return nets.detector(folder)


def write(model: ModelProto, spec: ModelSpec, path: Path) -> Path:
    path.write_bytes(serialised(model, spec))
    return path


def run(model: ModelProto, images: UInt8Array, *, as_written: bool = False) -> Outputs:
    """Return what ONNX Runtime says of images. as_written: node by node, without its rewriting of the graph."""
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found: dict[str, FloatArray] = dict(zip(names, session.run(names, {INPUT_NAME: images}), strict=True))
    return Outputs(found.get("boxes"), found["scores"])


def noise(spec: ModelSpec, count: int = 2) -> UInt8Array:
    return np.random.default_rng(7).integers(0, 256, (count, *spec.input_hw, spec.channels), np.uint8)
