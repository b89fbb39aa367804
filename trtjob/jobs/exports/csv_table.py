"""A table for spreadsheets and data frames: a row for each detection, or for each class of a classifier."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from trtjob.jobs.exports.results import Results
from trtjob.jobs.records import Record
from trtjob.jobs.storage import LocalStorage

_IMAGE = ("image", "width", "height")
_FOUND = ("label", "class_id", "score")
_BOX = ("x1", "y1", "x2", "y2")


def write_csv(results: Results, out: Path) -> None:
    """Write one CSV file in UTF-8; an image without detections has no row."""
    is_detector = results.spec.model.task == "detect"
    with LocalStorage(out.parent).writing(out.name) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_IMAGE, *_FOUND, *(_BOX if is_detector else ())])
        for record in results.records():
            if record.error is None:
                writer.writerows(_rows(results, record))
        text.detach()


def _rows(results: Results, record: Record) -> Iterator[tuple[object, ...]]:
    image = (record.image, record.width, record.height)
    for item in record.classes or ():
        yield (*image, item.label, item.class_id, item.score)
    for detection in results.image(record).detections:
        yield (*image, detection.label, detection.class_id, detection.score, *detection.box)
