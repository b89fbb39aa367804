"""From an ONNX file made elsewhere to one that takes bytes and describes itself."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto

from trtjob import __version__
from trtjob.converters.artefact import IR_VERSION, Converted, Reference, model_from_graph, source_file
from trtjob.converters.candidates import remove_candidates
from trtjob.converters.graph import Graph
from trtjob.converters.onnx.batch import expect_batch, expect_same, for_any_batch, sized
from trtjob.converters.onnx.external import read_external
from trtjob.converters.onnx.facts import Recognised
from trtjob.converters.onnx.files import NAMES_KEY, files_of_model
from trtjob.converters.onnx.nms_plugin import cut_nms_plugin
from trtjob.converters.onnx.outputs import add_end
from trtjob.converters.onnx.pixels import add_front
from trtjob.converters.onnx.read import (
    check,
    known_operators,
    metadata_of,
    opset_of,
    read_model,
    refusing_damage,
    upgraded,
)
from trtjob.converters.onnx.recognise import detector_of, recognised, recognised_detector
from trtjob.converters.onnx.session import Session
from trtjob.converters.onnx.signature import Foreign, foreign_from
from trtjob.converters.onnx.surgery import keep_names_apart, sort_nodes
from trtjob.converters.onnx.ultralytics import export_from
from trtjob.converters.onnx.zipmap import cut_zipmap
from trtjob.converters.request import ConversionRequest
from trtjob.engines.spec import INPUT_NAME, METADATA_KEY, ModelSpec, Precision, parse_spec
from trtjob.errors import ConfigError, ConversionError

log = logging.getLogger(__name__)

_HALF_TYPES: dict[int, Precision] = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
_ONE_AT_A_TIME = (
    "Its graph takes one image at a time. With a dynamic batch, and without NMS, a GPU would run it faster."
)
# What is asked of a foreign file alone: a model of ours says it.
_DECIDED = (
    *("labels", "size", "input", "output", "preprocess", "color", "mean", "std", "resize", "crop_ratio"),
    *("family", "boxes", "background", "anchors", "scores"),
)
_QUANTISED_OPS = frozenset({"DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"})


def convert(request: ConversionRequest) -> Converted:
    """Convert an ONNX file. The same files give the same bytes.

    Raises ModelError where it is no ONNX, ConversionError where it is none that is understood.
    """
    with refusing_damage(request.model):
        model = read_model(request.model)
        metadata = metadata_of(model)
        if METADATA_KEY in metadata:
            return _own(model, parse_spec(metadata[METADATA_KEY], request.model), request)
        return _foreign(model, metadata, request)


def _own(model: ModelProto, spec: ModelSpec, request: ConversionRequest) -> Converted:
    """Return a model of ours as it is, but for its `candidates`, which every file gets last.

    Raises ConfigError for what was decided when it was converted.
    """
    if decided := [name for name in _DECIDED if getattr(request, name) is not None]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in decided)
        raise ConfigError(
            f"{options}: '{request.model}' was converted by trtjob, and holds that already. Leave it out, or convert "
            "the original model"
        )
    read_external(model, request.model)
    check(model, request.model)
    Session(model, f"'{request.model}'")
    remove_candidates(model)
    return Converted(model, _of_fewer(spec, request), _layers(model))


def _of_fewer(spec: ModelSpec, request: ConversionRequest) -> ModelSpec:
    """Return the spec with as many candidates as are asked for. Raises ConversionError where the model has fewer."""
    wanted = request.candidates or spec.candidates
    if wanted > spec.candidates:
        raise ConversionError(
            f"--candidates {wanted}: '{request.model}' was converted with {spec.candidates}, and the others are gone. "
            "Convert the original model"
        )
    return spec.model_copy(update={"candidates": wanted})


def _foreign(model: ModelProto, metadata: dict[str, str], request: ConversionRequest) -> Converted:
    path = request.model
    sources = files_of_model(model, request)
    read_external(model, path)
    sort_nodes(model.graph)
    scores, labels = cut_zipmap(model)
    if scores:
        metadata = {**({NAMES_KEY: repr(list(labels))} if labels else {}), **metadata}
        request = request.model_copy(update={"output": request.output or scores})
    described = cut_nms_plugin(model)
    model = known_operators(model, path)
    if (alone := expect_batch(model)) and request.input == alone:
        request = request.model_copy(update={"input": None})
    detector = detector_of(model, metadata, request, described)
    if detector is not None:
        foreign, found = recognised_detector(detector, metadata, request)
    else:
        export = export_from(metadata, path)
        may_have_masks = export is not None and (export.has_masks or export.is_yolov5)
        foreign = foreign_from(model, path, request, first_output=export is not None, may_have_masks=may_have_masks)
        found = recognised(foreign, export, metadata, request)
    spec = found.spec.model_copy(
        update={
            "precision": _precision(foreign.model),
            "converter": f"trtjob {__version__} onnx",
            "sources": tuple(source_file(file) for file in sources),
        }
    )
    complete, notes = _completed(replace(foreign, model=upgraded(foreign.model, path)), found, spec)
    _expect_to_work(complete, found, path)
    for note in notes:
        log.info("%s: %s", path, note)
    reference = Reference(f"{path.name} in ONNX Runtime", found.reference)
    return Converted(complete, spec, _layers(foreign.model), reference, notes, found.warnings)


def _completed(foreign: Foreign, found: Recognised, spec: ModelSpec) -> tuple[ModelProto, tuple[str, ...]]:
    """Return the finished model, of any batch where the graph allows it, and what the user should know.

    What the foreign graph says is compared with the original's answers: it may have been brought to another opset.
    """
    body = for_any_batch(foreign, found.pixels, spec.input_hw, found.images, found.raw)
    if body is not None:
        return _assembled(body, foreign, found, spec), found.notes
    body = sized(foreign, 1, spec.input_hw)
    expect_same(body, foreign, found.pixels, found.images, found.raw)
    return _fixed_to_one(_assembled(body, foreign, found, spec)), (*found.notes, _ONE_AT_A_TIME)


def _assembled(body: ModelProto, foreign: Foreign, found: Recognised, spec: ModelSpec) -> ModelProto:
    """Return a foreign graph between our two ends."""
    names = keep_names_apart(body)
    image = replace(foreign.image, name=names.get(foreign.image.name, foreign.image.name))
    answer = found.answer.renamed(names)
    graph = Graph()
    add_front(graph, found.pixels, image)
    graph.nodes.extend(body.graph.node)
    graph.constants.extend(body.graph.initializer)
    add_end(graph, answer, opset_of(body))
    model = model_from_graph(graph, spec, boxes=answer.boxes)
    model.graph.sparse_initializer.extend(body.graph.sparse_initializer)
    model.graph.quantization_annotation.extend(body.graph.quantization_annotation)
    model.ir_version = max(IR_VERSION, body.ir_version)
    del model.opset_import[:]
    model.opset_import.extend(body.opset_import)
    return model


def _fixed_to_one(model: ModelProto) -> ModelProto:
    """Say of a model's input and outputs that they are of one image."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def _expect_to_work(model: ModelProto, found: Recognised, path: Path) -> None:
    """Raise ConversionError unless the finished model is valid and takes images."""
    check(model, path)
    outputs = Session(model, f"what '{path}' was converted to", "Please report this model").run(
        INPUT_NAME, found.images[:1]
    )
    if not all(np.isfinite(output).all() for output in outputs):
        raise ConversionError(f"'{path}', converted, gives values that are no numbers. Please report this model")


def _layers(model: ModelProto) -> int:
    return sum(node.op_type not in {"Constant", "Identity"} for node in model.graph.node)


def _precision(model: ModelProto) -> Precision:
    """Return the precision that the file's own weights have."""
    if any(node.op_type in _QUANTISED_OPS for node in model.graph.node):
        return "int8"
    types = {tensor.data_type for tensor in model.graph.initializer}
    return next((precision for kind, precision in _HALF_TYPES.items() if kind in types), "fp32")
