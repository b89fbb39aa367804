"""How many images each folder has, of as many folders as people look at."""

from collections import Counter
from collections.abc import Iterable

MAX_FOLDERS = 300


class Folders:
    """Images by folder, counted in several ways. Where there are too many folders, the deepest give way to those that
    they lie in."""

    def __init__(self) -> None:
        self._depth: int | None = None
        self.images: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def add(self, images: Iterable[str], hits: Iterable[str], failed: Iterable[str]) -> None:
        """Count the folders of images; hits, failed: of those among them."""
        for counter, folders in ((self.images, images), (self.hits, hits), (self.failed, failed)):
            for folder, count in Counter(folders).items():
                counter[self._cut(folder)] += count
        while len(self.images) > MAX_FOLDERS:
            self._fold()

    def rows(self) -> list[tuple[str, int, int, int]]:
        """Return path, images, hits and failed of each folder, sorted by path."""
        return [(path, count, self.hits[path], self.failed[path]) for path, count in sorted(self.images.items())]

    def _cut(self, folder: str) -> str:
        return folder if self._depth is None else "/".join(folder.split("/")[: self._depth])

    def _fold(self) -> None:
        """Count one level less."""
        self._depth = max(folder.count("/") for folder in self.images)
        for counter in (self.images, self.hits, self.failed):
            counts = dict(counter)
            counter.clear()
            for folder, count in counts.items():
                counter[self._cut(folder)] += count
