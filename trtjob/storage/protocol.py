"""What a place can do: one that images are read from, and one for a job's objects."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from trtjob.storage.listing import Entry, Images
from trtjob.storage.selection import Rules

# Told in one sentence what is failing, before each wait for a place that fails as a whole; may raise to stop waiting.
OnTrouble = Callable[[str], None]


class ImageStorage(Protocol):
    """What images are read from. Errors are as for `Storage`."""

    @property
    def is_remote(self) -> bool:
        """Whether each request waits for a network: then `afetch` and `aput` keep many under way at once."""
        ...

    def place(self, key: str) -> str:
        """Return where an object lies, for people."""
        ...

    def check_root(self) -> None:
        """Raise PlaceError where the root of a source is away from this machine, as far as that can be told."""
        ...

    def images(self, rules: Rules | None = None) -> Images:
        """Return the images below the root that the rules take, sorted by key as UTF-8 sorts. None: the usual ones."""
        ...

    def entry(self, key: str) -> Entry:
        """Return an image as it is now; its size is 0 and its etag empty where that cannot be told."""
        ...

    def fetch(self, entry: Entry) -> bytes:
        """Return the bytes of a source image. Raises ImageError: `missing`, `read` or `too_large`; StorageError."""
        ...

    async def afetch(self, entry: Entry) -> bytes:
        """Fetch an image without a thread of the caller's; only where `is_remote`. Raises as `fetch` does."""
        ...

    def open(self, entry: Entry) -> BinaryIO:
        """Open a file of a source to be read in parts, whatever its size. Raises as `fetch` does; so does reading it,
        and OSError."""
        ...


class Storage(ImageStorage, Protocol):
    """Objects below a root: a folder, or `s3://bucket/prefix`.

    Keys are relative, with `/`; every method refuses one that would leave the root with a StorageError. A place that
    fails for a while is waited for (see OnTrouble). What a person must look at is a StorageError that says what to do;
    beside it only those errors leave a method that it names, whatever a store answers.
    """

    @property
    def uri(self) -> str:
        """The root: an absolute path or `s3://bucket/prefix`, without a slash at its end."""
        ...

    def make_root(self) -> None:
        """Make the root unless it is there: nothing else makes it. Raises StorageError."""
        ...

    def exists(self, key: str) -> bool: ...

    def read(self, key: str) -> bytes:
        """Return an object's bytes. Raises FileNotFoundError, StorageError."""
        ...

    def lines(self, key: str) -> Iterator[bytes]:
        """Yield an object's lines, each with its end, without holding the object. Raises as `read` does."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Replace an object atomically and durably: a reader sees the old bytes or the new ones, never a mixture."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it is there. Returns whether this call made it; of two at once, exactly one does.

        Where an answer was lost on its way, the object that is there is this call's if it holds the same bytes.
        """
        ...

    def writing(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for a long write; it appears, atomically and durably, when the block ends well."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Like `write`, but may be lost in a crash of the machine: for objects that are made again then.

        Raises OSError for an error of this object alone (a name too long), StorageError where the place itself fails.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""
        ...

    def list(self, folder: str) -> list[str]:
        """Return the names of the objects right below a folder, sorted, without those of unfinished writes."""
        ...

    def remove_unfinished(self, before: Callable[[], None] = lambda: None) -> None:
        """Remove what writes that never ended have left. Nothing that is not ours.

        before: called when all is found, before any is removed; what is written later stays. It may raise to stop.
        """
        ...

    async def aput(self, key: str, data: bytes) -> None:
        """Put an object without a thread of the caller's; only where `is_remote`. Raises as `put` does."""
        ...
