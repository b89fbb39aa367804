"""Draw what was found: boxes, masks and keypoints in their class's colour, and labels that any background lets read."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import cv2
import numpy as np

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.imaging.canvas import Canvas
from trtjob.imaging.captions import Color, Style, caption_height, caption_of
from trtjob.imaging.detections import VISIBLE, Classification, Detection, Keypoint
from trtjob.imaging.strokes import stroke
from trtjob.imaging.tint import tint

Box = tuple[int, int, int, int]  # x1, y1, x2, y2: the pixels of two corners, both in it
Skeleton = Sequence[tuple[int, int]]  # the pairs of keypoints, by number from 0, that a line joins

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


def annotate(image: UInt8Array, detections: Iterable[Detection], *, conf: float, skeleton: Skeleton = ()) -> UInt8Array:
    """Draw the detections with a score of at least `conf` on an image, uint8 [H, W, 3] BGR, in place, and return it.

    Masks lie below all boxes, keypoints and the lines of their skeleton above them. The best is drawn last, so that it
    lies on top; its label is placed first, where it fits best.

    >>> image = np.zeros((200, 300, 3), np.uint8)
    >>> image = annotate(image, [Detection("dog", 1, 0.9, (50.0, 60.0, 250.0, 180.0))], conf=0.25)
    >>> tuple(image[180, 100].tolist()) == color_of(1)
    True
    """
    pixels = np.ascontiguousarray(image)
    canvas = Canvas(pixels)
    side = _side(image)
    edge, text_px = _edge(side), _text_px(side)
    shown = sorted((d for d in detections if d.score >= conf), key=lambda d: -d.score)
    best_first = [(detection, _style(detection.class_id, text_px)) for detection in shown]
    _draw_shapes(canvas, pixels, best_first[::-1], edge, skeleton)
    taken = _TakenPlaces(caption_height(text_px))
    placed = []
    for detection, style in best_first:
        caption = caption_of(detection.label, detection.score, style, canvas.width)
        places = _caption_places(canvas, detection, edge, caption.width, taken.height)
        placed.append((caption, *taken.take(places, caption.width)))
    for caption, x, y in reversed(placed):
        caption.draw(canvas, x, y)
    if pixels is not image:
        image[...] = pixels
    return image


def annotate_classes(image: UInt8Array, classes: Iterable[Classification]) -> UInt8Array:
    """Write the classes into the image's corner, in place, and return it; those that no longer fit are left out."""
    pixels = np.ascontiguousarray(image)
    canvas = Canvas(pixels)
    text_px = _text_px(_side(image))
    for item, y in zip(classes, range(0, canvas.height, caption_height(text_px)), strict=False):
        caption_of(item.label, item.score, _style(item.class_id, text_px), canvas.width).draw(canvas, 0, y)
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


def _text_px(side: float) -> int:
    return min(_MAX_TEXT_PX, max(_MIN_TEXT_PX, round(_TEXT_SHARE * side)))


def _edge(side: float) -> int:
    """Return by how many pixels the coloured line is wider than one, to either side of the box."""
    line = round(_LINE_SHARE * side)
    return (line + 1) // 2 if line > 1 else 0


@lru_cache(maxsize=16_384)
def _style(class_id: int, text_px: int) -> Style:
    color = color_of(class_id)
    return Style(text_px, color, text_color_on(color), bytes(color))


def _rounded(box: tuple[float, float, float, float]) -> Box:
    x1, y1, x2, y2 = box
    return round(x1), round(y1), round(x2), round(y2)


def _draw_shapes(
    canvas: Canvas, pixels: UInt8Array, objects: Sequence[tuple[Detection, Style]], edge: int, skeleton: Skeleton
) -> None:
    """Draw everything but labels, of each kind the last object on top. canvas, pixels: the same image."""
    tint(pixels, [(found.mask, style.color) for found, style in objects if found.mask])
    for found, style in objects:
        if not found.rotated:
            _outline(canvas, _rounded(found.box), edge, style.pixel)
    rotated = [(found.rotated.corners, style.color) for found, style in objects if found.rotated]
    stroke(pixels, rotated, 2 * edge + 1, rim=min(1, edge), closed=True)
    _draw_keypoints(pixels, [(found.keypoints, style) for found, style in objects if found.keypoints], edge, skeleton)


def _outline(canvas: Canvas, box: Box, edge: int, color: bytes) -> None:
    """Draw a box's line. A thin dark rim keeps the colour apart from a background of the same colour."""
    x1, y1, x2, y2 = box
    line = 2 * edge + 1
    width, height = x2 - x1 + line, y2 - y1 + line
    rim = 1 if edge else 0
    dark = _BLACK_PIXEL * rim
    upright = dark + color * line + dark
    row = dark + color * width + dark
    x, y = x1 - edge - rim, y1 - edge - rim
    right, bottom = x2 + edge + rim + 1, y2 + edge + rim + 1
    if width <= 2 * line or height <= 2 * line:  # the lines leave nothing between them
        canvas.bars([x], y, bottom, _BLACK_PIXEL * (width + 2 * rim))
        canvas.bars([x], y + rim, bottom - rim, row)
        return
    rows = [row] * line
    if rim:
        inner = _BLACK_PIXEL * (width - 2 * line - 2)
        rows = [_BLACK_PIXEL * (width + 2), *rows, upright + inner + upright]
    canvas.rows(x, y, rows)
    canvas.rows(x, bottom - len(rows), rows[::-1])
    canvas.bars((x, right - line - 2 * rim), y + len(rows), bottom - len(rows), upright)


def _draw_keypoints(
    image: UInt8Array, objects: Sequence[tuple[Sequence[Keypoint], Style]], edge: int, skeleton: Skeleton
) -> None:
    """Draw the keypoints that can be seen, as dots with a heart that stands out, and the lines between two of them."""
    bones, dots, hearts = [], [], []
    for keypoints, style in objects:
        seen = [(x, y) if visibility > VISIBLE else None for x, y, visibility in keypoints]
        bones += [((begin, end), style.color) for a, b in skeleton if (begin := seen[a]) and (end := seen[b])]
        dots += [((point,), style.color) for point in seen if point]
        hearts += [((point,), style.ink) for point in seen if point]
    line = 2 * edge + 1
    stroke(image, bones, line, rim=min(1, edge), closed=False)
    stroke(image, dots, line + 6, rim=1, closed=True)
    stroke(image, hearts, line + 2, rim=0, closed=True)


def _caption_places(
    canvas: Canvas, detection: Detection, edge: int, width: int, height: int
) -> Iterator[tuple[int, int]]:
    """Yield where a detection's label may lie, the best place first; of a rotated box, at its corners."""
    if not detection.rotated:
        yield from _places(canvas, _rounded(detection.box), edge, width, height)
        return
    corners = sorted(detection.rotated.corners, key=lambda corner: (not canvas.holds(*corner), corner[1]))
    for x, y in corners:
        yield from _places(canvas, _rounded((x, y, x, y)), edge, width, height)


def _places(canvas: Canvas, box: Box, edge: int, width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield where a label may lie, the best place first: on its box, below it, inside it; always in the image."""
    x1, y1, x2, y2 = box
    last_x, last_y = canvas.width - width, max(0, canvas.height - height)
    left, right = x1 - edge, x2 + edge + 1 - width
    left = 0 if left < 0 else min(left, last_x)
    right = 0 if right < 0 else min(right, last_x)
    for y in (y1 - edge - height, y2 + edge + 1):
        if 0 <= y <= last_y:
            yield left, y
            yield right, y
    yield left, min(max(0, y1 + edge), last_y)
    yield right, min(max(0, y2 - edge - height), last_y)


class _TakenPlaces:
    """The places of an image's labels. All are equally high, so one touches only those less than a height away."""

    def __init__(self, height: int) -> None:
        self.height = height
        self._bands: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)  # of y // height: x1, x2, y

    def take(self, places: Iterable[tuple[int, int]], width: int) -> tuple[int, int]:
        """Take the first place where no label lies yet; where there is none, the first of all."""
        first = None
        for place in places:
            if self._is_free(*place, width):
                break
            first = first or place
        else:
            assert first is not None
            place = first
        x, y = place
        self._bands[y // self.height].append((x, x + width, y))
        return place

    def _is_free(self, x: int, y: int, width: int) -> bool:
        bands, height, right = self._bands, self.height, x + width
        band = y // height
        for near in (band, band - 1, band + 1):
            if near in bands:
                for x1, x2, other in bands[near]:
                    if x < x2 and right > x1 and -height < y - other < height:
                        return False
        return True
