"""Label Studio's tasks with predictions (labelstud.io/guide/predictions), which its import takes."""

import os
from collections.abc import Iterator
from math import dist
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np

from trtjob.imaging.detections import VISIBLE, Detection
from trtjob.jobs.exports.brush import brush_rle
from trtjob.jobs.exports.outlines import edge_outlines, mask_of
from trtjob.jobs.exports.results import Image, Results, write_array
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Source
from trtjob.storage import LocalStorage
from trtjob.storage.uri import is_address

_LOCAL_FILES = "/data/local-files/?d="
_AZURE = "azure-blob://"  # as Label Studio has it
_DOT = 0.75  # a keypoint's width on the screen, in percent, as Label Studio's own

Region = dict[str, Any]


def write_label_studio(results: Results, out: Path, *, polygons: bool = False) -> None:
    """Write one JSON file, a task for each image. polygons: masks as their outlines, else as brush strokes."""
    with LocalStorage(out.parent).writing(out.name) as file:
        write_array(file, _tasks(results, polygons))
        file.write(b"\n")


def _tasks(results: Results, polygons: bool) -> Iterator[dict[str, Any]]:
    served = _document_root(results.spec.source)
    for record in results.records():
        if record.error is None:
            image = results.image(record)
            regions = [*_classes(results, record, image), *_objects(results, image, polygons)]
            prediction = {"model_version": results.spec.model.name, "result": regions}
            yield {"data": {"image": _address(results.spec.source, served, record.image)}, "predictions": [prediction]}


def _document_root(source: Source) -> PurePosixPath:
    """Return the folder around all folders of a source: what Label Studio serves must not be a storage itself."""
    above = [PurePosixPath(root).parent for root in source.roots if not is_address(root)]
    return PurePosixPath(os.path.commonpath(above) if above else "/")


def _address(source: Source, served: PurePosixPath, name: str) -> str:
    """Return where Label Studio finds an image: at its address, or below the folder that it serves."""
    found = source.part_of(name)
    root, key = (found[0].root, found[1]) if found else (str(served), name)
    if is_address(root):
        return f"{root.replace('az://', _AZURE, 1)}/{key}"
    return _LOCAL_FILES + quote(os.fsencode(PurePosixPath(root, key).relative_to(served)))


def _classes(results: Results, record: Record, image: Image) -> Iterator[Region]:
    """Yield the choice of a classifier's best class, or of all labels that count."""
    chosen = [] if record.detections is not None else record.counting(results.conf)
    if chosen:
        yield _region(image, "1", "choices", [found.label for found in chosen], chosen[0].score, {})


def _objects(results: Results, image: Image, polygons: bool) -> Iterator[Region]:
    """Yield a region for each object, for those of several polygons more, and one for each keypoint that is seen."""
    for number, detection in enumerate(image.detections, start=1):
        kind, values = _place(image, detection, polygons)
        for part, value in enumerate(values):
            identity = f"{number}.{part}" if part else f"{number}"
            yield _region(image, identity, kind, [detection.label], detection.score, value)
        names = results.spec.model.keypoints
        for at, (x, y, visibility) in enumerate(detection.keypoints or ()):
            if visibility > VISIBLE:
                value = {"x": _percent(x, image.width), "y": _percent(y, image.height), "width": _DOT}
                point = _region(image, f"{number}-{at}", "keypointlabels", [names[at]], visibility, value)
                yield {**point, "parentID": f"{number}"}


def _region(image: Image, identity: str, kind: str, labels: list[str], score: float, value: Region) -> Region:
    """Return a region. It belongs to the control of the labelling interface that has the name of its kind."""
    return {
        "id": identity,
        "type": kind,
        "from_name": kind,
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": score,
        "value": {**value, kind: labels},
    }


def _place(image: Image, detection: Detection, polygons: bool) -> tuple[str, list[Region]]:
    """Return the kind of an object's regions, and where they are."""
    if detection.mask is None:
        return "rectanglelabels", [_rectangle(image, detection)]
    if polygons:
        size = [image.width, image.height]
        parts = [np.round(100 * outline / size, 4).tolist() for outline in edge_outlines(image, detection)]
        return "polygonlabels", [{"points": points, "closed": True} for points in parts]
    with mask_of(image):
        return "brushlabels", [{"format": "rle", "rle": brush_rle(detection.mask.decode())}]


def _rectangle(image: Image, detection: Detection) -> Region:
    """Return a rectangle that is turned around its first corner."""
    if detection.rotated is None:
        x1, y1, x2, y2 = detection.box
        width, height, angle = x2 - x1, y2 - y1, 0.0
    else:
        (x1, y1), second, third, _ = detection.rotated.corners
        width, height, angle = dist((x1, y1), second), dist(second, third), detection.rotated.angle
    return {
        "x": _percent(x1, image.width),
        "y": _percent(y1, image.height),
        "width": _percent(width, image.width),
        "height": _percent(height, image.height),
        "rotation": angle % 360,
    }


def _percent(value: float, whole: int) -> float:
    return round(100 * value / whole, 4)
