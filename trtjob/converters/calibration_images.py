"""The images that a conversion is calibrated and measured on."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from trtjob.config import Settings
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import ModelSpec
from trtjob.errors import ConversionError, ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.resize import prepare
from trtjob.storage.listing import Listing

GENERATED = 8
_GENERATED_HW = (480, 640)
_MAX_PIXELS: int = Settings.model_fields["max_pixels"].default
_SHOWN = 3  # broken files that a note names


def chosen_images(folder: Path, count: int) -> tuple[Path, ...]:
    """Return at most `count` images of a folder, evenly spaced over all below it. Raises ConversionError for none."""
    if not folder.is_dir():
        raise ConversionError(f"--calibrate '{folder}': there is no such folder. Name a folder of images")
    listing = Listing(folder)
    paths = [path for entry in listing if (path := folder / entry.key).is_file()]
    if not paths:
        others = f", only {listing.ignored.total()} other files" if listing.ignored else ""
        raise ConversionError(
            f"--calibrate '{folder}': there are no images in it{others}. Name a folder of JPEG, PNG, WebP, BMP or TIFF "
            "files like those that the model will see"
        )
    count = min(count, len(paths))
    return tuple(paths[index * len(paths) // count] for index in range(count))


def content_hash(paths: tuple[Path, ...]) -> str:
    """Return a hash of what is in files, in their order; their names and places do not count."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:  # it will be counted as broken
            digest.update(bytes(digest.digest_size))
    return digest.hexdigest()


class Samples:
    """Images as a model takes them, uint8 [H, W, channels], made anew each time that they are iterated over.

    Without paths they are generated: always the same. A broken file is left out, with a note; where no file is left,
    ConversionError is raised at the end of the iteration.
    """

    def __init__(self, paths: tuple[Path, ...], spec: ModelSpec) -> None:
        self._paths, self._spec = paths, spec
        self._broken: dict[Path, str] = {}
        self.notes: tuple[str, ...] = ()  # what the user should know, once they have been iterated over

    def __len__(self) -> int:
        """Return how many there are, with those that are not known yet to be broken."""
        return len(self._paths) - len(self._broken) or GENERATED

    def __iter__(self) -> Iterator[UInt8Array]:
        if not self._paths:
            yield from (self._prepared(generated_image(index)) for index in range(GENERATED))
            return
        known = len(self._broken)
        for path in self._paths:
            if path not in self._broken and (image := self._decoded(path)) is not None:
                yield self._prepared(image)
        if len(self._broken) > known:
            self._report()

    @property
    def description(self) -> str:
        """Return what they are, in words; complete when they have been iterated over."""
        count = len(self)
        return f"{count} {'' if self._paths else 'generated '}image{'s' if count != 1 else ''}"

    def _prepared(self, image: UInt8Array) -> UInt8Array:
        return prepare(image, self._spec, self._spec.resize)[0]

    def _decoded(self, path: Path) -> UInt8Array | None:
        try:
            return decode_image(path.read_bytes(), max_pixels=_MAX_PIXELS)
        except (OSError, ImageError) as err:
            self._broken[path] = (err.strerror or str(err)) if isinstance(err, OSError) else str(err)
            return None

    def _report(self) -> None:
        count, total = len(self._broken), len(self._paths)
        examples = "; ".join(f"'{path}': {reason}" for path, reason in list(self._broken.items())[:_SHOWN])
        if count == total:
            raise ConversionError(f"--calibrate: none of the {total} images can be used: {examples}")
        are = "are" if count > 1 else "is"
        self.notes = (f"{count} of {total} images of the folder {are} left out, being of no use: {examples}.",)


def generated_image(index: int) -> UInt8Array:
    """Return a picture of light, shapes and noise, uint8 [H, W, 3]: the same for the same index."""
    rng = np.random.default_rng([GENERATED, index])
    height, width = _GENERATED_HW
    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.float32)
    image = np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    for _ in range(12):
        x, y, size = (int(value) for value in rng.integers(0, (width, height, height // 3)))
        color = rng.uniform(0, 255, 3).tolist()
        if rng.uniform() < 0.5:
            cv2.circle(image, (x, y), size, color, cv2.FILLED)
        else:
            cv2.rectangle(image, (x, y), (x + 2 * size, y + size), color, cv2.FILLED)
    noise = rng.normal(0, rng.uniform(0, 24), (height, width, 1))
    return np.clip(image + noise, 0, 255).astype(np.uint8)
