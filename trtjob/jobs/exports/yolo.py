"""YOLO's labels: a text file for each image, a line for each object."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trtjob import atomic
from trtjob.errors import ConfigError
from trtjob.jobs.exports.darknet import centre_and_size
from trtjob.jobs.exports.results import Image, Results
from trtjob.jobs.folder import suffixed_key
from trtjob.storage import LocalStorage, place_error

CLASSES = "classes.txt"


def write_yolo(results: Results, out: Path) -> None:
    """Write a folder: the labels' files in the sub-folders of their images, and `classes.txt`.

    Each line: class id, centre x, centre y, width, height in shares of the image, score. The folder appears when it is
    complete.
    Raises ConfigError where the folder holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"'{out}' is there and is not an empty folder: labels of two jobs could mix. Remove it, or name another"
        )
    try:
        with atomic.unfinished(out.parent) as folder:
            folder.mkdir()
            _write_labels(results, LocalStorage(folder))
            folder.replace(out)
    except OSError as err:
        raise place_error(err, out) from err


def _write_labels(results: Results, storage: LocalStorage) -> None:
    storage.put(CLASSES, "".join(f"{label}\n" for label in results.spec.model.labels).encode())
    for image in results.images():
        storage.put(_labels_key(image.name, storage), "".join(_lines(image)).encode())


def _labels_key(name: str, storage: LocalStorage) -> str:
    """Return `a.txt` for `a.jpg`, but `a.png.txt` for an `a.png` that follows it."""
    key = suffixed_key(str(PurePosixPath(name).with_suffix("")), ".txt")
    if not storage.exists(key):
        return key
    # Free: only an image whose name begins with this whole name could have taken it, and those sort behind it.
    return suffixed_key(name, ".txt")


def _lines(image: Image) -> Iterator[str]:
    for detection in image.detections:
        numbers = (*centre_and_size(detection.box, image), detection.score)
        yield " ".join([str(detection.class_id), *(f"{number:.6f}" for number in numbers)]) + "\n"
