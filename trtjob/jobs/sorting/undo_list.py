"""The list of what a sort has done in a folder: it is written before each file is touched, and undone from."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from trtjob import atomic
from trtjob.documents import Document
from trtjob.errors import ConfigError
from trtjob.jobs.records import json_line, parse_line
from trtjob.storage import LocalStorage


class Heading(Document):
    """The first line: which job was sorted, and how."""

    schema_version: int = 1
    job_id: str
    by: str
    how: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A file of the source. file: its key; source: where it was, empty for one of a bucket; target: its key in the
    folder; size, modified_s: as it was, the time None where it is not known."""

    file: str
    source: str
    target: str
    size: int
    modified_s: float | None = None


def list_path(root: Path, job_id: str) -> Path:
    """Return where the list of a job's sort lies in the folder."""
    return root / f"sort-{job_id}.jsonl"


class UndoList:
    """The list of one job's sort, open and locked.

    placed: what was begun in earlier runs, of a file that was begun twice the last one.
    """

    def __init__(self, path: Path, heading: Heading, placed: Sequence[Placed], file: BinaryIO) -> None:
        self.path = path
        self.heading = heading
        self.placed = placed
        self._file = file

    def add(self, placed: Placed) -> None:
        """Note a file that is to be placed. What is noted survives this process, not a crash of the machine."""
        self._file.write(json_line(asdict(placed)))
        self._file.flush()

    def sync(self) -> None:
        """Bring what was noted to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def remove_unfinished(self) -> None:
        """Remove what a run that was killed has left of the file it was at, the last one.

        It lies where that one belongs. Elsewhere in the folder such files are of others, who may be writing them.
        """
        if not self.placed:
            return
        root = self.path.parent
        folder = LocalStorage(root).path(self.placed[-1].target).parent
        if not folder.resolve().is_relative_to(root):
            return
        with suppress(OSError):  # of a folder that is closed or gone: whoever needs it says so
            for path in folder.iterdir():
                if atomic.is_unfinished(path.name) and path.is_file():
                    path.unlink()

    def keep(self, placed: Sequence[Placed]) -> None:
        """Have only these in the list; the file goes with the last one."""
        if not placed:
            self.path.unlink()
            return
        lines = [self.heading.model_dump_json().encode() + b"\n", *(json_line(asdict(each)) for each in placed)]
        atomic.write(self.path, b"".join(lines))


@contextmanager
def open_list(root: Path, job_id: str, heading: Heading | None) -> Iterator[UndoList]:
    """Open the list of a job's sort in a folder, to go on with it. heading: of a new one; None: there must be one.

    Raises ConfigError where there is none, it is another's, or another command has it open; OSError.
    """
    path = list_path(root, job_id)
    if heading is None and not path.is_file():
        raise ConfigError(f"'{root}' has no list of what was sorted of job '{job_id}' ({path.name}): nothing to undo")
    with path.open("a+b") as file:
        _lock(file, path)
        found, placed = _read(path)
        if found is None:
            if heading is None:
                raise ConfigError(f"'{path}' has no first line: nothing was sorted")
            file.truncate(0)
            file.write(heading.model_dump_json().encode() + b"\n")
            file.flush()
        elif heading is not None and found != heading:
            raise ConfigError(
                f"job '{job_id}' was sorted into '{root}' by {found.by} with --{found.how}. Go on so, name another "
                f"folder, or take it back first: trtjob sort {job_id} --into {root} --undo"
            )
        yield UndoList(path, found or heading, placed, file)  # type: ignore[arg-type]  # one of them is there


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise ConfigError(f"another command is sorting: '{path}' is in use. Wait for its end") from err
    except OSError:  # a network's file system without locks
        return


def _read(path: Path) -> tuple[Heading | None, list[Placed]]:
    """Return what a list holds. A last line that was not written whole is cut off: its file was not touched."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    lines = data[:end].splitlines()
    if not lines:
        return None, []
    try:
        heading = Heading.model_validate(parse_line(lines[0]))
        placed = [Placed(**parse_line(line)) for line in lines[1:]]
    except (ValueError, TypeError) as err:
        raise ConfigError(f"'{path}' is no list of a sort, or damaged: {err}") from err
    return heading, placed
