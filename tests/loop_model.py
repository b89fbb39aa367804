"""Models that never come to an end: a loop of 2^62 steps between an image and its scores."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from trtjob.engines.spec import METADATA_KEY, ModelSpec

STEPS = 2**62
LABELS = ("cat", "dog")


def write_endless(path: Path, spec: ModelSpec | None = None) -> Path:
    """Write a classifier, of images 8 by 8, whose answer never comes: a foreign one, or ours where it has a spec."""
    shape: list[int | str]
    name, shape, kind = "pixels", ["N", 3, 8, 8], TensorProto.FLOAT
    if spec is not None:
        name, shape, kind = "images", ["N", 8, 8, 3], TensorProto.UINT8
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more_before"], ["more"]),
            helper.make_node("Mul", ["scores_before", "half"], ["scores_after"]),
        ],
        "step",
        [
            scalar("step", TensorProto.INT64, []),
            scalar("more_before", TensorProto.BOOL, []),
            scalar("scores_before", TensorProto.FLOAT, ["N", 2]),
        ],
        [scalar("more", TensorProto.BOOL, []), scalar("scores_after", TensorProto.FLOAT, ["N", 2])],
    )
    nodes = [
        helper.make_node("Cast", [name], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Pad", ["column", "pads"], ["pair"]),
        helper.make_node("Loop", ["steps", "always", "pair"], ["logits"], body=body),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("pads", TensorProto.INT64, [4], [0, 0, 0, 1]),
        helper.make_tensor("steps", TensorProto.INT64, [], [STEPS]),
        helper.make_tensor("always", TensorProto.BOOL, [], [True]),
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
    ]
    inputs = [scalar(name, kind, shape)]
    graph = helper.make_graph(nodes, "endless", inputs, [scalar("scores", TensorProto.FLOAT, ["N", 2])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if spec is not None:
        helper.set_model_props(model, {METADATA_KEY: spec.model_dump_json()})
    onnx.save(model, path)
    path.with_suffix(".names").write_text("\n".join(LABELS))
    return path
