"""The parity record: how near a converted model's answers are to those of its reference, and when that is too far."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trtjob.converters.artefact import Reference
from trtjob.converters.calibration_images import Samples
from trtjob.engines.answers import answers_from
from trtjob.engines.protocol import FloatArray, Outputs, UInt8Array
from trtjob.engines.spec import BOXES_NAME, SCORES_NAME, ModelSpec, Parity, Precision, Task
from trtjob.errors import ConversionError
from trtjob.imaging.boxes import iou_matrix
from trtjob.imaging.detections import Detection
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import Placement

MATCH_IOU = 0.5
KEYPOINTS, CORNERS, MASKS = "keypoints", "corners", "masks"  # compared as well, where a detector gives them
DIGITS = 3  # significant ones: what differs beyond them is the machine's, and would change the model's bytes
_TOP = 5
_LEAST_MASK = 64  # pixels: of smaller ones, a single pixel is a large share
_IN_PLACE = Placement((0.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True, slots=True)
class ParityLimits:
    """What a parity record must keep. boxes: pixels of the network input, of keypoints and corners, too; masks: 1 less
    the worst IoU; agreeing: share that is found again, or of the images whose best class is the same.
    """

    agreeing: float
    scores: float
    boxes: float
    masks: float


LIMITS: dict[Precision, ParityLimits] = {
    # Both compute in float32, only in another order: what differs more is another network.
    "fp32": ParityLimits(agreeing=0.99, scores=0.005, boxes=1.0, masks=0.1),
    # 11 bits of mantissa: the sample and YOLOv3-tiny stay below 0.002 and 0.2 pixels.
    "fp16": ParityLimits(agreeing=0.98, scores=0.02, boxes=2.0, masks=0.3),
    # 8 bits of mantissa: eight times as coarse.
    "bf16": ParityLimits(agreeing=0.95, scores=0.1, boxes=8.0, masks=0.7),
    # Single scores may move by 0.2 while mAP stays within a point; with bad ranges, detections vanish.
    "int8": ParityLimits(agreeing=0.9, scores=0.4, boxes=40.0, masks=0.9),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A parity record, and the CPU time for one image of the model and of its reference."""

    parity: Parity
    cpu_ms: float
    reference_cpu_ms: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One image's answers beside the reference's.

    wanted: detections of the reference, or 1 for its best class; found: those that are found again; differences: of
    each that is compared, by output: pixels of the network input, and scores; same_top5: of a classifier.
    """

    wanted: int
    found: int
    differences: dict[str, list[float]]
    same_top5: bool = False


@dataclass(slots=True)
class _Tally:
    images: int = 0
    wanted: int = 0
    found: int = 0
    same_top5: int = 0
    max_abs: dict[str, float] = field(default_factory=dict)

    def add(self, compared: Comparison) -> None:
        self.images += 1
        self.wanted += compared.wanted
        self.found += compared.found
        self.same_top5 += compared.same_top5
        for name, values in compared.differences.items():
            if values:
                self.max_abs[name] = max(self.max_abs.get(name, 0.0), *values)


def measure(
    spec: ModelSpec,
    samples: Samples,
    run: Callable[[UInt8Array], Outputs],
    reference: Reference,
    on_step: Callable[[int], None],
) -> Measured:
    """Run a model and its reference on images and compare their answers.

    By turns, unless the reference is to be closed: then it is through with all images before the model's first, for
    memory may not hold both. on_step: called with how many images are done. Raises ConversionError where the model's
    answers are no numbers.
    """
    tally, best, reference_best = _Tally(), math.inf, math.inf
    before: list[tuple[Outputs, float]] = []
    if reference.close is not None:
        before = [_timed(reference.run, image) for image in samples]
        reference.close()
    for number, image in enumerate(samples):
        expected, seconds = before[number] if before else _timed(reference.run, image)
        reference_best = min(reference_best, seconds)
        found, seconds = _timed(run, image)
        best = min(best, seconds)
        _expect_numbers(expected, "the reference's")
        _expect_numbers(found, f"the {spec.precision} model's")
        tally.add(compare(spec, expected, found))
        on_step(tally.images)
    parity = _record(spec, tally, reference.name, samples.description)
    return Measured(parity, round(best * 1000, 2), round(reference_best * 1000, 2))


def _timed(run: Callable[[UInt8Array], Outputs], image: UInt8Array) -> tuple[Outputs, float]:
    started = time.process_time()  # of all threads, for a reference may use several
    outputs = run(image[None])
    return outputs, time.process_time() - started


def _expect_numbers(outputs: Outputs, whose: str) -> None:
    if not all(np.isfinite(array).all() for array in outputs.by_name().values()):
        raise ConversionError(f"{whose} answers are not numbers for some images. Try another precision")


def compare(spec: ModelSpec, expected: Outputs, found: Outputs) -> Comparison:
    """Compare a model's answer to one image with its reference's."""
    return _COMPARISONS[spec.task](spec, expected, found)


def _compare_detections(spec: ModelSpec, expected: Outputs, found: Outputs) -> Comparison:
    wanted = [item for item in _detections(spec, expected) if item.score >= spec.conf]
    pairs = _matches(wanted, _detections(spec, found))
    differences: dict[str, list[float]] = {}
    for ours, theirs in pairs:
        for name, value in _differences(ours, theirs).items():
            differences.setdefault(name, []).append(value)
    return Comparison(len(wanted), len(pairs), differences)


def _differences(ours: Detection, theirs: Detection) -> dict[str, float]:
    """Return how far two detections of one object lie apart, in all that both tell."""
    found = {BOXES_NAME: _farthest(ours.box, theirs.box), SCORES_NAME: abs(ours.score - theirs.score)}
    if ours.keypoints and theirs.keypoints:
        one, other = ([point[:2] for point in detection.keypoints or ()] for detection in (ours, theirs))
        found[KEYPOINTS] = _farthest(one, other)
    if ours.rotated and theirs.rotated:
        found[CORNERS] = _farthest(ours.rotated.corners, theirs.rotated.corners)
    if ours.mask and theirs.mask and ours.mask.area >= _LEAST_MASK:
        one_mask, other_mask = ours.mask.decode(), theirs.mask.decode()
        found[MASKS] = 1 - float((one_mask & other_mask).sum() / (one_mask | other_mask).sum())
    return found


def _farthest(one: Sequence[Any], other: Sequence[Any]) -> float:
    return float(np.abs(np.subtract(one, other)).max())


def _detections(spec: ModelSpec, outputs: Outputs) -> tuple[Detection, ...]:
    """Return what would be stored of an image that is as large as the network's input."""
    return detections_from(
        answers_from(outputs, spec)[0],
        _IN_PLACE,
        spec,
        hw=spec.input_hw,
        min_score=min(spec.min_score, spec.conf),
        iou=spec.iou,
    ).detections


def _matches(wanted: list[Detection], there: tuple[Detection, ...]) -> list[tuple[Detection, Detection]]:
    """Return each detection with the one of its class that it overlaps most; none is taken twice."""
    if not wanted or not there:
        return []
    ious = iou_matrix(_boxes(wanted), _boxes(there))
    ours, theirs = (np.array([detection.class_id for detection in group]) for group in (wanted, there))
    ious[ours[:, None] != theirs[None]] = 0
    pairs = []
    for row, detection in enumerate(wanted):
        column = int(ious[row].argmax())
        if ious[row, column] >= MATCH_IOU:
            pairs.append((detection, there[column]))
            ious[:, column] = 0
    return pairs


def _boxes(detections: "list[Detection] | tuple[Detection, ...]") -> FloatArray:
    return np.array([detection.box for detection in detections], np.float32)


def _compare_classes(_spec: ModelSpec, expected: Outputs, found: Outputs) -> Comparison:
    ours, theirs = expected.scores[0], found.scores[0]
    first, second = (np.argsort(-scores, kind="stable")[:_TOP].tolist() for scores in (ours, theirs))
    differences = {SCORES_NAME: [float(np.abs(ours - theirs).max())]}
    return Comparison(1, int(first[0] == second[0]), differences, same_top5=set(first) == set(second))


_COMPARISONS = {Task.DETECT: _compare_detections, Task.CLASSIFY: _compare_classes}


def _record(spec: ModelSpec, tally: _Tally, reference: str, inputs: str) -> Parity:
    is_classifier = spec.task is Task.CLASSIFY
    return Parity(
        reference=reference,
        inputs=inputs,
        images=tally.images,
        max_abs={name: _significant(value) for name, value in sorted(tally.max_abs.items())},
        matched=None if is_classifier else _share(tally.found, tally.wanted),
        top1=_share(tally.found, tally.images) if is_classifier else None,
        top5=_share(tally.same_top5, tally.images) if is_classifier else None,
    )


def _share(part: int, whole: int) -> float | None:
    return _significant(part / whole) if whole else None


def _significant(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def check_parity(spec: ModelSpec, parity: Parity, *, strict: bool) -> tuple[str, ...]:
    """Return notes of what is too far from the reference, or could not be compared.

    strict: raise ConversionError instead.
    """
    problems = list(_problems(spec, parity))
    if not problems:
        return ()
    message = f"The {spec.precision} model, compared with {parity.reference} on {parity.inputs}: {'; '.join(problems)}."
    if not _is_uncompared(spec, parity):
        message += f" {_ADVICE[spec.precision]}."
    if strict:
        raise ConversionError(f"{message} Without --strict this is a warning")
    return (message,)


_ADVICE: dict[Precision, str] = {
    "fp32": "The conversion may not understand the original: please report it",
    "fp16": "Use fp32",
    "bf16": "Use fp16, or fp32",
    "int8": "Calibrate on more images that are like those it will see, try another --calibrate-method, or use fp16",
}


def _is_uncompared(spec: ModelSpec, parity: Parity) -> bool:
    return spec.task is Task.DETECT and parity.matched is None


def _problems(spec: ModelSpec, parity: Parity) -> Iterable[str]:
    limits = LIMITS[spec.precision]
    if _is_uncompared(spec, parity):
        yield (
            "the reference detects nothing in them, so nothing could be compared: name a folder of images in which "
            "there is something with --calibrate"
        )
    if parity.matched is not None and parity.matched < limits.agreeing:
        yield f"{parity.matched:.1%} of its detections are found again, expected {limits.agreeing:.0%} or more"
    if parity.top1 is not None and parity.top1 < limits.agreeing:
        yield f"{parity.top1:.1%} of the images have the same best class, expected {limits.agreeing:.0%} or more"
    allowed = dict.fromkeys((BOXES_NAME, KEYPOINTS, CORNERS), limits.boxes)
    for name, limit in {SCORES_NAME: limits.scores, **allowed, MASKS: limits.masks}.items():
        if parity.max_abs.get(name, 0.0) > limit:
            yield f"{name} differ by up to {parity.max_abs[name]:g}, expected {limit:g} or less"
