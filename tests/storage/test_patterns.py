"""What patterns for keys match, and that none takes for ever."""

import time

import pytest

from trtjob.errors import ConfigError
from trtjob.storage.patterns import Pattern


@pytest.mark.parametrize(
    ("text", "matching", "others"),
    [
        pytest.param("*.jpg", ["a.jpg", "x/y/a.jpg", ".jpg"], ["a.JPG", "a.jpgs", "a.png"], id="a name anywhere"),
        pytest.param("raw", ["raw/a.jpg", "x/raw/y/a.jpg", "raw"], ["raws/a.jpg", "a.raw"], id="a folder anywhere"),
        pytest.param("raw/", ["raw/a.jpg", "x/raw/a.jpg"], ["raw", "x/raw"], id="folders alone"),
        pytest.param("x/*.jpg", ["x/a.jpg"], ["x/y/a.jpg", "y/x/a.jpg", "a.jpg"], id="a path"),
        pytest.param("/x/a.jpg", ["x/a.jpg"], ["y/x/a.jpg"], id="a path from the root"),
        pytest.param("cam*/**/*.jpg", ["cam1/a.jpg", "cam1/x/y/a.jpg"], ["a.jpg", "x/cam1/a.jpg"], id="any depth"),
        pytest.param("x/**", ["x/a", "x/y/a"], ["x", "y/x/a"], id="all below"),
        pytest.param("**/x/**/y/**/a*c", ["x/y/ac", "1/x/2/x/3/y/4/y/abc"], ["y/x/ac", "x/y/ab"], id="several depths"),
        pytest.param("a?c", ["abc", "x/a.c"], ["ac", "a/c", "abbc"], id="one character"),
        pytest.param("[a-c][!a-c].jpg", ["ad.jpg", "x/c1.jpg"], ["aa.jpg", "dd.jpg", "a/.jpg"], id="sets"),
        pytest.param("[]^]x[[]", ["]x[", "^x["], ["ax["], id="odd sets"),
        pytest.param("a*b*a.jpg", ["aba.jpg", "axbxa.jpg"], ["ab.jpg", "a/b/a.jpg"], id="stars in a name"),
        pytest.param("caf\udce9*", ["caf\udce9.jpg"], ["café.jpg"], id="no UTF-8"),
        pytest.param("new\n*", ["new\nline.jpg"], ["new.jpg"], id="a new line"),
    ],
)
def test_what_a_pattern_matches(text: str, matching: list[str], others: list[str]) -> None:
    pattern = Pattern(text)
    assert [key for key in [*matching, *others] if pattern.matches(key)] == matching


def test_a_folder_is_looked_into_where_something_below_may_match() -> None:
    pattern = Pattern("cam*/raw/*.jpg")
    folders = ["cam1", "cam1/raw", "dog", "cam1/jpg", "cam1/raw/a.jpg", "cam1/raw/july"]
    assert [folder for folder in folders if pattern.may_match_below(folder)] == ["cam1", "cam1/raw", "cam1/raw/a.jpg"]
    assert Pattern("*.jpg").may_match_below("any/folder")
    assert Pattern("x/**/*.jpg").may_match_below("x/any/folder")
    assert not Pattern("x/**/*.jpg").may_match_below("y")


@pytest.mark.parametrize("text", ["", "/", "a//b", "../a", "a/./b", "a" * 1001, "a/" * 51])
def test_what_can_be_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"Examples: '\*.png'"):
        Pattern(text)


@pytest.mark.parametrize("text", ["*a" * 100 + "b", "/".join(["**/a"] * 24) + "/b", "**/" * 40 + "b"])
def test_no_pattern_takes_for_ever(text: str) -> None:
    began = time.process_time()
    assert not Pattern(text).matches("a" * 200 + "/a" * 1000)
    assert time.process_time() - began < 1
