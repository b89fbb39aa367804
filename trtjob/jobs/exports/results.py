"""What every export reads: the images of a job, and of each the detections that count."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, BinaryIO

from trtjob.errors import StorageError
from trtjob.imaging.detections import Detection
from trtjob.jobs.exports.bursts import BurstFrame, Bursts
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.frames import names_frame
from trtjob.jobs.records import Record, read_records
from trtjob.jobs.spec import JobSpec


class Shape(StrEnum):
    """What a detection may have beside its box, in words."""

    MASK = "masks"
    KEYPOINTS = "keypoints"
    ROTATED = "rotated boxes"


@dataclass(frozen=True, slots=True)
class Exported:
    """How much was written; failed: images without a result; dropped: what was found that the format cannot hold."""

    images: int
    detections: int
    failed: int
    dropped: tuple[Shape, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was processed; width, height: pixels; frame, time_s: of a video, as of `Record`."""

    name: str
    width: int
    height: int
    detections: tuple[Detection, ...]
    frame: int | None = None
    time_s: float | None = None


class Results:
    """A job's results, read anew by each walk over them."""

    def __init__(
        self,
        folder: JobFolder,
        spec: JobSpec,
        conf: float,
        burst_s: float | None = None,
        class_ids: Collection[int] | None = None,
    ) -> None:
        """conf, class_ids: what a detection must have to count, None: any class.

        burst_s: how many seconds may lie between pictures of a burst; None: there are no bursts.
        """
        self.folder = folder
        self.spec = spec
        self.conf = conf
        self._class_ids = class_ids
        self._bursts = None if burst_s is None else Bursts(self.records(), burst_s)

    def close(self) -> None:
        if self._bursts is not None:
            self._bursts.close()

    @property
    def has_frames(self) -> bool:
        """Whether there are frames of videos among the images."""
        return self.spec.options.frames is not None and self._counted.has_frames

    @property
    def has_bursts(self) -> bool:
        return self._bursts is not None

    def burst_frame(self, image: str) -> BurstFrame | None:
        """Return an image's place in a burst, None where there are none, or it has no time."""
        return None if self._bursts is None else self._bursts.find(image)

    def camera_trap_fields(self, image: str) -> dict[str, str | int]:
        """Return an image's place in a burst by the names that COCO Camera Traps has."""
        frame = self.burst_frame(image)
        if frame is None:
            return {}
        return {"seq_id": frame.sequence_id, "seq_num_frames": frame.count, "frame_num": frame.number}

    @property
    def place(self) -> str:
        return self.folder.storage.place(RESULTS)

    def records(self) -> Iterator[Record]:
        """Yield all records, those of failed images too. Raises StorageError."""
        try:
            yield from read_records(self.folder.storage, RESULTS)
        except FileNotFoundError as err:
            raise StorageError(f"cannot read {self.place}: it is not there. Has the job finished?") from err

    def images(self) -> Iterator[Image]:
        """Yield the images that have a result."""
        return map(self.image, (record for record in self.records() if record.error is None))

    def image(self, record: Record) -> Image:
        """Return a record's image with the detections that count. Raises StorageError where it has no size."""
        if not record.width or not record.height:
            raise StorageError(f"{self.place}: the record of {record.image!r} has no width and height: it is damaged")
        found = self.counting(record)
        return Image(record.image, record.width, record.height, found, record.frame, record.time_s)

    def counting(self, record: Record) -> tuple[Detection, ...]:
        """Return the detections of an image that count."""
        found = (d for d in record.detections or () if d.score >= self.conf)
        return tuple(d for d in found if self._class_ids is None or d.class_id in self._class_ids)

    def exported(self, holds: Collection[Shape]) -> Exported:
        """Return how much there is to write in a format that holds these shapes."""
        whole = self._counted
        dropped = tuple(shape for shape in Shape if shape in whole.shapes - set(holds))
        return Exported(whole.images, whole.detections, whole.failed, dropped)

    @cached_property
    def _counted(self) -> "_Counted":
        """What is to be known of all records, by one walk: to read a million of them takes a minute."""
        whole = _Counted()
        for record in self.records():
            whole.has_frames |= names_frame(record.image)
            if record.error is not None:
                whole.failed += 1
                continue
            whole.images += 1
            found = self.image(record).detections
            whole.detections += len(found)
            whole.shapes.update(shape for detection in found for shape in shapes_of(detection))
        return whole


@dataclass(slots=True)
class _Counted:
    """All records of a job. has_frames: whether any has the name of a frame; the others as of `Exported`."""

    images: int = 0
    detections: int = 0
    failed: int = 0
    shapes: set[Shape] = field(default_factory=set)
    has_frames: bool = False


def shapes_of(detection: Detection) -> Iterator[Shape]:
    """Yield what a detection has beside its box."""
    if detection.mask is not None:
        yield Shape.MASK
    if detection.keypoints is not None:
        yield Shape.KEYPOINTS
    if detection.rotated is not None:
        yield Shape.ROTATED


def to_json(value: Any) -> bytes:
    """Return JSON in UTF-8; a name that is no UTF-8 is written escaped."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def write_array(file: BinaryIO, items: Iterable[Any]) -> None:
    """Write a JSON array, an item on each line, without holding it."""
    separator = b"[\n"
    for item in items:
        file.write(separator + to_json(item))
        separator = b",\n"
    file.write(b"[]" if separator == b"[\n" else b"\n]")


def share(value: float, whole: int) -> float:
    """Return a length as a share of the image's, to a millionth."""
    return round(value / whole, 6)
