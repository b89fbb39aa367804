"""What is found on an image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtjob.imaging.masks import Mask  # loads numpy and OpenCV, which who reads records may not need

SCORE_DECIMALS = 4
BOX_DECIMALS = 1
POINT_DECIMALS = 2  # of keypoints and corners
ANGLE_DECIMALS = 2
VISIBLE = 0.5  # a keypoint that is surer than this to be seen is drawn, and counts

Point = tuple[float, float]
Keypoint = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A box that stands at an angle.

    corners: clockwise, in pixels of the image, not clipped to it; angle: of the side from the first corner to the
    second, clockwise from the x axis, in degrees from -90 up to 90.
    Who makes one rounds: `corners` to POINT_DECIMALS, `angle` to ANGLE_DECIMALS.
    """

    corners: tuple[Point, Point, Point, Point]
    angle: float


@dataclass(frozen=True, slots=True)
class Detection:
    """A box: xyxy, float pixels of the original image after EXIF rotation, clipped to it; and what else is known.

    mask: the object's pixels; polygons: its outlines, where they are asked for, x and y by turns; keypoints: x, y in
    pixels, clipped to the image, and how sure it is that the point can be seen, 0 to 1, 1 where the model does not say;
    rotated: the box at its angle, around which `box` stands upright.
    None where the model gives no such thing.
    Who makes one rounds: `score` to SCORE_DECIMALS, `box` to BOX_DECIMALS, points to POINT_DECIMALS.
    """

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]
    mask: "Mask | None" = None
    keypoints: tuple[Keypoint, ...] | None = None
    rotated: RotatedBox | None = None
    polygons: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class Classification:
    """A class of a whole image. Who makes one rounds `score` to SCORE_DECIMALS."""

    label: str
    class_id: int
    score: float
