"""Weights that lie in files beside an ONNX file: they are read in, for a converted model is one file."""

from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto, TensorProto
from onnx.external_data_helper import uses_external_data

from trtjob.converters.texts import shown
from trtjob.engines.graph_walk import graphs_of, text
from trtjob.errors import ConversionError

# What one protobuf message, and so one file, can hold.
MAX_BYTES = 2**31 - 1


def external_files(model: ModelProto, path: Path) -> tuple[Path, ...]:
    """Return the files beside a model that hold its weights, by name. Raises ConversionError where one is missing."""
    return tuple(sorted({_file_of(tensor, path) for tensor in _external_tensors(model)}))


def read_external(model: ModelProto, path: Path) -> None:
    """Bring all weights into the model. Raises ConversionError where they are missing, cut off, or too many."""
    tensors = list(_external_tensors(model))
    places = [_place(tensor, path) for tensor in tensors]
    total = model.ByteSize() + sum(length for _, _, length in places)
    if total > MAX_BYTES:
        raise ConversionError(
            f"'{path}' and the files of its weights have {total:,} bytes, but an ONNX file ends at {MAX_BYTES:,}. "
            "Export it with float16 weights"
        )
    for tensor, (file, offset, length) in zip(tensors, places, strict=True):
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _external_tensors(model: ModelProto) -> Iterator[TensorProto]:
    graphs = list(graphs_of(model.graph))
    nodes = [node for part in (*graphs, *model.functions) for node in part.node]
    constants = (
        tensor for node in nodes for attribute in node.attribute for tensor in (attribute.t, *attribute.tensors)
    )
    initializers = (tensor for graph in graphs for tensor in graph.initializer)
    yield from (tensor for tensor in (*initializers, *constants) if uses_external_data(tensor))


def _place(tensor: TensorProto, path: Path) -> tuple[Path, int, int]:
    """Return the file, the offset and the length of a tensor's bytes."""
    file = _file_of(tensor, path)
    size = file.stat().st_size
    entries = _entries(tensor)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
    except ValueError as err:
        raise ConversionError(
            f"'{path}' is damaged: the weights {shown(text(tensor.name))} have no place in '{file}'. "
            "Copy or export it again"
        ) from err
    if offset < 0 or length < 0 or offset + length > size:
        raise ConversionError(
            f"'{file}' is cut off or belongs to another model: the weights {shown(text(tensor.name))} of '{path}' lie "
            f"at bytes {offset:,} to {offset + length:,}, but it has {size:,}. Copy both files again"
        )
    return file, offset, length


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {text(entry.key): text(entry.value) for entry in tensor.external_data}


def _file_of(tensor: TensorProto, path: Path) -> Path:
    """Return the file of a tensor's bytes. Raises ConversionError unless it lies in the model's folder."""
    location = _entries(tensor).get("location", "")
    if not location or "\0" in location:
        raise ConversionError(
            f"'{path}' is damaged: the weights {shown(text(tensor.name))} lie in a file without a name. Export it again"
        )
    folder, file = path.parent.resolve(), path.parent / location
    try:
        inside = file.resolve().is_relative_to(folder)
        is_there = inside and file.is_file()
    except (OSError, RuntimeError) as err:  # a name that is too long, links in a circle
        raise ConversionError(
            f"'{path}': the file of its weights, {shown(location)}, cannot be read. Save the model anew "
            "with its weights beside it"
        ) from err
    if not inside:
        raise ConversionError(
            f"'{path}' wants weights from {shown(location)}, outside its folder: such a file is not read. "
            "Save the model anew with its weights beside it"
        )
    if not is_there:
        raise ConversionError(
            f"'{path}' keeps its weights in {shown(location)}, and there is no such file beside it. "
            "Copy it there: both belong together"
        )
    return file
