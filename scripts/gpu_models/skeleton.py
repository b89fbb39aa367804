"""A model without its weights, small enough to be carried, and the weights that are drawn for it where it is used."""

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from scripts.gpu_models.cfg import LOST
from trtjob.converters.artefact import pieces
from trtjob.converters.output import write_atomically
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import METADATA_KEY, parse_spec

SUFFIX = ".skeleton.onnx"
_DRAWN = "drawn"  # begins the note of a tensor without its numbers: seed, deviation, axis of the outputs
# Of max(x, 0) where x is standard normal: its variance, and its mean's square as far as filters do not lose it.
_RELU_VARIANCE = 0.5 - (1 - (1 - LOST) ** 2) / (2 * math.pi)
_PIXEL_DEVIATION = 60.0
_LOGIT_DEVIATION = 2.5


def strip_weights(model: onnx.ModelProto) -> None:
    """Replace the weights of a chain of convolutions, dense layers and ReLUs by notes how to draw them.

    Its biases stay. The last layer's deviation makes probabilities that are neither flat nor all of one class.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}]
    for seed, node in enumerate(layers):
        tensor = tensors[node.input[1]]
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        inputs = math.prod(tensor.dims) // tensor.dims[axis]
        variance = _PIXEL_DEVIATION**2 if seed == 0 else _RELU_VARIANCE
        deviation = (_LOGIT_DEVIATION if node is layers[-1] else 1.0) / math.sqrt(inputs * variance)
        dims, name = list(tensor.dims), tensor.name
        tensor.Clear()
        tensor.name, tensor.data_type = name, TensorProto.FLOAT
        tensor.dims.extend(dims)
        tensor.doc_string = f"{_DRAWN} {seed} {deviation!r} {axis}"


def draw_weights(model: onnx.ModelProto) -> None:
    """Draw the weights that are noted, the same every time."""
    for tensor in model.graph.initializer:
        kind, _, note = tensor.doc_string.partition(" ")
        if kind == _DRAWN:
            seed, deviation, axis = note.split()
            values = drawn(tuple(tensor.dims), int(seed), float(deviation), int(axis))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def drawn(shape: tuple[int, ...], seed: int, deviation: float, axis: int) -> FloatArray:
    """Return normal numbers that lose a part of their mean for each output, whose axis is named: see cfg.py."""
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    if seed:  # the first layer's inputs are not all above zero
        values -= LOST * values.mean(tuple(other for other in range(len(shape)) if other != axis), keepdims=True)
    return np.asarray(values * np.float32(deviation), np.float32)


def write_whole(skeleton: Path, out: Path) -> Path:
    """Write a skeleton's model with its weights."""
    model = onnx.load(skeleton)
    documents = {prop.key: prop.value for prop in model.metadata_props}
    draw_weights(model)
    write_atomically(out, pieces(model, parse_spec(documents.get(METADATA_KEY), skeleton)))
    return out
