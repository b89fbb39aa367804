"""Lists of images: each line is one path, whatever wrote it."""

import os

import pytest

from trtjob.jobs.image_list import parsed_list


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"a/x.jpg\nb/x.jpg\n", id="plain"),
        pytest.param(b"a/x.jpg\nb/x.jpg", id="no line end at the end"),
        pytest.param(b"\xef\xbb\xbfa/x.jpg\nb/x.jpg\n", id="a byte-order mark"),
        pytest.param(b"a/x.jpg\r\nb/x.jpg\r\n", id="as Windows has it"),
        pytest.param(b"a/x.jpg\rb/x.jpg\r", id="as an old Mac had it"),
        pytest.param("a/x.jpg\r\nb/x.jpg\r\n".encode("utf-16"), id="as PowerShell has it"),
        pytest.param(b"# my list\n  # of two\n\na/x.jpg  \n \t\n\tb/x.jpg\t\n\n", id="comments and blanks"),
        pytest.param(b"\"a/x.jpg\"\n'b/x.jpg'\r\n", id="quotes"),
    ],
)
def test_the_paths_are_those_that_are_meant(data: bytes) -> None:
    assert parsed_list(data) == ("a/x.jpg", "b/x.jpg")


@pytest.mark.parametrize(
    "name",
    [
        "c d/y.jpg",
        "a\u2028b.jpg",
        "a\x85b.jpg",
        "a\x0bb\x1cc.jpg",
        "a\u2029.jpg",
        "größe.jpg",
        'say "x".jpg',
        "a#1.jpg",
    ],
)
def test_a_name_may_hold_anything_but_a_line_feed(name: str) -> None:
    assert parsed_list(f"{name}\nb.jpg\n".encode()) == (name, "b.jpg")


@pytest.mark.parametrize("name", [" a.jpg", "a.jpg ", "#a.jpg", "'a.jpg'", "\ta.jpg\r"])
def test_quotes_keep_what_a_line_would_lose(name: str) -> None:
    assert parsed_list(f'"{name}"\n'.encode()) == (name,)


def test_bytes_that_are_no_text_survive() -> None:
    (name,) = parsed_list(b"caf\xe9.jpg\n")
    assert os.fsencode(name) == b"caf\xe9.jpg"


def test_a_list_of_nothing_has_no_paths() -> None:
    assert parsed_list(b"") == parsed_list(b"\n# nothing\n \r\n") == ()
