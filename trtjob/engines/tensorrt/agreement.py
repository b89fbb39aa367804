"""Do a plan and ONNX Runtime mean the same network? Told by what both say of one image that shows nothing known.

Both compute the same ONNX graph in the same precision, so they differ by rounding alone. A detector that finds nothing
still ranks its candidates, and a score of 1e-4 beside one of 1e-6 says as much of the network as 0.9 beside 0.1: so
scores are compared by their logits. Where rounding moves each logit by a little, the i-th best moves by no more than
that, whoever the i-th is. A plan that ranks by something else, or misplaces boxes, does not come through:

- Where the graph ranks candidates by their best score, so does the plan. There is next to no rounding in this.
- The best score at each rank is the same.
- Each candidate has one in the other's answer with the same box, the same scores of all classes, and the same of what
  else is said of it.
- The prototypes of masks are the same.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.answers import parts_of
from trtjob.engines.candidates import WIDTH, candidates_from
from trtjob.engines.protocol import FloatArray, Outputs, output_names
from trtjob.engines.spec import CANDIDATES_NAME, PROTOTYPES_NAME, SCORES_NAME, ModelSpec, Precision, Task

# Probabilities are told apart from here to there. A detector's are far below all that is ever stored, and above what a
# sigmoid by way of a hyperbolic tangent makes noise of; the softmax of a classifier may be half, which ends there. Near
# 1 float32 has no more digits.
_LEAST = {Task.DETECT: 1e-6, Task.CLASSIFY: 1e-5}
_MOST = 1 - 1e-5
# Logits up to here are rounded as the last layer's own values of that size are, larger ones by more.
_USUAL = 16.0

# By how much a logit may be above one before it that should be larger, and how many may be. They are computed from the
# values that were ranked, in float32.
_RISE = 0.05
_RISING = 0.01

_COPIED = 1e-3  # by how much a value may change on its way into another output: TensorRT 8.6 may round it to half

_LOST = 0.02  # share of values that may overflow in one answer alone

# Boxes of one candidate overlap, whatever is rounded; by more than this share of a side they are not apart.
_MOST_OFF = 0.5

_GRID = 8  # cells along an image's side, of the coarsest heads


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far logits may lie apart: share of their spread, which grows as they do, and a least value.

    share: rounding errors add up through a network in proportion to its values, whose spread the last layer shows.
    least: of the last layer's own rounding, where all logits are nearly equal, as a network without training has them.
    agreeing: share of ranks, classes and boxes that must be so near. The rest is for thresholds in a graph, which a
    rounding crosses: a tree of classes, NMS, and integers that fall on the other side of a half.
    """

    share: float
    least: float
    agreeing: float


# About three times what was seen between two ways to compute a precision's graphs on a CPU (test_agreement.py), at 95 %
# of the ranks: fp16 beside float32 0.02; bf16 with and without rounding between the layers 0.03 of detectors and 0.3 of
# a MobileNet of made-up weights; int8 with its values rounded after every layer, after every other one, or kept as
# integers, 0.1 of networks that were trained and 0.2 of made-up weights, which rounding upsets more.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(0.06, 0.02, 0.9),  # TF32 has fp16's 10 bits of mantissa
    "fp16": Tolerance(0.06, 0.02, 0.9),
    "bf16": Tolerance(0.4, 0.1, 0.8),
    "int8": Tolerance(0.5, 0.1, 0.7),
}


# How many times what two references differ by a plan may differ from one of them: it has roundings of its own.
_OF_REFERENCES = 3.0


def disagreement(
    found: Outputs, expected: Outputs, spec: ModelSpec, *, expected_too: Outputs | None = None
) -> str | None:
    """Return in what a plan's answer to one image is not that of the reference, None where it is.

    found, expected: of a batch of 1, as `Outputs` has them. expected_too: the reference's, rounded at other places;
    networks whose answers that changes much may change as much in a plan.
    """
    ours, theirs = found.by_name(), expected.by_name()
    for name in dict.fromkeys((SCORES_NAME, *output_names(spec))):
        if (problem := _difference_of_form(name, ours.get(name), theirs.get(name))) is not None:
            return problem
    tolerance = TOLERANCES[spec.precision]
    if expected_too is not None:
        tolerance = _widened(tolerance, expected, expected_too, spec)
    if expected.boxes is None:
        return _classes(found.scores[0], expected.scores[0], tolerance)
    return (
        _ranks(found.scores[0], expected.scores[0], tolerance)
        or _candidates(found, expected, tolerance, spec)
        or _masks(found, expected, tolerance)
    )


def inconsistency(answer: FloatArray, found: Outputs, spec: ModelSpec) -> str | None:
    """Return in what a plan's compact answer does not follow from its own outputs, None where it does.

    answer: of one image; found: of a batch of 1. Which of two equal candidates comes first is the plan's choice.
    """
    if found.boxes is None:
        return None if np.allclose(answer, found.scores[0], 0, _COPIED, equal_nan=True) else "its scores change"
    parts, expected = parts_of(answer, spec), candidates_from(found, spec)[0]
    candidates = parts[CANDIDATES_NAME]
    if candidates.shape != expected.shape:
        return f"candidates have the shape {list(candidates.shape)} instead of {list(expected.shape)}"
    if found.prototypes is not None and not _is_copy(parts[PROTOTYPES_NAME], found.prototypes[0]).all():
        return "its prototypes change"
    in_order = np.abs(candidates[:, 4] - expected[:, 4]) <= _COPIED
    wrong = [index for index, row in enumerate(candidates) if not (in_order[index] and _is_of(row, found))]
    if not wrong:
        return None
    shown = ", ".join(f"{value:.4g}" for value in candidates[wrong[0], :WIDTH])
    return f"of {len(candidates)} candidates, {len(wrong)} do not follow from its boxes and scores, such as [{shown}]"


def _is_of(row: FloatArray, found: Outputs) -> bool:
    """Tell whether a candidate is one of the boxes, with its score of a class and all that is said of it."""
    assert found.boxes is not None
    scores = found.scores[0]
    class_id = int(row[5]) if 0 <= row[5] < scores.shape[1] else 0
    is_it = _is_copy(found.boxes[0], row[:4]).all(1) & (np.abs(scores[:, class_id] - row[4]) <= _COPIED)
    if found.extras is not None:
        is_it &= _is_copy(found.extras[0], row[WIDTH:]).all(1)
    return bool(is_it.any()) and class_id == row[5]


def _is_copy(array: FloatArray, other: FloatArray) -> NDArray[np.bool_]:
    return np.isclose(array, other, _COPIED, _COPIED, equal_nan=True)


def _widened(tolerance: Tolerance, one: Outputs, other: Outputs, spec: ModelSpec) -> Tolerance:
    """Return a tolerance that allows for what two references differ by."""
    logits = [logits_of(outputs.scores[0], _LEAST[spec.task]) for outputs in (one, other)]
    if spec.task is Task.DETECT:
        logits = [np.sort(values.max(1)) for values in logits]
    differences = _telling(*logits)
    seen = float(np.quantile(differences, tolerance.agreeing)) if differences.size else 0.0
    return replace(tolerance, least=max(tolerance.least, _OF_REFERENCES * seen))


def _difference_of_form(name: str, ours: FloatArray | None, theirs: FloatArray | None) -> str | None:
    if ours is None or theirs is None:
        return None if ours is theirs else f"{name} are given by one of them alone"
    if ours.shape != theirs.shape:
        return f"{name} have the shape {list(ours.shape)} instead of {list(theirs.shape)}"
    lost = float((np.isfinite(theirs) & ~np.isfinite(ours)).mean())
    return f"{lost:.0%} of the {name} are no numbers" if lost > _LOST else None


def _classes(found: FloatArray, expected: FloatArray, tolerance: Tolerance) -> str | None:
    ours, theirs = (logits_of(scores, _LEAST[Task.CLASSIFY]) for scores in (found, expected))
    # By the whole spread, also of what is not compared.
    allowed = _allowed(logits_of(expected, _LEAST[Task.DETECT]), tolerance)
    differences = _telling(ours, theirs)
    if _share(differences <= allowed) >= tolerance.agreeing:
        return None
    return f"the classes' logits differ by up to {differences.max():.3g}, expected {allowed:.3g} or less"


def _telling(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far logits lie apart, but of those that both answers take for nothing, whose agreeing says nothing."""
    least = min(ours.min(), theirs.min())
    return np.asarray(np.abs(ours - theirs)[(ours > least) | (theirs > least)])


def _ranks(found: FloatArray, expected: FloatArray, tolerance: Tolerance) -> str | None:
    """Compare the best scores by rank."""
    ours, theirs = (logits_of(scores, _LEAST[Task.DETECT]).max(1) for scores in (found, expected))
    allowed = _allowed(theirs, tolerance)
    if _rising(theirs) > _RISING:  # this graph orders by something else, or not at all
        ours, theirs = -np.sort(-ours), -np.sort(-theirs)
    elif (rising := _rising(ours)) > _RISING:
        return f"its candidates should come best first, and {rising:.0%} of them are better than one before"
    differences = _telling(ours, theirs)
    if _share(differences <= allowed) >= tolerance.agreeing:
        return None
    return (
        f"its best scores are others: at the same rank they differ by up to {differences.max():.3g} as logits, "
        f"expected {allowed:.3g} or less"
    )


def _rising(best: NDArray[np.float64]) -> float:
    """Return the share of candidates that are better than one before them."""
    return float((best > np.minimum.accumulate(best) + _RISE).mean())


def _candidates(found: Outputs, expected: Outputs, tolerance: Tolerance, spec: ModelSpec) -> str | None:
    """Look for each one's candidates among the other's."""
    ours, theirs = _Candidates.of(found), _Candidates.of(expected)
    near = _Near(
        ranks=_allowed(theirs.best, tolerance),
        logits=_allowed(theirs.logits, tolerance),
        boxes=min(_allowed(theirs.logits, tolerance), _MOST_OFF),
        extras=np.array([_allowed(column, tolerance) for column in theirs.extras.T]),
        least_side=max(spec.input_hw) / _GRID,
        agreeing=tolerance.agreeing,
    )
    for one, other in ((theirs, ours), (ours, theirs)):
        sought = one.in_both(near)
        missing = [index for index in sought if not one.is_in(other, index, near)]
        if len(missing) > (1 - tolerance.agreeing) * len(sought):
            box = ", ".join(f"{value:.1f}" for value in one.boxes[missing[0]])
            return (
                f"of {len(sought)} boxes, {len(missing)} are not where they should be or have other scores, such as "
                f"[{box}] with a best score of {one.scores[missing[0]].max():.3g}"
            )
    return None


def _masks(found: Outputs, expected: Outputs, tolerance: Tolerance) -> str | None:
    if found.prototypes is None or expected.prototypes is None:
        return None
    differences = np.abs(found.prototypes - expected.prototypes)
    allowed = _allowed(expected.prototypes, tolerance)
    if _share(differences <= allowed) >= tolerance.agreeing:
        return None
    return f"the prototypes of masks differ by up to {differences.max():.3g}, expected {allowed:.3g} or less"


@dataclass(frozen=True, slots=True)
class _Near:
    """How near two candidates that are one lie: their best logits, all their logits, their boxes, in sides, and each of
    their extras.

    A box's centre moves by a cell's share of what its logit moves by, and its sides are stretched by the exponential of
    it: so a box may be off by as much times its larger side, or that of the coarsest cell.
    """

    ranks: float
    logits: float
    boxes: float
    extras: NDArray[np.float64]
    least_side: float
    agreeing: float


@dataclass(frozen=True, slots=True)
class _Candidates:
    """boxes: [K, 4]; scores, logits: [K, classes]; best: the largest of the logits, [K]; extras: [K, extras]."""

    boxes: FloatArray
    scores: FloatArray
    logits: NDArray[np.float64]
    best: NDArray[np.float64]
    extras: FloatArray

    @classmethod
    def of(cls, outputs: Outputs) -> "_Candidates":
        assert outputs.boxes is not None
        logits = logits_of(outputs.scores[0], _LEAST[Task.DETECT])
        extras = np.zeros((len(logits), 0), np.float32) if outputs.extras is None else outputs.extras[0]
        return cls(outputs.boxes[0], outputs.scores[0], logits, logits.max(1), extras)

    def in_both(self, near: _Near) -> NDArray[np.intp]:
        """Return the candidates, best first, that are in both answers however they are rounded: not the last ones."""
        order = np.argsort(-self.best, kind="stable")
        kept = order[self.best[order] > self.best.min() + 2 * near.ranks]
        return kept if kept.size else order

    def is_in(self, other: "_Candidates", index: int, near: _Near) -> bool:
        """Tell whether another answer has a candidate with this one's box and scores."""
        box = self.boxes[index]
        if not np.isfinite(box).all():  # sides of a network without training may be infinite
            return True
        side = max(float(box[2] - box[0]), float(box[3] - box[1]), near.least_side)
        is_near = (np.abs(other.boxes - box) <= near.boxes * side).all(1)
        is_near &= np.abs(other.best - self.best[index]) <= near.logits
        agrees = [np.abs(other.logits[is_near] - self.logits[index]) <= near.logits]
        if near.extras.size:
            agrees.append(np.abs(other.extras[is_near] - self.extras[index]) <= near.extras)
        return bool(np.logical_and.reduce([agree.mean(1) >= near.agreeing for agree in agrees]).any())


def logits_of(scores: FloatArray, least: float) -> NDArray[np.float64]:
    """Return logits of probabilities, those below `least` as if they were that; what is none is taken as it is."""
    values = np.nan_to_num(np.asarray(scores, np.float64))
    if values.min(initial=0) < 0 or values.max(initial=0) > 1:
        return values
    clipped = np.clip(values, least, _MOST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _allowed(values: NDArray[np.floating], tolerance: Tolerance) -> float:
    largest = float(np.abs(values).max(initial=0))
    return float(tolerance.share * values.std() + tolerance.least * max(1.0, largest / _USUAL))


def _share(agrees: NDArray[np.bool_]) -> float:
    return float(agrees.mean()) if agrees.size else 1.0
