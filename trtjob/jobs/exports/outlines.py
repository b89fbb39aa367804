"""Masks as polygons, for formats that hold no pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trtjob.errors import StorageError
from trtjob.imaging.detections import Detection
from trtjob.jobs.exports.results import Image

Outline = NDArray[np.number[Any]]  # [points, 2]: x, y in pixels


@contextmanager
def mask_of(image: Image) -> Iterator[None]:
    """Name the image whose mask, read in here, is damaged, by a StorageError."""
    try:
        yield
    except ValueError as err:
        raise StorageError(f"the record of {image.name!r} has a damaged mask: {err}") from err


def edge_outlines(image: Image, detection: Detection) -> list[Outline]:
    """Return polygons along the edges of the pixels of a mask's parts, without holes; the box where it has no pixel.

    Filled by COCO's rules, they are the mask again.
    """
    assert detection.mask is not None
    with mask_of(image):
        pixels = detection.mask.decode()
    doubled = pixels.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # Of a pixel's two halves, the first lies at its left edge and the second at its right.
    return [(outline[:, 0] + 1) // 2 for outline in found] or [_corners(detection)]


def centre_outline(image: Image, detection: Detection) -> Outline:
    """Return one polygon through the centres of the outermost pixels of all parts of a mask.

    Filled by OpenCV's rules, it is the mask without holes. Where no part has three points, it is the box.
    """
    assert detection.mask is not None
    with mask_of(image):
        parts = detection.mask.polygons()
    return joined(parts) if parts else _corners(detection)


def _corners(detection: Detection) -> Outline:
    x1, y1, x2, y2 = detection.box
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def joined(parts: Sequence[Outline]) -> Outline:
    """Return one polygon of all parts: each is entered and left on one line, from where it is nearest to another."""
    path, *rest = sorted(parts, key=len, reverse=True)
    for part in rest:
        distances = ((path[:, None] - part[None]) ** 2).sum(2)
        leave, enter = divmod(int(distances.argmin()), len(part))
        path = np.concatenate([path[: leave + 1], part[enter:], part[: enter + 1], path[leave:]])
    return path
