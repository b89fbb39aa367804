"""From a cfg and a weights file to one ONNX model that describes itself."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from onnx import TensorProto

from trtjob import __version__
from trtjob.converters.artefact import Converted, model_from_graph, source_file
from trtjob.converters.cropping import crop_ratio
from trtjob.converters.darknet.cfg import Section, read_cfg
from trtjob.converters.darknet.decode import decode_heads
from trtjob.converters.darknet.files import files
from trtjob.converters.darknet.heads import NMS_BETA, nms_of
from trtjob.converters.darknet.layers import LAYERS
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.strides import check_size, has_resampled_shortcut
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.darknet.tree import probabilities
from trtjob.converters.darknet.weights import WeightsReader
from trtjob.converters.graph import Graph
from trtjob.converters.labels import fitting_labels, read_labels
from trtjob.converters.request import MAX_SIDE, USUAL_CANDIDATES, ConversionRequest
from trtjob.engines.spec import INPUT_NAME, SCORES_NAME, ModelSpec, NmsKind, ResizeMode, Sampling, Task
from trtjob.errors import DarknetParseError

log = logging.getLogger(__name__)

_COLORS = {1: "gray", 3: "rgb"}
_RECURRENT = frozenset({"rnn", "gru", "lstm", "crnn", "conv_lstm", "history"})
# What ends in a vector of one value for each class, whatever its shape was.
_CLASSIFIES = frozenset({"softmax", "connected", "avgpool"})
_AFTER_SCORES = frozenset({"cost", "dropout", "empty"})


def convert(request: ConversionRequest) -> Converted:
    """Convert a Darknet model. The same files give the same bytes.

    Raises ConversionError (DarknetParseError, DarknetWeightsError) where the files do not make a model.
    """
    weights, cfg, labels, *others = files(request)
    settings, *sections = read_cfg(cfg)
    _check_kinds(sections)
    hw, channels = _input_shape(settings, request.size)
    if request.size is not None:
        check_size(sections, hw)
    net = Network(
        Graph(),
        WeightsReader(weights),
        hw,
        input_scale=1 / 255,
        label_count=len(read_labels(labels)),
        is_pjreddies=has_resampled_shortcut(sections),
    )
    _build_layers(net, sections, channels)
    task, classes = _task(net, sections)
    names, warning = fitting_labels(labels, classes, weights, is_asked=request.labels is not None)
    most = request.candidates or USUAL_CANDIDATES
    nms_kind, nms_beta = nms_of(net.heads[-1].section) if net.heads else (NmsKind.DEFAULT, NMS_BETA)
    resize = request.resize or _resize(settings, task)
    spec = ModelSpec(
        task=task,
        labels=names,
        input_hw=hw,
        channels=channels,
        color=_COLORS[channels],
        resize=resize,
        crop_ratio=crop_ratio(request, resize),
        sampling=Sampling.ALIGN_CORNERS,
        multi_label=task is Task.DETECT,
        candidates=most if task is Task.DETECT else 0,
        nms_kind=nms_kind,
        nms_beta=nms_beta,
        converter=f"trtjob {__version__} darknet",
        sources=tuple(source_file(path) for path in (cfg, weights, labels, *others)),
    )
    boxes = decode_heads(net, most) if net.heads else None
    if boxes is None:
        _classify(net)
    _warn_of_unread(cfg, (settings, *sections))
    warnings = (warning,) if warning else ()
    return Converted(model_from_graph(net.graph, spec, boxes=boxes), spec, layers=len(sections), warnings=warnings)


def _warn_of_unread(cfg: Path, sections: Iterable[Section]) -> None:
    """Say which options nothing has looked at."""
    for section in sections:
        for name, option in section.unread():
            log.warning("%s:%d: option '%s' is not known and has no effect", cfg, option.line, name)


def _check_kinds(sections: list[Section]) -> None:
    for section in sections:
        if section.kind in _RECURRENT:
            raise section.error("is not supported: it remembers the images before, and here each stands for itself")
        if section.kind not in LAYERS:
            known = ", ".join(sorted(LAYERS))
            raise section.error(f"unknown kind of layer: expected one of {known}")


def _input_shape(settings: Section, size: tuple[int, int] | None) -> tuple[tuple[int, int], int]:
    height, width = size or (settings.integer("height", 0), settings.integer("width", 0))
    for name in ("height", "width"):
        settings.text(name, "")
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
    image = net.graph.add("Transpose", floats, perm=[0, 3, 1, 2])
    if sections[0].kind != "convolutional":  # which folds the factor into its weights
        image = net.graph.add("Mul", image, net.graph.constant(np.array(net.input_scale, np.float32), "scale"))
        net.input_scale = 1.0
    x = Tensor(image, channels, *net.input_hw)
    for section in sections:
        if x.is_head and section.kind != "route":
            before = sections[len(net.outputs) - 1].kind
            raise section.error(f"follows a [{before}], whose values no layer can read: begin with a [route]")
        net.graph.scope = f"{len(net.outputs):03d}_{section.kind}"
        x = LAYERS[section.kind](net, section, x)
        net.outputs.append(x)
    net.weights.finish(len(net.outputs) - 1)


def _task(net: Network, sections: list[Section]) -> tuple[Task, int]:
    """Return what the network is for, and its number of classes."""
    if net.heads:
        return Task.DETECT, net.heads[0].classes
    last, kinds = net.outputs[-1], [section.kind for section in sections if section.kind not in _AFTER_SCORES]
    if last.is_head or not kinds or not (last.hw == (1, 1) or kinds[-1] in _CLASSIFIES):
        raise DarknetParseError(
            f"is neither a detector, which ends in [yolo], [region] or [detection], nor a classifier, which ends in a "
            f"value for each class: its last layer gives {last.channels}x{last.height}x{last.width}",
            path=sections[0].path,
        )
    return Task.CLASSIFY, last.size


def _resize(settings: Section, task: Task) -> ResizeMode:
    """Return how Darknet brings an image to the network's size (test_detector, predict_classifier)."""
    is_letterbox = settings.integer("letter_box", 0)
    if task is Task.CLASSIFY:
        return ResizeMode.CROP
    return ResizeMode.LETTERBOX if is_letterbox else ResizeMode.STRETCH


def _classify(net: Network) -> None:
    """Append the graph's end: `scores` [N, classes]. Of a tree of classes only the leaves are answers."""
    graph, last, tree = net.graph, net.outputs[-1], net.tree
    graph.scope = "classify"
    if tree is None:
        graph.add("Flatten", last.name, output=SCORES_NAME, axis=1)
        return
    among_siblings = graph.add("Reshape", last.name, graph.integers(0, 1, -1))
    scores = probabilities(graph, tree, among_siblings)
    leaves = graph.constant(tree.leaves().astype(np.float32), "leaves")
    graph.add("Flatten", graph.add("Mul", scores, leaves), output=SCORES_NAME, axis=1)
