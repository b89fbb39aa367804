"""mmdetection's detectors by mmdeploy: `dets` with a score behind each box, and `labels` (mmdeploy/mmcv/ops/nms.py)."""

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import final, part, single
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode


def _fits(seen: Seen) -> bool:
    if not {"dets", "labels"} <= seen.names or not seen.is_integer("labels"):
        return False
    boxes = seen.shape("dets")
    return len(boxes) == 3 and boxes[2] == 5 and seen.shape("labels") == boxes[:2]


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    found = seen.named("dets")
    scores = graph.add("Squeeze", part(graph, found, 4, 5), graph.integers(2))
    return final(graph, part(graph, found, 0, 4), scores, seen.named("labels"))


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    found = outputs[seen.named("dets")]
    return single(found[..., :4], found[..., 4], outputs[seen.named("labels")], labels)


FAMILY = Family(
    name="mmdeploy",
    title="mmdetection, exported by mmdeploy",
    gives="'dets' [N, K, 5] and 'labels' int64 [N, K]",
    needs="--labels, and what its pipeline does with pixels: --preprocess, or --mean and --std; --color bgr for RTMDet",
    fits=_fits,
    recognises=_fits,
    describe=lambda _seen: Contract(None, ResizeMode.CORNER, is_final=True),
    classes=lambda _seen: 0,
    rewire=_rewire,
    read=_read,
)
