"""What the page knows of some thousand images, as compact arrays in one script."""

import hashlib
import json
import os
import re
import sys
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trtjob.imaging.detections import Detection
from trtjob.jobs.folder import ANNOTATED_SUFFIXES, UNUSUAL_COPY, annotated_key, copy_suffix, thumbnail_key
from trtjob.jobs.records import Record
from trtjob.jobs.report.reference import Compared, Other

MAX_IMAGES = 5_000
_AT_A_TIME = 50  # few enough that Python's collector does not begin to look through them
MAX_OBJECTS = 40_000
MAX_SHAPES = 5_000
MAX_MESSAGE = 1_000  # characters of a failure's message; errors.jsonl has all

_LITTLE_ENDIAN = {"B": "<u1", "H": "<u2", "I": "<u4"}
# From so many bytes on, a name may be too long for its copies: the page does not guess then.
_LONG_NAME = 250
# Such names have copies that are called as they are, and most images are called so. Each ends with a zero byte here.
_SUFFIX = "|".join(map(re.escape, sorted(ANNOTATED_SUFFIXES)))
_usual_names = re.compile(rf"(?:[^.\0]{{1,{_LONG_NAME // 4 - 5}}}+(?<!/)(?:{_SUFFIX})\0)*+").fullmatch


class Chunk:
    """Images in their order, as columns.

    Objects are detections, or the classes of an image: counts says how many each image has. scores: ten-thousandths;
    boxes: xyxy in pixels, of detections alone; shapes: what else is known of some, by the object's number;
    failures: kind and message by the image's number; notes: what only some images have, by the image's number.
    is_exclusive: they are a classifier's whose classes exclude each other, so that an image has one: the best.
    partners, moved: of each object, as of `Compared`; other_counts: how many objects of the reference each image has;
    others: these. All are empty where the job is held against nothing.
    """

    def __init__(self, address_of: Callable[[str], str | None] | None = None) -> None:
        """address_of: gives where the original of an image is, by its name, for a page that may ask a network."""
        self._address_of = address_of
        self._waiting: list[Record] = []
        self.names: list[str] = []
        self.counts, self.class_ids, self.scores = array("I"), array("I"), array("H")
        self.failures: dict[int, tuple[str, str]] = {}
        self.is_exclusive = False
        self.partners: list[int] = []
        self.moved: set[int] = set()
        self.other_counts: list[int] = []
        self.others: list[Other] = []
        self._widths, self._heights, self._boxes = array("I"), array("I"), array("f")
        self._shapes: dict[int, dict[str, Any]] = {}
        self._notes: dict[int, dict[str, Any]] = {}

    def add(self, record: Record, compared: Compared | None = None) -> bool:
        """Add an image. Returns whether the chunk is full. Some at a time take half as long as each by itself."""
        if compared is not None:
            self._add_compared(compared)
        self._waiting.append(record)
        if len(self._waiting) < _AT_A_TIME:
            return False
        self.settle()
        return self._is_full

    def _add_compared(self, compared: Compared) -> None:
        self.moved.update(len(self.partners) + number for number in compared.moved)
        self.partners += compared.partners
        self.other_counts.append(len(compared.others))
        self.others += compared.others

    def settle(self) -> None:
        """Take those images into the columns that still wait."""
        records, self._waiting = self._waiting, []
        first, first_object = len(self.names), len(self.scores)
        names = [record.image for record in records]
        self.names += names
        found = [record.found for record in records]
        objects = list(chain.from_iterable(found))
        self.counts.fromlist([len(each) for each in found])
        self.class_ids.fromlist([each.class_id for each in objects])
        scores = np.rint(np.array([each.score for each in objects]) * 10_000)
        self.scores.frombytes(scores.astype(np.uint16).tobytes())
        self._widths.fromlist([record.width or 0 for record in records])
        self._heights.fromlist([record.height or 0 for record in records])
        self._add_notes(first, records, names)
        detections = cast("list[Detection]", objects)
        if (kinds := set(map(type, objects))) and kinds != {Detection}:
            self.is_exclusive |= any(record.classes is not None for record in records)
            detections = [each for each in objects if isinstance(each, Detection)]
        self._boxes.fromlist([*chain.from_iterable([each.box for each in detections])])
        shaped = [
            (number, each)
            for number, each in enumerate(detections, start=first_object)
            if each.mask or each.keypoints or each.rotated or each.polygons
        ]
        self._shapes.update((number, _shapes(each)) for number, each in shaped)

    def _add_notes(self, first: int, records: list[Record], names: list[str]) -> None:
        """Keep what is not as it is of most images: why one failed, or what there is beside its objects."""
        notable: Iterable[int] = [
            number
            for number, record in enumerate(records)
            if record.error is not None
            or record.frame is not None
            or record.pages is not None
            or record.damage is not None
            or record.is_truncated
            or record.metadata is not None
        ]
        if not _usual_names("\0".join([*names, ""])):
            notable = range(len(records))
        for number in notable:
            record = records[number]
            if record.error is not None:
                self.failures[first + number] = (record.error.kind.value, record.error.message[:MAX_MESSAGE])
            elif notes := _notes(record):
                self._notes[first + number] = notes
        if (address_of := self._address_of) is not None:
            for number, record in enumerate(records, start=first):
                if record.error is None and (address := address_of(record.image)) is not None:
                    self._notes.setdefault(number, {})["address"] = address

    @property
    def _is_full(self) -> bool:
        objects = len(self.scores) + len(self.others)
        return len(self.names) >= MAX_IMAGES or objects >= MAX_OBJECTS or len(self._shapes) >= MAX_SHAPES

    def scripts(self, number: int) -> dict[str, bytes]:
        """Return the scripts that hand these images to the page, by their file names; number: which chunk this is.

        The first has what filters ask for, the second what is only needed of images that are shown.
        """
        data = {
            "names": "\0".join(self.names),
            "counts": _packed(self.counts),
            "class_ids": _packed(self.class_ids),
            "scores": _packed(self.scores),
            "failures": {image: kind for image, (kind, _) in self.failures.items()},
        }
        if self.other_counts:
            data |= {
                "partners": _packed(self.partners),
                "moved": sorted(self.moved),
                "other_counts": _packed(self.other_counts),
                "other_class_ids": _packed([other.class_id for other in self.others]),
                "other_scores": _packed([other.score for other in self.others]),
                "other_partners": _packed([other.partner for other in self.others]),
            }
        details = {
            "sizes": _packed(np.column_stack((self._widths, self._heights))),
            "boxes": ("f", b64encode(_little_endian(self._boxes)).decode()),
            "shapes": self._shapes,
            "messages": {image: message for image, (_, message) in self.failures.items()},
            "notes": self._notes,
            "other_boxes": [other.box and [round(side, 1) for side in other.box] for other in self.others],
        }
        return dict((_script("data", number, data), _script("details", number, details)))


def _script(part: str, number: int, content: dict[str, Any]) -> tuple[str, bytes]:
    """Return a script and its name, which is its content's alone: no page meets the data of another."""
    call = f"trtjob.{part}({number},{json.dumps(content, separators=(',', ':'))})\n".encode()
    return f"{part}-{number:04d}-{hashlib.sha256(call).hexdigest()[:8]}.js", call


def _shapes(detection: Detection) -> dict[str, Any]:
    """Return what is drawn of a detection beside its box."""
    shapes = {
        "keypoints": detection.keypoints,
        "corners": detection.rotated and detection.rotated.corners,
        "polygons": detection.polygons,
        "mask": detection.mask.counts if detection.mask and detection.polygons is None else None,
    }
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _notes(record: Record) -> dict[str, Any]:
    """Return what a page says of an image beside its objects."""
    notes: dict[str, Any] = {}
    if record.frame is not None:
        notes["frame"] = record.frame
    if record.pages is not None:
        notes["pages"] = record.pages
    if record.damage is not None:
        notes["damage"] = record.damage
    if record.is_truncated:
        notes["truncated"] = True
    if record.metadata is not None:
        notes["metadata"] = {name: value for name, value in asdict(record.metadata).items() if value is not None}
    if copy_suffix(record.image) == UNUSUAL_COPY:
        notes["copy"] = annotated_key(record.image)
    if len(record.image) > _LONG_NAME // 4 and len(os.fsencode(record.image.rpartition("/")[2])) > _LONG_NAME:
        notes |= {"copy": annotated_key(record.image), "thumbnail": thumbnail_key(record.image)}
    return notes


def _little_endian(numbers: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _packed(numbers: "Sequence[int] | array[int] | NDArray[np.integer]") -> tuple[str, str]:
    """Return whole numbers in as few bytes each as hold them: which, as `array` calls them, and the numbers."""
    values = np.asarray(numbers, np.uint32)
    most = int(values.max(initial=0))
    typecode = "B" if most < 1 << 8 else "H" if most < 1 << 16 else "I"
    return typecode, b64encode(values.astype(_LITTLE_ENDIAN[typecode]).tobytes()).decode()
