"""The end of a detector's graph: from the raw values of its heads to boxes and scores.

The candidates are chosen before they are decoded: a YOLOv3 at 416 has 10,647, of which a thousand are ever looked at.
"""

from itertools import groupby

import numpy as np

from trtjob.converters.darknet.heads import Decoder, Head
from trtjob.converters.darknet.network import Network
from trtjob.converters.graph import Graph
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import BOXES_NAME, SCORES_NAME

_MAX_ROWS = 4_000_000  # 250 times those of a YOLOv4 at 512: more could only fill the memory


def add_head(net: Network, head: Head) -> None:
    """Note a head. Raises DarknetParseError where it is too large, or does not go with the ones before."""
    if head.rows > _MAX_ROWS:
        raise head.section.error(f"has {head.rows:,} boxes: at most {_MAX_ROWS:,} are possible")
    if net.heads and net.heads[0].classes != head.classes:
        earlier = net.heads[0]
        raise head.section.error(
            f"classes={head.classes}: an earlier [{earlier.section.kind}] has {earlier.classes}", "classes"
        )
    net.heads.append(head)


def decode_heads(net: Network, most: int) -> int:
    """Append the graph's end: `boxes` [N, K, 4] and `scores` [N, K, classes], best first. Returns K, `most` or fewer.

    Formulas of fill_network_boxes in network.c and of what it calls.
    """
    graph = net.graph
    graph.scope = "decode"
    families = [list(family) for _, family in groupby(_by_decoder(net.heads), key=lambda head: head.decoder)]
    if len(families) == 1:
        return _decode(net, families[0], most, BOXES_NAME, SCORES_NAME)
    parts = []
    for number, family in enumerate(families):
        graph.scope = f"decode_{number}"
        parts.append((f"{graph.scope}/{BOXES_NAME}", f"{graph.scope}/{SCORES_NAME}"))
        _decode(net, family, most, *parts[-1])
    return _best_of_all(graph, parts, min(most, sum(map(_rows, families))))


def _by_decoder(heads: list[Head]) -> list[Head]:
    """Return the heads, those with equal decoders beside each other."""
    decoders: list[Decoder] = []
    for head in heads:
        if head.decoder not in decoders:
            decoders.append(head.decoder)
    return [head for decoder in decoders for head in heads if head.decoder == decoder]


def _rows(heads: list[Head]) -> int:
    return sum(head.rows for head in heads)


def _decode(net: Network, heads: list[Head], most: int, boxes_name: str, scores_name: str) -> int:
    """Choose and decode the best candidates of heads with the same decoder."""
    graph, decoder = net.graph, heads[0].decoder
    rows = _joined(graph, [decoder.rows(graph, head) for head in heads])
    k = min(most, _rows(heads))
    _, chosen = graph.top_k(decoder.best(graph, rows), k)
    picked = _picked(graph, rows, chosen)
    _boxes(net, heads, picked, chosen, boxes_name)
    graph.add("Identity", decoder.scores(graph, picked), output=scores_name)
    return k


def _best_of_all(graph: Graph, parts: list[tuple[str, str]], k: int) -> int:
    """Append the best candidates of several kinds of heads, which were decoded apart."""
    graph.scope = "decode"
    boxes, scores = (_joined(graph, list(values)) for values in zip(*parts, strict=True))
    _, chosen = graph.top_k(graph.add("ReduceMax", scores, graph.integers(2), keepdims=0), k)
    for values, name in ((boxes, BOXES_NAME), (scores, SCORES_NAME)):
        _picked(graph, values, chosen, name)
    return k


def _joined(graph: Graph, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _picked(graph: Graph, rows: str, chosen: str, name: str = "") -> str:
    indices = graph.add("Unsqueeze", chosen, graph.integers(2))
    return graph.add("GatherND", rows, indices, output=name, batch_dims=1)


def _boxes(net: Network, heads: list[Head], picked: str, chosen: str, name: str) -> None:
    """Append boxes: centre = (cell + scaled offset) * stride, side = anchor * what the head says."""
    graph, decoder = net.graph, heads[0].decoder
    cells, strides, half_anchors, scales = (
        graph.add("Gather", graph.constant(table, what), chosen, axis=0)
        for table, what in zip(
            _tables(heads, net.input_hw), ("cells", "strides", "half_anchors", "scales"), strict=True
        )
    )
    offset, side = decoder.place(graph, picked)
    centre = graph.add("Mul", graph.add("Add", graph.add("Mul", offset, scales), cells), strides)
    half = graph.add("Mul", side, half_anchors)
    if decoder.anchor_side:
        centre = graph.add("Add" if decoder.anchor_side > 0 else "Sub", centre, half)
    graph.add("Concat", graph.add("Sub", centre, half), graph.add("Add", centre, half), output=name, axis=2)


def _tables(heads: list[Head], input_hw: tuple[int, int]) -> tuple[FloatArray, ...]:
    """Return what belongs to each row of all heads: cell less the scale's shift, stride, half anchor, scale.

    Each is float32 [rows, 2], x before y (the scale [rows, 1]); rows run over anchors, then cells.
    """
    cells, strides, half_anchors, scales = [], [], [], []
    for head in heads:
        height, width = head.grid_hw
        ys, xs = np.mgrid[:height, :width].reshape(2, -1)
        shift = 0.5 * (head.scale_x_y - 1)
        cells.append(np.tile(np.stack([xs, ys], 1) - shift, (len(head.anchors), 1)))
        strides.append(np.tile([input_hw[1] / width, input_hw[0] / height], (head.rows, 1)))
        half_anchors.append(np.repeat(head.anchors / 2, height * width, axis=0))
        scales.append(np.full((head.rows, 1), head.scale_x_y))
    return tuple(np.concatenate(parts).astype(np.float32) for parts in (cells, strides, half_anchors, scales))
