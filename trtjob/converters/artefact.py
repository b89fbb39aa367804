"""What every converter ends in: one ONNX model that takes bytes, gives boxes and scores, and describes itself."""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from trtjob.converters.candidates import add_candidates
from trtjob.converters.graph import Graph
from trtjob.converters.spill import Spill, is_spilled, length_of, linked, numbers_of, without_numbers
from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.engines.spec import (
    BOXES_NAME,
    EXTRAS_NAME,
    INPUT_NAME,
    METADATA_KEY,
    PROTOTYPES_NAME,
    SCORES_NAME,
    ModelSpec,
    SourceFile,
)

OPSET = 18  # the first with Mish
IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Reference:
    """The original model, as the measure of what it was converted to.

    name: to show a person; run: what it says of uint8 [N, H, W, channels], as an engine would; close: gives back the
    memory that it takes, where that is worth while: it cannot run any more then.
    """

    name: str
    run: Callable[[UInt8Array], Outputs]
    close: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """A model in float32 and what is known of it. The model has no `candidates` and does not carry its spec yet.

    layers: of the original, to show a person; reference: None where nothing here can run the original; notes: what was
    found or assumed, warnings: what may be wrong, a sentence each; spill: where the model's large constants lie, None
    where they are in it.
    """

    model: onnx.ModelProto
    spec: ModelSpec
    layers: int
    reference: Reference | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    spill: Spill | None = None


def model_from_graph(graph: Graph, spec: ModelSpec, *, boxes: int | None = None) -> onnx.ModelProto:
    """Return the model of a finished graph: from `images` to `scores`, and `boxes` and what else a detector gives.

    boxes: how many a detector gives, K of [N, K, 4]; None for a classifier. The graph's constants are moved,
    not copied, and are gone from it then: they are hundreds of megabytes.
    """
    image = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", *spec.input_hw, spec.channels])
    rows = ["N"] if boxes is None else ["N", boxes]
    shapes: dict[str, list[int | str]] = {SCORES_NAME: [*rows, len(spec.labels)]}
    if boxes is not None:
        shapes = {BOXES_NAME: [*rows, 4], **shapes}
    if spec.extras:
        shapes[EXTRAS_NAME] = [*rows, spec.extras]
    if spec.prototypes:
        shapes[PROTOTYPES_NAME] = ["N", *spec.prototypes]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "trtjob", [image], outputs),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="trtjob",
    )
    graph.constants.reverse()
    while graph.constants:
        model.graph.initializer.append(graph.constants.pop())
    return model


def serialised(model: onnx.ModelProto, spec: ModelSpec) -> bytes:
    """Return the file's bytes, the spec among them. The same model and spec give the same bytes."""
    file = io.BytesIO()
    file.writelines(pieces(model, spec))
    return file.getvalue()


def pieces(model: onnx.ModelProto, spec: ModelSpec) -> Iterator[bytes]:
    """Yield the file's bytes in order, one constant after the other; a detector gets its `candidates` here.

    Later than any change of precision, which must not touch them. The bytes are those of SerializeToString, which takes
    three times the model's size in memory while it works.
    """
    _finish(model, spec)
    graph_tag, constant_tag = (
        message.DESCRIPTOR.fields_by_name[name].number
        for message, name in ((model, "graph"), (model.graph, "initializer"))
    )
    before, after = _around(model.graph, constant_tag)
    size = len(before) + len(after)
    for tensor in model.graph.initializer:
        length = sum(map(len, _head(tensor))) + length_of(tensor) if is_spilled(tensor) else tensor.ByteSize()
        size += len(_header(constant_tag, length)) + length
    model_before, model_after = _around(model, graph_tag)
    yield model_before + _header(graph_tag, size) + before
    for tensor in model.graph.initializer:
        yield from _constant(constant_tag, tensor)
    yield after + model_after


def without_constants(model: onnx.ModelProto, spec: ModelSpec) -> bytes:
    """Return a file to run in the folder of the model's large constants, which it does not hold."""
    _finish(model, spec)
    return bytes(linked(model).SerializeToString(deterministic=True))


def _finish(model: onnx.ModelProto, spec: ModelSpec) -> None:
    add_candidates(model, spec)
    del model.metadata_props[:]
    helper.set_model_props(model, {METADATA_KEY: spec.model_dump_json()})


def _constant(tag: int, tensor: onnx.TensorProto) -> Iterator[bytes]:
    if is_spilled(tensor):
        head = b"".join(_head(tensor))
        yield _header(tag, len(head) + length_of(tensor)) + head
        yield from numbers_of(tensor)
    else:
        data = tensor.SerializeToString(deterministic=True)
        yield _header(tag, len(data))
        yield data


def _head(tensor: onnx.TensorProto) -> tuple[bytes, bytes]:
    """Return what comes before a spilled constant's numbers, which are the last of its fields."""
    number = tensor.DESCRIPTOR.fields_by_name["raw_data"].number
    return without_numbers(tensor).SerializeToString(deterministic=True), _header(number, length_of(tensor))


def _around(message: onnx.ModelProto | onnx.GraphProto, number: int) -> tuple[bytes, bytes]:
    """Return a message's fields before and after one of them, by number, as they are on the disk."""
    before, after = type(message)(), type(message)()
    for field, value in message.ListFields():
        if field.number != number:
            _put(before if field.number < number else after, field.name, value)
    return before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True)


def _put(message: onnx.ModelProto | onnx.GraphProto, name: str, value: Any) -> None:
    if isinstance(value, (str, bytes, int, float)):
        setattr(message, name, value)
    elif hasattr(value, "CopyFrom"):
        getattr(message, name).CopyFrom(value)
    else:
        getattr(message, name).extend(value)


def _header(number: int, length: int) -> bytes:
    """Return what comes before a field of so many bytes (Protocol Buffers, Encoding: length-delimited records)."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    """Return a number, seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def source_file(path: Path) -> SourceFile:
    """Return what identifies a file that a model was converted from."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(name=path.name, sha256=digest, size_bytes=path.stat().st_size)
