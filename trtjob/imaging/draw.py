"""Draw what was found: a box in its class's colour, and a label that can be read on any background."""

from collections.abc import Iterable
from functools import lru_cache
from threading import local

import cv2
import numpy as np

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.imaging.detections import Classification, Detection

Color = tuple[int, int, int]  # BGR
Box = tuple[int, int, int, int]  # x1, y1, x2, y2

_BLACK: Color = (0, 0, 0)
_WHITE: Color = (255, 255, 255)
PALETTE_SIZE = 256
_XYZ_FROM_RGB = np.array(  # linear sRGB with white D65, IEC 61966-2-1
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
_LINE_SHARE, _TEXT_SHARE = 0.003, 0.02  # of the square root of the image's area
_MIN_TEXT_PX, _MAX_TEXT_PX = 11, 160
_TEXT_WEIGHT = 500
_EVEN_LUMINANCE = 0.179  # where black and white have the same contrast: sqrt(1.05 * 0.05) - 0.05

_fonts = local()  # FontFace keeps state while it renders


def annotate(image: UInt8Array, detections: Iterable[Detection], *, conf: float) -> UInt8Array:
    """Draw the detections with a score of at least `conf` on an image, uint8 [H, W, 3] BGR, in place, and return it.

    The best is drawn last, so that it lies on top; its label is placed first, where it fits best.
    """
    shown = sorted((d for d in detections if d.score >= conf), key=lambda d: -d.score)
    side = (image.shape[0] * image.shape[1]) ** 0.5
    line = max(1, round(_LINE_SHARE * side))
    for detection in reversed(shown):
        _outline(image, detection, line)
    taken: list[Box] = []
    for detection in shown:
        _label(image, detection, line, _text_px(side), taken)
    return image


def annotate_classes(image: UInt8Array, classes: Iterable[Classification]) -> UInt8Array:
    """Write the classes into the image's corner, in place, and return it."""
    side = (image.shape[0] * image.shape[1]) ** 0.5
    y = 0
    for item in classes:
        y += _tag(image, f"{item.label} {item.score:.2f}", (0, y), _text_px(side), color_of(item.class_id))
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


def _text_px(side: float) -> int:
    return min(_MAX_TEXT_PX, max(_MIN_TEXT_PX, round(_TEXT_SHARE * side)))


def _outline(image: UInt8Array, detection: Detection, line: int) -> None:
    x1, y1, x2, y2 = map(round, detection.box)
    # A thin dark rim keeps the colour apart from a background of the same colour.
    if line > 1:
        cv2.rectangle(image, (x1, y1), (x2, y2), _BLACK, line + 2)
    cv2.rectangle(image, (x1, y1), (x2, y2), color_of(detection.class_id), line)


def _label(image: UInt8Array, detection: Detection, line: int, text_px: int, taken: list[Box]) -> None:
    text = f"{detection.label} {detection.score:.2f}"
    width, height = _tag_size(text, text_px)
    places = _places(image, detection, line, width, height)
    x, y = next((place for place in places if not _covers(place, width, height, taken)), places[0])
    taken.append((x, y, x + width, y + height))
    _tag(image, text, (x, y), text_px, color_of(detection.class_id))


def _places(image: UInt8Array, detection: Detection, line: int, width: int, height: int) -> list[tuple[int, int]]:
    """Return where a label may lie, the best place first: on its box, below it, inside it; always in the image."""
    x1, y1, x2, y2 = map(round, detection.box)
    edge = (line + 1) // 2
    left, right = x1 - edge, x2 + edge + 1 - width
    above, below = y1 - edge - height, y2 + edge + 1
    bottom = image.shape[0] - height
    candidates = [(left, above), (right, above), (left, below), (right, below)]
    fitting = [(x, y) for x, y in candidates if 0 <= y <= bottom]
    inside = [(left, y1 + edge), (right, y2 - edge - height)]
    last_x = max(0, image.shape[1] - width)
    return [(min(max(0, x), last_x), min(max(0, y), max(0, bottom))) for x, y in (*fitting, *inside)]


def _covers(place: tuple[int, int], width: int, height: int, taken: list[Box]) -> bool:
    x, y = place
    return any(x < x2 and x + width > x1 and y < y2 and y + height > y1 for x1, y1, x2, y2 in taken)


def _tag(image: UInt8Array, text: str, corner: tuple[int, int], text_px: int, color: Color) -> int:
    """Write a text on a filled box whose top left corner is given. Returns the box's height."""
    width, height = _tag_size(text, text_px)
    x, y = corner
    cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), color, cv2.FILLED)
    baseline = (x + _margin(text_px), y + round(height * 0.76))
    cv2.putText(image, text, baseline, text_color_on(color), _font(), text_px, weight=_TEXT_WEIGHT)
    return height


def _tag_size(text: str, text_px: int) -> tuple[int, int]:
    """Return the (width, height) of a text's box."""
    _, _, width, _ = cv2.getTextSize((1, 1), text, (0, 0), _font(), text_px, weight=_TEXT_WEIGHT)
    return width + 2 * _margin(text_px), round(1.35 * text_px)


def _margin(text_px: int) -> int:
    return max(2, text_px // 4)


def _font() -> "cv2.FontFace":
    if not hasattr(_fonts, "face"):
        _fonts.face = cv2.FontFace("sans")
    face: cv2.FontFace = _fonts.face
    return face
