import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from at_once import all_at_once
from users import as_nobody

from trtjob.errors import FailureKind, ImageError, PlaceError, StorageError
from trtjob.storage import LocalStorage, place_error
from trtjob.storage.listing import Entry


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "root")
    storage.make_root()
    return storage


def names(storage: LocalStorage) -> list[str]:
    return sorted(str(path.relative_to(storage.root)) for path in storage.root.rglob("*") if path.is_file())


def test_what_is_written_can_be_read(storage: LocalStorage) -> None:
    storage.write("a/b.txt", b"data")
    assert storage.read("a/b.txt") == b"data"


def test_a_write_replaces_and_leaves_nothing_else(storage: LocalStorage) -> None:
    storage.write("a.txt", b"old and long")
    storage.write("a.txt", b"new")
    assert storage.read("a.txt") == b"new"
    assert names(storage) == ["a.txt"]


@pytest.mark.parametrize("key", ["../a", "a/../../b", "/etc/passwd", "", "a/..", "a\0b"])
def test_a_key_that_leaves_the_root_is_refused(storage: LocalStorage, key: str) -> None:
    with pytest.raises(StorageError, match="leaves the folder"):
        storage.write(key, b"")


@pytest.mark.parametrize("key", ["..a", "a..b/c", "...", "a\nb", "\udcff"])
def test_a_key_that_only_looks_so_is_taken(storage: LocalStorage, key: str) -> None:
    storage.write(key, b"data")
    assert storage.read(key) == b"data"


def test_create_makes_an_object_once(storage: LocalStorage) -> None:
    assert storage.create("a.txt", b"first")
    assert not storage.create("a.txt", b"second")
    assert storage.read("a.txt") == b"first"
    assert names(storage) == ["a.txt"]


def test_of_many_creators_at_once_exactly_one_wins(storage: LocalStorage) -> None:
    created = all_at_once(8, lambda number: storage.create("a.txt", b"%d" % number))
    assert created.count(True) == 1
    assert storage.read("a.txt") == b"%d" % created.index(True)


def test_a_long_write_that_fails_leaves_the_old_object(storage: LocalStorage) -> None:
    storage.write("a.txt", b"old")

    def write_half() -> None:
        with storage.writing("a.txt") as file:
            file.write(b"half of the new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert storage.read("a.txt") == b"old"
    assert names(storage) == ["a.txt"]


def test_a_long_write_appears_only_at_its_end(storage: LocalStorage) -> None:
    with storage.writing("a.txt") as file:
        file.write(b"data")
        assert not storage.exists("a.txt")
    assert storage.read("a.txt") == b"data"


def test_put_makes_the_folders_that_it_needs(storage: LocalStorage) -> None:
    storage.put("a/b/c.txt", b"data")
    assert names(storage) == ["a/b/c.txt"]


def test_a_name_of_255_bytes_can_be_written_in_every_way(storage: LocalStorage) -> None:
    for write in (storage.write, storage.put, storage.create):
        write("x" * 255, b"data")
    assert names(storage) == ["x" * 255]


def test_put_raises_the_error_of_one_object_as_it_is(storage: LocalStorage) -> None:
    with pytest.raises(OSError, match="File name too long") as caught:
        storage.put("x" * 256, b"data")
    assert caught.value.errno == errno.ENAMETOOLONG


def test_put_tells_an_error_of_the_place_apart(storage: LocalStorage) -> None:
    storage.write("a", b"a file where a folder is wanted")
    with pytest.raises(StorageError, match=r"cannot write .*Not a directory"):
        storage.put("a/b.txt", b"data")


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Free some space, then run the same command again"),
        (errno.EACCES, "Choose another place, or change the permissions"),
        (errno.EROFS, "read-only: choose another place"),
        (errno.EIO, "Choose another place"),
    ],
    ids=errno.errorcode.get,
)
def test_an_error_of_the_place_says_what_to_do(number: int, hint: str) -> None:
    message = str(place_error(OSError(number, os.strerror(number)), Path("/out/a.txt")))
    assert message.startswith(f"cannot write /out/a.txt: {os.strerror(number)}. ")
    assert hint in message


def test_reading_what_is_not_there_raises_file_not_found(storage: LocalStorage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("a.txt")


def test_reading_a_folder_is_a_storage_error(storage: LocalStorage) -> None:
    storage.write("a/b.txt", b"data")
    with pytest.raises(StorageError, match=r"cannot read .*Is a directory"):
        storage.read("a")


def test_deleting_what_is_not_there_is_fine(storage: LocalStorage) -> None:
    storage.delete("a.txt")
    storage.write("a.txt", b"data")
    storage.delete("a.txt")
    assert not storage.exists("a.txt")


def test_a_list_is_sorted_and_leaves_out_unfinished_writes(storage: LocalStorage) -> None:
    for name in ("b.txt", "a.txt", ".0123456789abcdef.part"):
        storage.put(f"folder/{name}", b"")
    assert storage.list("folder") == ["a.txt", "b.txt"]


def test_a_folder_that_is_not_there_lists_as_empty(storage: LocalStorage) -> None:
    assert storage.list("nowhere") == []


# -- whatever the name -------------------------------------------------------------------------------------------------


def _writing(storage: LocalStorage, key: str) -> None:
    with storage.writing(key) as file:
        file.write(b"1")


Errors = tuple[type[Exception], ...]
OPERATIONS: dict[str, tuple[Errors, Callable[[LocalStorage, str], object]]] = {
    "exists": ((StorageError,), lambda s, key: s.exists(key)),
    "read": ((StorageError, FileNotFoundError), lambda s, key: s.read(key)),
    "lines": ((StorageError, FileNotFoundError), lambda s, key: list(s.lines(key))),
    "write": ((StorageError,), lambda s, key: s.write(key, b"1")),
    "create": ((StorageError,), lambda s, key: s.create(key, b"1")),
    "writing": ((StorageError,), _writing),
    "put": ((StorageError, OSError), lambda s, key: s.put(key, b"1")),
    "delete": ((StorageError,), lambda s, key: s.delete(key)),
    "list": ((StorageError,), lambda s, key: s.list(key)),
    "remove_unfinished": ((StorageError,), lambda s, key: LocalStorage(s.path(key)).remove_unfinished()),
    "images": ((StorageError,), lambda s, key: list(LocalStorage(s.path(key)).images())),
    "entry": ((StorageError,), lambda s, key: s.entry(key)),
    "fetch": ((StorageError, ImageError), lambda s, key: s.fetch(Entry(key, 1, ""))),
}
KEYS = {
    "below a file": "file/x",
    "a folder": "folder",
    "too long a name": "n" * 300,
    "too long a path": "/".join(["n" * 200] * 30),
    "no UTF-8": "\ud800.jpg",
    "a link to itself": "loop",
    "below a link to itself": "loop/x",
    "nothing": "gone",
}


@pytest.mark.parametrize(("errors", "operation"), OPERATIONS.values(), ids=OPERATIONS.keys())
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_whatever_the_name_only_known_errors_come(
    storage: LocalStorage, key: str, errors: Errors, operation: Callable[[LocalStorage, str], object]
) -> None:
    storage.put("file", b"1")
    storage.put("folder/x", b"1")
    storage.path("loop").symlink_to("loop")
    err = _error_of(lambda: operation(storage, key))
    assert err is None or type(err) in errors or (OSError in errors and isinstance(err, OSError)), repr(err)
    if isinstance(err, StorageError):
        assert re.search(r"Check|Choose|Free|Rename|Is its file system mounted", str(err)), err


def _error_of(operation: Callable[[], object]) -> Exception | None:
    try:
        operation()
    except Exception as err:  # noqa: BLE001 - any other than the known ones is what is looked for
        return err
    return None


def test_a_link_whose_making_nfs_asked_for_twice_is_ones_own(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_and_lose_the_answer(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)
    assert storage.create("x", b"mine")
    assert not storage.create("x", b"another's")
    assert storage.read("x") == b"mine"


def test_a_root_that_may_not_be_listed_is_there(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list names files in it, and those can be read."""
    (storage.root / "a.jpg").write_bytes(b"x")

    def refuse(path: object) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)  # who runs the tests may be root, who may list everything
        storage.check_root()
        with pytest.raises(ImageError) as caught:
            storage.fetch(Entry("gone.jpg", 1, "etag"))
    assert caught.value.kind is FailureKind.MISSING


def test_a_root_that_is_empty_or_gone_is_away(storage: LocalStorage) -> None:
    with pytest.raises(PlaceError, match="is empty on this machine"):
        storage.check_root()
    storage.root.rmdir()
    with pytest.raises(PlaceError, match="is not there on this machine"):
        storage.fetch(Entry("gone.jpg", 1, "etag"))


def test_a_folder_that_cannot_be_cleared_up_is_named_itself(public_folder: Path) -> None:
    (public_folder / "a/closed").mkdir(parents=True)
    (public_folder / "a/closed").chmod(0)
    with as_nobody(), pytest.raises(StorageError, match=r"cannot read .*/a/closed: Permission denied"):
        LocalStorage(public_folder).remove_unfinished()
