"""From an engine's arrays to the detections or classes of a record: the same arrays always give the same record."""

import numpy as np

from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import ModelSpec
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.boxes import clip
from trtjob.imaging.detections import BOX_DECIMALS, SCORE_DECIMALS, Classification, Detection
from trtjob.imaging.nms import IntArray, nms
from trtjob.imaging.resize import Placement


def detections_from(
    boxes: FloatArray,
    scores: FloatArray,
    placement: Placement,
    spec: ModelSpec,
    *,
    hw: tuple[int, int],
    min_score: float,
    iou: float,
    class_ids: frozenset[int] | None = None,
) -> tuple[Detection, ...]:
    """Return one image's detections: by falling score, then class, then box.

    boxes: float32 [K, 4], xyxy in pixels of the network's input; scores: float32 [K, classes]. hw: of the image.
    Scores from `min_score` on count, of `class_ids` where given; a box may carry several classes only where the model
    is multi-label. After suppression the boxes are moved to the image and clipped to it; what lies outside is dropped.
    """
    rows, classes = _above(scores, min_score, multi_label=spec.multi_label)
    if class_ids is not None:
        wanted = np.isin(classes, list(class_ids))
        rows, classes = rows[wanted], classes[wanted]
    finite = np.isfinite(boxes[rows]).all(1)
    rows, classes = rows[finite], classes[finite]
    if not len(rows):
        return ()
    # Darknet measures in shares of the input; only distance-IoU can tell, where the input is not square.
    shares = np.asarray(boxes[rows] / np.array([*spec.input_hw[::-1]] * 2, np.float32), np.float32)
    kept = nms(shares, scores[rows, classes], classes, iou=iou, kind=spec.nms_kind, beta=spec.nms_beta)
    rows, classes = rows[kept], classes[kept]
    on_image = clip(placement.to_image(boxes[rows]), hw).astype(np.float64).round(BOX_DECIMALS)
    rounded_scores = scores[rows, classes].astype(np.float64).round(SCORE_DECIMALS)
    found = [
        Detection(spec.labels[class_id], class_id, score, (x1, y1, x2, y2))
        for class_id, score, (x1, y1, x2, y2) in zip(
            classes.tolist(), rounded_scores.tolist(), on_image.tolist(), strict=True
        )
        if x2 > x1 and y2 > y1
    ]
    return tuple(sorted(found, key=lambda d: (-d.score, d.class_id, d.box)))


def _above(scores: FloatArray, min_score: float, *, multi_label: bool) -> tuple[IntArray, IntArray]:
    """Return rows and classes of the scores that count; NaN does not."""
    if multi_label:
        # A tenth of the time of np.nonzero on the matrix: few scores count.
        rows, classes = np.divmod(np.flatnonzero(scores >= min_score), scores.shape[1])
        return rows, classes
    classes = scores.argmax(1)
    rows = np.flatnonzero(scores[np.arange(len(scores)), classes] >= min_score)
    return rows, classes[rows]


def classes_from(scores: FloatArray, spec: ModelSpec, top: int = 5) -> tuple[Classification, ...]:
    """Return the best classes of an image, by falling score, then class. scores: float32 [classes].

    Raises ImageError, `infer`, where a score is not a number: then the others mean nothing either.
    """
    if not np.isfinite(scores).all():
        raise ImageError(FailureKind.INFER, "the model's scores for this image are not numbers")
    order = np.argsort(-scores, kind="stable")[:top]
    return tuple(
        Classification(spec.labels[class_id], class_id, round(score, SCORE_DECIMALS))
        for class_id, score in zip(order.tolist(), scores[order].astype(np.float64).tolist(), strict=True)
    )
