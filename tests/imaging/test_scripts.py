"""Labels in scripts that OpenCV does not write."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imaging.made_fonts import FONTS, emoji, emoji_of_macos
from PIL import features

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging import captions, scripts
from trtjob.imaging.captions import Style, TileCache, caption_height, caption_of
from trtjob.imaging.detections import Detection
from trtjob.imaging.draw import Look, annotate, color_of
from trtjob.imaging.scripts import beginning, describe_missing, is_plain, unwritten_scripts, written_label

BACKGROUND, INK = (200, 200, 200), (0, 0, 0)
ANY = "a ก\u0e34 \u0301\u200d\ufe0f\u202e🐈🇩🇪ق\ud800\u2028x"
THAI, ARABIC, DEVANAGARI, EMOJI = "แมวน้ำ", "قطة", "बिल्ली", "🐈"

needs_raqm = pytest.mark.skipif(not features.check("raqm"), reason="Pillow finds no FriBiDi here")


@pytest.fixture(autouse=True)
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have only the fonts of these names on this machine; without a call, none."""
    folder = tmp_path / "data" / "fonts"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "nowhere"))
    monkeypatch.setattr(captions, "label_tiles", TileCache(captions.label_tile, 1 << 20))

    def forget() -> None:
        for cached in (scripts.system_fonts, scripts.font_runs, scripts.written_label, scripts.can_shape):
            cached.cache_clear()

    def have(*names: str) -> None:
        for name in names or FONTS:
            (folder / name).write_bytes(FONTS[name]())
        forget()

    forget()
    yield have
    forget()


def written(label: str, size: int = 40) -> UInt8Array:
    """The tile of a label."""
    tile = caption_of(label, None, Style(size, BACKGROUND, INK, bytes(BACKGROUND)), 10_000).label
    assert tile is not None
    assert tile.height == caption_height(size)
    return tile.pixels


def ink_width(label: str) -> int:
    columns = np.flatnonzero((written(label) != BACKGROUND).any((0, 2)))
    return int(columns[-1] - columns[0])


def skyline(label: str) -> list[int]:
    """Heights above the line of what stands in a label of our fonts, from left to right, 0 where nothing does."""
    is_ink = (written(label) != BACKGROUND).any(2)
    line = np.flatnonzero(is_ink.any(1))[-1] + 1
    heights = np.where(is_ink.any(0), line - is_ink.argmax(0), 0)
    return [int(height) for height, _ in groupby(np.trim_zeros(heights))]


@pytest.mark.parametrize("label", ["cat", "Kätzchen", "Кошка", "猫", "Việt", "№ 5 → ★"])
def test_what_opencv_has_it_writes(label: str) -> None:
    assert is_plain(label)
    assert written_label(label, 7) == label
    assert describe_missing([label]) == ""


@needs_raqm
def test_thai_marks_stand_above_their_letters_and_each_other(fonts: Callable[..., None]) -> None:
    fonts()
    assert skyline("ก") == [16]
    assert skyline("กี") == [16, 20, 16]
    assert skyline("กี่") == [16, 26, 16]
    assert skyline("น้ำ") == [16, 26, 16, 0, 16]  # its last sign is a mark below the other, and a letter
    assert written_label(THAI, 7) == THAI


@needs_raqm
def test_marks_that_stand_high_make_a_label_smaller(fonts: Callable[..., None]) -> None:
    fonts()
    letter, marks, _ = skyline("ก" + 5 * "่")
    assert 13 < letter < 16
    assert marks == pytest.approx(2.75 * letter, abs=2)  # none is cut off


@needs_raqm
def test_arabic_runs_to_the_left_and_its_letters_are_joined(fonts: Callable[..., None]) -> None:
    fonts()
    apart = "\u200c"  # forbids that two letters join
    assert skyline(apart.join(ARABIC)) == [12, 0, 20, 0, 28]
    assert skyline(ARABIC) == [12, 4, 20, 4, 28]


@needs_raqm
def test_devanagari_letters_become_one_and_signs_stand_where_they_are_written(fonts: Callable[..., None]) -> None:
    fonts()
    apart = "\u200c"
    assert skyline("क्ष") == [28]
    assert skyline(f"क्{apart}ष") == [16, 0, 4, 0, 16]
    assert skyline(DEVANAGARI) == [24, 0, 16, 0, 8, 0, 16, 0, 24]  # the first sign is said after its letter


@needs_raqm
@pytest.mark.parametrize("made", [pytest.param(emoji, id="CBDT"), pytest.param(emoji_of_macos, id="sbix")])
def test_emoji_have_their_colours(fonts: Callable[..., None], tmp_path: Path, made: Callable[[], bytes]) -> None:
    (tmp_path / "data" / "fonts" / "Emoji.ttf").write_bytes(made())
    colors = np.unique(written(EMOJI).reshape(-1, 3), axis=0)
    assert len(colors) > 50
    assert int((colors.max(1) - colors.min(1)).max()) > 60  # not only greys


@needs_raqm
def test_what_belongs_together_is_one_picture(fonts: Callable[..., None]) -> None:
    fonts()
    assert ink_width("🇩🇪") == ink_width(EMOJI)
    assert ink_width("🇪🇩") > 1.9 * ink_width(EMOJI)  # no land


@needs_raqm
@pytest.mark.parametrize("size", [6, 11, 33, 160])
@pytest.mark.parametrize("label", [THAI, ARABIC, DEVANAGARI, EMOJI])
def test_a_label_is_written_in_any_size_within_its_caption(fonts: Callable[..., None], label: str, size: int) -> None:
    fonts()
    pixels = written(label, size)
    is_ink = (pixels != BACKGROUND).any(2)
    assert is_ink.any()
    # Nothing is cut off: what is written large and made small looks about the same at its edges.
    assert is_ink[0].mean() < 0.5
    assert is_ink[-1].mean() < 0.5


@needs_raqm
def test_scripts_stand_beside_each_other_in_one_label(fonts: Callable[..., None]) -> None:
    fonts()
    assert ink_width(f"{EMOJI} cat {THAI}") > ink_width(EMOJI) + ink_width("cat") + ink_width(THAI)
    cat = written("cat")
    mixed = written(f"{ARABIC} cat")  # read from the right
    left = slice(14, 60)
    assert np.array_equal(mixed[:, left], cat[:, left])


@pytest.mark.parametrize("label", [THAI, ARABIC, DEVANAGARI, f"cat {THAI}"])
def test_a_label_whose_letters_no_font_has_is_its_number(label: str) -> None:
    assert written_label(label, 7) == "#7"


def test_of_signs_that_no_font_has_the_rest_of_the_label_is_left() -> None:
    assert written_label("🐈 cat", 7) == "cat"
    assert written_label("🐈", 7) == "#7"


def test_what_cannot_be_written_is_said_with_what_to_install(fonts: Callable[..., None]) -> None:
    fonts("Thai.ttf")
    if features.check("raqm"):
        said = describe_missing(["cat", THAI, ARABIC, EMOJI])
        assert ARABIC in said
        assert EMOJI in said
        assert THAI not in said
        assert "fonts-noto-core" in said
    many = describe_missing([f"{ARABIC} {number}" for number in range(9)])
    assert f"{ARABIC} 4 and 4 more" in many


@needs_raqm
def test_scripts_without_a_font_are_named(fonts: Callable[..., None]) -> None:
    fonts("Thai.ttf", "Emoji.ttf")
    assert unwritten_scripts() == ["Arabic", "Devanagari", "Hebrew"]


def test_without_what_joins_letters_they_are_not_written_wrong(
    fonts: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fonts()
    monkeypatch.setattr(features, "check", lambda _name: False)  # as where the system has no FriBiDi
    assert written_label(ARABIC, 7) == "#7"
    assert "libfribidi0" in describe_missing([ARABIC])


def test_no_picture_has_a_question_mark_for_a_letter() -> None:
    image = np.zeros((60, 200, 3), np.uint8)
    found = Detection(THAI, 7, 0.9, (10.0, 30.0, 190.0, 55.0))
    number = Detection("#7", 7, 0.9, (10.0, 30.0, 190.0, 55.0))
    assert np.array_equal(annotate(image.copy(), [found], conf=0), annotate(image.copy(), [number], conf=0))


@pytest.mark.slow
@needs_raqm
@given(
    st.text(st.sampled_from("a ก\u0e34 \u0301\u200d\ufe0f\u202e🐈🇩🇪ق\ud800\u2028x"), max_size=6),
    st.sampled_from([6, 11, 40]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_label_is_made_of_it_is_drawn(fonts: Callable[..., None], label: str, size: int) -> None:
    fonts()
    scene = np.zeros((60, 200, 3), np.uint8)
    look = Look(font_size=size)
    assert annotate(scene, [Detection(label, 3, 0.9, (10.0, 58.0, 190.0, 59.0))], conf=0, look=look).any()


@needs_raqm
def test_threads_write_the_same_as_one(fonts: Callable[..., None]) -> None:
    fonts()
    labels = [THAI, ARABIC, DEVANAGARI, EMOJI] * 4

    def draw(label: str) -> UInt8Array:
        scene = np.zeros((60, 200, 3), np.uint8)
        return annotate(scene, [Detection(label, 3, 0.9, (10.0, 30.0, 190.0, 55.0))], conf=0)

    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(draw, labels))
    assert all(np.array_equal(picture, draw(label)) for picture, label in zip(pictures, labels, strict=True))
    assert all((picture == color_of(3)).any() for picture in pictures)


@pytest.mark.parametrize(
    ("text", "length", "start"),
    [
        pytest.param("potted plant", 7, "potted", id="without-the-blank"),
        pytest.param("กี่กี่", 4, "กี่", id="marks-with-their-letter"),
        pytest.param("a👩\u200d👧", 2, "a", id="a-joined-picture"),
        pytest.param("🇩🇪🇫🇷", 3, "🇩🇪", id="a-flag"),
        pytest.param("ab", 9, "ab", id="all"),
    ],
)
def test_a_label_is_shortened_between_what_belongs_together(text: str, length: int, start: str) -> None:
    assert beginning(text, length) == start
