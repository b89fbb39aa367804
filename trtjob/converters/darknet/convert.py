"""From a cfg and a weights file to one ONNX file that describes itself."""

import hashlib
import logging
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from trtjob import __version__
from trtjob.converters.darknet.cfg import Section, read_cfg
from trtjob.converters.darknet.files import find_cfg, find_labels, read_labels
from trtjob.converters.darknet.graph import MAX_SIDE, Graph, Network, Tensor
from trtjob.converters.darknet.layers import LAYERS
from trtjob.converters.darknet.weights import WeightsReader
from trtjob.converters.darknet.yolo import decode_heads, nms_of
from trtjob.converters.output import write_atomically
from trtjob.engines.spec import (
    BOXES_NAME,
    INPUT_NAME,
    METADATA_KEY,
    SCORES_NAME,
    ModelSpec,
    ResizeMode,
    Sampling,
    SourceFile,
    Task,
)
from trtjob.errors import DarknetParseError

log = logging.getLogger(__name__)

OPSET = 18  # the first with Mish
IR_VERSION = 10
_COLORS = {1: "gray", 3: "rgb"}


def onnx_from_darknet(weights: Path, out: Path, *, cfg: Path | None = None, labels: Path | None = None) -> ModelSpec:
    """Convert a Darknet detector and write it to `out`, whole or not at all. The same input gives the same bytes.

    cfg, labels: found beside the weights where not named.
    Raises ConversionError (DarknetParseError, DarknetWeightsError) where the files do not make a model.
    """
    cfg = cfg or find_cfg(weights)
    model, spec = build_model(weights, cfg, labels or find_labels(weights, cfg))
    write_atomically(out, model.SerializeToString(deterministic=True))
    return spec


def build_model(weights: Path, cfg: Path, labels: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return the ONNX model, which carries its spec, and the spec."""
    settings, *sections = read_cfg(cfg)
    hw, channels = _input_shape(settings)
    net = Network(Graph(), WeightsReader(weights), hw, input_scale=1 / 255)
    _build_layers(net, sections, channels)
    nms_kind, nms_beta = nms_of(net.heads[-1].section)
    spec = ModelSpec(
        task=Task.DETECT,
        labels=read_labels(labels, net.heads[0].classes),
        input_hw=hw,
        channels=channels,
        color=_COLORS[channels],
        resize=ResizeMode.LETTERBOX if settings.integer("letter_box", 0) else ResizeMode.STRETCH,
        sampling=Sampling.ALIGN_CORNERS,
        multi_label=True,
        nms_kind=nms_kind,
        nms_beta=nms_beta,
        converter=f"trtjob {__version__} darknet",
        sources=tuple(_source(path) for path in (cfg, weights, labels)),
    )
    k = decode_heads(net)
    for section in (settings, *sections):
        for name, option in section.unread():
            log.warning("%s:%d: option '%s' is not known and has no effect", cfg, option.line, name)
    return _model(net.graph, spec, k), spec


def _input_shape(settings: Section) -> tuple[tuple[int, int], int]:
    height, width = (settings.integer(name, 0) for name in ("height", "width"))
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise settings.error(
            f"needs height and width, in pixels, of 1 to {MAX_SIDE}: found height={height}, width={width}", "height"
        )
    channels = settings.integer("channels", 3)
    if channels not in _COLORS:
        raise settings.error(f"channels={channels}: expected 3 (colour) or 1 (grey)", "channels")
    return (height, width), channels


def _build_layers(net: Network, sections: list[Section], channels: int) -> None:
    floats = net.graph.add("Cast", INPUT_NAME, to=TensorProto.FLOAT)
    x = Tensor(net.graph.add("Transpose", floats, perm=[0, 3, 1, 2]), channels, *net.input_hw)
    if sections[0].kind != "convolutional":
        raise sections[0].error("the first layer must be [convolutional]")
    for section in sections:
        if section.kind not in LAYERS:
            known = ", ".join(sorted(LAYERS))
            raise section.error(f"unknown kind of layer: expected one of {known}")
        if x.is_head and section.kind != "route":
            raise section.error("follows a [yolo], whose values no layer can read: begin with a [route]")
        net.graph.scope = f"{len(net.outputs):03d}_{section.kind}"
        x = LAYERS[section.kind](net, section, x)
        net.outputs.append(x)
    net.weights.finish(len(net.outputs) - 1)
    if not net.heads:
        raise DarknetParseError("has no [yolo] layer: only YOLO detectors are supported", path=sections[0].path)
    if len({head.new_coords for head in net.heads}) > 1:
        raise net.heads[1].section.error("new_coords must be the same in every [yolo]", "new_coords")


def _source(path: Path) -> SourceFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(name=path.name, sha256=digest, size_bytes=path.stat().st_size)


def _model(graph: Graph, spec: ModelSpec, k: int) -> onnx.ModelProto:
    image = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", *spec.input_hw, spec.channels])
    outputs = [
        helper.make_tensor_value_info(BOXES_NAME, TensorProto.FLOAT, ["N", k, 4]),
        helper.make_tensor_value_info(SCORES_NAME, TensorProto.FLOAT, ["N", k, len(spec.labels)]),
    ]
    document = helper.make_graph(graph.nodes, "darknet", [image], outputs, graph.constants)
    model = helper.make_model(
        document, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="trtjob"
    )
    helper.set_model_props(model, {METADATA_KEY: spec.model_dump_json()})
    return model
