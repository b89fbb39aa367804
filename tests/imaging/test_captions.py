"""Labels as tiles, and how many are kept."""

import cv2
import numpy as np
import pytest

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging import captions
from trtjob.imaging.canvas import Canvas, Tile
from trtjob.imaging.captions import Style, TileCache
from trtjob.imaging.detections import Detection
from trtjob.imaging.draw import annotate

STYLE = Style(11, (1, 2, 3), (4, 5, 6), bytes((1, 2, 3)))
OTHER = Style(12, (1, 2, 3), (4, 5, 6), bytes((1, 2, 3)))
PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


class Maker:
    """Makes tiles of 300 bytes, and remembers of what."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Style]] = []

    def __call__(self, text: str, style: Style) -> Tile:
        self.made.append((text, style))
        return Tile.of(np.zeros((10, 10, 3), np.uint8))


def test_a_tile_is_made_once_for_each_text_and_style() -> None:
    make = Maker()
    cache = TileCache(make, 100_000)
    assert cache.get("a", STYLE) is cache.get("a", STYLE)
    assert cache.get("a", OTHER) is not cache.get("a", STYLE)
    assert make.made == [("a", STYLE), ("a", OTHER)]


def test_what_was_made_last_is_kept() -> None:
    make = Maker()
    cache = TileCache(make, 3000)  # room for two
    for text in "abacbca":
        cache.get(text, STYLE)
    assert [text for text, _ in make.made] == ["a", "b", "c", "a"]


def test_a_tile_larger_than_the_cache_is_made_each_time() -> None:
    make = Maker()
    cache = TileCache(make, 100)
    assert cache.get("a", STYLE) is not cache.get("a", STYLE)
    assert cache.used_bytes == 0


def test_any_number_of_classes_takes_a_bounded_amount_of_memory() -> None:
    image: UInt8Array = np.zeros((480, 640, 3), np.uint8)
    for number in range(6000):
        found = Detection(f"the class with the number {number}", number, number / 6000, (10.0, 50.0, 300.0, 300.0))
        annotate(image, [found], conf=0)
    for cache in (captions.label_tiles, captions.score_tiles):
        kept = sum(tile.rows.nbytes for tile in cache.tiles())
        assert 0 < kept < cache.used_bytes <= captions.CACHE_BYTES


@pytest.mark.parametrize("size", [pytest.param(11, id="11"), pytest.param(57, id="57"), pytest.param(160, id="160")])
def test_label_and_score_stand_as_if_written_as_one(size: int) -> None:
    style = Style(size, (0, 0, 0), (255, 255, 255), bytes(3))
    caption = captions.caption_of("AV-Type 猫", 0.87, style, 10_000)
    image: UInt8Array = np.zeros((captions.caption_height(size), caption.width, 3), np.uint8)
    caption.draw(Canvas(image), 0, 0)
    whole = np.zeros_like(image)
    where = (max(2, size // 4), round(len(image) * 0.76))
    cv2.putText(whole, "AV-Type 猫 0.87", where, (255, 255, 255), cv2.FontFace("sans"), size, weight=500)
    assert np.array_equal(image, whole)
