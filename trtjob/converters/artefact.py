"""What every converter ends in: one ONNX model that takes bytes, gives boxes and scores, and describes itself."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from trtjob.converters.graph import Graph
from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.engines.spec import BOXES_NAME, INPUT_NAME, METADATA_KEY, SCORES_NAME, ModelSpec, SourceFile

OPSET = 18  # the first with Mish
IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Reference:
    """The original model, as the measure of what it was converted to.

    name: to show a person; run: what it says of uint8 [N, H, W, channels], as an engine would.
    """

    name: str
    run: Callable[[UInt8Array], Outputs]


@dataclass(frozen=True, slots=True)
class Converted:
    """A model in float32 and what is known of it. The model does not carry its spec yet.

    layers: of the original, to show a person; reference: None where nothing here can run the original; notes: what the
    user should know of what was found or assumed, a sentence each.
    """

    model: onnx.ModelProto
    spec: ModelSpec
    layers: int
    reference: Reference | None = None
    notes: tuple[str, ...] = ()


def model_from_graph(graph: Graph, spec: ModelSpec, *, candidates: int | None = None) -> onnx.ModelProto:
    """Return the model of a finished graph: from `images` to `scores`, and `boxes` where there are candidates.

    candidates: how many boxes a detector gives, K of [N, K, 4]; None for a classifier.
    """
    image = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", *spec.input_hw, spec.channels])
    rows = ["N"] if candidates is None else ["N", candidates]
    outputs = [helper.make_tensor_value_info(SCORES_NAME, TensorProto.FLOAT, [*rows, len(spec.labels)])]
    if candidates is not None:
        outputs.insert(0, helper.make_tensor_value_info(BOXES_NAME, TensorProto.FLOAT, [*rows, 4]))
    document = helper.make_graph(graph.nodes, "trtjob", [image], outputs, graph.constants)
    return helper.make_model(
        document, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="trtjob"
    )


def serialised(model: onnx.ModelProto, spec: ModelSpec) -> bytes:
    """Return the file's bytes, the spec among them. The same model and spec give the same bytes."""
    del model.metadata_props[:]
    helper.set_model_props(model, {METADATA_KEY: spec.model_dump_json()})
    return bytes(model.SerializeToString(deterministic=True))


def source_file(path: Path) -> SourceFile:
    """Return what identifies a file that a model was converted from."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(name=path.name, sha256=digest, size_bytes=path.stat().st_size)
