"""What is failing outside: which places this process waits for, why, and since when."""

import time

from trtjob.errors import StorageError
from trtjob.storage.protocol import OnTrouble

PATIENCE_S = 60.0

_troubles: dict[str, tuple[str, float]] = {}  # place -> what is failing there, in one sentence, and since when


def note_trouble(place: str, trouble: str) -> None:
    """Remember that a place fails as a whole; an empty sentence: it works again."""
    if trouble:
        _troubles[place] = (trouble, time.monotonic())
    else:
        _troubles.pop(place, None)


def forget_troubles() -> None:
    """Take all places to work."""
    _troubles.clear()


def troubles() -> str:
    """Return what is failing now in this process, empty where nothing is. Safe in any thread."""
    return "; ".join(dict.fromkeys(trouble for trouble, _ in list(_troubles.values())))


def trouble_age_s(trouble: str) -> float:
    """Return for how long what this sentence says has been failing, in seconds; 0 where it does not fail any more."""
    since = [began for told, began in list(_troubles.values()) if told == trouble]
    return time.monotonic() - min(since) if since else 0.0


def give_up_after(patience_s: float) -> OnTrouble:
    """Return a patience that ends: it raises StorageError when a place has failed for so long."""

    def on_trouble(trouble: str) -> None:
        if trouble_age_s(trouble) > patience_s:
            raise StorageError(f"{trouble}. Given up after {patience_s:.0f} s; repeat the command when it works again")

    return on_trouble
