"""Ground truth in COCO's JSON (cocodataset.org/#format-data), and its images by the names that a job has for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

from trtjob.errors import ConfigError
from trtjob.jobs.json_items import json_items

T = TypeVar("T")


@contextmanager
def truth_items(path: Path) -> Iterator[Iterator[tuple[str, Any]]]:
    """Yield the items of a COCO file, each with the name of its list, for the length of the block.

    Raises ConfigError where the file cannot be read, and where the block meets something that is not in an item.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield _with_images(json_items(file))
    except OSError as err:
        raise ConfigError(f"cannot read --truth '{path}': {err.strerror}") from err
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as err:
        raise ConfigError(f"--truth '{path}' is not COCO's JSON, or damaged: {_why(err)}") from err


def _why(err: Exception) -> str:
    if isinstance(err, KeyError):
        return f"an item has no {err}"
    return str(err) if isinstance(err, ValueError | OverflowError) else "an item is of another kind"


def _with_images(items: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Pass items on. Raises ValueError where no image is among them."""
    has_images = False
    for kind, item in items:
        has_images |= kind == "images"
        yield kind, item
    if not has_images:
        raise ValueError("it lists no image")


class NamedImages(Generic[T]):
    """What is known of images by their names, or by the last part of these, where one image alone has it."""

    def __init__(self) -> None:
        self._by_name: dict[str, T] = {}
        self._by_last_part: dict[str, T | None] = {}  # None: of several

    def add(self, name: str, known: T) -> None:
        self._by_name[name] = known
        last = PurePosixPath(name).name
        self._by_last_part[last] = None if last in self._by_last_part else known

    def find(self, name: str) -> T | None:
        """Return what is known of an image, None where it is not here."""
        found = self._by_name.get(name)
        return self._by_last_part.get(PurePosixPath(name).name) if found is None else found
