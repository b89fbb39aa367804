"""What a page shows before it reads any data, counted chunk by chunk."""

from collections import Counter
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from trtjob.jobs.report.chunk import Chunk
from trtjob.jobs.report.folders import Folders


class Counts:
    """bars: objects by hundredths of their score; stored, counted: objects by class, all and from the threshold on."""

    def __init__(self) -> None:
        self.folders = Folders()
        self.bars: Counter[int] = Counter()
        self.stored: Counter[int] = Counter()
        self.counted: Counter[int] = Counter()

    def add_objects(self, chunk: Chunk, least: int, *, is_exclusive: bool) -> None:
        """Count a chunk's objects. least: the threshold; is_exclusive: of an image the first counts alone."""
        scores, class_ids = np.asarray(chunk.scores), np.asarray(chunk.class_ids)
        if is_exclusive:
            _, firsts = _first_objects(chunk)
            scores, class_ids = scores[firsts], class_ids[firsts]
        _count(self.bars, scores // 100)
        _count(self.stored, class_ids)
        self.stored.update([other.class_id for other in chunk.others])
        _count(self.counted, class_ids[scores >= least])

    def add_images(self, chunk: Chunk, least: int, nearly_from: int) -> tuple[int, int, int, int]:
        """Count a chunk's images. Returns how many there are, with hits, nearly with one, and failed.

        least, nearly_from: the best score from which on an image has a hit, and nearly one.
        """
        has_any, firsts = _first_objects(chunk)
        best = np.full(len(chunk.names), -1)
        best[has_any] = np.asarray(chunk.scores)[firsts]
        folders = [name.rpartition("/")[0] for name in chunk.names]
        hits = list(compress(folders, (best >= least).tolist()))
        nearly = np.count_nonzero((best >= nearly_from) & (best < least))
        self.folders.add(folders, hits, [folders[number] for number in chunk.failures])
        return len(folders), len(hits), int(nearly), len(chunk.failures)


def _first_objects(chunk: Chunk) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which images have an object, and the number of the first of each of these: it has the best score."""
    counts = np.asarray(chunk.counts)
    has_any = counts > 0
    return has_any, (np.cumsum(counts) - counts)[has_any].astype(np.intp)


def _count(counter: Counter[int], numbers: NDArray[np.integer]) -> None:
    counts = np.bincount(numbers)
    for number in np.flatnonzero(counts).tolist():
        counter[number] += int(counts[number])
