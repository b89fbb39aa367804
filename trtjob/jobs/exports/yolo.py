"""YOLO's labels: a text file for each image, a line for each object."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

from trtjob.errors import ConfigError
from trtjob.jobs.exports.darknet import centre_and_size
from trtjob.jobs.exports.results import Image, Results
from trtjob.jobs.storage import LocalStorage, place_error

CLASSES = "classes.txt"


def write_yolo(results: Results, out: Path) -> None:
    """Write a folder: the labels' files in the sub-folders of their images, and `classes.txt`.

    Each line: class id, centre x, centre y, width, height in shares of the image, score.
    Raises ConfigError where the folder holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"'{out}' is not an empty folder: the labels of another job could be mixed in. Name a new one"
        )
    storage = LocalStorage(out)
    try:
        for image, name in _named(results.images()):
            storage.put(name, "".join(_lines(image)).encode())
        storage.put(CLASSES, "".join(f"{label}\n" for label in results.spec.model.labels).encode())
    except OSError as err:
        raise place_error(err, out) from err


def _lines(image: Image) -> Iterator[str]:
    for detection in image.detections:
        numbers = (*centre_and_size(detection.box, image), detection.score)
        yield " ".join([str(detection.class_id), *(f"{number:g}" for number in numbers)]) + "\n"


def _named(images: Iterator[Image]) -> Iterator[tuple[Image, str]]:
    """Yield each image with its labels' file: `a.txt` for `a.jpg`, but `a.jpg.txt` where there is an `a.png` too."""
    # Images come sorted by name, so those that begin alike up to the first dot are neighbours.
    for _, neighbours in groupby(images, key=_up_to_dot):
        group = list(neighbours)
        stems = Counter(_stem(image.name) for image in group)
        names = {image.name for image in group}
        for image in group:
            stem = _stem(image.name)
            unique = stems[stem] == 1 and stem not in names and f"{stem}.txt" != CLASSES
            yield image, f"{stem if unique else image.name}.txt"


def _up_to_dot(image: Image) -> str:
    folder, _, name = image.name.rpartition("/")
    return f"{folder}/{name.split('.')[0]}"


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
