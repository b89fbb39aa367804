"""Another job's records beside a job's: what appeared, went and moved."""

import os
from typing import Any

from trtjob.errors import ConfigError
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.records import Record, read_records
from trtjob.jobs.report.overlap import Box, overlap, pairs, xywh
from trtjob.jobs.report.reference import NONE, NOT_JUDGED, Compared, Other, objects_of, unjudged
from trtjob.jobs.spec import JobSpec

SAME, MOVED = 0.5, 0.9  # overlaps: from which on two boxes are one object, and below which it has moved


class OtherJob:
    """The records of another job of the same images, read along with the job's: both are sorted by image.

    Objects are the same where their labels are, and their boxes overlap by SAME; of classifiers, where the labels are.
    """

    def __init__(self, folder: JobFolder, spec: JobSpec) -> None:
        """spec: of the job that is compared with it. Raises ConfigError where they are of different tasks."""
        self._other = folder.spec()
        if self._other.model.task != spec.model.task:
            raise ConfigError(
                f"--compare {self._other.job_id}: its model does not {spec.model.task}. Name a job of such a model"
            )
        self._records = read_records(folder.storage, RESULTS)
        self._next: Record | None = next(self._records, None)
        self._ids = {label: number for number, label in reversed(list(enumerate(spec.model.labels)))}
        self._own_labels = len(self._ids)
        self._first_new = len(spec.model.labels)
        self._shared = self._only_here = self._only_there = 0

    def compared(self, record: Record) -> Compared:
        other = self._record_of(record.image)
        if other is None:
            self._only_here += 1
            return unjudged(record)
        self._shared += 1
        if record.error is not None or other.error is not None:
            return unjudged(record)
        return self._compared(record, other)

    def _record_of(self, image: str) -> Record | None:
        wanted = os.fsencode(image)
        while self._next is not None and os.fsencode(self._next.image) < wanted:
            self._only_there += 1
            self._next = next(self._records, None)
        if self._next is None or self._next.image != image:
            return None
        found, self._next = self._next, next(self._records, None)
        return found

    def _compared(self, record: Record, other: Record) -> Compared:
        # Of classes that exclude each other, an image has the best alone.
        most = 1 if record.classes else None
        everything = objects_of(record)
        objects, boxes = everything[:most], _boxes(record)
        others = [(self.id_of(label), score) for label, score in _labelled(other)[:most]]
        other_boxes = _boxes(other)
        overlaps = [
            (share, one, two)
            for one, (class_id, _) in enumerate(objects)
            for two, (other_id, _) in enumerate(others)
            if class_id == other_id and (share := overlap(boxes[one], other_boxes[two]) if boxes else 1.0) >= SAME
        ]
        chosen = pairs(overlaps)
        partners = [NONE] * len(objects) + [NOT_JUDGED] * (len(everything) - len(objects))
        there = [NONE] * len(others)
        for _, one, two in chosen:
            partners[one], there[two] = others[two][1], objects[one][1]
        xyxy = [found.box for found in other.detections] if other.detections else [None] * len(others)
        return Compared(
            partners,
            [Other(*found, box, partner) for found, box, partner in zip(others, xyxy, there, strict=True)],
            frozenset(one for share, one, _ in chosen if share < MOVED),
        )

    def id_of(self, label: str) -> int:
        """Return the number of a label: our job's, or one after all of its own."""
        if label not in self._ids:
            self._ids[label] = self._first_new + len(self._ids) - self._own_labels
        return self._ids[label]

    def labels(self) -> dict[int, str]:
        return {number: label for label, number in self._ids.items() if number >= self._first_new}

    def index(self) -> dict[str, Any]:
        self._only_there += (self._next is not None) + sum(1 for _ in self._records)
        if not self._shared:
            raise ConfigError(f"--compare {self._other.job_id}: the two jobs have no image in common, by their names")
        return {
            "kind": "job",
            "name": self._other.job_id,
            "model": self._other.model.name,
            "images": self._shared,
            "only_here": self._only_here,
            "only_there": self._only_there,
        }


def _labelled(record: Record) -> list[tuple[str, int]]:
    return [(each.label, score) for each, (_, score) in zip(record.found, objects_of(record), strict=True)]


def _boxes(record: Record) -> list[Box]:
    return [xywh(found.box) for found in record.detections or ()]
