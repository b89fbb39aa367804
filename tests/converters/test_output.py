import re
import resource
import stat
from pathlib import Path
from typing import cast

import pytest

from trtjob.converters.output import write_atomically
from trtjob.errors import ConversionError


def test_a_file_is_written_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.onnx", b"data")
    assert [(path.name, path.read_bytes()) for path in tmp_path.glob("a*")] == [("a.onnx", b"data")]
    assert list(tmp_path.glob("*.part")) == []


def test_a_file_replaces_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"old and long")
    write_atomically(tmp_path / "a.onnx", b"new")
    assert (tmp_path / "a.onnx").read_bytes() == b"new"


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"old")
    with (tmp_path / "a.onnx").open("rb") as file:
        write_atomically(tmp_path / "a.onnx", b"new")
        assert file.read() == b"old"


def test_others_may_read_the_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.onnx", b"data")
    assert stat.S_IMODE((tmp_path / "a.onnx").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("missing/a.onnx", "No such file or directory", id="no folder"),
        pytest.param("file/a.onnx", "Not a directory", id="a file as folder"),
        pytest.param("folder", "Is a directory", id="a folder as file"),
        pytest.param("x" * 256, "File name too long", id="a long name"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_and_left_clean(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError, match=rf"^cannot write '{re.escape(str(tmp_path / name))}': {reason}$"):
        write_atomically(tmp_path / name, b"data")
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    before = sorted(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ConversionError, match="File too large"):
            write_atomically(path, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.iterdir()) == before
    assert path.read_bytes() == b"old"


def test_what_is_no_error_of_the_disk_leaves_nothing_either(tmp_path: Path) -> None:
    data = memoryview(b"data")
    data.release()  # so that writing raises ValueError: neither OSError, nor ours
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="released"):
        write_atomically(tmp_path / "a.onnx", cast("bytes", data))
    assert sorted(tmp_path.iterdir()) == before
