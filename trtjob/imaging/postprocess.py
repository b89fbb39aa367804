"""From an engine's arrays to the detections or classes of a record: the same arrays always give the same record."""

from typing import NamedTuple

import numpy as np

from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import ModelSpec, NmsKind
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.boxes import clip
from trtjob.imaging.detections import BOX_DECIMALS, SCORE_DECIMALS, Classification, Detection
from trtjob.imaging.nms import nms
from trtjob.imaging.resize import Placement


class ImageDetections(NamedTuple):
    """An image's detections: by falling score, then class, then box.

    is_truncated: all the candidates that the model gives count, so that there may have been more.
    """

    detections: tuple[Detection, ...]
    is_truncated: bool


def detections_from(
    candidates: FloatArray,
    placement: Placement,
    spec: ModelSpec,
    *,
    hw: tuple[int, int],
    min_score: float,
    iou: float,
    class_ids: frozenset[int] | None = None,
) -> ImageDetections:
    """Return one image's detections, of a detector's candidates.

    candidates: float32 [M, 6], by falling score: xyxy in pixels of the network's input, score, class id. hw: of the
    image. Scores from `min_score` on count, of `class_ids` where given. After suppression the boxes are moved to the
    image and clipped to it; what lies outside is dropped.

    >>> spec = ModelSpec(task="detect", labels=("cat", "dog"), input_hw=(100, 100), candidates=300)
    >>> candidates = np.float32([[10, 20, 30, 40, 0.9, 1], [11, 20, 31, 40, 0.6, 1]])
    >>> twice_as_large = Placement(offset=(0, 0), scale=(2, 2))
    >>> detections_from(candidates, twice_as_large, spec, hw=(200, 200), min_score=0.25, iou=0.45).detections
    (Detection(label='dog', class_id=1, score=0.9, box=(20.0, 40.0, 60.0, 80.0)),)
    """
    counting = candidates[candidates[:, 4] >= min_score]  # NaN does not
    # A graph that suppresses by itself has a limit of its own, such as 300 boxes.
    is_all = len(candidates) < spec.candidates and spec.nms_kind is not NmsKind.NONE
    is_truncated = not is_all and bool((candidates[-1:, 4] >= min_score).any())
    if class_ids is not None:
        counting = counting[np.isin(counting[:, 5], list(class_ids))]
    counting = counting[np.isfinite(counting[:, :4]).all(1)]
    if not len(counting):
        return ImageDetections((), is_truncated)
    boxes, scores, classes = counting[:, :4], counting[:, 4], counting[:, 5].astype(np.intp)
    # Darknet measures in shares of the input; only distance-IoU can tell, where the input is not square.
    shares = np.asarray(boxes / np.array([*spec.input_hw[::-1]] * 2, np.float32), np.float32)
    kept = nms(shares, scores, classes, iou=iou, kind=spec.nms_kind, beta=spec.nms_beta)
    on_image = clip(placement.to_image(boxes[kept]), hw).astype(np.float64).round(BOX_DECIMALS)
    rounded_scores = scores[kept].astype(np.float64).round(SCORE_DECIMALS)
    found = [
        Detection(spec.labels[class_id], class_id, score, (x1, y1, x2, y2))
        for class_id, score, (x1, y1, x2, y2) in zip(
            classes[kept].tolist(), rounded_scores.tolist(), on_image.tolist(), strict=True
        )
        if x2 > x1 and y2 > y1
    ]
    return ImageDetections(tuple(sorted(found, key=lambda d: (-d.score, d.class_id, d.box))), is_truncated)


def classes_from(scores: FloatArray, spec: ModelSpec, top: int = 5) -> tuple[Classification, ...]:
    """Return the best classes of an image, by falling score, then class. scores: float32 [classes].

    Raises ImageError, `infer`, where a score is not a number: then the others mean nothing either.

    >>> spec = ModelSpec(task="classify", labels=("cat", "dog", "owl"), input_hw=(224, 224))
    >>> [(found.label, found.score) for found in classes_from(np.float32([0.1, 0.7, 0.2]), spec, top=2)]
    [('dog', 0.7), ('owl', 0.2)]
    """
    if not np.isfinite(scores).all():
        raise ImageError(FailureKind.INFER, "the model's scores for this image are not numbers")
    order = np.argsort(-scores, kind="stable")[:top]
    return tuple(
        Classification(spec.labels[class_id], class_id, round(score, SCORE_DECIMALS))
        for class_id, score in zip(order.tolist(), scores[order].astype(np.float64).tolist(), strict=True)
    )
