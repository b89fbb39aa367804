"""Where labels lie in a picture: at their boxes, off each other, and off the objects."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain

from trtjob.imaging.canvas import Canvas
from trtjob.imaging.detections import Detection

Box = tuple[int, int, int, int]  # x1, y1, x2, y2: the pixels of two corners, both in it
Place = tuple[int, int]  # x, y of a label's upper left corner

_MOST_HIDDEN = 0.5  # of an object's box, by all labels that lie on it
_LOW = 4  # of a label's height: what labels could hide


def box_pixels(box: tuple[float, float, float, float]) -> Box:
    """Return the pixels that a box's corners lie in."""
    x1, y1, x2, y2 = box
    return round(x1), round(y1), round(x2), round(y2)


def places_at(canvas: Canvas, detection: Detection, box: Box, outer: int, width: int, height: int) -> Iterator[Place]:
    """Return where a detection's label may lie, the best place first; of a rotated box, at its corners.

    box: the detection's; outer: by how many pixels its line goes beyond the box; width, height: of the label.
    """
    if not detection.rotated:
        return _places(canvas, box, outer, width, height)
    corners = sorted(detection.rotated.corners, key=lambda corner: (not canvas.holds(*corner), corner[1]))
    points = (box_pixels((x, y, x, y)) for x, y in corners)
    return chain.from_iterable(_places(canvas, point, outer, width, height) for point in points)


def _places(canvas: Canvas, box: Box, outer: int, width: int, height: int) -> Iterator[Place]:
    """Yield where a label may lie, the best place first: on its box, below it, inside it; always in the image."""
    x1, y1, x2, y2 = box
    last_x, last_y = canvas.width - width, max(0, canvas.height - height)
    left, right = x1 - outer, x2 + outer + 1 - width
    left = 0 if left < 0 else min(left, last_x)
    right = 0 if right < 0 else min(right, last_x)
    for y in (y1 - outer - height, y2 + outer + 1):
        if 0 <= y <= last_y:
            yield left, y
            yield right, y
    yield left, min(max(0, y1 + outer), last_y)
    yield right, min(max(0, y2 - outer - height), last_y)


class LabelPlaces:
    """The places of an image's labels. All are equally high, so one touches only those less than a height away."""

    def __init__(self, height: int, objects: Iterable[Box]) -> None:
        """height: of a label; objects: what labels must not hide."""
        self.height = height
        self._taken: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)  # of y // height: x1, x2, y
        # What is higher is hardly hidden by so many labels, and to look at all would take twice as long.
        low = _LOW * height
        self._low = [box for box in objects if box[3] - box[1] < low]
        self._low_in: defaultdict[int, list[int]] = defaultdict(list)  # of each y // height that they touch: which
        for number, (_, y1, _, y2) in enumerate(self._low):
            for band in range(y1 // height, y2 // height + 1):
                self._low_in[band].append(number)
        self._spare = [_MOST_HIDDEN * (x2 + 1 - x1) * (y2 + 1 - y1) for x1, y1, x2, y2 in self._low]

    def take(self, places: Iterable[Place], width: int) -> Place | None:
        """Take the first place that no label touches and where none hides an object; None where there is none."""
        for x, y in places:
            band = y // self.height
            if not self._is_free(x, y, width):
                continue
            if (band in self._low_in or band + 1 in self._low_in) and not self._leaves_seen(x, y, width):
                continue
            self._taken[band].append((x, x + width, y))
            return x, y
        return None

    def _leaves_seen(self, x: int, y: int, width: int) -> bool:
        """Return whether enough is seen of each object with a label there, and then count what it hides."""
        hidden = self._hidden(x, y, width)
        for number, pixels in hidden:
            if pixels > self._spare[number]:
                return False
        for number, pixels in hidden:
            self._spare[number] -= pixels
        return True

    def _hidden(self, x: int, y: int, width: int) -> list[tuple[int, int]]:
        """Return which low boxes a label would hide, and how many pixels of each."""
        height, right, bottom = self.height, x + width, y + self.height
        first = y // height
        hidden: list[tuple[int, int]] = []
        for band in (first, first + 1):
            for number in self._low_in.get(band, ()):
                x1, y1, x2, y2 = self._low[number]
                if x > x2 or right <= x1 or y > y2 or bottom <= y1 or (band > first and y1 < band * height):
                    continue  # it lies elsewhere, or was in the band before this
                across, down = min(right, x2 + 1) - max(x, x1), min(bottom, y2 + 1) - max(y, y1)
                hidden.append((number, across * down))
        return hidden

    def _is_free(self, x: int, y: int, width: int) -> bool:
        bands, height, right = self._taken, self.height, x + width
        band = y // height
        for near in (band, band - 1, band + 1):
            if near in bands:
                for x1, x2, other in bands[near]:
                    if x < x2 and right > x1 and -height < y - other < height:
                        return False
        return True
