"""What is found on an image."""

from dataclasses import dataclass

SCORE_DECIMALS = 4
BOX_DECIMALS = 1


@dataclass(frozen=True, slots=True)
class Detection:
    """A box: xyxy, float pixels of the original image after EXIF rotation, clipped to it.

    Who makes one rounds: `score` to SCORE_DECIMALS, `box` to BOX_DECIMALS.
    """

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Classification:
    """A class of a whole image. Who makes one rounds `score` to SCORE_DECIMALS."""

    label: str
    class_id: int
    score: float
