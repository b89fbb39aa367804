"""Tiny models of ours, made of a few nodes."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from trtjob.converters.candidates import add_candidates, remove_candidates
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import (
    BOXES_NAME,
    EXTRAS_NAME,
    INPUT_NAME,
    METADATA_KEY,
    PROTOTYPES_NAME,
    SCORES_NAME,
    ModelSpec,
    Task,
)

HW = (4, 5)
LABELS = ("cat", "dog", "cow")
CANDIDATES = 6
ANSWERED = 4  # of these
PROTOTYPES = (2, 4, 5)

Constants = dict[str, NDArray[np.float32] | NDArray[np.int64]]


def detector() -> onnx.ModelProto:
    """Return a detector whose values come from every pixel: two matrix products on the pixels in [0, 1]."""
    random = np.random.default_rng(5)
    size = HW[0] * HW[1] * 3
    constants: Constants = {
        "scale": np.array(1 / 255, np.float32),
        "flat": np.array([0, size], np.int64),
        "box_weights": random.standard_normal((size, CANDIDATES * 4), np.float32),
        "score_weights": random.standard_normal((size, CANDIDATES * len(LABELS)), np.float32),
        "box_shape": np.array([0, CANDIDATES, 4], np.int64),
        "score_shape": np.array([0, CANDIDATES, len(LABELS)], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "box_weights"], ["box_values"]),
        helper.make_node("Reshape", ["box_values", "box_shape"], [BOXES_NAME]),
        helper.make_node("MatMul", ["pixels", "score_weights"], ["score_values"]),
        helper.make_node("Sigmoid", ["score_values"], ["score_rows"]),
        helper.make_node("Reshape", ["score_rows", "score_shape"], [SCORES_NAME]),
    ]
    boxes = _floats(BOXES_NAME, "N", CANDIDATES, 4)
    model = model_of(nodes, [boxes, _floats(SCORES_NAME, "N", CANDIDATES, len(LABELS))], constants)
    add_candidates(model, spec_of(Task.DETECT))
    return model


def segmenter() -> onnx.ModelProto:
    """Return the detector with coefficients and prototypes of masks, which come from every pixel, too."""
    random = np.random.default_rng(6)
    size, count = HW[0] * HW[1] * 3, PROTOTYPES[0]
    made = detector()
    made.graph.node.extend(
        [
            helper.make_node("MatMul", ["pixels", "extra_weights"], ["extra_values"]),
            helper.make_node("Reshape", ["extra_values", "extra_shape"], [EXTRAS_NAME]),
            helper.make_node("MatMul", ["pixels", "prototype_weights"], ["prototype_values"]),
            helper.make_node("Reshape", ["prototype_values", "prototype_shape"], [PROTOTYPES_NAME]),
        ]
    )
    constants: Constants = {
        "extra_weights": random.standard_normal((size, CANDIDATES * count), np.float32),
        "extra_shape": np.array([0, CANDIDATES, count], np.int64),
        "prototype_weights": random.standard_normal((size, int(np.prod(PROTOTYPES))), np.float32),
        "prototype_shape": np.array([0, *PROTOTYPES], np.int64),
    }
    made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    made.graph.output.extend([_floats(EXTRAS_NAME, "N", CANDIDATES, count), _floats(PROTOTYPES_NAME, "N", *PROTOTYPES)])
    remove_candidates(made)
    add_candidates(made, SEGMENTER)
    return made


def classifier() -> onnx.ModelProto:
    """Return a classifier that takes an image's mean red, green and blue, of 0 to 255, for its scores."""
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], [SCORES_NAME], keepdims=0),
    ]
    return model_of(nodes, [_floats(SCORES_NAME, "N", len(LABELS))], {"axes": np.array([1, 2], np.int64)})


def model_of(nodes: list[NodeProto], outputs: list[ValueInfoProto], constants: Constants) -> onnx.ModelProto:
    """Return a model of the nodes that takes images of HW."""
    image = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", *HW, 3])
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    document = helper.make_graph(nodes, "tiny", [image], outputs, tensors)
    return helper.make_model(document, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def spec_of(task: Task) -> ModelSpec:
    return ModelSpec(task=task, labels=LABELS, input_hw=HW, candidates=ANSWERED if task is Task.DETECT else 0)


SEGMENTER = ModelSpec(task=Task.DETECT, labels=LABELS, input_hw=HW, candidates=ANSWERED, prototypes=PROTOTYPES)


def write_segmenter(path: Path) -> Path:
    """Write a tiny model of ours that gives masks."""
    return write_onnx(path, segmenter(), SEGMENTER.model_dump_json())


def write_model(path: Path, task: Task = Task.DETECT) -> Path:
    """Write a tiny model of ours."""
    return write_onnx(path, detector() if task is Task.DETECT else classifier(), spec_of(task).model_dump_json())


def write_onnx(path: Path, model: onnx.ModelProto, document: str | None) -> Path:
    """Write a model, with a document as its description or, None, without."""
    if document is not None:
        helper.set_model_props(model, {METADATA_KEY: document})
    onnx.save(model, path)
    return path


def images(count: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *HW, 3), np.uint8)


def _floats(name: str, *shape: str | int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
