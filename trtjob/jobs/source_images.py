"""The images of a source as they are now, of which a user may want only some."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from trtjob.jobs.pages import page_entry
from trtjob.jobs.spec import Source
from trtjob.storage import Storage
from trtjob.storage.chosen import Chosen
from trtjob.storage.listing import Entry, Images
from trtjob.storage.prefetch import prefetch_map
from trtjob.storage.selection import OLDER, Rules

# A bucket is asked for so many named images at a time: nearly all of the time of an answer is waiting.
LOOKS_AT_ONCE = 32


@dataclass(slots=True)
class Named:
    """The images that a user named, as they are now; one that is not there stays, to end as an error record.

    has_pages: whether a name may be that of a page.
    """

    source: Storage
    keys: Iterable[str]
    rules: Rules = field(default_factory=Rules)
    has_pages: bool = False
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._entries():
            if entry.etag and self.rules.is_too_old(entry.modified_s):
                self.ignored[OLDER] += 1
            else:
                yield entry

    def _entries(self) -> Iterator[Entry]:
        keys = filter(self._is_wanted, self.keys)
        entry = partial(page_entry, self.source) if self.has_pages else self.source.entry
        if not self.source.is_remote:
            return map(entry, keys)
        return prefetch_map(entry, keys, requests=LOOKS_AT_ONCE)

    def _is_wanted(self, key: str) -> bool:
        kind = self.rules.why_unwanted(key)
        if kind:
            self.ignored[kind] += 1
        return not kind


def matching_images(source: Source, keys: Iterable[str], storage: Storage) -> Images:
    """Return a source's images that match, sorted by key. keys: of a list; storage: where they are."""
    rules = Rules(source.selection)
    return storage.images(rules) if source.kind == "folder" else Named(storage, keys, rules)


def chosen_images(source: Source, keys: Iterable[str], storage: Storage) -> Images:
    """Return a source's images that match or, where not all are wanted, those that are chosen now."""
    images = matching_images(source, keys, storage)
    return images if source.selection.most is None else Chosen(images, source.selection)
