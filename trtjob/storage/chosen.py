"""Some of the images of a place: the first ones, or a sample."""

import hashlib
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from heapq import heappush, heapreplace
from itertools import islice
from operator import itemgetter

from trtjob.storage.listing import Entry, Images
from trtjob.storage.selection import Selection


@dataclass(slots=True)
class Chosen:
    """The first images of those that match, or a sample of them, as a selection has it. Holds a sample in memory."""

    images: Images
    selection: Selection

    @property
    def ignored(self) -> Counter[str]:
        return self.images.ignored

    def __iter__(self) -> Iterator[Entry]:
        if self.selection.sample is not None:
            return iter(_sample(self.images, self.selection.sample, self.selection.seed))
        return islice(self.images, self.selection.limit)


@dataclass(slots=True)
class Known:
    """The images of a place whose keys are known."""

    images: Images
    known: Container[str]

    @property
    def ignored(self) -> Counter[str]:
        return self.images.ignored

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entry in self.images if entry.key in self.known)


def _sample(images: Images, size: int, seed: int) -> list[Entry]:
    """Return the images with the smallest digests of seed and key: whichever others there are, these stay likely."""
    found: list[tuple[int, int, Entry]] = []  # a heap with the largest digest first
    for number, entry in enumerate(images):
        digest = hashlib.blake2b(f"{seed}\0{entry.key}".encode(errors="surrogateescape"), digest_size=8).digest()
        item = (-int.from_bytes(digest), -number, entry)
        if len(found) < size:
            heappush(found, item)
        elif item > found[0]:
            heapreplace(found, item)
    return [entry for _, _, entry in sorted(found, key=itemgetter(1), reverse=True)]
