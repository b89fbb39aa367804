"""YOLO's labels: a text file for each image, a line for each object."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import yaml

from trtjob.imaging.detections import VISIBLE, Detection, Point
from trtjob.jobs.exports.darknet import centre_and_size
from trtjob.jobs.exports.label_folder import write_label_folder
from trtjob.jobs.exports.outlines import centre_outline
from trtjob.jobs.exports.results import Image, Results, share
from trtjob.storage import LocalStorage

CLASSES, DATA = "classes.txt", "data.yaml"
_LABELLED = 2  # the mark of a keypoint for training; 0 is one to pass over


def write_yolo(results: Results, out: Path, *, scores: bool = False) -> None:
    """Write a folder: the labels' files in the sub-folders of their images.

    Each line, in shares of the image: class id, then centre x, centre y, width and height, and x, y, visibility of
    each keypoint; or the outline of a mask; or four corners of a rotated box. As Ultralytics trains on them, and as
    labelImg reads boxes. scores: the score behind them, as of Ultralytics' save_txt (engine/results.py).
    `classes.txt` lies beside the labels in each folder, where labelImg looks for it, and `data.yaml` in the first.
    """
    model = results.spec.model
    names = "".join(f"{label}\n" for label in model.labels).encode()

    def begin(folder: LocalStorage) -> None:
        folder.put(DATA, _data(model.labels, model.keypoints).encode())
        folder.put(CLASSES, names)

    write_label_folder(
        results,
        out,
        ".txt",
        lambda image: "".join(_lines(image, scores)).encode(),
        begin,
        lambda folder, sub: folder.put(str(sub / CLASSES), names),
    )


def _data(labels: tuple[str, ...], keypoints: tuple[str, ...]) -> str:
    """Return what Ultralytics has to know of the labels to train on them, in YAML."""
    names = "".join(f"  {number}: {_quoted(label)}\n" for number, label in enumerate(labels))
    head = f"train: images\nval: images\nnc: {len(labels)}\nnames:\n{names}"
    if not keypoints:
        return head
    quoted = ", ".join(map(_quoted, keypoints))
    points = "".join(f"  {number}: [{quoted}]\n" for number in range(len(labels)))
    return f"{head}kpt_shape: [{len(keypoints)}, 3]\nkpt_names:\n{points}"


def _quoted(text: str) -> str:
    """Return text in YAML's quotes. JSON's would do but for what has two escapes there, as an emoji has.

    >>> print(_quoted('"5" 🐶'))
    "\\"5\\" \\U0001F436"
    """
    quoted: str = yaml.safe_dump(text, default_style='"', width=math.inf)
    return quoted.rstrip("\n")


def _lines(image: Image, scores: bool) -> Iterator[str]:
    for detection in image.detections:
        numbers = [*_place(image, detection, scores), *([detection.score] if scores else [])]
        yield " ".join([str(detection.class_id), *(f"{number:.6f}" for number in numbers)]) + "\n"


def _place(image: Image, detection: Detection, scores: bool) -> Iterator[float]:
    """Yield where an object is, in shares of the image."""
    if detection.mask is not None:
        yield from _shares(image, centre_outline(image, detection).tolist())
    elif detection.rotated is not None:
        yield from _shares(image, detection.rotated.corners)
    else:
        yield from centre_and_size(detection.box, image)
        for x, y, visibility in detection.keypoints or ():
            mark = _LABELLED if visibility > VISIBLE else 0
            yield from (*_shares(image, [(x, y)]), visibility if scores else mark)


def _shares(image: Image, points: Iterable[Point]) -> Iterator[float]:
    return chain.from_iterable((share(x, image.width), share(y, image.height)) for x, y in points)
