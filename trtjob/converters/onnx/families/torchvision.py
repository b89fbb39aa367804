"""torchvision's detectors (torchvision/models/detection): boxes, labels and scores of one image, in two orders."""

from collections.abc import Iterator

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import after_background, as_float, padded, single
from trtjob.converters.onnx.families.roles import are_integers
from trtjob.converters.pixels import unit_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode


def _names(seen: Seen) -> tuple[str, str, str] | None:
    """Return the names of boxes, scores and labels, which their shapes and types tell apart; None: they are not so."""
    boxes = [name for name in _such(seen, 2, is_integer=False) if seen.outputs[name].shape[1] == 4]
    scores, labels = (list(_such(seen, 1, is_integer=is_integer)) for is_integer in (False, True))
    if not len(boxes) == len(scores) == len(labels) == 1:
        return None
    return boxes[0], scores[0], labels[0]


def _such(seen: Seen, rank: int, *, is_integer: bool) -> Iterator[str]:
    for name, array in seen.outputs.items():
        if array.ndim == rank and are_integers(array) == is_integer:
            yield name


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    names = _names(seen)
    assert names is not None
    boxes, scores, class_ids = names
    last = graph.integers(1)
    parts = (as_float(graph, scores), after_background(graph, class_ids))
    return padded(
        graph, graph.add("Concat", as_float(graph, boxes), *(graph.add("Unsqueeze", x, last) for x in parts), axis=1)
    )


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    names = _names(seen)
    assert names is not None
    boxes, scores, class_ids = (outputs[name][None] for name in names)
    return single(boxes, scores, class_ids - 1, labels)


FAMILY = Family(
    name="torchvision",
    title="torchvision: Faster R-CNN, RetinaNet, SSD, FCOS; of Mask and Keypoint R-CNN the boxes",
    gives="boxes [M, 4], labels int64 [M] and scores [M]",
    needs="--labels, from its class 1 on or with `background` first; --size where it is open",
    has_background=True,
    fits=lambda seen: _names(seen) is not None,
    recognises=lambda seen: _names(seen) is not None,
    describe=lambda seen: Contract(unit_pixels(seen.channels), ResizeMode.STRETCH, is_final=True),
    classes=lambda _seen: 0,
    rewire=_rewire,
    read=_read,
)
