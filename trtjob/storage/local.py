"""A folder on a disk, used as S3 is: whole objects, written atomically, created if absent."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from trtjob import atomic
from trtjob.errors import FailureKind, ImageError, PlaceError, StorageError
from trtjob.storage.files import open_file
from trtjob.storage.listing import Entry, Listing, entry_of
from trtjob.storage.selection import Rules

T = TypeVar("T")

MAX_FILE_BYTES = 2**31 - 1  # what one cv2 buffer holds

# Errors of the place, not of one object: no image will fare better until a person has done something.
_PLACE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EIO}
)
# Of a file whose file system may be away: not mounted, or its server has forgotten us.
_AWAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT})
_HINTS = {
    errno.ENOSPC: "Free some space, then run the same command again: it does only what is missing.",
    errno.EDQUOT: "The quota is used up: free some space, then run the same command again.",
    errno.EROFS: "The file system is read-only: choose another place.",
    errno.EACCES: "Choose another place, or change the permissions.",
    errno.EPERM: "Choose another place, or change the permissions.",
}


class LocalStorage:
    """Objects below a root folder. Keys are relative paths with `/`; one that would leave the root is refused.

    The root is made by `make_root` alone: where it is gone, so is its file system, and writes would go elsewhere.
    """

    is_remote = False

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def uri(self) -> str:
        return str(self.root)

    def place(self, key: str) -> str:
        return str(self.path(key))

    def path(self, key: str) -> Path:
        """Return where an object lies. Raises StorageError for a key that leaves the root."""
        parts = key.split("/")
        if not key or key.startswith("/") or ".." in parts or "\0" in key:
            raise StorageError(f"the key {key!r} leaves the folder {self.root}")
        try:
            os.fsencode(key)
        except UnicodeEncodeError as err:
            raise StorageError(f"the key {key!r} cannot be the name of a file: it is no UTF-8. Rename it") from err
        return self.root.joinpath(*parts)

    def make_root(self) -> None:
        """Make the root folder unless it is there. Raises StorageError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise place_error(err, self.root) from err

    def check_root(self) -> None:
        """Raise PlaceError where the root is not there, or is as empty as a file system that is not mounted."""
        try:
            with os.scandir(self.root) as items:
                if next(items, None) is not None:
                    return
            what = "is empty"
        except FileNotFoundError:
            what = "is not there"
        except PermissionError:  # its files may be read all the same, by their names
            return
        except OSError as err:
            what = f"cannot be read: {err.strerror}"
        raise PlaceError(f"the folder {self.root} {what} on this machine. Is its file system mounted?")

    def _make_parents(self, target: Path) -> None:
        """Make the folders between the root and an object. Raises PlaceError where the root is not there."""
        missing = []
        for folder in target.parents:
            if folder == self.root or folder.is_dir():
                break
            missing.append(folder)
        if not self.root.is_dir():
            self.check_root()
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)

    def exists(self, key: str) -> bool:
        path = self.path(key)
        try:
            return path.exists()
        except OSError as err:
            raise _unreadable(err, path) from err

    def read(self, key: str) -> bytes:
        """Return an object's bytes. Raises FileNotFoundError, StorageError."""
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as err:
            raise _unreadable(err, self.path(key)) from err

    def lines(self, key: str) -> Iterator[bytes]:
        """Yield an object's lines. Raises FileNotFoundError, StorageError."""
        try:
            with self.path(key).open("rb") as file:
                yield from file
        except FileNotFoundError:
            raise
        except OSError as err:
            raise _unreadable(err, self.path(key)) from err

    def write(self, key: str, data: bytes) -> None:
        """Replace an object atomically: a reader sees the old bytes or the new ones, never a mixture."""
        with self.writing(key) as file:
            file.write(data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it is there. Returns whether this call made it; of two at once, exactly one does."""
        target = self.path(key)
        try:
            self._make_parents(target)
            with atomic.unfinished(target.parent) as temporary:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                is_new = _link(temporary, target)
                temporary.unlink(missing_ok=True)  # whoever clears up may have been faster
            _sync_folder(target.parent)
        except OSError as err:
            raise place_error(err, target) from err
        return is_new

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        """Open an object for a long write; it appears, atomically and synced to the disk, when the block ends well."""
        target = self.path(key)
        try:
            self._make_parents(target)
            with atomic.replacing(target) as file:
                yield file
            _sync_folder(target.parent)
        except OSError as err:
            raise place_error(err, target) from err

    def put(self, key: str, data: bytes) -> None:
        """Like `write`, without waiting for the disk: for objects that are made again when a crash loses them.

        Raises OSError for an error of this object alone (a name too long), StorageError where the place itself fails.
        """
        target = self.path(key)
        try:
            try:
                atomic.write(target, data, sync=False)
            except FileNotFoundError:
                self._make_parents(target)
                atomic.write(target, data, sync=False)
        except OSError as err:
            if err.errno in _PLACE_ERRORS:
                raise place_error(err, target) from err
            raise

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as err:
            raise place_error(err, self.path(key)) from err

    def list(self, folder: str) -> list[str]:
        """Return the names of the objects right below a folder, sorted; parts of unfinished writes are left out."""
        try:
            names = os.listdir(self.path(folder))  # noqa: PTH208 - names alone, without a Path each
        except FileNotFoundError:
            return []
        except OSError as err:
            raise _unreadable(err, self.path(folder)) from err
        return sorted(name for name in names if not name.startswith("."))

    def remove_unfinished(self, before: Callable[[], None] = lambda: None) -> None:
        """Remove the files and folders that are called as unfinished writes are; links are not followed."""
        try:
            found = list(_unfinished(self.root))
        except OSError as err:
            raise _unreadable(err, Path(err.filename or self.root)) from err
        before()
        for path in found:
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # another clears up, too
            except OSError as err:
                raise place_error(err, path) from err

    def images(self, rules: Rules | None = None) -> Listing:
        return Listing(self.root, rules or Rules())

    def entry(self, key: str) -> Entry:
        """Return a file as it is now."""
        try:
            return entry_of(key, self.path(key).stat())
        except OSError:
            return Entry(key, 0, "")

    def fetch(self, entry: Entry) -> bytes:
        """Return a regular file's bytes.

        Raises ImageError: `missing`, `read` or `too_large`; PlaceError where the root is away.
        """
        return self._reached(entry, _read_file)

    def open(self, entry: Entry) -> BinaryIO:
        """Open a regular file to be read in parts. Raises as `fetch` does, but for `too_large`."""
        return self._reached(entry, open_file)

    def _reached(self, entry: Entry, read: Callable[[Path], T]) -> T:
        path = self.path(entry.key)
        try:
            try:
                return read(path)
            except OSError as err:
                if err.errno not in _AWAY:
                    raise
                self.check_root()
                return read(path)  # what was away for a moment is there again
        except OSError as err:
            if err.errno in (errno.ENOENT, errno.ENOTDIR):
                raise ImageError(FailureKind.MISSING, "the file is not there any more") from err
            if err.errno in _AWAY:
                raise PlaceError(f"cannot read {path}: {err.strerror}. Is its file system mounted?") from err
            raise ImageError(FailureKind.READ, f"the file cannot be read: {err.strerror}") from err

    async def afetch(self, entry: Entry) -> bytes:
        raise NotImplementedError("a folder is read in threads")

    async def aput(self, key: str, data: bytes) -> None:
        raise NotImplementedError("a folder is written in threads")


def _read_file(path: Path) -> bytes:
    with open_file(path) as file:
        if (size_bytes := os.fstat(file.fileno()).st_size) > MAX_FILE_BYTES:
            raise ImageError(FailureKind.TOO_LARGE, f"the file has {size_bytes:,} bytes, more than 2 GiB")
        return file.read()


def _unfinished(root: Path) -> Iterator[Path]:
    # os.walk would hold the names of a whole folder; there may be a million. Nor by recursion: see Listing.
    folders = [root]
    while folders:
        try:
            scan = os.scandir(folders.pop())
        except FileNotFoundError:  # it went while its neighbours were looked at
            continue
        with scan as items:
            for item in items:
                if atomic.is_unfinished(item.name):
                    yield Path(item)
                elif item.is_dir(follow_symlinks=False):
                    folders.append(Path(item))


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name. Returns whether this call made it; False where the name exists."""
    try:
        os.link(source, target)  # which fails so on every file system that has it, NFS included
    except FileExistsError:
        # NFS asks again where an answer was lost, and then finds its own link: see open(2), O_EXCL.
        return source.stat().st_nlink > 1
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(err: OSError, path: Path) -> StorageError:
    return StorageError(
        f"cannot read {path}: {err.strerror or err}. Check its name, its permissions and its file system"
    )


def place_error(err: OSError, target: Path) -> StorageError:
    """Return the error of a place that cannot be written, with what to do."""
    hint = _HINTS.get(err.errno or 0, "Choose another place.")
    return StorageError(f"cannot write {target}: {err.strerror or err}. {hint}")
