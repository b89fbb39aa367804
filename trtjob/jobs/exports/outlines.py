"""Masks as polygons, for formats that hold no pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from trtjob.errors import StorageError
from trtjob.imaging.detections import Detection
from trtjob.jobs.exports.results import Image

Outline = NDArray[np.float64]  # [points, 2]: x, y in pixels


@contextmanager
def mask_of(image: Image) -> Iterator[None]:
    """Name the image whose mask, read in here, is damaged, by a StorageError."""
    try:
        yield
    except ValueError as err:
        raise StorageError(f"the record of {image.name!r} has a damaged mask: {err}") from err


def outlines(image: Image, detection: Detection) -> list[Outline]:
    """Return the outlines of a mask's parts, without holes; the box, where no part is larger than two pixels."""
    assert detection.mask is not None
    with mask_of(image):
        found = [outline.astype(np.float64) for outline in detection.mask.polygons()]
    x1, y1, x2, y2 = detection.box
    return found or [np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])]


def joined(parts: Sequence[Outline]) -> Outline:
    """Return one outline of all parts: each is entered and left on one line, from where it is nearest to another."""
    path, *rest = sorted(parts, key=len, reverse=True)
    for part in rest:
        distances = ((path[:, None] - part[None]) ** 2).sum(2)
        leave, enter = divmod(int(distances.argmin()), len(part))
        path = np.concatenate([path[: leave + 1], part[enter:], part[: enter + 1], path[leave:]])
    return path
