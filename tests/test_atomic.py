import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from trtjob import atomic


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_replaced_and_nothing_else_is_left(folder: Path, *, sync: bool) -> None:
    (folder / "a").write_bytes(b"old")
    atomic.write(folder / "a", b"new", sync=sync)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"new"}


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(folder: Path) -> None:
    (folder / "a").write_bytes(b"old")
    with suppress(KeyboardInterrupt), atomic.replacing(folder / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"old"}


def test_a_folder_that_was_not_moved_goes_where_the_block_fails(folder: Path) -> None:
    with suppress(ValueError), atomic.unfinished(folder) as unfinished:
        unfinished.mkdir()
        (unfinished / "a").write_bytes(b"half")
        raise ValueError
    assert list(folder.iterdir()) == []


def test_a_file_gets_the_permissions_of_any_new_file(folder: Path) -> None:
    (folder / "plain").write_bytes(b"")
    atomic.write(folder / "a", b"data")
    assert stat.S_IMODE((folder / "a").stat().st_mode) == stat.S_IMODE((folder / "plain").stat().st_mode)


def test_the_error_is_that_of_the_place(folder: Path) -> None:
    with pytest.raises(OSError, match="No such file") as info:
        atomic.write(folder / "missing" / "a", b"data")
    assert info.value.errno == errno.ENOENT


def test_an_unfinished_name_is_known_as_one() -> None:
    assert atomic.is_unfinished(atomic.unfinished_name())
    assert not atomic.is_unfinished("a.part")


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_device_or_a_pipe_is_not_replaced(folder: Path, *, is_linked: bool) -> None:
    os.mkfifo(folder / "pipe")
    target = folder / "pipe"
    if is_linked:  # as /dev/stdout is
        target = folder / "link"
        target.symlink_to("pipe")
    with pytest.raises(OSError, match="not a file"):
        atomic.write(target, b"new")
    assert (folder / "pipe").is_fifo()
    assert target.is_symlink() is is_linked
