"""Which of an image's pixels belong to an object."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trtjob.imaging.rle import BoolArray, compressed, decompressed, mask_from, run_lengths

Polygon = NDArray[np.int32]

_CORNERS = 3  # the fewest of a polygon


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask of the size (height, width) of its image, as COCO's compressed run lengths."""

    hw: tuple[int, int]
    counts: str

    @classmethod
    def encode(cls, mask: BoolArray) -> "Mask":
        """Return a mask of bools, [H, W].

        >>> Mask.encode(np.array([[0, 1, 1], [0, 1, 0]], bool))
        Mask(hw=(2, 3), counts='231')
        """
        return cls((mask.shape[0], mask.shape[1]), compressed(run_lengths(mask)))

    def decode(self) -> BoolArray:
        """Return it as bools, [H, W]. Raises ValueError where `counts` is damaged."""
        return mask_from(decompressed(self.counts), self.hw)

    @property
    def area(self) -> int:
        """How many pixels belong to the object. Raises ValueError where `counts` is damaged."""
        return int(decompressed(self.counts)[1::2].sum())

    def polygons(self) -> tuple[Polygon, ...]:
        """Return the outlines of its parts, int32 [points, 2] each: x, y of the centres of the pixels on the border.

        Holes are not told, nor parts of one or two pixels. Raises ValueError where `counts` is damaged.
        """
        found, _ = cv2.findContours(self.decode().astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        return tuple(np.asarray(outline[:, 0], np.int32) for outline in found if len(outline) >= _CORNERS)
