"""Make scenes: cluttered pictures with handwritten digits in them, and the truth about where they are.

    python examples/digits/scenes.py --out /tmp/scenes --count 300 --seed 7

writes JPEG files into `day/` and `night/` and `truth.json` beside them: by file name, a list of {"label", "box"}, the
box being xyxy in pixels around the ink. The digits are scikit-learn's (8x8 greys); those whose index is divisible by
HELD_OUT_EVERY are held out: they are never trained on, and they are all that this command uses unless told otherwise.
"""

import argparse
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from backgrounds import Color, Image, Look, Palette, paint_background, shade
from numpy.typing import NDArray

HELD_OUT_EVERY = 5
SIZES_WH = ((640, 480), (480, 640), (800, 600), (720, 540), (560, 560))
DIGITS_A_SCENE = (3, 12)
INK_HEIGHT_PX = (24, 96)
MIN_CONTRAST = 85  # luma, 0..255: a person can read it
JPEG_QUALITY = 82

# Letters that no one takes for a digit, as strokes in a unit square: what is written is not always a digit.
_LETTERS: dict[str, list[list[tuple[float, float]]]] = {
    "A": [[(0, 1), (0.5, 0), (1, 1)], [(0.2, 0.6), (0.8, 0.6)]],
    "E": [[(1, 0), (0, 0), (0, 1), (1, 1)], [(0, 0.5), (0.8, 0.5)]],
    "F": [[(1, 0), (0, 0), (0, 1)], [(0, 0.5), (0.8, 0.5)]],
    "H": [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 0.5), (1, 0.5)]],
    "K": [[(0, 0), (0, 1)], [(1, 0), (0, 0.55), (1, 1)]],
    "M": [[(0, 1), (0, 0), (0.5, 0.6), (1, 0), (1, 1)]],
    "N": [[(0, 1), (0, 0), (1, 1), (1, 0)]],
    "W": [[(0, 0), (0.25, 1), (0.5, 0.4), (0.75, 1), (1, 0)]],
    "X": [[(0, 0), (1, 1)], [(1, 0), (0, 1)]],
}


@dataclass(frozen=True, slots=True)
class Glyph:
    """A digit of the data set: pixels float32 [8, 8] in 0..1, 1 being ink."""

    label: str
    pixels: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Truth:
    """A digit in a scene; box: xyxy in pixels, tight around the ink."""

    label: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """image: uint8 [H, W, 3], RGB."""

    image: Image
    look: Look
    truths: tuple[Truth, ...]


@functools.cache
def load_glyphs(*, held_out: bool) -> list[Glyph]:
    """Return one side of the split: a digit is in the one or in the other, never in both."""
    from sklearn.datasets import load_digits  # only those who make scenes need it

    digits = load_digits()
    return [
        Glyph(str(target), (pixels / 16).astype(np.float32))
        for index, (pixels, target) in enumerate(zip(digits.images, digits.target, strict=True))
        if (index % HELD_OUT_EVERY == 0) == held_out
    ]


def make_scene(rng: np.random.Generator, glyphs: list[Glyph], look: Look) -> Scene:
    """Return a scene; the same generator state gives the same scene."""
    width, height = SIZES_WH[rng.integers(len(SIZES_WH))]
    palette = Palette(rng, look)
    image = paint_background(rng, palette, (height, width))
    taken: list[tuple[int, int, int, int]] = []
    truths = []
    for _ in range(rng.integers(DIGITS_A_SCENE[0], DIGITS_A_SCENE[1] + 1)):
        glyph = glyphs[rng.integers(len(glyphs))]
        if box := _place(rng, palette, image, _digit_ink(rng, glyph), taken):
            truths.append(Truth(glyph.label, box))
    for _ in range(rng.integers(0, 6)):
        _place(rng, palette, image, _letter_ink(rng), taken)
    return Scene(_photograph(rng, image), look, tuple(truths))


def _ink_height(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(INK_HEIGHT_PX))))


def _digit_ink(rng: np.random.Generator, glyph: Glyph) -> NDArray[np.float32]:
    """Return the digit as a coverage mask in 0..1: enlarged to smooth strokes, slanted, rotated, cropped to its ink."""
    height = _ink_height(rng)
    padded = np.pad(glyph.pixels, 2)
    size = max(round(height * padded.shape[0] / glyph.pixels.shape[0]), 1)
    smooth = cv2.resize(padded, (round(size * rng.uniform(0.85, 1.15)), size), interpolation=cv2.INTER_CUBIC)
    threshold = rng.uniform(0.30, 0.45)  # pen width
    strokes = np.clip((smooth - threshold) / 0.2, 0, 1).astype(np.float32)
    return _crop_to_ink(_slant(rng, strokes))


def _letter_ink(rng: np.random.Generator) -> NDArray[np.float32]:
    height = _ink_height(rng)
    width = height * rng.uniform(0.5, 0.9)
    margin, thickness = round(height * 0.3), max(round(height * rng.uniform(0.06, 0.18)), 1)
    canvas = np.zeros((round(height) + 2 * margin, round(width) + 2 * margin), dtype=np.uint8)
    strokes = _LETTERS[str(rng.choice(list(_LETTERS)))]
    for stroke in strokes:
        points = np.array(stroke) * (width, height) + margin + rng.normal(0, 0.02 * height, size=(len(stroke), 2))
        cv2.polylines(canvas, [points.astype(np.int32)], False, 255, thickness, cv2.LINE_AA)
    return _crop_to_ink(_slant(rng, (canvas / 255).astype(np.float32)))


def _slant(rng: np.random.Generator, mask: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = mask.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-12, 12), 1.0)
    shear = rng.uniform(-0.12, 0.12)
    turn[0, 1] += shear
    turn[0, 2] -= shear * height / 2
    return cv2.warpAffine(mask, turn, (width, height), flags=cv2.INTER_LINEAR).astype(np.float32)


def _crop_to_ink(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = np.nonzero((mask > 0.5).any(axis=1))[0], np.nonzero((mask > 0.5).any(axis=0))[0]
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    rng: np.random.Generator,
    palette: Palette,
    image: Image,
    ink: NDArray[np.float32],
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:
    """Write the ink where nothing is written yet and return its box, or None where a few tries find no room."""
    height, width = ink.shape
    for _ in range(20):
        left = int(rng.integers(4, image.shape[1] - width - 4))
        top = int(rng.integers(4, image.shape[0] - height - 4))
        box = (left, top, left + width, top + height)
        if all(_are_apart(box, other) for other in taken):
            taken.append(box)
            _write(rng, palette, image, ink, box)
            return box
    return None


def _are_apart(a: tuple[int, int, int, int], b: tuple[int, int, int, int], gap: int = 6) -> bool:
    return a[2] + gap <= b[0] or b[2] + gap <= a[0] or a[3] + gap <= b[1] or b[3] + gap <= a[1]


def _write(
    rng: np.random.Generator, palette: Palette, image: Image, ink: NDArray[np.float32], box: tuple[int, int, int, int]
) -> None:
    x1, y1, x2, y2 = box
    style = rng.uniform()
    if style < 0.15:  # on a card
        margin = int(rng.integers(4, 7))
        cv2.rectangle(
            image, (x1 - margin, y1 - margin), (x2 + margin - 1, y2 + margin - 1), palette.ground(), cv2.FILLED
        )
    patch = image[y1:y2, x1:x2]
    ground = tuple(float(value) for value in patch.reshape(-1, 3).mean(axis=0))
    color = _readable_ink(palette, ground)
    if style > 0.7:  # with a halo that lifts it off the clutter
        halo = cv2.GaussianBlur(cv2.dilate(ink, np.ones((5, 5), np.uint8)), (0, 0), 1.5)
        patch[:] = _blend(patch, ground, halo * 0.8)
    patch[:] = _blend(patch, color, ink * rng.uniform(0.85, 1.0))


def _blend(patch: Image, color: tuple[float, ...], coverage: NDArray[np.float32]) -> Image:
    weight = coverage[:, :, None]
    return np.rint(patch * (1 - weight) + np.array(color, dtype=np.float32) * weight).astype(np.uint8)


def _readable_ink(palette: Palette, ground: tuple[float, ...]) -> Color:
    """Return the first of a few colours that stands out enough, else the one that stands out most."""
    candidates = [palette.ink() for _ in range(8)]
    contrasts = [abs(_luma(color) - _luma(ground)) for color in candidates]
    return next(
        (color for color, contrast in zip(candidates, contrasts, strict=True) if contrast >= MIN_CONTRAST),
        candidates[int(np.argmax(contrasts))],
    )


def _luma(rgb: tuple[float, ...]) -> float:
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]  # ITU-R BT.601


def _photograph(rng: np.random.Generator, image: Image) -> Image:
    """Add what a camera adds: a little blur, a little noise."""
    if rng.uniform() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.1)).astype(np.uint8)
    strength = int(rng.integers(0, 9))
    grain = rng.integers(0, 2 * strength + 1, size=image.shape[:2], dtype=np.uint8)
    return shade(image, grain, strength)


def write_scenes(out: Path, *, count: int, seed: int, held_out: bool = True) -> None:
    """Write `count` scenes, day and night by turns, and `truth.json` into the folder `out`."""
    glyphs = load_glyphs(held_out=held_out)
    truth = {}
    for index in range(count):
        look = (Look.DAY, Look.NIGHT)[index % 2]
        scene = make_scene(np.random.default_rng([seed, index]), glyphs, look)
        name = f"{look}/{index:04d}.jpg"
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(".jpg", scene.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        path.write_bytes(encoded.tobytes())
        truth[name] = [{"label": truth.label, "box": truth.box} for truth in scene.truths]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(digits)}" for name, digits in sorted(truth.items()))
    (out / "truth.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write scenes with digits in them, and truth.json.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--count", type=int, default=12, help="number of scenes (default: 12)")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument(
        "--training-digits", action="store_true", help="use the digits of training, not the held-out ones"
    )
    arguments = parser.parse_args()
    write_scenes(arguments.out, count=arguments.count, seed=arguments.seed, held_out=not arguments.training_digits)


if __name__ == "__main__":
    main()
