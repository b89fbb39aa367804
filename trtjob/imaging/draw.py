"""Draw what was found: boxes, masks and keypoints in their class's colour, and labels that any background lets read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.imaging.canvas import Canvas
from trtjob.imaging.captions import NARROWEST, Color, Style, caption_height, caption_of
from trtjob.imaging.detections import VISIBLE, Classification, Detection, Keypoint
from trtjob.imaging.label_places import Box, LabelPlaces, box_pixels, places_at
from trtjob.imaging.scripts import written_label
from trtjob.imaging.strokes import stroke
from trtjob.imaging.tint import tint

Skeleton = Sequence[tuple[int, int]]  # the pairs of keypoints, by number from 0, that a line joins
_Drawn = tuple[Detection, Style, Box]

_BLACK: Color = (0, 0, 0)
_WHITE: Color = (255, 255, 255)
_BLACK_PIXEL = bytes(_BLACK)
PALETTE_SIZE = 256
_XYZ_FROM_RGB = np.array(  # linear sRGB with white D65, IEC 61966-2-1
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
_LINE_SHARE, _TEXT_SHARE = 0.003, 0.02  # of the square root of the image's area
_MIN_TEXT_PX, _MAX_TEXT_PX = 11, 160
_EVEN_LUMINANCE = 0.179  # where black and white have the same contrast: sqrt(1.05 * 0.05) - 0.05


@dataclass(frozen=True, slots=True)
class Look:
    """How things are drawn. line_width, font_size: in pixels, None for what suits the image's size."""

    has_labels: bool = True
    has_scores: bool = True
    line_width: int | None = None
    font_size: int | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of so many pixels, of which `outer` lie beyond the box. rim: the width of the dark one to either side."""

    width: int
    outer: int
    rim: int


_USUAL = Look()


def annotate(
    image: UInt8Array, detections: Iterable[Detection], *, conf: float, skeleton: Skeleton = (), look: Look = _USUAL
) -> UInt8Array:
    """Draw the detections with a score of at least `conf` on an image, uint8 [H, W, 3] BGR, in place, and return it.

    Masks lie below all boxes, keypoints and the lines of their skeleton above them. The best is drawn last, so that it
    lies on top; its label is placed first, where it fits best. One that has no place is left out.

    >>> image = np.zeros((200, 300, 3), np.uint8)
    >>> image = annotate(image, [Detection("dog", 1, 0.9, (50.0, 60.0, 250.0, 180.0))], conf=0.25)
    >>> tuple(image[180, 100].tolist()) == color_of(1)
    True
    """
    pixels = np.ascontiguousarray(image)
    canvas = Canvas(pixels)
    side = _side(image)
    line, text_px = _line(side, look), _text_px(side, look)
    shown = sorted((d for d in detections if d.score >= conf), key=lambda d: -d.score)
    best_first = [(found, _style(found.class_id, text_px), box_pixels(found.box)) for found in shown]
    _draw_shapes(canvas, pixels, best_first[::-1], line, skeleton)
    if look.has_labels:
        _draw_labels(canvas, best_first, line, look, text_px)
    if pixels is not image:
        image[...] = pixels
    return image


def _draw_labels(canvas: Canvas, best_first: Sequence[_Drawn], line: _Line, look: Look, text_px: int) -> None:
    """Write the label of each detection where it is in nobody's way."""
    labels = LabelPlaces(caption_height(text_px), [box for _, _, box in best_first])
    narrowest = min(canvas.width, NARROWEST * text_px)
    for found, style, box in best_first:
        width = box[2] - box[0]
        widest = canvas.width if width > canvas.width else width if width > narrowest else narrowest
        label = found.label if found.label.isascii() else written_label(found.label, found.class_id)
        caption = caption_of(label, found.score if look.has_scores else None, style, widest)
        if caption.width <= canvas.width:
            places = places_at(canvas, found, box, line.outer, caption.width, labels.height)
            if place := labels.take(places, caption.width):
                caption.draw(canvas, *place)


def annotate_classes(image: UInt8Array, classes: Iterable[Classification], look: Look = _USUAL) -> UInt8Array:
    """Write the classes into the image's corner, in place, and return it; those that no longer fit are left out."""
    if not look.has_labels:
        return image
    pixels = np.ascontiguousarray(image)
    canvas = Canvas(pixels)
    text_px = _text_px(_side(image), look)
    for item, y in zip(classes, range(0, canvas.height, caption_height(text_px)), strict=False):
        label, score = written_label(item.label, item.class_id), item.score if look.has_scores else None
        caption = caption_of(label, score, _style(item.class_id, text_px), canvas.width)
        if caption.width <= canvas.width:
            caption.draw(canvas, 0, y)
    if pixels is not image:
        image[...] = pixels
    return image


def color_of(class_id: int) -> Color:
    """Return a class's colour, the same in every image; ids that differ by PALETTE_SIZE share one."""
    return _palette()[class_id % PALETTE_SIZE]


@lru_cache(maxsize=1)
def _palette() -> tuple[Color, ...]:
    """Return PALETTE_SIZE vivid colours, each as far as can be from all before it, as the eye sees it."""
    hues, saturations, values = np.meshgrid(np.arange(0, 180, 4), (255, 200, 150), (255, 220, 180, 140), indexing="ij")
    hsv = np.stack([hues, saturations, values], -1).reshape(1, -1, 3).astype(np.uint8)
    bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0]
    lab = _lab(bgr)
    chosen = [0]  # red
    distances = np.linalg.norm(lab - lab[0], axis=1)
    while len(chosen) < PALETTE_SIZE:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return tuple((int(blue), int(green), int(red)) for blue, green, red in bgr[chosen])


def _lab(bgr: UInt8Array) -> FloatArray:
    """Return CIELAB of colours [N, 3], with a plain gamma of 2.2 for sRGB (cv2 would first build tables for 0.1 s)."""
    xyz = (bgr[:, ::-1] / 255) ** 2.2 @ _XYZ_FROM_RGB.T / _XYZ_FROM_RGB.sum(1)
    x, y, z = np.cbrt(xyz).T
    return np.stack([116 * y, 500 * (x - y), 200 * (y - z)], 1).astype(np.float32)


def text_color_on(color: Color) -> Color:
    """Return black or white, whichever has more contrast to a colour (WCAG 2.1, contrast ratio)."""
    blue, green, red = (_linear(part / 255) for part in color)
    return _BLACK if 0.0722 * blue + 0.7152 * green + 0.2126 * red > _EVEN_LUMINANCE else _WHITE


def _linear(part: float) -> float:
    """Return the light of an sRGB value, both 0 to 1."""
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def _side(image: UInt8Array) -> float:
    """Return the side of a square of the image's area, which sizes are a share of."""
    return float((image.shape[0] * image.shape[1]) ** 0.5)


def _text_px(side: float, look: Look) -> int:
    return look.font_size or min(_MAX_TEXT_PX, max(_MIN_TEXT_PX, round(_TEXT_SHARE * side)))


def _line(side: float, look: Look) -> _Line:
    share = round(_LINE_SHARE * side)
    width = look.line_width or (share + 1 | 1 if share > 1 else 1)  # odd, so that it lies evenly on the box
    return _Line(width, width // 2, rim=min(1, width // 2))


@lru_cache(maxsize=16_384)
def _style(class_id: int, text_px: int) -> Style:
    color = color_of(class_id)
    return Style(text_px, color, text_color_on(color), bytes(color))


def _draw_shapes(
    canvas: Canvas, pixels: UInt8Array, objects: Sequence[_Drawn], line: _Line, skeleton: Skeleton
) -> None:
    """Draw everything but labels, of each kind the last object on top. canvas, pixels: the same image."""
    tint(pixels, [(found.mask, style.color) for found, style, _ in objects if found.mask])
    for found, style, box in objects:
        if not found.rotated:
            _outline(canvas, box, line, style.pixel)
    rotated = [(found.rotated.corners, style.color) for found, style, _ in objects if found.rotated]
    stroke(pixels, rotated, line.width, rim=line.rim, closed=True)
    _draw_keypoints(
        pixels, [(found.keypoints, style) for found, style, _ in objects if found.keypoints], line, skeleton
    )


def _outline(canvas: Canvas, box: Box, line: _Line, color: bytes) -> None:
    """Draw a box's line. A thin dark rim keeps the colour apart from a background of the same colour."""
    x1, y1, x2, y2 = box
    wide, outer, rim = line.width, line.outer, line.rim
    width, height = x2 - x1 + 1 + 2 * outer, y2 - y1 + 1 + 2 * outer
    dark = _BLACK_PIXEL * rim
    upright = dark + color * wide + dark
    row = dark + color * width + dark
    x, y = x1 - outer - rim, y1 - outer - rim
    right, bottom = x2 + outer + rim + 1, y2 + outer + rim + 1
    if width <= 2 * wide or height <= 2 * wide:  # the lines leave nothing between them
        canvas.copy_bars([x], y, bottom, _BLACK_PIXEL * (width + 2 * rim))
        canvas.copy_bars([x], y + rim, bottom - rim, row)
        return
    rows = [row] * wide
    if rim:
        inner = _BLACK_PIXEL * (width - 2 * wide - 2)
        rows = [_BLACK_PIXEL * (width + 2), *rows, upright + inner + upright]
    canvas.copy_rows(x, y, rows)
    canvas.copy_rows(x, bottom - len(rows), rows[::-1])
    canvas.copy_bars((x, right - wide - 2 * rim), y + len(rows), bottom - len(rows), upright)


def _draw_keypoints(
    image: UInt8Array, objects: Sequence[tuple[Sequence[Keypoint], Style]], line: _Line, skeleton: Skeleton
) -> None:
    """Draw the keypoints that can be seen, as dots with a heart that stands out, and the lines between two of them."""
    bones, dots, hearts = [], [], []
    for keypoints, style in objects:
        seen = [(x, y) if visibility > VISIBLE else None for x, y, visibility in keypoints]
        bones += [((begin, end), style.color) for a, b in skeleton if (begin := seen[a]) and (end := seen[b])]
        dots += [((point,), style.color) for point in seen if point]
        hearts += [((point,), style.ink) for point in seen if point]
    stroke(image, bones, line.width, rim=line.rim, closed=False)
    stroke(image, dots, line.width + 6, rim=1, closed=True)
    stroke(image, hearts, line.width + 2, rim=0, closed=True)
