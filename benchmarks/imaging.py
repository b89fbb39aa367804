"""CPU time of single steps for one image: decode, draw, encode, make thumbnails and masks."""

import random
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from benchmarks.constant import LABELS
from benchmarks.table import Row
from trtjob.bench.synthetic_images import SIZES, make_picture
from trtjob.engines.spec import ModelSpec, ResizeMode
from trtjob.imaging.decode import decode_image
from trtjob.imaging.detections import Detection
from trtjob.imaging.draw import annotate
from trtjob.imaging.encode import encode_image
from trtjob.imaging.masks import Mask
from trtjob.imaging.resize import place
from trtjob.imaging.segmentation import masks_from
from trtjob.imaging.thumbnail import thumbnail

ROUNDS = 10  # the best counts: what disturbs a machine only ever adds
DRAW_LIMITS_MS = {
    ("640x480", 17): 0.4,
    ("640x480", 200): 5.0,
    ("1920x1080", 17): 0.6,
    ("1920x1080", 200): 7.0,
}
MASKS, MASKS_LIMIT_MS = 10, 2.0
THUMBNAIL_PX, THUMBNAIL_LIMIT_MS = 320, 0.4


def imaging(count: int) -> list[Row]:
    """Return the rows of each step's cost, by size and by the number of boxes; `count` images each."""
    cv2.setNumThreads(1)
    rows = [row for size in SIZES for row in _coding(size, count)]
    for (size, boxes), limit in DRAW_LIMITS_MS.items():
        value = _drawing_ms(size, boxes, count)
        note = f"{value / boxes * 1000:.1f} us a box"
        rows.append(Row(f"draw {boxes} boxes, {size}", value, "CPU-ms/image", f"<= {limit:g}", value <= limit, note))
    drawing = _drawing_ms("640x480", MASKS, count, has_masks=True)
    for what, value in (("masks of", _masks_ms(count)), ("draw the masks and boxes of", drawing)):
        name, note = f"{what} {MASKS} objects, 640x480", f"{value / MASKS * 1000:.0f} us a mask"
        rows.append(Row(name, value, "CPU-ms/image", f"<= {MASKS_LIMIT_MS:g}", value <= MASKS_LIMIT_MS, note))
    return rows


def _masks_ms(count: int) -> float:
    """Return what the masks of a network of 640 x 640 with 32 prototypes cost, as they are made of coefficients."""
    random, hw, input_hw = np.random.default_rng(1), (480, 640), (640, 640)
    grain = random.normal(0, 10, (32, 160, 160)).astype(np.float32)
    prototypes = np.stack([cv2.GaussianBlur(plane, (0, 0), 5) for plane in grain])
    coefficients = random.normal(size=(MASKS, 32)).astype(np.float32)
    boxes = np.array([found.box for found in _scattered(MASKS, *hw, 1)], np.float32)
    _, placement = place(hw, ModelSpec(task="detect", labels=LABELS, input_hw=input_hw), ResizeMode.LETTERBOX)
    return _best_ms(lambda: masks_from(coefficients, prototypes, boxes, placement, input_hw=input_hw, hw=hw), count)


def _coding(size: str, count: int) -> list[Row]:
    picture = make_picture(size, 1)
    data = encode_image(picture, ".jpg")
    decoding = _best_ms(lambda: decode_image(data, max_pixels=10**8), count)
    encoding = _best_ms(lambda: encode_image(picture, ".jpg"), count)
    small = _best_ms(lambda: thumbnail(picture, THUMBNAIL_PX), count)
    return [
        Row(f"decode a JPEG, {size}", decoding, "CPU-ms/image", note=f"{len(data) / 1000:.0f} kB"),
        Row(f"encode a JPEG, {size}", encoding, "CPU-ms/image"),
        Row(
            f"make a thumbnail, {size}",
            small,
            "CPU-ms/image",
            f"<= {THUMBNAIL_LIMIT_MS:g}",
            small <= THUMBNAIL_LIMIT_MS,
            f"{len(thumbnail(picture, THUMBNAIL_PX)) / 1000:.0f} kB",
        ),
    ]


def _drawing_ms(size: str, boxes: int, count: int, *, has_masks: bool = False) -> float:
    image = make_picture(size, 1)
    height, width = image.shape[:2]
    scenes = [_scattered(boxes, height, width, seed) for seed in range(12)]
    if has_masks:
        scenes = [[_with_mask(detection, height, width) for detection in scene] for scene in scenes]
    found = iter(scenes * (count * ROUNDS))
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


def _with_mask(detection: Detection, height: int, width: int) -> Detection:
    """Return a detection with the largest ellipse in its box as its mask."""
    x1, y1, x2, y2 = detection.box
    ys, xs = np.ogrid[:height, :width]
    across, down = (xs - (x1 + x2) / 2) / (x2 - x1), (ys - (y1 + y2) / 2) / (y2 - y1)
    return replace(detection, mask=Mask.encode(across**2 + down**2 <= 0.25))


def _best_ms(step: Callable[[], object], count: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.thread_time()
        for _ in range(count):
            step()
        best = min(best, (time.thread_time() - started) / count * 1000)
    return best
