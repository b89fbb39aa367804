"""How good a job's objects are: average precision as pycocotools computes it, and which objects are right.

After `COCOeval` of pycocotools 2.0 (cocoeval.py: evaluateImg, accumulate, summarize), for boxes of all sizes and no
more than 100 of a class and image.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.errors import ConfigError
from trtjob.jobs.records import Record
from trtjob.jobs.report.overlap import Box, overlap, pairs, xywh
from trtjob.jobs.report.reference import NONE, NOT_JUDGED, SURE, Compared, Other, objects_of, unjudged
from trtjob.jobs.report.truth import Labels, TrueObject

THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
MOST_OF_A_CLASS = 100
CURVES = 20  # classes of which the page has a curve: those with the most objects
MOST_CONFUSED = 12  # classes in the page's table of the confusion
_EPSILON = np.spacing(1)
_NOBODY = -1  # the class of what is missed, or of what is nothing


class _Class:
    """The objects of a class. true: how many there truly are; of those found: score, the image's place in the order of
    ties, and as bits, by threshold, whether each is matched and whether it does not count."""

    def __init__(self) -> None:
        self.true = 0
        self.scores, self.ranks = array("H"), array("I")
        self.matched, self.ignored = array("H"), array("H")

    def precisions(self) -> NDArray[np.float64]:
        """Return the precision at each threshold and recall, (10, 101)."""
        scores = np.frombuffer(self.scores, np.uint16).astype(np.int32)
        order = np.lexsort((np.frombuffer(self.ranks, np.uint32), -scores))
        result = np.zeros((len(THRESHOLDS), len(RECALLS)))
        for number, curve in enumerate(result):
            matched = (np.frombuffer(self.matched, np.uint16)[order] >> number & 1).astype(bool)
            counts = ~(np.frombuffer(self.ignored, np.uint16)[order] >> number & 1).astype(bool)
            right = np.cumsum(matched & counts, dtype=np.float64)
            wrong = np.cumsum(~matched & counts, dtype=np.float64)
            precision = right / (right + wrong + _EPSILON)
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            at = np.searchsorted(right / self.true, RECALLS, side="left")
            is_reached = at < len(precision)
            curve[is_reached] = precision[at[is_reached]]
        return result


class Evaluation:
    """A job's objects held against the truth. Memory: 10 bytes for each object.

    least: the score, in ten-thousandths, from which on the confusion counts objects.
    """

    def __init__(self, labels: Labels, name: str, least: int) -> None:
        self._labels = labels
        self._name = name
        self._least = least
        self._classes: defaultdict[int, _Class] = defaultdict(_Class)
        self._confusion: Counter[tuple[int, int]] = Counter()
        self._images = self._without = 0

    def compared(self, record: Record) -> Compared:
        known = self._labels.objects_of(record)
        if known is None:
            self._without += 1
            return unjudged(record)
        self._images += 1
        rank, true = known
        true.sort(key=lambda each: each.is_crowd)
        boxes = [xywh(found.box) for found in record.detections or ()]
        objects = objects_of(record)
        partners, found_by = [NONE] * len(objects), [NONE] * len(true)
        for class_id in {each.class_id for each in true} | {class_id for class_id, _ in objects}:
            mine = [at for at, (found_id, _) in enumerate(objects) if found_id == class_id][:MOST_OF_A_CLASS]
            theirs = [at for at, each in enumerate(true) if each.class_id == class_id]
            at_half = self._add(
                class_id, rank, [objects[at][1] for at in mine], [boxes[at] for at in mine], [true[at] for at in theirs]
            )
            for one, other in enumerate(at_half):
                if other is not None:
                    is_crowd = true[theirs[other]].is_crowd
                    partners[mine[one]] = NOT_JUDGED if is_crowd else SURE
                    found_by[theirs[other]] = objects[mine[one]][1]
        self._confuse(objects, boxes, partners, true)
        return Compared(
            partners,
            [
                Other(each.class_id, SURE, _xyxy(each.box), partner)
                for each, partner in zip(true, found_by, strict=True)
                if not each.is_crowd
            ],
        )

    def _add(
        self, class_id: int, rank: int, scores: list[int], boxes: list[Box], true: list[TrueObject]
    ) -> list[int | None]:
        """Count an image's objects of one class. Returns which of the true ones each is, at the lowest threshold."""
        of_class = self._classes[class_id]
        of_class.true += sum(not each.is_crowd for each in true)
        overlaps = [[overlap(box, each.box, is_crowd=each.is_crowd) for each in true] for box in boxes]
        matches = [_matched(overlaps, true, float(least)) for least in THRESHOLDS]
        of_class.scores.extend(scores)
        of_class.ranks.extend([rank] * len(scores))
        for one in range(len(scores)):
            bits = [(found[one] is not None, found[one]) for found in matches]
            of_class.matched.append(sum(is_found << bit for bit, (is_found, _) in enumerate(bits)))
            of_class.ignored.append(
                sum(1 << bit for bit, (_, at) in enumerate(bits) if at is not None and true[at].is_crowd)
            )
        return matches[0]

    def _confuse(
        self, objects: Sequence[tuple[int, int]], boxes: Sequence[Box], partners: Sequence[int], true: list[TrueObject]
    ) -> None:
        """Count which class stands where which was found, whatever the class: the largest overlaps are pairs."""
        mine = [at for at, (_, score) in enumerate(objects) if score >= self._least and partners[at] != NOT_JUDGED]
        theirs = [at for at, each in enumerate(true) if not each.is_crowd]
        overlaps = [
            (share, one, two)
            for one in mine
            for two in theirs
            if (share := overlap(boxes[one], true[two].box)) >= THRESHOLDS[0]
        ]
        chosen = pairs(overlaps)
        self._confusion.update((true[two].class_id, objects[one][0]) for _, one, two in chosen)
        found, seen = {one for _, one, _ in chosen}, {two for _, _, two in chosen}
        self._confusion.update((_NOBODY, objects[one][0]) for one in mine if one not in found)
        self._confusion.update((true[two].class_id, _NOBODY) for two in theirs if two not in seen)

    def _most_confused(self) -> list[tuple[int, int, int]]:
        """Return true class, found class and how often that is, among the classes of which there is most to say."""
        totals: Counter[int] = Counter()
        for pair, count in self._confusion.items():
            for class_id in {*pair} - {_NOBODY}:
                totals[class_id] += count
        shown = {_NOBODY, *(class_id for class_id, _ in totals.most_common(MOST_CONFUSED))}
        return [(*pair, count) for pair, count in self._confusion.most_common() if shown.issuperset(pair)]

    def labels(self) -> dict[int, str]:
        return {}

    def index(self) -> dict[str, Any]:
        """Return the figures: average precisions are None where there is nothing to find.

        Raises ConfigError where the labels are of other images.
        """
        if not self._labels.is_known:
            raise ConfigError(f"--truth '{self._name}': it has no image of this job, by its names")
        by_class = {found: each.precisions() for found, each in sorted(self._classes.items()) if each.true}
        whole = np.mean(list(by_class.values()), axis=0) if by_class else None
        most = sorted(by_class, key=lambda found: -self._classes[found].true)
        return {
            "kind": "truth",
            "name": self._name,
            "images": self._images,
            "only_here": self._without,
            "unknown": self._labels.unknown,
            "ap": None if whole is None else float(whole.mean()),
            "ap50": None if whole is None else float(whole[0].mean()),
            "curve": None if whole is None else _rounded(whole[0]),
            "classes": [
                [found, self._classes[found].true, _short(by_class[found].mean()), _short(by_class[found][0].mean())]
                for found in most
            ],
            "curves": {found: _rounded(by_class[found][0]) for found in most[:CURVES]},
            "confusion": self._most_confused(),
            "confusion_from": self._least,
        }


def _short(share: np.floating) -> float:
    return round(float(share), 6)


def _rounded(curve: NDArray[np.float64]) -> list[float]:
    return [round(float(precision), 3) for precision in curve]


def _matched(overlaps: list[list[float]], true: Sequence[TrueObject], least: float) -> list[int | None]:
    """Return which true object each found one is: the best first takes what it overlaps most; a crowd is last."""
    taken = [False] * len(true)
    found: list[int | None] = []
    for shares in overlaps:
        best, at = min(least, 1 - 1e-10), None
        for number, share in enumerate(shares):
            if taken[number] and not true[number].is_crowd:
                continue
            if at is not None and not true[at].is_crowd and true[number].is_crowd:
                break
            if share >= best:
                best, at = share, number
        if at is not None:
            taken[at] = True
        found.append(at)
    return found


def _xyxy(box: Box) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height
