"""COCO's dataset format (cocodataset.org/#format-data), with a `score` in each annotation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtjob.jobs.exports.results import Results, to_json, write_array
from trtjob.storage import LocalStorage


def write_coco(results: Results, out: Path) -> None:
    """Write one JSON file. Ids count from 1; a category's id is its class id + 1."""
    labels = results.spec.model.labels
    categories = [{"id": number, "name": label} for number, label in enumerate(labels, start=1)]
    with LocalStorage(out.parent).writing(out.name) as file:
        file.write(b'{"info": ' + to_json({"description": f"{results.spec.job_id}, model {results.spec.model.name}"}))
        file.write(b',\n"licenses": [],\n"categories": ')
        write_array(file, categories)
        file.write(b',\n"images": ')
        write_array(file, _images(results))
        file.write(b',\n"annotations": ')
        write_array(file, _annotations(results))
        file.write(b"}\n")


def _images(results: Results) -> Iterator[dict[str, Any]]:
    for number, image in enumerate(results.images(), start=1):
        size = {"width": image.width, "height": image.height}
        yield {"id": number, "file_name": image.name, **size, **results.camera_trap_fields(image.name)}


def _annotations(results: Results) -> Iterator[dict[str, Any]]:
    annotation = 0
    for number, image in enumerate(results.images(), start=1):
        for detection in image.detections:
            annotation += 1
            x1, y1, x2, y2 = detection.box
            width, height = round(x2 - x1, 1), round(y2 - y1, 1)
            yield {
                "id": annotation,
                "image_id": number,
                "category_id": detection.class_id + 1,
                "bbox": [x1, y1, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "score": detection.score,
            }
