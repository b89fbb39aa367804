"""One record per image: the line of JSON that is trtjob's result."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trtjob.errors import FailureKind, StorageError
from trtjob.imaging.detections import Classification, Detection, RotatedBox
from trtjob.imaging.metadata import Metadata
from trtjob.storage import Storage

if TYPE_CHECKING:
    from trtjob.imaging.masks import Mask

_READABLE = json.JSONEncoder(ensure_ascii=False)  # json.dumps makes one for each of millions of lines


@dataclass(frozen=True, slots=True)
class ImageFailure:
    """Why an image has no result; attempts: how often it was tried."""

    kind: FailureKind
    message: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one image: exactly one of `detections`, `classes`, `labels` and `error` is set.

    image: the path below the source, with `/`; sha256: of the file's bytes, None where they could not be read, and for
    a frame of a video; frame, time_s: which frame that is, from 0 on, and when it is shown, in seconds, else None.
    width, height: pixels after EXIF rotation, None where the image could not be decoded.
    detections are sorted by falling score, then class and box; classes are the five best of a classifier whose classes
    exclude each other, labels all from the least score on of one whose classes do not, by falling score, then class.
    is_truncated: the model gave as many candidates as it can, so that there may be more detections.
    damage: what is wrong with an image that was read as far as it goes (`--truncated ok`), None where nothing is known.
    is_cut_off: that is that the file ends before the image does.
    pages: how many pages or frames the file has, of which the first was looked at; None where that is all.
    metadata: what the camera knows of the picture (`--metadata`), None where that was not asked for.
    """

    image: str
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    detections: tuple[Detection, ...] | None = None
    classes: tuple[Classification, ...] | None = None
    labels: tuple[Classification, ...] | None = None
    error: ImageFailure | None = None
    is_truncated: bool = False
    pages: int | None = None
    damage: str | None = None
    is_cut_off: bool = False
    metadata: Metadata | None = None
    frame: int | None = None
    time_s: float | None = None

    @property
    def found(self) -> Sequence[Detection | Classification]:
        """All that was found: detections, or what a classifier says."""
        return self.detections or self.classes or self.labels or ()

    @property
    def classifications(self) -> tuple[Classification, ...]:
        """What a classifier of either kind says."""
        return self.classes or self.labels or ()

    def counting(self, conf: float) -> Sequence[Detection | Classification]:
        """Return what counts: objects and labels of at least this score, or the best of classes that exclude others."""
        if self.classes is not None:
            return self.classes[:1]
        return [each for each in self.detections or self.labels or () if each.score >= conf]


def to_line(record: Record) -> bytes:
    r"""Return the record as one line of JSON: the same record always gives the same bytes.

    >>> to_line(Record("a.jpg", width=640, height=480, detections=(Detection("dog", 1, 0.9, (1.0, 2.0, 3.5, 4.0)),)))
    b'{"image": "a.jpg", "width": 640, "height": 480, "detections": [{"label": "dog", ...}]}\n'
    """
    fields: dict[str, Any] = {"image": record.image}
    for name in ("sha256", "frame", "time_s", "width", "height", "pages", "damage"):
        if (value := getattr(record, name)) is not None:
            fields[name] = value
    if record.is_cut_off:
        fields["truncated_file"] = True
    if record.metadata is not None:
        fields["metadata"] = {name: value for name, value in asdict(record.metadata).items() if value is not None}
    if record.error is not None:
        fields["error"] = {
            "kind": record.error.kind.value,
            "message": record.error.message,
            "attempts": record.error.attempts,
        }
    elif record.classes is not None:
        fields["classes"] = [_class_fields(found) for found in record.classes]
    elif record.labels is not None:
        fields["labels"] = [_class_fields(found) for found in record.labels]
    else:
        fields["detections"] = [_detection_fields(found) for found in record.detections or ()]
        if record.is_truncated:
            fields["truncated"] = True
    return json_line(fields)


def _class_fields(found: Classification) -> dict[str, Any]:
    return {"label": found.label, "class_id": found.class_id, "score": found.score}


def _detection_fields(found: Detection) -> dict[str, Any]:
    fields = {"label": found.label, "class_id": found.class_id, "score": found.score, "box": found.box}
    if found.mask is not None:
        fields["mask"] = {"size": found.mask.hw, "counts": found.mask.counts}
    if found.polygons is not None:
        fields["polygons"] = found.polygons
    if found.keypoints is not None:
        fields["keypoints"] = found.keypoints
    if found.rotated is not None:
        fields["box_rotated"] = {"corners": found.rotated.corners, "angle": found.rotated.angle}
    return fields


def json_line(fields: dict[str, Any]) -> bytes:
    """Return one line of JSON in UTF-8, readable where it can be.

    A file name that is no valid UTF-8 (Python holds its bytes as lone surrogates) is written escaped, so that it
    survives the round trip.
    """
    try:
        return _READABLE.encode(fields).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(fields).encode() + b"\n"


def from_line(line: bytes | str) -> Record:
    """Parse what `to_line` wrote. Raises StorageError where it is something else.

    >>> record = from_line('{"image": "a.jpg", "error": {"kind": "decode", "message": "it is empty", "attempts": 1}}')
    >>> record.error
    ImageFailure(kind=<FailureKind.DECODE: 'decode'>, message='it is empty', attempts=1)
    """
    try:
        fields = parse_line(line)
        detections, error = fields.get("detections"), fields.get("error")
        metadata = fields.get("metadata")
        return Record(
            image=_name(fields["image"]),
            sha256=fields.get("sha256"),
            width=fields.get("width"),
            height=fields.get("height"),
            detections=None if detections is None else tuple(_detection(item) for item in detections),
            classes=_classes(fields.get("classes")),
            labels=_classes(fields.get("labels")),
            error=None
            if error is None
            else ImageFailure(FailureKind(error["kind"]), error["message"], error["attempts"]),
            is_truncated=fields.get("truncated", False),
            pages=fields.get("pages"),
            damage=fields.get("damage"),
            is_cut_off=fields.get("truncated_file", False),
            metadata=None if metadata is None else Metadata(**metadata),
            frame=fields.get("frame"),
            time_s=fields.get("time_s"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise StorageError(f"not a result record: {line[:80]!r}: {err}") from err


def parse_line(line: bytes | str) -> Any:
    """Return what a line of JSON holds. Raises ValueError where it is not JSON."""
    try:
        return json.loads(line if isinstance(line, str) else line.decode())  # which need not look for the encoding
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("its image has no name")
    return value


def _classes(items: list[dict[str, Any]] | None) -> tuple[Classification, ...] | None:
    return None if items is None else tuple(Classification(**item) for item in items)


def _detection(item: dict[str, Any]) -> Detection:
    x1, y1, x2, y2 = item["box"]
    mask, polygons = item.get("mask"), item.get("polygons")
    keypoints, rotated = item.get("keypoints"), item.get("box_rotated")
    return Detection(
        item["label"],
        item["class_id"],
        item["score"],
        (x1, y1, x2, y2),
        None if mask is None else _mask(mask),
        None if keypoints is None else tuple((x, y, visibility) for x, y, visibility in keypoints),
        None if rotated is None else _rotated(rotated),
        None if polygons is None else tuple(tuple(outline) for outline in polygons),
    )


def _mask(item: dict[str, Any]) -> "Mask":
    from trtjob.imaging.masks import Mask  # loads numpy and OpenCV: only where there is a mask

    height, width = item["size"]
    return Mask((height, width), item["counts"])


def _rotated(item: dict[str, Any]) -> RotatedBox:
    first, second, third, fourth = ((x, y) for x, y in item["corners"])
    return RotatedBox((first, second, third, fourth), item["angle"])


def read_records(storage: Storage, key: str) -> Iterator[Record]:
    """Yield the records of a results file, a line at a time. Raises FileNotFoundError, StorageError.

    >>> from trtjob.storage import open_storage
    >>> for record in read_records(open_storage("results/photos-1a2b3c4d"), "results.jsonl"):
    ...     print(record.image, [found.label for found in record.detections])
    a.jpg ['dog']
    b.jpg []
    """
    return map(from_line, storage.lines(key))
