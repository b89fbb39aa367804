"""Pages as images of their own (`--pages all`): `scan.tif#3` is the third page of `scan.tif`.

A file of one page keeps its name. How many pages the others have is known when the job is planned, so that each page is
planned, done, counted and tried again as every image is.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import chain, groupby, islice
from operator import attrgetter

from trtjob.errors import ImageError
from trtjob.imaging.pages import page_count
from trtjob.jobs.frame_listing import FramesOf
from trtjob.jobs.frames import is_video, names_frame, video_key
from trtjob.jobs.spec import Options
from trtjob.storage.listing import Entry, Images, is_unknown, suffix_of
from trtjob.storage.prefetch import REQUESTS, prefetch_map
from trtjob.storage.protocol import ImageStorage

# Of kinds that can have pages, by their names: only such files, and those whose names say nothing, are read to plan.
_SUFFIXES = frozenset({".tif", ".tiff", ".gif", ".webp", ".png", ".avif", ".heic", ".heif", ".hif"})
# A file may claim any number of frames that it does not have. With more than these it is an error record.
MOST_PAGES = 10_000
_LISTINGS = 4  # videos of a bucket that are looked into at once, each by a process
_READY = 5_000  # pages or frames of a file that are kept until their turn has come
_PAGE = re.compile(r"(.+)#([1-9]\d{0,4})", re.DOTALL)


def file_and_page(key: str) -> tuple[str, int]:
    """Return the file and the page that an image's key names; a key without a page names the first.

    >>> file_and_page("scans/a.tif#3"), file_and_page("scans/a.tif")
    (('scans/a.tif', 3), ('scans/a.tif', 1))
    """
    match = _PAGE.fullmatch(key)
    return (match[1], int(match[2])) if match else (key, 1)


def names_page(key: str) -> bool:
    """Whether an image's key names a page."""
    return _PAGE.fullmatch(key) is not None


def planned_page(key: str, options: Options) -> tuple[str, int | None]:
    """Return the file in which an image of a job is, which is no frame, and its page; None where it is the file."""
    return file_and_page(key) if options.pages == "all" and names_page(key) else (key, None)


def file_key(key: str, options: Options) -> str:
    """Return the file in which an image of a job is, by the image's key: a page's, a frame's video, or its own."""
    if options.frames is not None and names_frame(key):
        return video_key(key)
    return planned_page(key, options)[0]


def file_of(entry: Entry) -> Entry:
    """Return the file in which a page or frame is."""
    key = file_and_page(entry.key)[0] if entry.frame is None else video_key(entry.key)
    return replace(entry, key=key, frame=None)


def page_entry(source: ImageStorage, key: str) -> Entry:
    """Return an image as it is now, as `Storage.entry` does: a page changes with its file."""
    return replace(source.entry(file_and_page(key)[0]), key=key)


@dataclass(slots=True)
class Pages:
    """The pages of images, and the frames of videos, sorted by key as those are; can be iterated once.

    One file is held at a time, of a bucket a few. A file that cannot be read, or has more pages than MOST_PAGES, is one
    image: who processes it says what is wrong. has_pages: whether pages are images; frames_of: lists those of a video,
    None where they are none.
    """

    images: Images
    source: ImageStorage
    has_pages: bool = True
    frames_of: FramesOf | None = None

    @property
    def ignored(self) -> Counter[str]:
        return self.images.ignored

    def __iter__(self) -> Iterator[Entry]:
        # A list may name a page beside its file.
        return (next(same) for _, same in groupby(self._sorted(), key=attrgetter("key")))

    def _sorted(self) -> Iterator[Entry]:
        # `a.tif#1` comes behind `a.tif`, and maybe behind the next names, such as `a.tif!`; but none of its pages comes
        # before it, so what is smaller than the next name can go.
        waiting: list[tuple[str, int, Entry, Iterator[Entry]]] = []

        def push(number: int, pages: Iterator[Entry]) -> None:
            if (page := next(pages, None)) is not None:
                heappush(waiting, (page.key, number, page, pages))

        def pop() -> Entry:
            _, number, page, pages = heappop(waiting)
            push(number, pages)
            return page

        for number, (entry, pages) in enumerate(self._with_pages()):
            while waiting and waiting[0][0] < entry.key:
                yield pop()
            push(number, pages)
        while waiting:
            yield pop()

    def _with_pages(self) -> Iterator[tuple[Entry, Iterator[Entry]]]:
        if not self.source.is_remote:
            return ((entry, self._pages_of(entry)) for entry in self.images)
        return prefetch_map(self._asked_for, self.images, requests=REQUESTS if self.frames_of is None else _LISTINGS)

    def _asked_for(self, entry: Entry) -> tuple[Entry, Iterator[Entry]]:
        pages = self._pages_of(entry)
        return entry, chain(list(islice(pages, _READY)), pages)

    def _count(self, entry: Entry) -> int:
        if not self.has_pages or (suffix_of(entry.key) not in _SUFFIXES and not is_unknown(entry.key)):
            return 1
        try:
            return page_count(self.source.fetch(entry))
        except ImageError:
            return 1

    def _pages_of(self, entry: Entry) -> Iterator[Entry]:
        if self.frames_of is not None and is_video(entry.key) and entry.etag:
            return self.frames_of(entry)
        if not 1 < (count := self._count(entry)) <= MOST_PAGES:
            return iter([entry])
        keys = sorted(f"{entry.key}#{number}" for number in range(1, count + 1))
        return (replace(entry, key=key) for key in keys)
