"""YOLO's labels: a text file for each image, a line for each object."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from trtjob import atomic
from trtjob.errors import ConfigError
from trtjob.imaging.detections import VISIBLE, Detection, Point
from trtjob.jobs.exports.darknet import centre_and_size
from trtjob.jobs.exports.outlines import centre_outline
from trtjob.jobs.exports.results import Image, Results, share
from trtjob.jobs.folder import suffixed_key
from trtjob.jobs.frames import names_frame
from trtjob.storage import LocalStorage, place_error

CLASSES, DATA = "classes.txt", "data.yaml"
_LABELLED = 2  # the mark of a keypoint for training; 0 is one to pass over


def write_yolo(results: Results, out: Path, *, scores: bool = True) -> None:
    """Write a folder: the labels' files in the sub-folders of their images, and `classes.txt`.

    Each line, in shares of the image: class id, then centre x, centre y, width and height, and x, y, visibility of
    each keypoint; or the outline of a mask; or four corners of a rotated box; then the score. As Ultralytics' save_txt
    (engine/results.py); without scores, as it trains on. With keypoints, `data.yaml` tells how many there are.
    The folder appears when it is complete.
    Raises ConfigError where the folder holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"'{out}' is there and is not an empty folder: labels of two jobs could mix. Remove it, or name another"
        )
    try:
        with atomic.unfinished(out.parent) as folder:
            folder.mkdir()
            _write_labels(results, LocalStorage(folder), scores)
            folder.replace(out)
    except OSError as err:
        raise place_error(err, out) from err


def _write_labels(results: Results, storage: LocalStorage, scores: bool) -> None:
    model = results.spec.model
    storage.put(CLASSES, "".join(f"{label}\n" for label in model.labels).encode())
    if model.keypoints:
        storage.put(DATA, _data(model.labels, model.keypoints).encode())
    for image in results.images():
        storage.put(_labels_key(image.name, storage), "".join(_lines(image, scores)).encode())


def _data(labels: tuple[str, ...], keypoints: tuple[str, ...]) -> str:
    """Return what Ultralytics has to know of the labels to train on them, in YAML; texts are written as in JSON."""
    names = "".join(f"  {number}: {json.dumps(label)}\n" for number, label in enumerate(labels))
    points = "".join(f"  {number}: {json.dumps(keypoints)}\n" for number in range(len(labels)))
    return f"names:\n{names}kpt_shape: [{len(keypoints)}, 3]\nkpt_names:\n{points}"


def _labels_key(name: str, storage: LocalStorage) -> str:
    """Return `a.txt` for `a.jpg`, but `a.png.txt` for an `a.png` that follows it, and for a frame its whole name."""
    if names_frame(name):
        return suffixed_key(name, ".txt")
    key = suffixed_key(str(PurePosixPath(name).with_suffix("")), ".txt")
    if not storage.exists(key):
        return key
    # Free: only an image whose name begins with this whole name could have taken it, and those sort behind it.
    return suffixed_key(name, ".txt")


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
