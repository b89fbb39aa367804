"""What is drawn, read back from the pixels."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging import captions
from trtjob.imaging.captions import Color, Style, TileCache, caption_height, caption_of
from trtjob.imaging.detections import Classification, Detection, Keypoint, Point, RotatedBox
from trtjob.imaging.draw import Look, annotate, annotate_classes, color_of, text_color_on
from trtjob.imaging.masks import Mask

Box = tuple[float, float, float, float]

GREY = 90  # neither a class's colour nor a text's
CLASS_IDS = range(80)  # as many as COCO has


def blank(height: int = 300, width: int = 400) -> UInt8Array:
    return np.full((height, width, 3), GREY, np.uint8)


def detection(box: Box, *, label: str = "cat", class_id: int = 0, score: float = 0.9) -> Detection:
    return Detection(label, class_id, score, box)


def drawn(*detections: Detection, height: int = 300, width: int = 400, conf: float = 0.25) -> UInt8Array:
    return annotate(blank(height, width), detections, conf=conf)


def changed(image: UInt8Array) -> NDArray[np.bool_]:
    return np.asarray((image != GREY).any(2))


def count(image: UInt8Array, color: Color) -> int:
    return int((image == color).all(2).sum())


def text_pixels(image: UInt8Array, class_id: int = 0) -> int:
    return count(image, text_color_on(color_of(class_id)))


def luminance(color: Color) -> float:
    """WCAG 2, relative luminance."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in color)]
    return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]


# -- colours -----------------------------------------------------------------------------------------------------------


def test_no_two_classes_share_a_colour() -> None:
    assert len({color_of(class_id) for class_id in range(200)}) == 200
    distances = [np.linalg.norm(np.subtract(color_of(a), color_of(b))) for a, b in combinations(CLASS_IDS, 2)]
    assert min(distances) > 30


def test_the_first_classes_can_be_told_apart_at_a_glance() -> None:
    distances = [np.linalg.norm(np.subtract(color_of(a), color_of(b))) for a, b in combinations(range(8), 2)]
    assert min(distances) > 60


def test_a_class_keeps_its_colour_in_every_image() -> None:
    first, second = (drawn(detection((50, 60, 200, 200), class_id=7)) for _ in range(2))
    assert np.array_equal(first, second)
    assert count(first, color_of(7)) > 0


@pytest.mark.parametrize("class_id", [pytest.param(class_id, id=str(class_id)) for class_id in CLASS_IDS])
def test_text_stands_out_from_its_classs_colour(class_id: int) -> None:
    low, high = sorted((luminance(color_of(class_id)), luminance(text_color_on(color_of(class_id)))))
    assert (high + 0.05) / (low + 0.05) > 4.5  # WCAG 2.1: text of any size


# -- boxes -------------------------------------------------------------------------------------------------------------


def test_the_image_is_drawn_on_in_place() -> None:
    image = blank()
    assert annotate(image, [detection((50, 60, 200, 200))], conf=0.25) is image
    assert changed(image).any()


def test_what_is_below_the_threshold_is_not_drawn_and_what_is_on_it_is() -> None:
    assert not changed(drawn(detection((50, 60, 200, 200), score=0.4999), conf=0.5)).any()
    assert changed(drawn(detection((50, 60, 200, 200), score=0.5), conf=0.5)).any()


@pytest.mark.parametrize(
    ("side", "line"),
    [pytest.param(100, 1, id="small"), pytest.param(1000, 3, id="medium"), pytest.param(4000, 12, id="large")],
)
def test_the_line_grows_with_the_image(side: int, line: int) -> None:
    image = drawn(detection((side * 0.3, side * 0.3, side * 0.9, side * 0.9)), height=side, width=side)
    row = image[round(side * 0.75)]
    is_line = (row == color_of(0)).all(1)
    assert is_line[: side // 2].sum() == pytest.approx(line, abs=2)  # OpenCV's lines are a little wider


def test_the_line_lies_on_the_box() -> None:
    is_line = (drawn(detection((50, 60, 200, 220))) == color_of(0)).all(2)
    assert is_line[60, 100:200].all()
    assert is_line[220, 50:200].all()
    assert is_line[100:220, 50].all()
    assert is_line[100:220, 200].all()


def test_of_two_on_one_place_the_better_is_on_top() -> None:
    box = (50.0, 60.0, 200.0, 220.0)
    image = drawn(detection(box, class_id=1, score=0.8), detection(box, class_id=2, score=0.9))
    assert tuple(image[220, 120]) == color_of(2)


@st.composite
def boxes_in(draw: st.DrawFn, height: int = 300, width: int = 400) -> Box:
    x1, x2 = sorted((draw(st.integers(0, width)), draw(st.integers(0, width))))
    y1, y2 = sorted((draw(st.integers(0, height)), draw(st.integers(0, height))))
    return float(x1), float(y1), float(x2), float(y2)


REFERENCE = drawn(detection((150, 100, 250, 200)))


@pytest.mark.slow
@given(boxes_in())
def test_a_label_is_whole_wherever_its_box_lies(box: Box) -> None:
    assert text_pixels(drawn(detection(box))) == text_pixels(REFERENCE) > 20


@given(boxes_in())
def test_only_the_box_and_its_label_are_drawn(box: Box) -> None:
    x1, y1, x2, y2 = map(round, box)
    caption_width, caption_height = 90, 20  # of a label of three letters and a score, generously
    mask = changed(drawn(detection(box)))
    ys, xs = np.nonzero(mask)
    assert xs.min() >= min(x1, 400 - caption_width) - 2
    assert xs.max() <= max(x2, x1 + caption_width) + 2
    assert ys.min() >= y1 - caption_height - 2
    assert ys.max() <= y2 + caption_height + 2
    # The object itself stays visible.
    assert not mask[y1 + caption_height + 2 : max(0, y2 - caption_height - 2), x1 + 2 : max(0, x2 - 2)].any()


@pytest.mark.parametrize(
    ("box", "is_above"),
    [
        pytest.param((50, 100, 200, 200), True, id="room-above"),
        pytest.param((50, 0, 200, 200), False, id="no-room-above"),
    ],
)
def test_a_label_lies_on_its_box_where_there_is_room(box: Box, is_above: bool) -> None:
    rows = np.nonzero((drawn(detection(box)) == text_color_on(color_of(0))).all(2))[0]
    assert (rows.max() < box[1]) if is_above else (rows.min() > box[3])


def test_labels_of_boxes_on_one_place_do_not_cover_each_other() -> None:
    box = (100.0, 100.0, 300.0, 200.0)
    image = drawn(*(detection(box, class_id=0, score=0.9) for _ in range(4)))
    assert text_pixels(image) == 4 * text_pixels(drawn(detection(box)))


@pytest.mark.parametrize(
    "hw", [pytest.param((1, 1), id="a-pixel"), pytest.param((3, 900), id="flat"), pytest.param((900, 3), id="thin")]
)
def test_the_smallest_images_can_be_drawn_on(hw: tuple[int, int]) -> None:
    image = drawn(detection((0.0, 0.0, float(hw[1]), float(hw[0]))), height=hw[0], width=hw[1])
    assert image.shape == (*hw, 3)
    assert changed(image).any()


@pytest.mark.parametrize(
    "label",
    [pytest.param("", id="empty"), pytest.param("köttur 猫 🐈", id="unicode"), pytest.param("x" * 500, id="long")],
)
def test_any_label_can_be_drawn(label: str) -> None:
    assert text_pixels(drawn(detection((50, 60, 200, 200), label=label))) > 0


def crowd(count: int, seed: int = 3) -> list[Detection]:
    numbers = random.Random(seed)
    found = []
    for number in range(count):
        x, y = numbers.uniform(0, 350), numbers.uniform(0, 250)
        score, class_id = 0.3 + 0.002 * number, numbers.randrange(9)
        found.append(detection((x, y, x + 40, y + 40), label=f"thing {class_id}", class_id=class_id, score=score))
    return found


def test_a_crowd_is_drawn_the_same_each_time() -> None:
    assert np.array_equal(drawn(*crowd(60)), drawn(*crowd(60)))


def test_the_order_of_the_detections_does_not_matter() -> None:
    assert np.array_equal(drawn(*crowd(60)), drawn(*reversed(crowd(60))))


def test_three_hundred_boxes_are_drawn_and_the_best_label_stays_free() -> None:
    best = detection((150, 100, 250, 200), class_id=12, score=1.0)
    image = drawn(*crowd(300), best)
    alone = drawn(best)
    label = np.s_[: 100 - 1, 150:]  # above the box's line
    is_label = (alone[label] == color_of(12)).all(2) | (alone[label] == text_color_on(color_of(12))).all(2)
    assert is_label.sum() > 400
    assert np.array_equal(image[label][is_label], alone[label][is_label])


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "label_tiles", TileCache(captions.label_tile, 0))
    monkeypatch.setattr(captions, "score_tiles", TileCache(captions.score_tile, 0))


WARM = drawn(*crowd(60), *crowd(60, seed=4))


@pytest.mark.usefixtures("no_cache")
def test_kept_tiles_and_new_ones_give_the_same_pixels() -> None:
    assert np.array_equal(drawn(*crowd(60), *crowd(60, seed=4)), WARM)


def test_what_was_drawn_before_leaves_no_trace() -> None:
    for size in (60, 900, 2500):  # of other texts and lines
        annotate(blank(size, size), [detection((5, 5, 40, 40), label=f"{size}", class_id=size)], conf=0.25)
    assert np.array_equal(drawn(*crowd(60), *crowd(60, seed=4)), WARM)


def test_threads_draw_the_same_as_one() -> None:
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda seed: drawn(*crowd(60, seed)), [3, 4] * 12))
    assert all(np.array_equal(image, drawn(*crowd(60, seed))) for image, seed in zip(images, [3, 4] * 12, strict=True))


def framed(box: Box, height: int, width: int, edge: int) -> UInt8Array:
    """The line of a box, done plainly: a dark frame, and the coloured one on it."""
    x1, y1, x2, y2 = map(round, box)
    image = blank(height, width)
    for reach, color in (((edge + 1, (0, 0, 0)),) if edge else ()) + ((edge, color_of(0)),):
        for y, x in ((y1, None), (y2, None), (None, x1), (None, x2)):
            top, bottom = (y1, y2) if y is None else (y, y)
            left, right = (x1, x2) if x is None else (x, x)
            image[max(0, top - reach) : bottom + reach + 1, max(0, left - reach) : right + reach + 1] = color
    return image


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hw", "edge"), [pytest.param((300, 400), 0, id="thin"), pytest.param((900, 1200), 2, id="thick")]
)
@settings(max_examples=30)
@given(data=st.data())
def test_the_line_is_a_coloured_frame_on_a_dark_one(hw: tuple[int, int], edge: int, data: st.DataObject) -> None:
    box = data.draw(boxes_in(*hw))
    image, frame = drawn(detection(box, label=""), height=hw[0], width=hw[1]), framed(box, *hw, edge)
    is_label = (image != frame).any(2)
    ys, xs = np.nonzero(is_label)
    assert np.ptp(ys) < 30
    assert np.ptp(xs) < 80


def test_an_image_in_pieces_of_memory_is_drawn_on_too() -> None:
    whole = blank(600, 800)
    assert np.array_equal(annotate(whole[::2, ::2], crowd(20), conf=0.25), drawn(*crowd(20)))
    assert (whole[1::2, 1::2] == GREY).all()


STYLE = Style(11, color_of(0), text_color_on(color_of(0)), bytes(color_of(0)))


def test_a_label_longer_than_its_box_ends_in_an_ellipsis_and_its_score_stays() -> None:
    image = drawn(detection((20.0, 100.0, 220.0, 200.0), label="wide " * 60, score=0.87))
    caption = caption_of("wide " * 60, 0.87, STYLE, 200)
    assert 180 < caption.width <= 200
    assert caption.label
    assert caption.score
    label = np.s_[100 - caption_height(11) : 100, 20 : 20 + caption.width]
    assert np.array_equal(image[label], np.hstack([caption.label.pixels, caption.score.pixels]))
    assert not changed(image)[: 100 - caption_height(11)].any()
    assert not changed(image)[:100, 20 + caption.width :].any()


@pytest.mark.parametrize("width", range(20, 131, 10))
def test_a_caption_is_as_wide_as_there_is_room_at_the_most(width: int) -> None:
    for label in ("person", "baseball glove", "WWWWiiii" * 9):
        assert caption_of(label, 0.5, STYLE, width).width <= max(width, caption_of("", 0.5, STYLE, 400).width)


def test_a_shortened_label_begins_as_the_whole_one() -> None:
    whole, shorter = (caption_of("potted plant and more", None, STYLE, room).label for room in (400, 90))
    assert whole
    assert shorter
    assert np.array_equal(shorter.pixels[:, :60], whole.pixels[:, :60])


def test_where_there_is_little_room_a_label_stands_without_its_score() -> None:
    assert caption_of("dog", 0.87, STYLE, 64).score is not None
    narrow = caption_of("dining table", 0.87, STYLE, 80)
    assert narrow.score is None
    assert narrow.label
    assert np.array_equal(narrow.label.pixels, caption_of("dining table", None, STYLE, 400).label.pixels)  # type: ignore[union-attr]


def low_boxes(random: np.random.Generator, count: int, hw: tuple[int, int]) -> list[Detection]:
    corners = random.uniform(0, 1, (count, 2)) * [hw[1] - 6, hw[0] - 6]
    sizes = random.uniform(4, [0.4 * hw[1], 0.3 * hw[0]], (count, 2))
    ends = np.minimum(corners + sizes, [hw[1] - 1, hw[0] - 1])
    return [
        detection((x1, y1, x2, y2), label=("person", "traffic light")[number % 2], class_id=number % 9, score=score)
        for number, ((x1, y1), (x2, y2), score) in enumerate(
            zip(corners, ends, random.uniform(0.3, 1, count), strict=True)
        )
    ]


@pytest.mark.parametrize("hw", [(48, 64), (64, 64), (20, 90), (300, 400)])
@pytest.mark.parametrize("count", [1, 4, 40])
def test_no_object_is_hidden_by_labels(hw: tuple[int, int], count: int) -> None:
    for seed in range(5):
        objects = low_boxes(np.random.default_rng(seed), count, hw)
        bare = annotate(blank(*hw), objects, conf=0, look=Look(has_labels=False))
        is_label = (annotate(blank(*hw), objects, conf=0) != bare).any(2)
        for found in objects:
            x1, y1, x2, y2 = map(round, found.box)
            if x2 - x1 > 3 and y2 - y1 > 3:
                is_low = y2 - y1 < 4 * caption_height(11)
                assert is_label[y1 : y2 + 1, x1 : x2 + 1].mean() <= (0.5 if is_low else 0.8)


@pytest.mark.parametrize("side", [48, 64, 96])
def test_a_small_image_has_the_label_of_its_object(side: int) -> None:
    objects = [detection((side * 0.25, side * 0.3, side * 0.8, side * 0.95), label="dog")]
    assert text_pixels(drawn(*objects, height=side, width=side)) > 30


# -- how it is to look ---------------------------------------------------------------------------------------------


def test_without_labels_the_boxes_are_left() -> None:
    box = (50.0, 60.0, 200.0, 200.0)
    image = annotate(blank(), [detection(box)], conf=0.25, look=Look(has_labels=False))
    assert np.array_equal(image, framed(box, 300, 400, 0))


def test_without_scores_the_labels_are_left() -> None:
    box = (50.0, 60.0, 200.0, 200.0)
    bare, other = (
        annotate(blank(), [detection(box, score=s)], conf=0.25, look=Look(has_scores=False)) for s in (0.3, 0.9)
    )
    assert np.array_equal(bare, other)
    assert 0 < text_pixels(bare) < text_pixels(drawn(detection(box)))


@pytest.mark.parametrize("width", [1, 2, 3, 6, 31, 100])
@pytest.mark.parametrize("box", [(50.0, 60.0, 300.0, 250.0), (0.0, 0.0, 399.0, 299.0), (100.0, 100.0, 104.0, 103.0)])
def test_a_line_is_as_wide_as_asked_for(width: int, box: Box) -> None:
    image = annotate(blank(), [detection(box)], conf=0.25, look=Look(has_labels=False, line_width=width))
    x1, y1, x2, y2 = map(round, box)
    grown = blank()
    outer = width // 2
    rim = min(1, outer)
    top, left = y1 - outer, x1 - outer
    bottom, right = y2 + outer + 1, x2 + outer + 1
    for more, color in ((rim, (0, 0, 0)), (0, color_of(0))):
        for y_1, y_2, x_1, x_2 in (
            (top, top + width, left, right),
            (bottom - width, bottom, left, right),
            (top, bottom, left, left + width),
            (top, bottom, right - width, right),
        ):
            grown[max(0, y_1 - more) : max(0, y_2 + more), max(0, x_1 - more) : max(0, x_2 + more)] = color
    if x2 - x1 > 2 * width and y2 - y1 > 2 * width:
        assert np.array_equal(image, grown)
    else:
        assert changed(image).any()


@pytest.mark.parametrize("size", [6, 20, 47])
def test_letters_are_as_large_as_asked_for(size: int) -> None:
    image = annotate(blank(), [detection((50, 100, 350, 200))], conf=0.25, look=Look(font_size=size))
    assert int(changed(image)[:100].any(1).sum()) == caption_height(size)
    named = annotate_classes(blank(), [Classification("cat", 1, 0.75)], Look(font_size=size))
    assert int(changed(named).any(1).sum()) == caption_height(size)


def test_classes_are_written_without_scores_or_not_at_all() -> None:
    classes = [Classification("cat", 1, 0.75)]
    assert not changed(annotate_classes(blank(), classes, Look(has_labels=False))).any()
    bare = annotate_classes(blank(), classes, Look(has_scores=False))
    assert 0 < changed(bare).sum() < changed(annotate_classes(blank(), classes)).sum()


@pytest.mark.parametrize(
    "label",
    [
        pytest.param("a\nb", id="line-break"),
        pytest.param("a\ud800b", id="half-a-surrogate-pair"),
        pytest.param("x" * 100_000, id="endless"),
    ],
)
def test_a_label_that_nobody_would_give_is_drawn_on_its_caption_alone(label: str) -> None:
    ys, _ = np.nonzero(changed(drawn(detection((0, 100, 399, 299), label=label)))[:90])
    assert ys.size > 100
    assert np.ptp(ys) < caption_height(11)


# -- classes -----------------------------------------------------------------------------------------------------------


def test_classes_are_written_into_the_corner_one_below_the_other() -> None:
    image = annotate_classes(blank(), [Classification("cat", 1, 0.75), Classification("dog", 2, 0.25)])
    rows = [np.nonzero((image == color_of(class_id)).all(2))[0] for class_id in (1, 2)]
    assert rows[0].min() == 0
    assert rows[0].max() < rows[1].min()
    assert not changed(image)[100:].any()
    assert not changed(image)[:, 150:].any()


def test_no_classes_leave_the_image_as_it_is() -> None:
    assert not changed(annotate_classes(blank(), [])).any()


def test_more_classes_than_the_image_has_room_for_are_left_out() -> None:
    image = annotate_classes(blank(40, 60), [Classification("cat", number, 0.5) for number in range(300)])
    assert count(image, color_of(0)) > 0
    assert count(image, color_of(200)) == 0


# -- more than boxes ---------------------------------------------------------------------------------------------------

BOX = (50.0, 60.0, 250.0, 220.0)


def masked(pixels: NDArray[np.bool_], *, class_id: int = 0, score: float = 0.9) -> Detection:
    return replace(detection(BOX, class_id=class_id, score=score), mask=Mask.encode(pixels))


def posed(*keypoints: Keypoint) -> UInt8Array:
    pose = replace(detection(BOX), keypoints=keypoints)
    return annotate(blank(), [pose], conf=0.25, skeleton=[(0, 1), (1, 2)])


def disc(x: int, y: int, radius: int) -> NDArray[np.bool_]:
    ys, xs = np.ogrid[:300, :400]
    return np.asarray((xs - x) ** 2 + (ys - y) ** 2 <= radius**2)


def test_a_mask_is_tinted_and_nothing_else_changes() -> None:
    plain, image = drawn(detection(BOX)), drawn(masked(disc(150, 140, 50)))
    assert np.array_equal((image != plain).any(2), disc(150, 140, 50))


def test_a_mask_lies_below_boxes_and_labels() -> None:
    everywhere = np.ones((300, 400), bool)
    plain, image = drawn(detection(BOX)), drawn(masked(everywhere))
    assert np.array_equal(image[changed(plain)], plain[changed(plain)])


def test_of_two_masks_on_one_place_the_better_is_on_top() -> None:
    worse, better = masked(disc(150, 140, 50), class_id=1, score=0.8), masked(disc(150, 140, 30), class_id=2)
    assert np.array_equal(drawn(worse, better), drawn(better, worse))
    assert np.array_equal(drawn(worse, better)[140, 150], drawn(better)[140, 150])


def test_keypoints_that_can_be_seen_are_dots_and_joined() -> None:
    image = posed((100, 100, 0.9), (200, 100, 0.51), (200, 200, 1.0))
    assert changed(image)[100, 100:200].all()
    assert changed(image)[100:200, 200].all()


@pytest.mark.parametrize("visibility", [0.0, 0.5])
def test_a_keypoint_that_is_not_sure_to_be_seen_is_not_drawn_nor_what_leads_to_it(visibility: float) -> None:
    image = posed((100, 100, 0.9), (200, 100, visibility), (200, 200, 0.9))
    assert changed(image)[100, 100]
    assert changed(image)[200, 200]
    assert not changed(image)[90:190, 110:240].any()


def test_a_dots_heart_stands_out_from_its_class() -> None:
    image = posed((100, 100, 0.9), (150, 100, 0.9), (200, 200, 0.9))
    assert tuple(image[100, 100]) == text_color_on(color_of(0))


def rotated(*corners: Point) -> Detection:
    first, second, third, fourth = corners
    return replace(detection(BOX), rotated=RotatedBox((first, second, third, fourth), 45.0))


DIAMOND = (150.0, 80.0), (220.0, 150.0), (150.0, 220.0), (80.0, 150.0)


def test_a_rotated_box_is_drawn_at_its_angle_and_the_upright_one_is_not() -> None:
    image = drawn(rotated(*DIAMOND))
    for x, y in [*DIAMOND, (185, 115), (115, 185)]:
        assert np.allclose(image[round(y), round(x)], color_of(0), atol=20)
    assert not changed(image)[100:200, 50].any()


def test_a_rotated_boxs_label_lies_at_a_corner() -> None:
    rows, columns = np.nonzero((drawn(rotated(*DIAMOND)) == text_color_on(color_of(0))).all(2))
    assert 60 < rows.min() < rows.max() < 80
    assert 150 <= columns.min() < columns.max() < 220


def test_labels_of_rotated_boxes_on_one_place_do_not_cover_each_other() -> None:
    image = drawn(*(rotated(*DIAMOND) for _ in range(4)))
    assert text_pixels(image) == 4 * text_pixels(drawn(rotated(*DIAMOND)))


def test_a_rotated_box_that_lies_outside_has_its_label_in_the_image() -> None:
    image = drawn(rotated((600.0, -90.0), (700.0, 0.0), (600.0, 90.0), (500.0, 0.0)))
    assert text_pixels(image) == text_pixels(drawn(rotated(*DIAMOND)))
