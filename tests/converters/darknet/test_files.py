import re
from pathlib import Path

import pytest

from trtjob.converters.darknet.files import find_cfg, find_labels, read_labels
from trtjob.errors import ConversionError, DarknetParseError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("cat\n")


@pytest.mark.parametrize(
    ("weights", "cfgs", "expected"),
    [
        pytest.param("a.weights", ["a.cfg", "b.cfg"], "a.cfg", id="of the same name"),
        pytest.param("a_best.weights", ["a.cfg"], "a.cfg", id="without what training adds: best"),
        pytest.param("a_last.weights", ["a.cfg"], "a.cfg", id="last"),
        pytest.param("a_final.weights", ["a.cfg"], "a.cfg", id="final"),
        pytest.param("a_12000.weights", ["a.cfg"], "a.cfg", id="after so many steps"),
        pytest.param("a_best.weights", ["a.cfg", "a_best.cfg"], "a_best.cfg", id="the same name comes first"),
        pytest.param("a.b_best.weights", ["a.b.cfg", "a.cfg"], "a.b.cfg", id="a dot in the name"),
    ],
)
def test_the_cfg_beside_the_weights_is_found(tmp_path: Path, weights: str, cfgs: list[str], expected: str) -> None:
    make(tmp_path, *cfgs)
    assert find_cfg(tmp_path / weights) == tmp_path / expected


@pytest.mark.parametrize(
    ("weights", "looked"),
    [
        pytest.param("a.weights", "no 'a.cfg' beside", id="one name"),
        pytest.param("a_best.weights", "no 'a_best.cfg' or 'a.cfg' beside", id="two names"),
        pytest.param("a_v2.weights", "no 'a_v2.cfg' beside", id="what no training adds"),
    ],
)
def test_a_missing_cfg_is_named_with_what_to_do(tmp_path: Path, weights: str, looked: str) -> None:
    make(tmp_path, "other.cfg", "a_best.cfg/file", "a.cfg/file")
    with pytest.raises(ConversionError) as caught:
        find_cfg(tmp_path / weights)
    assert str(caught.value) == f"{looked} '{tmp_path / weights}'. Name the network's cfg with --cfg FILE"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(["m/a_best.names", "m/a.names", "m/c.names"], "m/a_best.names", id="the weights' name"),
        pytest.param(["m/a.names", "m/c.names"], "m/a.names", id="without what training adds"),
        pytest.param(["m/c.names", "m/coco.names"], "m/c.names", id="the cfg's name"),
        pytest.param(["m/obj.names", "m/coco.names", "m/x.names"], "m/obj.names", id="a usual name"),
        pytest.param(["m/classes.txt", "m/x.names"], "m/classes.txt", id="another usual name"),
        pytest.param(["m/x.names"], "m/x.names", id="the only one"),
        pytest.param(["m/x.names", "c/c.names"], "m/x.names", id="beside the weights first"),
        pytest.param(["m/x.names", "m/y.names", "c/c.names"], "c/c.names", id="beside the cfg"),
        pytest.param(["m/a.names/file", "c/x.names"], "c/x.names", id="a folder is none"),
    ],
)
def test_the_labels_beside_the_weights_or_the_cfg_are_found(tmp_path: Path, files: list[str], expected: str) -> None:
    make(tmp_path, *files)
    assert find_labels(tmp_path / "m/a_best.weights", tmp_path / "c/c.cfg") == tmp_path / expected


def test_missing_labels_are_named_with_what_to_do(tmp_path: Path) -> None:
    make(tmp_path, "x.names", "y.names")
    with pytest.raises(ConversionError) as caught:
        find_labels(tmp_path / "a_best.weights", tmp_path / "a.cfg")
    assert str(caught.value) == (
        f"no labels for '{tmp_path / 'a_best.weights'}': expected 'a.names' beside it, with one class on each line. "
        "Name the file with --labels FILE"
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"cat\nhot dog\n", id="plain"),
        pytest.param(b"cat\nhot dog", id="no line end at the end"),
        pytest.param(b"\xef\xbb\xbfcat\r\n hot dog \r\n\r\n\n", id="as Windows has it, and empty lines at the end"),
    ],
)
def test_labels_are_the_lines_of_the_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.names"
    path.write_bytes(data)
    assert read_labels(path, 2) == ("cat", "hot dog")


def test_labels_may_be_in_any_language(tmp_path: Path) -> None:
    path = tmp_path / "a.names"
    path.write_text("größe\n猫\n", encoding="utf-8")
    assert read_labels(path, 2) == ("größe", "猫")


EXPECTED = "expected 2 labels, as many as the cfg has classes, one on each line; "
REMEDY = ". Name another file with --labels FILE"


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        pytest.param(b"cat\n", 0, f"{EXPECTED}found 1{REMEDY}", id="too few"),
        pytest.param(b"cat\ndog\ncow\n", 0, f"{EXPECTED}found 3{REMEDY}", id="too many"),
        pytest.param(b"cat\n \ndog\n", 2, f"{EXPECTED}line 2 is empty or binary{REMEDY}", id="a gap"),
        pytest.param(b"", 1, f"{EXPECTED}line 1 is empty or binary{REMEDY}", id="empty"),
        pytest.param(b"\ncat", 1, f"{EXPECTED}line 1 is empty or binary{REMEDY}", id="as many lines, one empty"),
        pytest.param(b"cat\nd\0g\n", 2, f"{EXPECTED}line 2 is empty or binary{REMEDY}", id="binary"),
        pytest.param(b"cat\ngr\xf6\xdfe\n", 2, "expected labels in UTF-8, one on each line", id="an old encoding"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_their_line(
    tmp_path: Path, data: bytes, line: int, message: str
) -> None:
    path = tmp_path / "a.names"
    path.write_bytes(data)
    with pytest.raises(DarknetParseError) as caught:
        read_labels(path, 2)
    assert str(caught.value) == f"{path}:{line}: {message}" if line else f"{path}: {message}"
    assert caught.value.line == line


@pytest.mark.parametrize(("name", "reason"), [("missing.names", "No such file or directory"), (".", "Is a directory")])
def test_labels_that_cannot_be_read_are_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(DarknetParseError, match=rf"^{re.escape(str(tmp_path / name))}: .* cannot be read: {reason}$"):
        read_labels(tmp_path / name, 2)
