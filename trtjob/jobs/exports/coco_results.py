"""COCO's results (cocodataset.org/#format-results): what `COCO.loadRes` takes beside the ground truth."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtjob.errors import ConfigError
from trtjob.imaging.detections import Detection
from trtjob.jobs.coco_truth import NamedImages, truth_items
from trtjob.jobs.exports.results import Results, write_array
from trtjob.storage import LocalStorage


def write_coco_results(results: Results, out: Path, *, truth: Path) -> None:
    """Write one JSON array. Images and categories have the ids of the ground truth, which names them as the job does.

    Images that the truth does not have, and classes, are left out: they cannot be evaluated.
    Raises ConfigError where the truth cannot be read, or names none of the images or none of the classes.
    """
    known = _Truth(truth)
    with LocalStorage(out.parent).writing(out.name) as file:
        write_array(file, _found(results, known))
        file.write(b"\n")
        known.check(results)


class _Truth:
    """The ids of the images and categories of a COCO file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.categories: dict[str, Any] = {}
        self._images: NamedImages[Any] = NamedImages()
        self._met = False
        with truth_items(path) as items:
            for kind, item in items:
                if kind == "images":
                    self._images.add(str(item["file_name"]), item["id"])
                elif kind == "categories":
                    self.categories.setdefault(str(item["name"]), item["id"])

    def image_id(self, name: str) -> Any:
        """Return an image's id, None where the truth does not have it."""
        found = self._images.find(name)
        self._met |= found is not None
        return found

    def check(self, results: Results) -> None:
        if not self._met:
            raise ConfigError(f"--truth '{self._path}' names none of the job's images: is it of other images?")
        if not set(self.categories) & set(results.spec.model.labels):
            has = ", ".join(list(self.categories)[:10])
            raise ConfigError(f"--truth '{self._path}' has none of the model's classes. It has: {has}")


def _found(results: Results, truth: _Truth) -> Iterator[dict[str, Any]]:
    for record in results.records():
        image_id = truth.image_id(record.image)
        if image_id is None or record.error is not None:
            continue
        for detection in results.image(record).detections:
            if (category_id := truth.categories.get(detection.label)) is not None:
                yield {"image_id": image_id, "category_id": category_id, **_fields(detection)}


def _fields(detection: Detection) -> dict[str, Any]:
    x1, y1, x2, y2 = detection.box
    fields: dict[str, Any] = {"bbox": [x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)], "score": detection.score}
    if detection.mask is not None:
        fields["segmentation"] = {"size": detection.mask.hw, "counts": detection.mask.counts}
    if detection.keypoints is not None:
        fields["keypoints"] = [number for point in detection.keypoints for number in point]
    return fields
