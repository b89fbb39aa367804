"""Labelme's annotations (labelme/_label_file.py): a JSON file for each image."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from trtjob.imaging.detections import VISIBLE, Detection
from trtjob.jobs.exports.label_folder import write_label_folder
from trtjob.jobs.exports.outlines import edge_outlines
from trtjob.jobs.exports.results import Image, Results, to_json

_VERSION = "5.5.0"  # of Labelme, whose form this is


def write_labelme(results: Results, out: Path) -> None:
    """Write a folder, whose files Labelme looks for beside their images. The score is each shape's description."""
    write_label_folder(results, out, ".json", lambda image: to_json(_document(image)) + b"\n")


def _document(image: Image) -> dict[str, Any]:
    shapes = [
        shape for number, found in enumerate(image.detections, start=1) for shape in _shapes(image, number, found)
    ]
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": PurePosixPath(image.name).name,
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }


def _shapes(image: Image, number: int, detection: Detection) -> Iterator[dict[str, Any]]:
    """Yield the parts of an object: those of a mask, and keypoints, belong together by their group."""

    def shape(kind: str, points: list[list[float]], label: str = detection.label) -> dict[str, Any]:
        return {
            "label": label,
            "points": points,
            "group_id": number if detection.mask is not None or detection.keypoints else None,
            "description": f"{detection.score:g}",
            "shape_type": kind,
            "flags": {},
            "mask": None,
        }

    if detection.mask is not None:
        for outline in edge_outlines(image, detection):
            yield shape("polygon", outline.tolist())
    elif detection.rotated is not None:
        yield shape("polygon", [[x, y] for x, y in detection.rotated.corners])
    else:
        x1, y1, x2, y2 = detection.box
        yield shape("rectangle", [[x1, y1], [x2, y2]])
    for point, (x, y, visibility) in enumerate(detection.keypoints or ()):
        if visibility > VISIBLE:
            yield shape("point", [[x, y]], f"{detection.label} {point}")
