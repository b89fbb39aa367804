"""A table for spreadsheets and data frames: a row for each detection, or for each class of a classifier.

A spreadsheet takes a text that begins with one of FORMULA for a formula, and runs it: such a name or label gets an
apostrophe before it, unless the table is for a machine.
"""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from trtjob.imaging.detections import Classification, Detection
from trtjob.jobs.exports.results import Results
from trtjob.jobs.records import Record
from trtjob.storage import LocalStorage

_IMAGE = ("image", "width", "height")
_FOUND = ("label", "class_id", "score")
_SEQUENCE = ("sequence_id", "frame")
_VIDEO = ("frame_number", "time_s")
_BOX = ("x1", "y1", "x2", "y2")
# Some spreadsheets take the wide forms too, and look behind blanks.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_csv(results: Results, out: Path, *, raw: bool = False, per_image: bool = False) -> None:
    """Write one CSV file in UTF-8. raw: every text as it is. Of a job with videos, which frame it is stands last.

    An image without detections has no row. per_image: each has one, those that failed, too, with how many detections
    count, the best of them, or of the classes, and why there is no result.
    """
    written = (lambda text: text) if raw else as_text
    with LocalStorage(out.parent).writing(out.name) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="", write_through=True)
        writer = csv.writer(Lines(text))
        writer.writerow(_heads(results, per_image))
        rows_of = _row_of_image if per_image else _rows
        for record in results.records():
            if per_image or record.error is None:
                writer.writerows(rows_of(results, record, written))
        text.detach()


def _heads(results: Results, per_image: bool) -> tuple[str, ...]:
    if per_image:
        return (*_IMAGE, "found", *_FOUND, "error", "message")
    box = _BOX if results.spec.model.task == "detect" else ()
    video = _VIDEO if results.has_frames else ()
    return (*_IMAGE, *_FOUND, *box, *(_SEQUENCE if results.has_bursts else ()), *video)


def _row_of_image(results: Results, record: Record, written: Callable[[str], str]) -> Iterator[tuple[object, ...]]:
    found: list[Detection | Classification] = [*results.counting(record), *record.classifications]
    best = (written(found[0].label), found[0].class_id, found[0].score) if found else ("", "", "")
    error = ("", "") if record.error is None else (record.error.kind.value, written(record.error.message))
    yield (written(record.image), record.width, record.height, len(found), *best, *error)


class Lines:
    """Ends rows by a newline alone, and lets csv think otherwise: it quotes what could end a row, a lone CR too."""

    def __init__(self, text: TextIO) -> None:
        self._text = text

    def write(self, row: str) -> int:
        return self._text.write(row.removesuffix("\r\n") + "\n")


def as_text(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.lstrip(" ").startswith(FORMULA) else cell


def _rows(results: Results, record: Record, written: Callable[[str], str]) -> Iterator[tuple[object, ...]]:
    image = (written(record.image), record.width, record.height)
    behind: tuple[object, ...] = ()
    if results.has_bursts:
        frame = results.burst_frame(record.image)
        behind = (written(frame.sequence_id), frame.number) if frame else ("", "")
    if results.has_frames:
        behind += (record.frame, record.time_s)  # nothing for an image
    for item in record.classifications:
        yield (*image, written(item.label), item.class_id, item.score, *behind)
    for detection in results.image(record).detections:
        yield (*image, written(detection.label), detection.class_id, detection.score, *detection.box, *behind)
