"""Pictures that one camera took shortly after one another, as people with trail cameras count visits.

A camera is a folder. A picture belongs to the one before it where no more seconds lie between them than are given.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, groupby

from trtjob.jobs.records import Record

_Taken = tuple[bytes, float, bytes]  # folder, seconds, image


@dataclass(frozen=True, slots=True)
class BurstFrame:
    """A picture's place in a burst: which one (by the name of its first picture), its number from 0 on, of how many."""

    sequence_id: str
    number: int
    count: int


class Bursts:
    """The bursts of a job's images. They lie in a temporary file, so memory does not grow with their number."""

    def __init__(self, records: Iterable[Record], seconds: float) -> None:
        """records: those without a time belong to no burst."""
        self._database = sqlite3.connect("")  # a file that goes with the connection
        try:
            self._fill(records, seconds)
        except BaseException:
            self.close()
            raise

    def _fill(self, records: Iterable[Record], seconds: float) -> None:
        self._database.execute("CREATE TABLE taken (folder BLOB, seconds REAL, image BLOB)")
        self._database.execute("CREATE TABLE frames (image BLOB PRIMARY KEY, first BLOB, number, count) WITHOUT ROWID")
        self._database.executemany("INSERT INTO taken VALUES (?, ?, ?)", filter(None, map(_taken, records)))
        found = self._database.execute("SELECT folder, seconds, image FROM taken ORDER BY folder, seconds, image")
        self._database.executemany("INSERT INTO frames VALUES (?, ?, ?, ?)", _frames(found, seconds))

    def close(self) -> None:
        self._database.close()

    def find(self, image: str) -> BurstFrame | None:
        """Return an image's place, None where it has no time."""
        query = "SELECT first, number, count FROM frames WHERE image = ?"
        found = self._database.execute(query, [_packed(image)]).fetchone()
        return BurstFrame(_unpacked(found[0]), found[1], found[2]) if found else None


def _taken(record: Record) -> _Taken | None:
    if record.metadata is None or record.metadata.captured_at is None:
        return None
    folder, _, _ = record.image.rpartition("/")
    with suppress(ValueError):  # of records that somebody has changed
        at = datetime.fromisoformat(record.metadata.captured_at)
        # The cameras of one folder note an offset or do not; without one, their own time does.
        return _packed(folder), (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(), _packed(record.image)
    return None


def _frames(taken: Iterable[_Taken], seconds: float) -> Iterator[tuple[bytes, bytes, int, int]]:
    """Yield each image with its burst's first one, its number and how many there are; taken: sorted."""
    for _, of_camera in groupby(taken, key=lambda each: each[0]):
        burst: list[bytes] = []
        last = 0.0
        for _, at, image in chain(of_camera, [(b"", float("inf"), b"")]):
            if burst and at - last > seconds:
                yield from ((each, burst[0], number, len(burst)) for number, each in enumerate(burst))
                burst = []
            burst.append(image)
            last = at


def _packed(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _unpacked(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
