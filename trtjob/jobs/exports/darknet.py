"""The JSON that Darknet writes with `detector test ... -ext_output -out result.json`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtjob.jobs.exports.results import Image, Results, share, write_array
from trtjob.storage import LocalStorage


def write_darknet(results: Results, out: Path) -> None:
    """Write one JSON file; frames count from 1, coordinates are shares of the image."""
    with LocalStorage(out.parent).writing(out.name) as file:
        write_array(file, _frames(results))
        file.write(b"\n")


def _frames(results: Results) -> Iterator[dict[str, Any]]:
    for number, image in enumerate(results.images(), start=1):
        yield {"frame_id": number, "filename": image.name, "objects": list(_objects(image))}


def _objects(image: Image) -> Iterator[dict[str, Any]]:
    for detection in image.detections:
        x, y, width, height = centre_and_size(detection.box, image)
        yield {
            "class_id": detection.class_id,
            "name": detection.label,
            "relative_coordinates": {"center_x": x, "center_y": y, "width": width, "height": height},
            "confidence": detection.score,
        }


def centre_and_size(box: tuple[float, float, float, float], image: Image) -> tuple[float, float, float, float]:
    """Return a box as centre x, centre y, width and height, in shares of the image."""
    x1, y1, x2, y2 = box
    return (
        share((x1 + x2) / 2, image.width),
        share((y1 + y2) / 2, image.height),
        share(x2 - x1, image.width),
        share(y2 - y1, image.height),
    )
