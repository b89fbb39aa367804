"""What a job's objects are held against: what truly is in the images, or what another job found."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from trtjob.jobs.records import Record

# The score of a partner: of none, and of what is judged neither right nor wrong.
NONE, NOT_JUDGED = 0, 20_000
SURE = 10_000  # the score, in ten-thousandths, of what truly is there


class Other(NamedTuple):
    """An object of the reference. box: xyxy, None of a class; partner: the score of the job's object that is it."""

    class_id: int
    score: int
    box: tuple[float, float, float, float] | None
    partner: int


@dataclass(frozen=True, slots=True)
class Compared:
    """An image's objects beside those of the reference.

    partners: for each object of the record, in its order, the score of the reference's object that is the same, or NONE
    or NOT_JUDGED; moved: the numbers of those whose partner lies elsewhere.
    """

    partners: list[int]
    others: list[Other] = field(default_factory=list)
    moved: frozenset[int] = frozenset()


class Reference(Protocol):
    """Something to hold a job's objects against. `compared` is called once for each record, in the records' order."""

    def compared(self, record: Record) -> Compared: ...

    def labels(self) -> dict[int, str]:
        """Return the names of classes that the job's model does not have, by ids beyond the model's."""
        ...

    def index(self) -> dict[str, Any]:
        """Return what the page says of the whole, when all records have been compared; `page/index.js` says what."""
        ...


def objects_of(record: Record) -> list[tuple[int, int]]:
    """Return class and score, in ten-thousandths, of a record's objects, in the order in which the page has them."""
    return [(each.class_id, round(each.score * 10_000)) for each in record.found]


def unjudged(record: Record) -> Compared:
    """Return what is known of an image that the reference does not have."""
    return Compared([NOT_JUDGED] * len(objects_of(record)))
