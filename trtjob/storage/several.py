"""Several places of images as one, each below a name of its own."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from itertools import groupby
from operator import attrgetter
from typing import BinaryIO

from trtjob.errors import StorageError
from trtjob.storage.listing import Entry, Images
from trtjob.storage.protocol import ImageStorage
from trtjob.storage.selection import Rules

_by_key = attrgetter("key")


class SeveralPlaces:
    """The images of several places; a key is the name of its place, a `/`, and the key there. See ImageStorage."""

    def __init__(self, places: Mapping[str, ImageStorage], listed: Mapping[str, tuple[str, ...]]) -> None:
        """places: by name, none of which is a folder in another one; listed: those of which all images are wanted that
        match a pattern, or all where there is none.
        """
        self._places = places
        self._listed = listed

    @property
    def is_remote(self) -> bool:
        return any(place.is_remote for place in self._places.values())

    def place(self, key: str) -> str:
        place, below = self._parted(key)
        return place.place(below)

    def check_root(self) -> None:
        for place in self._places.values():
            place.check_root()

    def images(self, rules: Rules | None = None) -> Images:
        rules = rules or Rules()
        return Merged(
            [
                Prefixed(self._places[name].images(replace(rules, patterns=patterns)), name)
                for name, patterns in self._listed.items()
            ]
        )

    def below(self, key: str) -> str:
        """Return a key as its place has it."""
        return self._parted(key)[1]

    def entry(self, key: str) -> Entry:
        place, below = self._parted(key)
        return replace(place.entry(below), key=key)

    def fetch(self, entry: Entry) -> bytes:
        place, below = self._parted(entry.key)
        return place.fetch(replace(entry, key=below))

    async def afetch(self, entry: Entry) -> bytes:
        place, below = self._parted(entry.key)
        entry = replace(entry, key=below)
        return await place.afetch(entry) if place.is_remote else await asyncio.to_thread(place.fetch, entry)

    def open(self, entry: Entry) -> BinaryIO:
        place, below = self._parted(entry.key)
        return place.open(replace(entry, key=below))

    def _parted(self, key: str) -> tuple[ImageStorage, str]:
        at = key.find("/")
        while at > 0:
            if (place := self._places.get(key[:at])) is not None:
                return place, key[at + 1 :]
            at = key.find("/", at + 1)
        raise StorageError(f"the key {key!r} is in none of the job's sources: {', '.join(self._places)}")


@dataclass(slots=True)
class Prefixed:
    """The images of a place, their keys below its name."""

    images: Images
    name: str

    @property
    def ignored(self) -> Counter[str]:
        return self.images.ignored

    def __iter__(self) -> Iterator[Entry]:
        return (replace(entry, key=f"{self.name}/{entry.key}") for entry in self.images)


@dataclass(slots=True)
class Merged:
    """The images of all of several, sorted by key, each once."""

    several: Sequence[Images]

    @property
    def ignored(self) -> Counter[str]:
        return sum((images.ignored for images in self.several), Counter[str]())

    def __iter__(self) -> Iterator[Entry]:
        for _, same in groupby(merge(*self.several, key=_by_key), key=_by_key):
            yield next(same)
