"""COCO's dataset format (cocodataset.org/#format-data), with a `score` in each annotation."""

from collections.abc import Iterator
from itertools import chain
from math import dist
from pathlib import Path
from typing import Any

from trtjob.imaging.detections import VISIBLE, Detection, Keypoint, RotatedBox
from trtjob.jobs.exports.outlines import edge_outlines, mask_of
from trtjob.jobs.exports.results import Image, Results, to_json, write_array
from trtjob.jobs.frames import video_key
from trtjob.storage import LocalStorage

_LABELLED = 2  # COCO's "labelled and visible"; 0 is "not labelled"


def write_coco(results: Results, out: Path, *, polygons: bool = False) -> None:
    """Write one JSON file. Ids count from 1; a category's id is its class id + 1. polygons: masks as their outlines."""
    with LocalStorage(out.parent).writing(out.name) as file:
        file.write(b'{"info": ' + to_json({"description": f"{results.spec.job_id}, model {results.spec.model.name}"}))
        file.write(b',\n"licenses": [],\n"categories": ')
        write_array(file, _categories(results))
        if results.has_frames:
            file.write(b',\n"videos": ')
            write_array(file, _videos(results))
        file.write(b',\n"images": ')
        write_array(file, _images(results))
        file.write(b',\n"annotations": ')
        write_array(file, _annotations(results, polygons))
        file.write(b"}\n")


def _categories(results: Results) -> Iterator[dict[str, Any]]:
    model = results.spec.model
    points: dict[str, Any] = {}
    if model.keypoints:
        points = {"keypoints": model.keypoints, "skeleton": [(a + 1, b + 1) for a, b in model.skeleton]}
    for number, label in enumerate(model.labels, start=1):
        yield {"id": number, "name": label, **points}


def _videos(results: Results) -> Iterator[dict[str, Any]]:
    """Yield the videos as COCO-VID has them."""
    names = dict.fromkeys(video_key(image.name) for image in results.images() if image.frame is not None)
    return ({"id": number, "name": name} for number, name in enumerate(names, start=1))


def _images(results: Results) -> Iterator[dict[str, Any]]:
    videos: dict[str, int] = {}
    for number, image in enumerate(results.images(), start=1):
        fields: dict[str, Any] = {"width": image.width, "height": image.height}
        fields |= results.camera_trap_fields(image.name)
        if image.frame is not None:
            video = videos.setdefault(video_key(image.name), len(videos) + 1)
            fields |= {"video_id": video, "frame_id": image.frame, "time_s": image.time_s}
        yield {"id": number, "file_name": image.name, **fields}


def _annotations(results: Results, polygons: bool) -> Iterator[dict[str, Any]]:
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
                **_shapes(image, detection, polygons),
                "score": detection.score,
            }


def _shapes(image: Image, detection: Detection, polygons: bool) -> dict[str, Any]:
    """Return the fields of what a detection has beside its box, and its area where that is another one."""
    x1, y1, x2, y2 = detection.box
    fields: dict[str, Any] = {"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
    if detection.mask is not None:
        with mask_of(image):
            fields["area"] = detection.mask.area
        fields["segmentation"] = (
            [outline.ravel().tolist() for outline in edge_outlines(image, detection)]
            if polygons
            else {"size": detection.mask.hw, "counts": detection.mask.counts}
        )
    elif detection.rotated is not None:
        fields |= _rotated(detection.rotated)
    if detection.keypoints is not None:
        fields |= _keypoints(detection.keypoints)
    return fields


def _rotated(rotated: RotatedBox) -> dict[str, Any]:
    """Return a polygon: COCO has no box at an angle."""
    first, second, third, _ = rotated.corners
    area = dist(first, second) * dist(second, third)
    return {"area": round(area, 2), "segmentation": [list(chain(*rotated.corners))]}


def _keypoints(keypoints: tuple[Keypoint, ...]) -> dict[str, Any]:
    """Return all points, those that cannot be seen too: an evaluation takes their places."""
    marked = [(x, y, _LABELLED if visibility > VISIBLE else 0) for x, y, visibility in keypoints]
    return {"keypoints": list(chain(*marked)), "num_keypoints": sum(mark > 0 for _, _, mark in marked)}
