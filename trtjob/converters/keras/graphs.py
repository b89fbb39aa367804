"""TensorFlow without Keras: a SavedModel's folder, and a frozen graph."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtjob.converters.keras import packages
from trtjob.converters.keras.contained import expect_contained, expect_dormant, expect_loadable, node_name
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import SAVED_MODEL
from trtjob.converters.texts import one_line, shown
from trtjob.errors import ConversionError

_SIGNATURE = "serving_default"
# What nobody reads and yet is no answer.
_NO_OUTPUTS = frozenset({"Assert", "Const", "NoOp", "Placeholder", "PlaceholderWithDefault", "SaveV2"})


@dataclass(frozen=True, slots=True)
class Function:
    """A graph as a function. shape: of its input, with the batch; None where it is not known at all."""

    run: Callable[[Any], Any]
    shape: tuple[int | None, ...] | None
    input: str
    output: str
    nodes: int


def saved_model(request: ConversionRequest, folder: Path) -> Function:
    """Load a SavedModel's signature. Raises ConversionError."""
    tensorflow = packages.tensorflow()
    try:
        proto = _saved_model_proto()
        proto.ParseFromString((folder / SAVED_MODEL).read_bytes())
        for meta in proto.meta_graphs:
            expect_loadable(meta, request)
        with packages.quiet():
            loaded = tensorflow.saved_model.load(str(folder))
        signatures = dict(loaded.signatures)
    except ConversionError:
        raise
    except Exception as err:  # protobuf's and TensorFlow's errors, and what both raise for damage
        raise ConversionError(f"'{folder}' is no SavedModel that TensorFlow can load: {one_line(err)}") from err
    signature = signatures.get(_SIGNATURE) or next(iter(signatures.values()), None)
    if signature is None:
        raise ConversionError(f"'{folder}' has no signature to call. Export it with model.export(folder)")
    inputs = signature.structured_input_signature[1]
    input_name = _chosen(request, "input", request.input, list(inputs))
    output_name = _chosen(request, "output", request.output, list(signature.structured_outputs))

    def run(images: Any, _keep: Any = loaded) -> Any:  # the variables live as long as what was loaded
        return signature(**{input_name: tensorflow.cast(images, inputs[input_name].dtype)})[output_name]

    graph_def = signature.graph.as_graph_def()
    expect_contained(graph_def, request)
    nodes = len(graph_def.node)
    return Function(run, _shape(inputs[input_name].shape), input_name, output_name, nodes)


def frozen_graph(request: ConversionRequest) -> Function:
    """Load a graph whose weights are constants. Raises ConversionError."""
    tensorflow = packages.tensorflow()
    try:
        graph_def = tensorflow.compat.v1.GraphDef.FromString(request.model.read_bytes())
    except Exception as err:  # protobuf's DecodeError has no public home
        raise _broken(request, err) from err
    if not graph_def.node:
        raise ConversionError(
            f"'{request.model}' is no frozen graph: it holds no operation. Of a SavedModel name its folder"
        )
    expect_dormant(graph_def, request)
    placeholders = [node for node in graph_def.node if node.op == "Placeholder"]
    input_name = _chosen(request, "input", request.input, [node.name for node in placeholders])
    output_name = _chosen(request, "output", request.output, _unread(graph_def))
    node = next(node for node in placeholders if node.name == input_name)
    dims = node.attr["shape"].shape
    shape = None if dims.unknown_rank or not dims.dim else tuple(None if d.size < 0 else d.size for d in dims.dim)
    # A graph that was frozen for one image takes many as soon as its input does.
    node.attr["shape"].shape.CopyFrom(tensorflow.TensorShape([None, *(shape or (0, None, None, None))[1:]]).as_proto())
    tensorflow_type = tensorflow.dtypes.as_dtype(node.attr["dtype"].type)
    try:
        with packages.quiet():
            wrapped = tensorflow.compat.v1.wrap_function(
                lambda: tensorflow.compat.v1.import_graph_def(graph_def, name=""), []
            )
            function = wrapped.prune(f"{input_name}:0", f"{output_name}:0")
    except Exception as err:
        raise _broken(request, err) from err
    expect_contained(function.graph.as_graph_def(), request)
    return Function(
        lambda images: function(tensorflow.cast(images, tensorflow_type)),
        shape,
        input_name,
        output_name,
        len(graph_def.node),
    )


def _broken(request: ConversionRequest, err: Exception) -> ConversionError:
    return ConversionError(
        f"'{request.model}' is no frozen graph that TensorFlow can load: {one_line(err)}. Copy or export it again"
    )


def _saved_model_proto() -> Any:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    return SavedModel()


def _unread(graph_def: Any) -> list[str]:
    """Return the nodes that no other reads."""
    read = {node_name(name) for node in graph_def.node for name in node.input}
    return [node.name for node in graph_def.node if node.name not in read and node.op not in _NO_OUTPUTS]


def _chosen(request: ConversionRequest, what: str, wanted: str | None, found: list[str]) -> str:
    """Return the input or output that is asked for, else the only one. Raises ConversionError."""
    names = ", ".join(map(shown, found[:8])) or "none"
    if wanted is not None:
        name = wanted.removesuffix(":0")
        if name not in found and not (what == "output" and request.model.suffix.lower() == ".pb"):
            raise ConversionError(
                f"'{request.model}' has no {what} {shown(name)}, which --{what} names. It has: {names}"
            )
        return name
    if len(found) != 1:
        raise ConversionError(
            f"'{request.model}' has {len(found)} {what}s: {names}. Expected one; name it with --{what} NAME"
        )
    return found[0]


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.rank is None else tuple(shape.as_list())
