"""MegaDetector's batch output, which Timelapse and other tools for camera traps read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtjob.jobs.exports.results import Results, share, to_json, write_array
from trtjob.jobs.records import Record
from trtjob.storage import LocalStorage

FORMAT_VERSION = "1.4"
_SECONDS = len("2022-12-31 09:52:50")  # what a time has, without fraction and offset


def write_megadetector(results: Results, out: Path) -> None:
    """Write one JSON file. A category is its class id + 1: the format's readers take "0" for an empty image.

    An image that failed has `failure` and no detections.
    """
    model = results.spec.model
    info = {"format_version": FORMAT_VERSION, "detector": model.name, "detector_metadata": {"sha256": model.sha256}}
    categories = {str(number): label for number, label in enumerate(model.labels, start=1)}
    with LocalStorage(out.parent).writing(out.name) as file:
        file.write(b'{"info": ' + to_json(info))
        file.write(b',\n"detection_categories": ' + to_json(categories))
        file.write(b',\n"images": ')
        write_array(file, _images(results))
        file.write(b"}\n")


def _images(results: Results) -> Iterator[dict[str, Any]]:
    for record in results.records():
        if record.error is not None:
            message = f"{record.error.kind}: {record.error.message}"
            yield {"file": record.image, "detections": None, "failure": message}
            continue
        image = results.image(record)
        detections = [
            {
                "category": str(detection.class_id + 1),
                "conf": detection.score,
                "bbox": _corner_and_size(detection.box, image.width, image.height),
            }
            for detection in image.detections
        ]
        yield {"file": image.name, "detections": detections, **_taken(record), **results.camera_trap_fields(image.name)}


def _taken(record: Record) -> dict[str, str]:
    """Return when and where a picture was taken, as COCO Camera Traps has it: the folder is the camera's place."""
    if record.metadata is None:
        return {}
    folder, _, _ = record.image.rpartition("/")
    captured_at = record.metadata.captured_at
    fields = {"datetime": captured_at and captured_at[:_SECONDS].replace("T", " "), "location": folder}
    return {name: value for name, value in fields.items() if value}


def _corner_and_size(box: tuple[float, float, float, float], width: int, height: int) -> list[float]:
    x1, y1, x2, y2 = box
    return [share(x1, width), share(y1, height), share(x2 - x1, width), share(y2 - y1, height)]
