"""What truly is in images, as people have labelled them: COCO's JSON, or a folder of YOLO's text files."""

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np
import yaml

from trtjob.errors import ConfigError
from trtjob.jobs.coco_truth import NamedImages, truth_items
from trtjob.jobs.records import Record
from trtjob.jobs.report.overlap import Box
from trtjob.storage.listing import suffix_of

_CLASSES, _DATA = "classes.txt", "data.yaml"
_MOST = 1e9  # pixels, and sides of an image, that a box may lie away from it: what is computed of it stays finite
_OUTSIDE = f"a box has a number that is not from {-_MOST:g} to {_MOST:g}"


class TrueObject(NamedTuple):
    """class_id: the model's; box: in pixels; is_crowd: many objects in one box, which detections may lie in."""

    class_id: int
    box: Box
    is_crowd: bool = False


class Labels(Protocol):
    """The labels of images. unknown: the names of classes that the model does not have; is_known: whether labels were
    found of any image that was asked for."""

    unknown: list[str]
    is_known: bool

    def objects_of(self, record: Record) -> tuple[int, list[TrueObject]] | None:
        """Return an image's number in the order in which ties are decided, and its objects; None where it has no
        labels. Raises ConfigError where they are damaged."""
        ...


def open_labels(path: Path, labels: tuple[str, ...]) -> Labels:
    """Open labels, by what there is. labels: the model's. Raises ConfigError where they cannot be read."""
    if path.is_dir():
        return YoloLabels(path, labels)
    if suffix_of(path.name) == ".json" and path.is_file():
        return CocoLabels(path, labels)
    if not path.exists():
        raise ConfigError(f"--truth '{path}': no such file or folder")
    raise ConfigError(
        f"--truth '{path}': expected COCO's JSON, such as instances.json, or a folder of YOLO's text files"
    )


def _ids(names: Iterable[tuple[Any, str]], labels: tuple[str, ...]) -> tuple[dict[Any, int], list[str]]:
    """Return the model's class ids of classes by their numbers, and the names of those that it does not have."""
    known = {label: number for number, label in reversed(list(enumerate(labels)))}
    named = list(names)
    return (
        {number: known[name] for number, name in named if name in known},
        [name for _, name in named if name not in known],
    )


class CocoLabels:
    """The annotations of a COCO file: some 40 bytes of memory each, and 350 an image, whatever else is in the file."""

    def __init__(self, path: Path, labels: tuple[str, ...]) -> None:
        self.is_known = False
        self._numbers: dict[Any, int] = {}  # of images, by their ids
        self._names: NamedImages[int] = NamedImages()
        categories: dict[Any, int] = {}
        images, category, crowd = array("I"), array("I"), array("B")
        boxes = array("d")
        names: list[tuple[Any, str]] = []
        with truth_items(path) as items:
            for kind, item in items:
                if kind == "images":
                    self._names.add(str(item["file_name"]), self._number(item["id"]))
                elif kind == "categories":
                    names.append((item["id"], str(item["name"])))
                elif kind == "annotations":
                    if len(item["bbox"]) != 4:
                        raise ValueError("a bbox is not of four numbers")
                    images.append(self._number(item["image_id"]))
                    category.append(categories.setdefault(item["category_id"], len(categories)))
                    crowd.append(bool(item.get("iscrowd")))
                    boxes.extend(item["bbox"])
            _expect_categories(categories, names)
            numbers = np.frombuffer(boxes, np.float64)
            if not -_MOST <= numbers.min(initial=0) <= numbers.max(initial=0) <= _MOST:
                raise ValueError(_OUTSIDE)
            ids, self.unknown = _ids(names, labels)
            self._rank = self._ranks()
        self._ids = {number: ids[category_id] for category_id, number in categories.items() if category_id in ids}
        order = np.argsort(np.frombuffer(images, np.uint32), kind="stable")
        self._first = np.searchsorted(np.frombuffer(images, np.uint32)[order], np.arange(len(self._numbers) + 1))
        self._category = np.frombuffer(category, np.uint32)[order]
        self._crowd = np.frombuffer(crowd, np.uint8)[order]
        self._boxes = np.frombuffer(boxes, np.float64).reshape(-1, 4)[order]

    def _number(self, image_id: Any) -> int:
        return self._numbers.setdefault(image_id, len(self._numbers))

    def _ranks(self) -> "array[int]":
        """Return each image's place in the order of the ids, in which pycocotools takes them."""
        ranks = array("I", bytes(4 * len(self._numbers)))
        for rank, image_id in enumerate(sorted(self._numbers)):
            ranks[self._numbers[image_id]] = rank
        return ranks

    def objects_of(self, record: Record) -> tuple[int, list[TrueObject]] | None:
        number = self._names.find(record.image)
        if number is None:
            return None
        self.is_known = True
        return self._rank[number], list(self._objects(number))

    def _objects(self, number: int) -> Iterator[TrueObject]:
        for at in range(self._first[number], self._first[number + 1]):
            class_id = self._ids.get(int(self._category[at]))
            if class_id is not None:
                x, y, width, height = self._boxes[at].tolist()
                yield TrueObject(class_id, (x, y, width, height), bool(self._crowd[at]))


def _expect_categories(used: Iterable[Any], names: list[tuple[Any, str]]) -> None:
    """Raise ValueError where annotations are of a category that the file does not name."""
    known = {number for number, _ in names}
    for category_id in used:
        if category_id not in known:
            raise ValueError(f"an annotation has the category_id {category_id!r}, which none of its categories has")


class YoloLabels:
    """A folder with a text file for each image, read when its image is looked at; an image without one has no object.

    The files lie as the images do below their source, or all in one folder. The names of classes are in `classes.txt`
    or `data.yaml`, there or in the folder above; without them, classes are the model's by their numbers.
    """

    def __init__(self, folder: Path, labels: tuple[str, ...]) -> None:
        self._folder = folder
        names = _yolo_names(folder)
        numbered = list(enumerate(labels)) if names is None else names
        self._ids, self.unknown = _ids(numbered, labels)
        self._known = {number for number, _ in numbered}
        self._images = 0
        self.is_known = False

    def objects_of(self, record: Record) -> tuple[int, list[TrueObject]] | None:
        self._images += 1
        key = PurePosixPath(record.image)
        for file in dict.fromkeys((self._folder / key.with_suffix(".txt"), self._folder / f"{key.stem}.txt")):
            try:
                text = file.read_text("utf-8-sig")
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as err:
                raise ConfigError(f"cannot read the labels '{file}': {err}") from err
            self.is_known = True
            return self._images, [
                self._object(line, f"{file}:{number}", record)
                for number, line in enumerate(text.splitlines(), start=1)
                if line.strip() and self._is_known(line, f"{file}:{number}")
            ]
        return self._images, []

    def _is_known(self, line: str, place: str) -> bool:
        word = line.split()[0]
        if not word.isdecimal() or int(word) not in self._known:
            raise ConfigError(f"{place}: expected the number of a class first, found {word!r}")
        return int(word) in self._ids

    def _object(self, line: str, place: str, record: Record) -> TrueObject:
        number, *words = line.split()
        try:
            x, y, width, height = _box_of(list(map(float, words)))
        except ValueError as err:
            raise ConfigError(f"{place}: {err}") from err
        across, down = record.width or 1, record.height or 1
        return TrueObject(self._ids[int(number)], (x * across, y * down, width * across, height * down))


def _box_of(shares: list[float]) -> Box:
    """Return a line's box, or the one around its outline, in shares of the image. Raises ValueError."""
    if not all(abs(share) <= _MOST for share in shares):
        raise ValueError(_OUTSIDE)
    if len(shares) == 4:
        x, y, width, height = shares
        return x - width / 2, y - height / 2, width, height
    xs, ys = shares[::2], shares[1::2]
    if len(xs) != len(ys) or len(xs) < 3:
        raise ValueError(f"expected 4 numbers, or 3 points and more, and found {len(shares)} numbers")
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _yolo_names(folder: Path) -> list[tuple[int, str]] | None:
    for place in (folder, folder.parent):
        try:
            if (place / _CLASSES).is_file():
                return list(enumerate((place / _CLASSES).read_text("utf-8-sig").splitlines()))
            if (place / _DATA).is_file():
                names = yaml.safe_load((place / _DATA).read_text("utf-8-sig"))["names"]
                return [
                    (int(number), str(name))
                    for number, name in (names.items() if isinstance(names, dict) else enumerate(names))
                ]
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as err:
            raise ConfigError(f"cannot read the names of classes in '{place}': {err}") from err
    return None
