"""Read an ONNX file, however damaged, into one graph of known operators."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import ModelProto, inliner, version_converter

from trtjob.converters.texts import one_line, shown
from trtjob.engines.graph_walk import graphs_of, text
from trtjob.errors import ConversionError, ModelError

# The first opset in which ONNX Runtime runs every operator.
MIN_OPSET = 7
# The first in which Squeeze, Unsqueeze and ReduceSum take their axes, and Softmax one axis, as we write them.
WORK_OPSET = 13

ONNX_DOMAINS = frozenset({"", "ai.onnx"})
# ONNX Runtime's own operators, into which its optimiser and its quantisation turn others.
CONTRIB_DOMAIN = "com.microsoft"


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Raise ModelError where a file's text is none or its sizes cannot be: neither shows before it is used."""
    try:
        yield
    except UnicodeDecodeError as err:
        raise ModelError(f"'{path}' is damaged: it holds names that are no text. Copy or export it again") from err
    except MemoryError as err:
        raise ModelError(
            f"'{path}' needs more memory than there is (TRTJOB_CONVERT_MEMORY_MIB), or is damaged and its sizes are "
            "wrong. Copy or export it again"
        ) from err


def read_model(path: Path) -> ModelProto:
    """Read an ONNX file without what lies in other files. Raises ModelError."""
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as err:
        raise ModelError(f"no model file '{path}'") from err
    except OSError as err:
        raise ModelError(f"'{path}' cannot be read: {err.strerror}") from err
    except Exception as err:  # protobuf's DecodeError has no public home
        raise ModelError(f"'{path}' is not an ONNX file: {one_line(err)}. Copy or export it again") from err
    if not model.graph.node:  # an empty file is a valid message, too
        raise ModelError(f"'{path}' is not an ONNX file: it holds no graph. Copy or export it again")
    return model


def metadata_of(model: ModelProto) -> dict[str, str]:
    """Return a model's metadata. Raises ModelError through `refusing_damage`."""
    return {text(prop.key): text(prop.value) for prop in model.metadata_props}


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operators; 0: none is given."""
    return max((entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=0)


def known_operators(model: ModelProto, path: Path) -> ModelProto:
    """Return the model without functions, with operators that ONNX Runtime has. Raises ConversionError."""
    _expect_texts(model)
    _expect_opset(model, path)
    check(model, path)
    if model.functions:
        model = _converted(path, "its functions cannot be inlined", lambda: inliner.inline_local_functions(model))
    _expect_domains(model, path)
    return model


def upgraded(model: ModelProto, path: Path) -> ModelProto:
    """Return the model at opset WORK_OPSET or above. Raises ConversionError."""
    opset = opset_of(model)
    if opset >= WORK_OPSET:
        return model
    return _converted(
        path,
        f"it cannot be brought from opset {opset} to {WORK_OPSET}",
        lambda: version_converter.convert_version(model, WORK_OPSET),
    )


def _converted(path: Path, problem: str, convert: Callable[[], ModelProto]) -> ModelProto:
    try:
        return convert()
    except Exception as err:  # both tools raise plain RuntimeErrors of many kinds
        raise ConversionError(
            f"'{path}': {problem}: {one_line(err)}. Export it again with opset {WORK_OPSET} or above"
        ) from err


def check(model: ModelProto, path: Path) -> None:
    """Raise ConversionError unless a model keeps to ONNX's rules."""
    try:
        onnx.checker.check_model(model)
    except Exception as err:  # ValidationError for what breaks a rule; others for what cannot even be read
        raise ConversionError(f"'{path}' is no valid ONNX model: {one_line(err)}. Copy or export it again") from err


def _expect_texts(model: ModelProto) -> None:
    """Raise UnicodeDecodeError where a name is no text."""
    for graph in graphs_of(model.graph):
        for node in graph.node:
            for name in (node.name, node.op_type, node.domain, *node.input, *node.output):
                text(name)
        for value in (*graph.initializer, *graph.input, *graph.output):
            text(value.name)
        for value in (*graph.input, *graph.output):
            for dim in value.type.tensor_type.shape.dim:
                text(dim.dim_param)


def _expect_opset(model: ModelProto, path: Path) -> None:
    opset, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= opset <= newest:
        found = f"opset {opset}" if opset else "no opset of ONNX's own operators"
        raise ConversionError(
            f"'{path}' uses {found}: expected {MIN_OPSET} to {newest}. Export it again with another opset, such as 17"
        )


def _expect_domains(model: ModelProto, path: Path) -> None:
    """Raise ConversionError for operators of others; forget the domains that no node uses."""
    used = set()
    for graph in graphs_of(model.graph):
        for node in graph.node:
            if node.domain == "ai.onnx":  # the long name of the default
                node.domain = ""
            used.add(node.domain)
            if node.domain not in {"", CONTRIB_DOMAIN}:
                raise ConversionError(
                    f"'{path}' needs the operator {shown(node.op_type)} of the domain {shown(node.domain)}: expected "
                    f"operators of ONNX, or of {CONTRIB_DOMAIN} as ONNX Runtime has them. Export it without "
                    "that one: a detector, before NMS"
                )
    kept = {"": opset_of(model)}
    kept |= {entry.domain: entry.version for entry in model.opset_import if entry.domain in used - {""}}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in kept.items())
