"""How much boxes overlap, and which of two sets are the same objects."""

from collections.abc import Sequence

Box = tuple[float, float, float, float]  # x, y of the upper left corner, width, height


def xywh(xyxy: Sequence[float]) -> Box:
    """Return a box of a record as COCO has it, rounded as an export rounds it."""
    x1, y1, x2, y2 = xyxy
    return x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)


def overlap(found: Box, true: Box, *, is_crowd: bool = False) -> float:
    """Return the intersection over union of two boxes, or over `found` alone where the other is a crowd.

    `bbIou` of cocoapi's common/maskApi.c.

    >>> overlap((0, 0, 2, 2), (0, 0, 2, 4))
    0.5
    """
    (x, y, w, h), (true_x, true_y, true_w, true_h) = found, true
    width = min(x + w, true_x + true_w) - max(x, true_x)
    height = min(y + h, true_y + true_h) - max(y, true_y)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (w * h if is_crowd else w * h + true_w * true_h - shared)


def pairs(overlaps: Sequence[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """Choose of overlaps between an object of one set and one of another those of which each is in one pair at most.

    The largest overlap is chosen first, then the first objects.

    >>> pairs([(0.9, 0, 0), (0.8, 1, 0), (0.7, 1, 1)])
    [(0.9, 0, 0), (0.7, 1, 1)]
    """
    chosen, taken, others_taken = [], set(), set()
    for share, one, other in sorted(overlaps, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if one not in taken and other not in others_taken:
            chosen.append((share, one, other))
            taken.add(one)
            others_taken.add(other)
    return chosen
