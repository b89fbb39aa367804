"""The images of a source as they are now, of which a user may want only some."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from trtjob.jobs.frames import video_key
from trtjob.jobs.pages import page_entry
from trtjob.jobs.spec import Source
from trtjob.storage import OnTrouble, open_images
from trtjob.storage.chosen import Chosen
from trtjob.storage.listing import Entry, Frame, Images
from trtjob.storage.prefetch import prefetch_map
from trtjob.storage.protocol import ImageStorage
from trtjob.storage.selection import OLDER, Rules
from trtjob.storage.several import Merged, SeveralPlaces

# A bucket is asked for so many named images at a time: nearly all of the time of an answer is waiting.
LOOKS_AT_ONCE = 32


@dataclass(slots=True)
class Named:
    """The images that a user named, as they are now; one that is not there stays, to end as an error record.

    has_pages: whether a name may be that of a page; frames: those names that are of frames of videos, and which;
    below: gives a key as patterns see it.
    """

    source: ImageStorage
    keys: Iterable[str]
    rules: Rules = field(default_factory=Rules)
    has_pages: bool = False
    frames: Mapping[str, Frame] = field(default_factory=dict)
    below: Callable[[str], str] = str
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._entries():
            if entry.etag and self.rules.is_too_old(entry.modified_s):
                self.ignored[OLDER] += 1
            else:
                yield entry

    def _entries(self) -> Iterator[Entry]:
        keys = filter(self._is_wanted, self.keys)
        if not self.source.is_remote:
            return map(self._entry, keys)
        return prefetch_map(self._entry, keys, requests=LOOKS_AT_ONCE)

    def _entry(self, key: str) -> Entry:
        if (frame := self.frames.get(key)) is not None:
            return replace(self.source.entry(video_key(key)), key=key, frame=frame)
        return page_entry(self.source, key) if self.has_pages else self.source.entry(key)

    def _is_wanted(self, key: str) -> bool:
        kind = self.rules.why_unwanted(self.below(key))
        if kind:
            self.ignored[kind] += 1
        return not kind


def open_source(source: Source, *, on_trouble: OnTrouble | None = None, allow_local: bool = False) -> ImageStorage:
    """Open the place of a source's images, or all of them as one. Raises and waits as `open_images` does."""
    places = {
        part.name: open_images(part.root, on_trouble=on_trouble, anonymous=source.anonymous, allow_local=allow_local)
        for part in source.all_parts
    }
    if not source.parts:
        return places[""]
    return SeveralPlaces(places, {part.name: part.patterns for part in source.parts if part.is_listed})


def matching_images(source: Source, keys: Iterable[str], storage: ImageStorage) -> Images:
    """Return a source's images that match, sorted by key. keys: of those that were named; storage: where they are."""
    below = storage.below if isinstance(storage, SeveralPlaces) else str
    named = Named(storage, keys, Rules(source.selection), below=below)
    if source.kind == "list":
        return named
    listed = storage.images(Rules(source.selection, source.patterns))
    return listed if source.kind == "folder" else Merged([listed, named])


def chosen_images(source: Source, keys: Iterable[str], storage: ImageStorage) -> Images:
    """Return a source's images that match or, where not all are wanted, those that are chosen now."""
    images = matching_images(source, keys, storage)
    return images if source.selection.most is None else Chosen(images, source.selection)
