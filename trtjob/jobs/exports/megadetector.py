"""MegaDetector's batch output, which Timelapse and other tools for camera traps read."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from trtjob.jobs.exports.results import Results, share, to_json, write_array
from trtjob.jobs.frames import is_video, names_frame, video_key
from trtjob.jobs.records import Record
from trtjob.storage import LocalStorage

FORMAT_VERSION = "1.4"
VIDEO_VERSION = "1.6"  # which says how videos are written
_UNKNOWN_RATE = -1.0  # which its validator takes of a video that failed
_SECONDS = len("2022-12-31 09:52:50")  # what a time has, without fraction and offset


def write_megadetector(results: Results, out: Path) -> None:
    """Write one JSON file. A category is its class id + 1: the format's readers take "0" for an empty image.

    An image that failed has `failure` and no detections. A video is one item, with the numbers of its frames.
    """
    model = results.spec.model
    version = VIDEO_VERSION if results.has_frames else FORMAT_VERSION
    info = {"format_version": version, "detector": model.name, "detector_metadata": {"sha256": model.sha256}}
    categories = {str(number): label for number, label in enumerate(model.labels, start=1)}
    with LocalStorage(out.parent).writing(out.name) as file:
        file.write(b'{"info": ' + to_json(info))
        file.write(b',\n"detection_categories": ' + to_json(categories))
        file.write(b',\n"images": ')
        write_array(file, _images(results))
        file.write(b"}\n")


def _images(results: Results) -> Iterator[dict[str, Any]]:
    for file, records in groupby(results.records(), lambda record: _file(results, record)):
        if file:
            yield _video(results, file, list(records))
        else:
            yield from (_image(results, record) for record in records)


def _file(results: Results, record: Record) -> str:
    """Return the video of which a record's image is a frame, nothing where it is none."""
    is_frame = results.has_frames and names_frame(record.image)
    return video_key(record.image) if is_frame else ""


def _image(results: Results, record: Record) -> dict[str, Any]:
    if record.error is not None:
        return _failure(record.image, record)
    fields = {**_taken(record), **results.camera_trap_fields(record.image)}
    return {"file": record.image, "detections": _detections(results, record), **fields}


def _video(results: Results, file: str, records: Sequence[Record]) -> dict[str, Any]:
    """Return a video: its frames that were processed, or why none was."""
    processed = [record for record in records if record.error is None]
    if not processed:
        return _failure(file, records[0])
    detections = [
        {**found, "frame_number": record.frame} for record in processed for found in _detections(results, record)
    ]
    frames = [record.frame for record in processed]
    return {"file": file, "frame_rate": _rate(processed), "frames_processed": frames, "detections": detections}


def _rate(records: Sequence[Record]) -> float:
    """Return how many frames a second there are on the average; 1 where only the first frame is known."""
    last = records[-1]
    return round(last.frame / last.time_s, 3) if last.frame and last.time_s else 1.0


def _failure(file: str, record: Record) -> dict[str, Any]:
    assert record.error is not None
    frames = {"frame_rate": _UNKNOWN_RATE, "frames_processed": []} if is_video(file) else {}
    return {"file": file, "detections": None, "failure": f"{record.error.kind}: {record.error.message}", **frames}


def _detections(results: Results, record: Record) -> list[dict[str, Any]]:
    image = results.image(record)
    return [
        {
            "category": str(detection.class_id + 1),
            "conf": detection.score,
            "bbox": _corner_and_size(detection.box, image.width, image.height),
        }
        for detection in image.detections
    ]


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
