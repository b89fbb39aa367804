"""How a job's objects differ from those that they are held against, at one threshold."""

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from trtjob.jobs.report.reference import NOT_JUDGED

if TYPE_CHECKING:
    from trtjob.jobs.report.chunk import Chunk


@dataclass(frozen=True, slots=True)
class Differences:
    """Images, and objects, of which something is more than in the reference, is missing, and has moved; and objects
    that are in both."""

    images: tuple[int, int, int] = (0, 0, 0)
    objects: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __add__(self, other: "Differences") -> "Differences":
        more, missing, moved = (a + b for a, b in zip(self.images, other.images, strict=True))
        extra, gone, elsewhere, same = (a + b for a, b in zip(self.objects, other.objects, strict=True))
        return Differences((more, missing, moved), (extra, gone, elsewhere, same))


def differences(chunk: "Chunk", least: int, *, most: int | None = None) -> Differences:
    """Count a chunk's differences. least: the score from which on objects count, in ten-thousandths; most: of an image.

    An object is more where its partner does not count or is none, and one of the reference is missing likewise.
    """
    total = Differences()
    begins = accumulate(chunk.counts, initial=0)
    other_begins = accumulate(chunk.other_counts, initial=0)
    for count, other_count in zip(chunk.counts, chunk.other_counts, strict=True):
        first, other_first = next(begins), next(other_begins)
        counted = [at for at in range(first, first + count)[:most] if chunk.scores[at] >= least]
        extra = sum(chunk.partners[at] < least or not chunk.partners[at] for at in counted)
        same = [at for at in counted if chunk.partners[at] >= max(1, least) and chunk.partners[at] != NOT_JUDGED]
        moved = sum(at in chunk.moved for at in same)
        missing = sum(
            other.score >= least and (other.partner < least or not other.partner)
            for other in chunk.others[other_first : other_first + other_count]
        )
        images = bool(extra), bool(missing), bool(moved)
        total += Differences(images, (extra, missing, moved, len(same)))
    return total
