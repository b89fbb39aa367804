"""From an engine's arrays to the detections or classes of a record: the same arrays always give the same record."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trtjob.engines.answers import parts_of
from trtjob.engines.candidates import WIDTH
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import CANDIDATES_NAME, PROTOTYPES_NAME, ModelSpec, NmsKind
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.boxes import clip, in_order
from trtjob.imaging.detections import (
    BOX_DECIMALS,
    POINT_DECIMALS,
    SCORE_DECIMALS,
    Classification,
    Detection,
    Keypoint,
    RotatedBox,
)
from trtjob.imaging.masks import Mask
from trtjob.imaging.nms import IntArray, nms
from trtjob.imaging.resize import Placement
from trtjob.imaging.rotated import around, corners, rotated_from, rotated_nms, rounded
from trtjob.imaging.segmentation import masks_from

_TOP = 5  # classes that are kept of an image


class ImageDetections(NamedTuple):
    """An image's detections: by falling score, then class, then box.

    is_truncated: all the candidates that the model gives count, so that there may have been more.
    """

    detections: tuple[Detection, ...]
    is_truncated: bool


def detections_from(
    answer: FloatArray,
    placement: Placement,
    spec: ModelSpec,
    *,
    hw: tuple[int, int],
    min_score: float,
    iou: float,
    class_ids: frozenset[int] | None = None,
    is_agnostic: bool = False,
    max_count: int | None = None,
) -> ImageDetections:
    """Return one image's detections, of a detector's answer.

    answer: its candidates, float32 [M, 6 + extras], by falling score: xyxy in pixels of the network's input, score,
    class id, and what else is said of the box; with the prototypes of masks where it has some (`parts_of`). hw: of the
    image. Scores from `min_score` on count, of `class_ids` where given. A better box suppresses those of its class, or
    of every class where `is_agnostic`, then also what a graph gives that suppresses by itself. Of those that stay the
    `max_count` best are moved to the image and clipped to it; what lies outside is dropped, and what has a mask without
    a pixel.

    >>> spec = ModelSpec(task="detect", labels=("cat", "dog"), input_hw=(100, 100), candidates=300)
    >>> candidates = np.float32([[10, 20, 30, 40, 0.9, 1], [11, 20, 31, 40, 0.6, 1]])
    >>> twice_as_large = Placement(offset=(0, 0), scale=(2, 2))
    >>> detections_from(candidates, twice_as_large, spec, hw=(200, 200), min_score=0.25, iou=0.45).detections
    (Detection(label='dog', class_id=1, score=0.9, box=(20.0, 40.0, 60.0, 80.0), ...),)
    """
    parts = parts_of(answer, spec)
    candidates = parts[CANDIDATES_NAME]
    counting = candidates[candidates[:, 4] >= min_score]  # NaN does not
    # A graph that suppresses by itself has a limit of its own, such as 300 boxes.
    is_all = len(candidates) < spec.candidates and spec.nms_kind is not NmsKind.NONE
    is_truncated = not is_all and bool((candidates[-1:, 4] >= min_score).any())
    if class_ids is not None:
        counting = counting[np.isin(counting[:, 5], list(class_ids))]
    counting = counting[np.isfinite(counting).all(1)]
    if not len(counting):
        return ImageDetections((), is_truncated)
    kept = counting[_kept(counting, spec, iou, is_agnostic=is_agnostic)[:max_count]]
    boxes, rotated = placement.to_image(kept[:, :4]), None
    if spec.is_rotated:
        boxes, rotated = _turned(boxes, kept[:, -1])
    boxes = clip(boxes, hw)
    keypoints = _keypoints(kept, placement, spec, hw) if spec.keypoints else None
    masks = _masks(kept, parts[PROTOTYPES_NAME], boxes, placement, spec, hw) if spec.prototypes else None
    found = _detections(kept, in_order(boxes), spec, masks, keypoints, rotated)
    return ImageDetections(tuple(sorted(found, key=lambda d: (-d.score, d.class_id, d.box))), is_truncated)


def _kept(candidates: FloatArray, spec: ModelSpec, iou: float, *, is_agnostic: bool) -> IntArray:
    """Return which candidates no better one suppresses, by falling score."""
    boxes, scores, classes = candidates[:, :4], candidates[:, 4], candidates[:, 5].astype(np.intp)
    kind = spec.nms_kind
    if is_agnostic:
        classes = np.zeros_like(classes)
        if kind is NmsKind.NONE:
            kind = NmsKind.PROBIOU if spec.is_rotated else NmsKind.DEFAULT
    if kind is NmsKind.PROBIOU:
        return rotated_nms(rotated_from(boxes, candidates[:, -1]), scores, classes, iou=iou)
    # Darknet measures in shares of the input; only distance-IoU can tell, where the input is not square.
    shares = np.asarray(boxes / np.array([*spec.input_hw[::-1]] * 2, np.float32), np.float32)
    return nms(shares, scores, classes, iou=iou, kind=kind, beta=spec.nms_beta)


def _turned(boxes: FloatArray, angles: FloatArray) -> tuple[FloatArray, list[RotatedBox]]:
    """Return the upright boxes around boxes that are turned on the image, and these."""
    rotated = rotated_from(boxes, angles)
    points = corners(rotated)
    return around(points).astype(np.float32), rounded(rotated, points)


def _keypoints(
    kept: FloatArray, placement: Placement, spec: ModelSpec, hw: tuple[int, int]
) -> list[tuple[Keypoint, ...]]:
    start = WIDTH + spec.coefficients
    values = kept[:, start : start + spec.keypoint_values].reshape(len(kept), len(spec.keypoints), -1)
    flat = placement.to_image(np.tile(values[..., :2].reshape(-1, 2), 2))
    points = clip(flat, hw)[:, :2].astype(np.float64).round(POINT_DECIMALS).reshape(*values.shape[:2], 2)
    seen = values[..., 2:].astype(np.float64).round(SCORE_DECIMALS)
    if not spec.has_visibility:
        seen = np.ones((*values.shape[:2], 1))
    return [tuple((x, y, v) for x, y, v in one) for one in np.concatenate([points, seen], axis=2).tolist()]


def _masks(
    kept: FloatArray,
    prototypes: FloatArray,
    boxes: FloatArray,
    placement: Placement,
    spec: ModelSpec,
    hw: tuple[int, int],
) -> list[Mask | None]:
    coefficients = kept[:, WIDTH : WIDTH + spec.coefficients]
    return masks_from(coefficients, prototypes, boxes, placement, input_hw=spec.input_hw, hw=hw)


def _detections(
    kept: FloatArray,
    boxes: FloatArray,
    spec: ModelSpec,
    masks: Sequence[Mask | None] | None,
    keypoints: Sequence[tuple[Keypoint, ...]] | None,
    rotated: Sequence[RotatedBox] | None,
) -> list[Detection]:
    """Return what is on the image, rounded. boxes: on the image, clipped."""
    scores = kept[:, 4].astype(np.float64).round(SCORE_DECIMALS).tolist()
    class_ids = kept[:, 5].astype(np.intp).tolist()
    return [
        Detection(
            spec.labels[class_ids[index]],
            class_ids[index],
            scores[index],
            (x1, y1, x2, y2),
            None if masks is None else masks[index],
            None if keypoints is None else keypoints[index],
            None if rotated is None else rotated[index],
        )
        for index, (x1, y1, x2, y2) in enumerate(boxes.astype(np.float64).round(BOX_DECIMALS).tolist())
        if x2 > x1 and y2 > y1 and (masks is None or masks[index] is not None)
    ]


def classes_from(scores: FloatArray, spec: ModelSpec) -> tuple[Classification, ...]:
    """Return the five best classes of an image, by falling score, then class. scores: float32 [classes].

    Raises ImageError, `infer`, where a score is not a number: then the others mean nothing either.

    >>> spec = ModelSpec(task="classify", labels=("cat", "dog", "owl"), input_hw=(224, 224))
    >>> [(found.label, found.score) for found in classes_from(np.float32([0.1, 0.7, 0.2]), spec)]
    [('dog', 0.7), ('owl', 0.2), ('cat', 0.1)]
    """
    return _best(scores, spec, np.argsort(-scores, kind="stable")[:_TOP])


def labels_from(
    scores: FloatArray, spec: ModelSpec, min_score: float, class_ids: frozenset[int] | None = None
) -> tuple[Classification, ...]:
    """Return the classes of an image that have a score of at least `min_score`, as `classes_from` does.

    class_ids: only these count, None: all.

    >>> spec = ModelSpec(task="classify", labels=("cat", "dog", "owl"), input_hw=(224, 224), multi_label=True)
    >>> [(found.label, found.score) for found in labels_from(np.float32([0.8, 0.1, 0.9]), spec, min_score=0.25)]
    [('owl', 0.9), ('cat', 0.8)]
    """
    order = np.argsort(-scores, kind="stable")
    counts = scores[order] >= min_score
    if class_ids is not None:
        counts &= np.isin(order, list(class_ids))
    return _best(scores, spec, order[counts])


def _best(scores: FloatArray, spec: ModelSpec, order: IntArray) -> tuple[Classification, ...]:
    if not np.isfinite(scores).all():
        raise ImageError(FailureKind.INFER, "the model's scores for this image are not numbers")
    return tuple(
        Classification(spec.labels[class_id], class_id, round(score, SCORE_DECIMALS))
        for class_id, score in zip(order.tolist(), scores[order].astype(np.float64).tolist(), strict=True)
    )
