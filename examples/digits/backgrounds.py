"""Paint the clutter that the digits are hidden in: gradients, texture, stripes, shapes; by `day` or by `night`.

Images are uint8 [H, W, 3], RGB. Everything is drawn from the generator that is passed in, so a seed fixes every pixel.
"""

import colorsys
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Color = tuple[int, int, int]


class Look(StrEnum):
    DAY = "day"
    NIGHT = "night"


# Ranges of saturation and value (HSV) of the background, of the clutter in it, and of what is written on it.
_GROUND = {Look.DAY: ((0.05, 0.35), (0.80, 1.00)), Look.NIGHT: ((0.35, 0.85), (0.08, 0.26))}
_CLUTTER = {Look.DAY: ((0.15, 0.60), (0.62, 1.00)), Look.NIGHT: ((0.30, 0.90), (0.10, 0.48))}
_INK = {Look.DAY: ((0.30, 1.00), (0.05, 0.50)), Look.NIGHT: ((0.00, 0.60), (0.85, 1.00))}


class Palette:
    """Colours that go together: hues around one or two centres."""

    def __init__(self, rng: np.random.Generator, look: Look) -> None:
        self._rng = rng
        self._look = look
        first = rng.uniform()
        self._hues = (first, first + rng.choice((0.08, 0.33, 0.5)))

    def ground(self) -> Color:
        return self._pick(*_GROUND[self._look])

    def clutter(self) -> Color:
        return self._pick(*_CLUTTER[self._look])

    def ink(self) -> Color:
        """Return a colour to write with; its hue is free, so that digits come in all colours."""
        return self._pick(*_INK[self._look], hue=self._rng.uniform())

    def _pick(self, saturation: tuple[float, float], value: tuple[float, float], hue: float | None = None) -> Color:
        if hue is None:
            hue = self._rng.choice(self._hues) + self._rng.normal(0, 0.03)
        rgb = colorsys.hsv_to_rgb(hue % 1, self._rng.uniform(*saturation), self._rng.uniform(*value))
        return (round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255))


def paint_background(rng: np.random.Generator, palette: Palette, hw: tuple[int, int]) -> Image:
    """Return a gradient with texture and two to four kinds of clutter on it."""
    image = _texture(rng, _gradient(rng, palette, hw))
    for index in rng.permutation(len(_CLUTTERERS))[: rng.integers(2, 5)]:
        overlay = image.copy()
        _CLUTTERERS[index](rng, palette, overlay)
        opacity = rng.uniform(0.25, 0.75)
        image = cv2.addWeighted(overlay, opacity, image, 1 - opacity, 0).astype(np.uint8)
    return image


def _gradient(rng: np.random.Generator, palette: Palette, hw: tuple[int, int]) -> Image:
    height, width = hw
    corners = np.array([[palette.ground(), palette.ground()], [palette.ground(), palette.ground()]], dtype=np.uint8)
    if rng.uniform() < 0.3:
        corners[:] = corners[0, 0]
    return np.ascontiguousarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR))


def _texture(rng: np.random.Generator, image: Image) -> Image:
    """Lighten and darken softly, in spots or in the streaks of paper, cloth or wood."""
    height, width = image.shape[:2]
    rows, columns = rng.integers(2, 40, size=2)
    strength = rng.integers(1, 28)
    coarse = rng.integers(0, 2 * strength + 1, size=(rows, columns), dtype=np.uint8)
    spots = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return shade(image, spots.astype(np.uint8), int(strength))


def shade(image: Image, light: NDArray[np.uint8], neutral: int) -> Image:
    """Lighten and darken: add `light` - `neutral` to every channel; light: uint8 [H, W]."""
    lighter = cv2.add(image, cv2.merge([light] * 3))
    return np.maximum(lighter, neutral).astype(np.uint8) - np.uint8(neutral)


def _shapes(rng: np.random.Generator, palette: Palette, image: Image) -> None:
    height, width = image.shape[:2]
    for _ in range(rng.integers(3, 10)):
        center = rng.uniform((0, 0), (width, height))
        angles = np.sort(rng.uniform(0, 2 * np.pi, size=rng.integers(3, 7)))
        radii = rng.uniform(0.05, 0.25) * width * rng.uniform(0.6, 1.0, size=len(angles))
        corners = center + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
        cv2.fillPoly(image, [corners.astype(np.int32)], palette.clutter(), cv2.LINE_AA)


def _blobs(rng: np.random.Generator, palette: Palette, image: Image) -> None:
    height, width = image.shape[:2]
    for _ in range(rng.integers(6, 30)):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(4, 60)), int(rng.integers(4, 60)))
        cv2.ellipse(image, center, axes, int(rng.integers(180)), 0, 360, palette.clutter(), cv2.FILLED, cv2.LINE_AA)


def _tiles(rng: np.random.Generator, palette: Palette, image: Image) -> None:
    height, width = image.shape[:2]
    for _ in range(rng.integers(4, 14)):
        left, top = int(rng.integers(-50, width)), int(rng.integers(-50, height))
        size = rng.integers(20, 220, size=2)
        cv2.rectangle(image, (left, top), (left + int(size[0]), top + int(size[1])), palette.clutter(), cv2.FILLED)


def _ruling(rng: np.random.Generator, palette: Palette, image: Image) -> None:
    """Draw the lines of an exercise book: one way, or both."""
    height, width = image.shape[:2]
    color, step, thickness = palette.clutter(), int(rng.integers(12, 60)), int(rng.integers(1, 4))
    for y in range(int(rng.integers(step)), height, step):
        cv2.line(image, (0, y), (width, y), color, thickness)
    if rng.uniform() < 0.6:
        for x in range(int(rng.integers(step)), width, step):
            cv2.line(image, (x, 0), (x, height), color, thickness)


def _stripes(rng: np.random.Generator, palette: Palette, image: Image) -> None:
    height, width = image.shape[:2]
    color, slant = palette.clutter(), int(rng.integers(-height, height))
    step = int(rng.integers(20, 90))
    for x in range(-height, width + height, step):
        cv2.line(image, (x, 0), (x + slant, height), color, int(step * 0.4), cv2.LINE_AA)


def _curves(rng: np.random.Generator, palette: Palette, image: Image) -> None:
    height, width = image.shape[:2]
    x = np.linspace(0, width, 60)
    for _ in range(rng.integers(2, 9)):
        swing = rng.uniform(0.02, 0.25) * height * np.sin(x / width * rng.uniform(2, 14) + rng.uniform(0, 6.3))
        y = rng.uniform(0, height) + rng.uniform(-0.5, 0.5) * height * x / width + swing
        points = np.stack([x, y], axis=1).astype(np.int32)
        cv2.polylines(image, [points], False, palette.clutter(), int(rng.integers(1, 9)), cv2.LINE_AA)


_CLUTTERERS = (_shapes, _blobs, _tiles, _ruling, _stripes, _curves)
