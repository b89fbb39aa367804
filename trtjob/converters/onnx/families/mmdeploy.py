"""mmdetection's detectors by mmdeploy: `dets` with a score behind each box, and `labels` (mmdeploy/mmcv/ops/nms.py)."""

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import final, part, single
from trtjob.converters.onnx.families.roles import Roles, are_class_ids
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode

_ROLES = Roles({"dets": lambda array: array.ndim == 3 and array.shape[2] == 5, "labels": are_class_ids})


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    found, class_ids = _ROLES.names(seen)
    scores = graph.add("Squeeze", part(graph, found, 4, 5), graph.integers(2))
    return final(graph, part(graph, found, 0, 4), scores, class_ids)


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    found, class_ids = _ROLES.arrays(outputs, seen)
    return single(found[..., :4], found[..., 4], class_ids, labels)


FAMILY = Family(
    name="mmdeploy",
    title="mmdetection, exported by mmdeploy",
    gives="'dets' [N, K, 5] and 'labels' int64 [N, K]",
    needs="--labels, and what its pipeline does with pixels: --preprocess, or --mean and --std; --color bgr for RTMDet",
    fits=_ROLES.fit,
    recognises=_ROLES.fit,
    describe=lambda _seen: Contract(None, ResizeMode.CORNER, is_final=True),
    classes=lambda _seen: 0,
    rewire=_rewire,
    read=_read,
)
