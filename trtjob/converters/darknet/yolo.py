"""The [yolo] layers, and the end of the graph: from their raw values to boxes and scores.

The candidates are chosen before they are decoded: a YOLOv3 at 416 has 10,647, of which no more than MAX_CANDIDATES are
ever looked at.
"""

from dataclasses import replace

import numpy as np

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.network import Network, Tensor, YoloHead
from trtjob.converters.graph import Graph
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import BOXES_NAME, SCORES_NAME, NmsKind

MAX_CANDIDATES = 1024
_BOX, _OBJECTNESS = 4, 1  # values before the classes: x, y, w, h and objectness


def yolo(net: Network, section: Section, x: Tensor) -> Tensor:
    """Note a head; all heads are decoded together at the end (yolo_layer.c)."""
    section.expect("embedding_layer", "999999")
    anchors = section.numbers("anchors")
    if not anchors or len(anchors) % 2:
        raise section.error(f"needs pairs of numbers as 'anchors', found {len(anchors)} numbers", "anchors")
    pairs = np.array(anchors, np.float32).reshape(-1, 2)
    section.integer("num", len(pairs))
    mask = section.integers("mask") or list(range(len(pairs)))
    if not all(0 <= index < len(pairs) for index in mask):
        raise section.error(f"mask={mask}: there are {len(pairs)} anchors, numbered from 0", "mask")
    classes = section.integer("classes", 20, least=1)
    wanted = len(mask) * (_BOX + _OBJECTNESS + classes)
    if x.channels != wanted:
        raise section.error(
            f"{len(mask)} anchors and classes={classes} need {wanted} channels, but the layer before has {x.channels}. "
            f"Set its filters={wanted}, or correct 'classes'",
            "classes",
        )
    if net.heads and net.heads[0].classes != classes:
        raise section.error(f"classes={classes}: an earlier [yolo] has {net.heads[0].classes}", "classes")
    nms_of(section)
    scale = section.number("scale_x_y", 1.0)
    new_coords = bool(section.integer("new_coords", 0))
    net.heads.append(YoloHead(x, section, pairs[mask], classes, scale, new_coords))
    return replace(x, is_head=True)


def nms_of(section: Section) -> tuple[NmsKind, float]:
    """Return how a [yolo] wants overlapping boxes suppressed, and beta; Darknet asks the last one (detector.c)."""
    kind = section.text("nms_kind", NmsKind.DEFAULT.value)
    known = [kind for kind in NmsKind if kind is not NmsKind.NONE]
    if kind not in known:
        raise section.error(f"unknown nms_kind={kind}: expected one of {', '.join(known)}", "nms_kind")
    beta = section.number("beta_nms", 0.6)
    if beta <= 0:
        raise section.error(f"beta_nms={beta:g}: expected a number above 0", "beta_nms")
    return NmsKind(kind), beta


def decode_heads(net: Network) -> int:
    """Append the graph's end: `boxes` [N, K, 4] and `scores` [N, K, classes]. Returns K.

    The K candidates with the largest objectness * best class are decoded, best first; formulas of get_yolo_box and
    get_yolo_detections in yolo_layer.c.
    """
    graph, heads = net.graph, net.heads
    graph.scope = "decode"
    rows = [_rows(graph, head) for head in heads]
    all_rows = rows[0] if len(rows) == 1 else graph.add("Concat", *rows, axis=1)
    total = sum(len(head.anchors) * head.tensor.height * head.tensor.width for head in heads)
    k = min(MAX_CANDIDATES, total)
    has_logits = not heads[0].new_coords
    chosen = graph.top_k(_best_score(graph, all_rows, has_logits), k)
    picked = graph.add("GatherND", all_rows, graph.add("Unsqueeze", chosen, graph.integers(2)), batch_dims=1)
    _boxes(net, picked, chosen, has_logits)
    scores, objectness = _columns(graph, picked, 5, None), _columns(graph, picked, 4, 5)
    if has_logits:
        scores, objectness = graph.add("Sigmoid", scores), graph.add("Sigmoid", objectness)
    graph.add("Mul", scores, objectness, output=SCORES_NAME)
    return k


def _rows(graph: Graph, head: YoloHead) -> str:
    """Return a head's values as [N, anchors * height * width, 5 + classes]."""
    values, cells = 5 + head.classes, head.tensor.height * head.tensor.width
    apart = graph.add("Reshape", head.tensor.name, graph.integers(0, len(head.anchors), values, cells))
    last = graph.add("Transpose", apart, perm=[0, 1, 3, 2])
    return graph.add("Reshape", last, graph.integers(0, len(head.anchors) * cells, values))


def _columns(graph: Graph, rows: str, start: int, end: int | None) -> str:
    stop = np.iinfo(np.int64).max if end is None else end
    return graph.add("Slice", rows, graph.integers(start), graph.integers(int(stop)), graph.integers(2))


def _best_score(graph: Graph, rows: str, has_logits: bool) -> str:
    """Return objectness * best class, [N, rows]. The sigmoid rises, so it is enough to take it of the largest."""
    best = graph.add("ReduceMax", _columns(graph, rows, 5, None), graph.integers(2), keepdims=0)
    objectness = graph.add("Squeeze", _columns(graph, rows, 4, 5), graph.integers(2))
    if has_logits:
        best, objectness = graph.add("Sigmoid", best), graph.add("Sigmoid", objectness)
    return graph.add("Mul", best, objectness)


def _boxes(net: Network, picked: str, chosen: str, has_logits: bool) -> None:
    """Append `boxes`: centre = (cell + scaled offset) * stride, size = anchor * exp(t), or anchor * (2 t)^2."""
    graph = net.graph
    cells, strides, half_anchors, scales = (
        graph.add("Gather", graph.constant(table, name), chosen, axis=0)
        for table, name in zip(
            _tables(net.heads, net.input_hw), ("cells", "strides", "half_anchors", "scales"), strict=True
        )
    )
    offset, size = _columns(graph, picked, 0, 2), _columns(graph, picked, 2, 4)
    if has_logits:
        offset, size = graph.add("Sigmoid", offset), graph.add("Exp", size)
    else:
        doubled = graph.add("Add", size, size)
        size = graph.add("Mul", doubled, doubled)
    centre = graph.add("Mul", graph.add("Add", graph.add("Mul", offset, scales), cells), strides)
    half = graph.add("Mul", size, half_anchors)
    graph.add("Concat", graph.add("Sub", centre, half), graph.add("Add", centre, half), output=BOXES_NAME, axis=2)


def _tables(heads: list[YoloHead], input_hw: tuple[int, int]) -> tuple[FloatArray, ...]:
    """Return what belongs to each row of all heads: cell less the scale's shift, stride, half anchor, scale.

    Each is float32 [rows, 2], x before y (the scale [rows, 1]); rows run over anchors, then cells.
    """
    cells, strides, half_anchors, scales = [], [], [], []
    for head in heads:
        height, width = head.tensor.hw
        ys, xs = np.mgrid[:height, :width].reshape(2, -1)
        shift = 0.5 * (head.scale_x_y - 1)
        count = len(head.anchors) * height * width
        cells.append(np.tile(np.stack([xs, ys], 1) - shift, (len(head.anchors), 1)))
        strides.append(np.tile([input_hw[1] / width, input_hw[0] / height], (count, 1)))
        half_anchors.append(np.repeat(head.anchors / 2, height * width, axis=0))
        scales.append(np.full((count, 1), head.scale_x_y))
    return tuple(np.concatenate(parts).astype(np.float32) for parts in (cells, strides, half_anchors, scales))
