"""Which characters a font's file has, and which font is taken."""

import random
from pathlib import Path

import pytest

from trtjob.imaging.fonts import Font, Fonts

FOLDER = Path(__file__).parent / "fonts"
THAI, EMOJI = FOLDER / "NotoSansThai-Regular.ttf", FOLDER / "NotoColorEmoji.ttf"


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
def test_a_font_has_the_characters_that_it_has_glyphs_for(text: str, has_it: bool) -> None:
    assert Font(THAI).has(text) is has_it


def test_a_font_of_pictures_has_them_in_some_sizes_only() -> None:
    assert Font(EMOJI).sizes == (109,)
    assert Font(THAI).sizes == ()
    assert Font(EMOJI).has("🐈")


def test_the_font_that_has_a_text_is_found_in_a_folder_and_below() -> None:
    fonts = Fonts([FOLDER.parent, Path("/nowhere")])
    assert fonts.find("แมว", is_picture=False) == Font(THAI)
    assert fonts.find("🐈", is_picture=True) == Font(EMOJI)
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
        (tmp_path / name).write_bytes(THAI.read_bytes())
    assert Fonts([tmp_path]).find("แมว", is_picture=False) == Font(tmp_path / best)


@pytest.mark.parametrize("size", [0, 3, 11, 60, 400, 2000])
def test_a_file_that_is_cut_off_is_passed_over(tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.ttf").write_bytes(THAI.read_bytes()[:size])
    assert Fonts([tmp_path]).find("แ", is_picture=False) is None
    (tmp_path / "whole.ttf").write_bytes(THAI.read_bytes())
    assert Fonts([tmp_path]).find("แ", is_picture=False) == Font(tmp_path / "whole.ttf")


def test_whatever_bytes_of_a_font_are_wrong_it_is_passed_over(tmp_path: Path) -> None:
    numbers = random.Random(1)
    for path in (THAI, EMOJI):
        data = path.read_bytes()
        for number in range(150):
            damaged = bytearray(data)
            for _ in range(8):
                damaged[numbers.randrange(600)] = numbers.randrange(256)
            file = tmp_path / f"{number}.ttf"
            file.write_bytes(damaged)
            assert Font(file).has("แ") in (True, False)
            assert len(Font(file).sizes) < 1000
