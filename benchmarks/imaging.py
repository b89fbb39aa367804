"""CPU time of single steps for one image: decode, draw and encode."""

import random
import time
from collections.abc import Callable

import cv2

from benchmarks.constant import LABELS
from benchmarks.table import Row
from trtjob.bench.synthetic_images import SIZES, make_picture
from trtjob.imaging.decode import decode_image
from trtjob.imaging.detections import Detection
from trtjob.imaging.draw import annotate
from trtjob.imaging.encode import encode_image

ROUNDS = 10  # the best counts: what disturbs a machine only ever adds
DRAW_LIMITS_MS = {
    ("640x480", 17): 0.4,
    ("640x480", 200): 5.0,
    ("1920x1080", 17): 0.6,
    ("1920x1080", 200): 7.0,
}


def imaging(count: int) -> list[Row]:
    """Return the rows of each step's cost, by size and by the number of boxes; `count` images each."""
    cv2.setNumThreads(1)
    rows = [row for size in SIZES for row in _coding(size, count)]
    for (size, boxes), limit in DRAW_LIMITS_MS.items():
        value = _drawing_ms(size, boxes, count)
        note = f"{value / boxes * 1000:.1f} us a box"
        rows.append(Row(f"draw {boxes} boxes, {size}", value, "CPU-ms/image", f"<= {limit:g}", value <= limit, note))
    return rows


def _coding(size: str, count: int) -> list[Row]:
    picture = make_picture(size, 1)
    data = encode_image(picture, ".jpg")
    decoding = _best_ms(lambda: decode_image(data, max_pixels=10**8), count)
    encoding = _best_ms(lambda: encode_image(picture, ".jpg"), count)
    return [
        Row(f"decode a JPEG, {size}", decoding, "CPU-ms/image", note=f"{len(data) / 1000:.0f} kB"),
        Row(f"encode a JPEG, {size}", encoding, "CPU-ms/image"),
    ]


def _drawing_ms(size: str, boxes: int, count: int) -> float:
    image = make_picture(size, 1)
    height, width = image.shape[:2]
    found = iter([_scattered(boxes, height, width, seed) for seed in range(12)] * (count * ROUNDS))
    return _best_ms(lambda: annotate(image, next(found), conf=0.25), count)


def _scattered(count: int, height: int, width: int, seed: int) -> list[Detection]:
    """Return boxes of all sizes up to a third of the image's sides, of few classes, as one picture has."""
    numbers = random.Random(seed)
    found = []
    for _ in range(count):
        w, h = numbers.uniform(0.03, 0.35) * width, numbers.uniform(0.05, 0.45) * height
        x, y = numbers.uniform(0, width - w), numbers.uniform(0, height - h)
        class_id = numbers.randrange(11)
        box = (round(x, 1), round(y, 1), round(x + w, 1), round(y + h, 1))
        found.append(Detection(LABELS[class_id], class_id, round(numbers.uniform(0.25, 1), 4), box))
    return found


def _best_ms(step: Callable[[], object], count: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.thread_time()
        for _ in range(count):
            step()
        best = min(best, (time.thread_time() - started) / count * 1000)
    return best
