"""Which characters a font's file has, and which font is taken."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from imaging.made_fonts import PICTURE_PX, emoji, emoji_of_macos, thai

from trtjob.imaging.fonts import Font, Fonts


def font(path: Path, data: bytes) -> Font:
    path.write_bytes(data)
    return Font(path)


@pytest.mark.parametrize(
    ("text", "has_it"),
    [
        pytest.param("แมวน้ำ", True, id="all"),
        pytest.param("", True, id="nothing"),
        pytest.param("หมา", False, id="another-letter"),
        pytest.param("แมวx", False, id="latin"),
        pytest.param("\U0010ffff", False, id="the-last-character"),
    ],
)
def test_a_font_has_the_characters_that_it_has_glyphs_for(tmp_path: Path, text: str, has_it: bool) -> None:
    assert font(tmp_path / "a.ttf", thai()).has(text) is has_it


@pytest.mark.parametrize("made", [pytest.param(emoji, id="CBDT"), pytest.param(emoji_of_macos, id="sbix")])
def test_a_font_of_pictures_has_them_in_some_sizes_only(tmp_path: Path, made: Callable[[], bytes]) -> None:
    pictures = font(tmp_path / "a.ttf", made())
    assert pictures.sizes == (PICTURE_PX,)
    assert pictures.has("🐈")
    assert pictures.opens


def test_a_font_of_letters_has_them_in_every_size(tmp_path: Path) -> None:
    assert font(tmp_path / "a.ttf", thai()).sizes == ()


def test_the_font_that_has_a_text_is_found_in_a_folder_and_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    letters, pictures = font(tmp_path / "a.ttf", thai()), font(tmp_path / "below" / "Emoji.ttf", emoji())
    fonts = Fonts([tmp_path, Path("/nowhere")])
    assert fonts.find("แมว", is_picture=False) == letters
    assert fonts.find("🐈", is_picture=True) == pictures
    assert fonts.find("ქ", is_picture=False) is None


@pytest.mark.parametrize(
    ("names", "best"),
    [
        pytest.param(["A-Bold.ttf", "B-Regular.ttf"], "B-Regular.ttf", id="no-bold"),
        pytest.param(["AMono.ttf", "BSerif.ttf", "CSans.ttf"], "CSans.ttf", id="without-serifs"),
        pytest.param(["AEmoji.ttf", "B-Italic.ttf"], "B-Italic.ttf", id="letters-before-pictures"),
        pytest.param(["LastResort.ttf", "Z-Bold.ttf"], "Z-Bold.ttf", id="no-font-of-boxes"),
        pytest.param(["b.ttf", "a.ttf", "c.TTF"], "a.ttf", id="by-name"),
        pytest.param(["ASans.ttf", "BThai-Bold.ttf", "CThai.ttf"], "CThai.ttf", id="called-after-its-script"),
    ],
)
def test_of_several_fonts_the_plainest_is_taken(tmp_path: Path, names: list[str], best: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(thai())
    assert Fonts([tmp_path]).find("แมว", is_picture=False) == Font(tmp_path / best)


@pytest.mark.parametrize("size", [0, 3, 11, 60, 400, 1200])
def test_a_file_that_is_cut_off_is_passed_over(tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.ttf").write_bytes(thai()[:size])
    assert Fonts([tmp_path]).find("แ", is_picture=False) is None
    whole = font(tmp_path / "whole.ttf", thai())
    assert Fonts([tmp_path]).find("แ", is_picture=False) == whole


def test_whatever_bytes_of_a_font_are_wrong_it_is_passed_over(tmp_path: Path) -> None:
    numbers = random.Random(1)
    for data in (thai(), emoji(), emoji_of_macos()):
        for number in range(100):
            damaged = bytearray(data)
            for _ in range(8):
                damaged[numbers.randrange(600)] = numbers.randrange(256)
            made = font(tmp_path / f"{number}.ttf", bytes(damaged))
            assert made.has("แ") in (True, False)
            assert len(made.sizes) < 1000
