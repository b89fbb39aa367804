"""Put the files of a job's source into folders by what was found on them."""

import errno
import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from trtjob.errors import ConfigError, ImageError
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.frames import is_video
from trtjob.jobs.records import Record, read_records
from trtjob.jobs.sorting import files
from trtjob.jobs.sorting.plan import By, Target, targets
from trtjob.jobs.sorting.undo_list import Heading, Placed, UndoList, list_path, open_list
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import JobSpec
from trtjob.ranged_file import PART_BYTES
from trtjob.storage import LocalStorage
from trtjob.storage.listing import Entry
from trtjob.storage.local import place_error
from trtjob.storage.protocol import ImageStorage

# No file will fare better until a person has done something.
_ENDS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_SYNC_EVERY = 1000  # files


class How(StrEnum):
    """What becomes of a file: it is copied, gets a second name, or goes."""

    COPY = "copy"
    LINK = "link"
    MOVE = "move"


@dataclass(slots=True)
class SortedImages:
    """How a sort went. folders: files by the folder they are in; left: those that are where they were, and why."""

    folders: Counter[str] = field(default_factory=Counter)
    left: list[tuple[str, str]] = field(default_factory=list)
    list_path: Path | None = None


def sort_images(
    folder: JobFolder,
    spec: JobSpec,
    into: Path,
    *,
    by: By = By.CLASS,
    how: How = How.COPY,
    conf: float,
    is_dry: bool = False,
    allow_local: bool = False,
    on_record: Callable[[], None] = lambda: None,
) -> SortedImages:
    """Put each file of a job's source into a folder below `into`, under its own name and folders.

    It may be interrupted and called again; no file is ever overwritten or lost. conf: what was found with a lower score
    does not count; is_dry: count, and touch nothing; allow_local: as of `open_source`; on_record: called for every
    record. Raises ConfigError for what cannot be meant, StorageError where a place fails.
    """
    root = into.resolve()
    _check(folder, spec, root, by, how)
    source = open_source(spec.source, allow_local=allow_local)
    wanted = targets(_told(read_records(folder.storage, RESULTS), on_record), spec.options, conf=conf, by=by)
    if is_dry:
        return SortedImages(Counter(target.folder for target in wanted))
    LocalStorage(root).make_root()
    try:
        with open_list(root, spec.job_id, Heading(job_id=spec.job_id, by=by, how=how)) as undo_list:
            return _Sort(source, root, how, undo_list).run(wanted)
    except OSError as err:
        place = Path(err.filename or list_path(root, spec.job_id))
        if err.errno == errno.EROFS and not place.is_relative_to(root):
            raise ConfigError(f"'{place}' cannot be moved: its file system is read-only. Use --copy or --link") from err
        raise place_error(err, place) from err


def _told(records: Iterator[Record], on_record: Callable[[], None]) -> Iterator[Record]:
    for record in records:
        on_record()
        yield record


def _check(folder: JobFolder, spec: JobSpec, root: Path, by: By, how: How) -> None:
    if by is By.EMPTY and spec.model.task == "classify":
        raise ConfigError("--by empty is for detectors: a classifier names something in every image. Use --by class")
    if how is not How.COPY and (remote := next((each for each in spec.source.roots if "://" in each), None)):
        raise ConfigError(f"--{how} is for images of this machine, and '{remote}' is elsewhere: use --copy")
    if how is not How.MOVE and (around := spec.source.folder_around(root)) is not None:
        raise ConfigError(
            f"'{root}' lies in the source '{around}', where the next job would find all images twice: name another one"
        )
    if not folder.storage.is_remote and root.is_relative_to(folder.uri):
        raise ConfigError(f"'{root}' lies in the job's own folder: name another one")


class _Left(Exception):
    """A file stays where it is, for this reason."""


class _Sort:
    """One run over all files. placed: where those lie that were begun before."""

    def __init__(self, source: ImageStorage, root: Path, how: How, undo_list: UndoList) -> None:
        self.source = source
        self.root = root
        self.how = how
        self.list = undo_list
        self.placed = {each.file: each for each in undo_list.placed}
        self._safe_folders: set[Path] = set()

    def run(self, wanted: Iterator[Target]) -> SortedImages:
        self.list.remove_unfinished()
        result = SortedImages(list_path=self.list.path)
        for number, target in enumerate(wanted, start=1):
            try:
                self._sort(target)
                result.folders[target.folder] += 1
            except (_Left, ImageError) as err:
                result.left.append((target.file, str(err)))
            except OSError as err:
                if err.errno in _ENDS:
                    raise
                result.left.append((target.file, err.strerror or str(err)))
            if number % _SYNC_EVERY == 0:
                self.list.sync()
        self.list.sync()
        return result

    def _sort(self, target: Target) -> None:
        place = self.source.place(target.file)
        source = Path(place) if place.startswith("/") else None
        before = self.placed.get(target.file)
        if before is not None and self._is_done(before, source):
            _expect_same_folder(before, target)
            return
        if source is None:
            self._fetch(target)
            return
        if self.how is How.MOVE and source.is_symlink():
            raise _Left("it is a link to a file: what it leads to is not moved")
        stat = source.stat()
        place_file = {How.COPY: files.copy, How.LINK: files.link, How.MOVE: files.move}[self.how]
        self._place(target, str(source), stat.st_size, stat.st_mtime, lambda free: place_file(source, free))

    def _is_done(self, before: Placed, source: Path | None) -> bool:
        """Return whether a file is placed, and end what was interrupted. False: it is to be placed anew."""
        path = self.root / before.target
        if source is None or self.how is not How.MOVE:
            if before.size and files.is_reserved(path):
                files.release(path)
                return False
            return os.path.lexists(path)
        if not os.path.lexists(source):
            if os.path.lexists(path):
                return True
            raise _Left(f"it lies neither at its old place nor at {path}")
        if before.size and files.is_reserved(path):
            files.release(path)
            return False
        if os.path.lexists(path) and files.is_same(source, path):
            files.end_move(source, path)
            return True
        return False

    def _fetch(self, target: Target) -> None:
        """Copy a file that is not of this machine."""
        with self._opened(target.file) as file:
            size_bytes = file.seek(0, io.SEEK_END)

            def write(path: Path) -> None:
                file.seek(0)
                with path.open("wb") as written:
                    shutil.copyfileobj(file, written, PART_BYTES)

            self._place(target, "", size_bytes, None, lambda free: files.write_new(free, write))

    def _opened(self, file: str) -> BinaryIO:
        if is_video(file):
            entry = self.source.entry(file)
            if not entry.size_bytes:
                raise _Left("it is not there any more, or nobody says how large it is")
            return self.source.open(entry)
        return io.BytesIO(self.source.fetch(Entry(file, 0, "")))

    def _place(
        self, target: Target, source: str, size: int, modified_s: float | None, place: Callable[[Path], None]
    ) -> None:
        """Note a file and place it, under the first name that is free."""
        for key in _names(target.key):
            path = self._path(key)
            if os.path.lexists(path):
                continue
            self.list.add(Placed(target.file, source, key, size, modified_s))
            try:
                place(path)
            except FileExistsError:  # another program was faster
                continue
            return

    def _path(self, key: str) -> Path:
        """Return the path of a target, whose folder there is then. Raises where a link would lead out of the root."""
        path = LocalStorage(self.root).path(key)
        if path.parent not in self._safe_folders:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError as err:
                raise _Left(f"a file of the name of its folder is in the way: {err.filename}") from err
            if not path.parent.resolve().is_relative_to(self.root):
                raise _Left(f"{path.parent} is a link that leads out of {self.root}")
            self._safe_folders.add(path.parent)
        return path


def _expect_same_folder(before: Placed, target: Target) -> None:
    """Raise where results or a `--conf` of their own time have put a file into another folder than these would."""
    lies_in, belongs_in = PurePosixPath(before.target).parent, PurePosixPath(target.key).parent
    if lies_in != belongs_in:
        raise _Left(f"it lies in {lies_in} from before, and would go to {belongs_in} now: take that sort back first")


def _names(key: str) -> Iterator[str]:
    """Yield the names that a file may get: its own, and numbered ones where others have that."""
    yield key
    pure = PurePosixPath(key)
    for number in count(2):
        yield str(pure.with_name(f"{pure.stem} ({number}){pure.suffix}"))
