"""A real model in a file of a kilobyte, for processes that load it themselves."""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from worker.plain_engine import CLASSIFIER

from trtjob.engines.spec import METADATA_KEY
from trtjob.jobs.spec import ModelRef


def write_model(path: Path, factor: float = 1.0) -> ModelRef:
    """Write a classifier whose two scores are the mean of the image, times a factor, and zero."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "factor"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "one"], ["column"]),
        helper.make_node("Pad", ["column", "pads"], ["scores"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("factor", TensorProto.FLOAT, [], [factor / 255]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("pads", TensorProto.INT64, [4], [0, 0, 0, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: CLASSIFIER.model_dump_json()})
    onnx.save(model, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ModelRef(name=path.stem, sha256=digest, path=str(path), task="classify", labels=CLASSIFIER.labels)
