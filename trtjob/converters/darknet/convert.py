"""From a cfg and a weights file to one ONNX file that describes itself."""

import logging

from onnx import TensorProto

from trtjob import __version__
from trtjob.converters.artefact import Converted, model_from_graph, source_file
from trtjob.converters.darknet.cfg import Section, read_cfg
from trtjob.converters.darknet.files import files, read_labels
from trtjob.converters.darknet.layers import LAYERS
from trtjob.converters.darknet.network import MAX_SIDE, Network, Tensor
from trtjob.converters.darknet.weights import WeightsReader
from trtjob.converters.darknet.yolo import decode_heads, nms_of
from trtjob.converters.graph import Graph
from trtjob.converters.request import ConversionRequest
from trtjob.engines.spec import INPUT_NAME, ModelSpec, ResizeMode, Sampling, Task
from trtjob.errors import DarknetParseError

log = logging.getLogger(__name__)

_COLORS = {1: "gray", 3: "rgb"}


def convert(request: ConversionRequest) -> Converted:
    """Convert a Darknet model. The same files give the same bytes.

    Raises ConversionError (DarknetParseError, DarknetWeightsError) where the files do not make a model.
    """
    weights, cfg, labels = files(request)
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
        sources=tuple(source_file(path) for path in (cfg, weights, labels)),
    )
    k = decode_heads(net)
    for section in (settings, *sections):
        for name, option in section.unread():
            log.warning("%s:%d: option '%s' is not known and has no effect", cfg, option.line, name)
    return Converted(model_from_graph(net.graph, spec, candidates=k), spec, layers=len(sections))


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
