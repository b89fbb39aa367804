"""When to try a request again, and when to stop asking: retries for one object, a circuit breaker for the place.

One object that keeps failing while others succeed is that object's trouble: its request is given up. When the requests
for several objects fail with no success between them, the place itself fails: the breaker opens, every request of this
process waits, one at a time probes, and the first success lets all go on.
"""

import random
import time
from collections.abc import Callable
from threading import Lock

from trtjob.storage.trouble import note_trouble

TRIES = 6  # of one request, over about ten seconds, where the place works
OPEN_AT = 3  # objects that fail one after another
ASK_AFTER_S = 15.0  # a request that is under way for so long may hang with the place: no need to wait for others
FIRST_PAUSE_S, LAST_PAUSE_S = 0.2, 5.0
POLL_S = 0.1  # how soon a waiting request looks whether the place works again


class Breaker:
    """The state of one place, shared by all threads and tasks of a process."""

    def __init__(self, place: str, works: Callable[[], bool]) -> None:
        """works: ask the place itself, for a request that fails alone: is it the object, or is nobody else asking?"""
        self.place = place
        self.trouble = ""  # empty: closed
        self.outages = 0
        self._works = works
        self._lock = Lock()
        self._failing: set[str] = set()
        self._probes = 0
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the place fails, so that requests wait."""
        return bool(self.trouble)

    def succeeded(self) -> None:
        """Note that a request was answered: the place works, and all that wait go on."""
        with self._lock:
            self._failing.clear()
            if self.trouble:
                self.trouble = ""
                self._probes = 0
                note_trouble(self.place, "")

    def failed(self, key: str, reason: str) -> None:
        """Note that a request for an object has failed. Opens where OPEN_AT have, with no success between them."""
        with self._lock:
            self._failing.add(key)
            if self.trouble:
                self._next_probe = time.monotonic() + pause_s(self._probes)
            elif len(self._failing) >= OPEN_AT:
                self._open(reason)

    def may_probe(self) -> bool:
        """Return whether the caller is the one that tries next while the place fails."""
        with self._lock:
            now = time.monotonic()
            if now < self._next_probe:
                return False
            self._probes += 1
            # Whoever probes and is interrupted must not keep the others out for ever.
            self._next_probe = now + LAST_PAUSE_S + 30
            return True

    def is_alone(self, reason: str) -> bool:
        """Return whether a request that failed often is alone in that; opens where the place does not work either."""
        if self._works():
            return True
        with self._lock:
            if not self.trouble:
                self._open(reason)
        return False

    def _open(self, reason: str) -> None:
        self.trouble = f"{self.place} fails: {reason}"
        self.outages += 1
        self._next_probe = time.monotonic() + FIRST_PAUSE_S
        note_trouble(self.place, self.trouble)


class RetryState:
    """One request's tries."""

    def __init__(self, breaker: Breaker, key: str) -> None:
        self.breaker = breaker
        self.key = key
        self.tries = 0
        self._began = time.monotonic()
        self._outages = breaker.outages
        self._next_try = 0.0

    def pause_s(self) -> float:
        """Return how long to wait before asking again whether to try; 0: try now."""
        if self.breaker.is_open:
            return 0.0 if self.breaker.may_probe() else POLL_S
        return max(0.0, self._next_try - time.monotonic())

    def failed(self, reason: str) -> bool:
        """Note a failure that may pass; may ask the place. Returns False where it will not: the object is to blame."""
        self.breaker.failed(self.key, reason)
        if self.breaker.outages != self._outages:  # what failed in an outage does not count against the object
            self._outages, self.tries = self.breaker.outages, 0
        self.tries += 1
        is_last = self.tries >= TRIES
        is_slow = time.monotonic() - self._began > ASK_AFTER_S
        if (is_last or is_slow) and not self.breaker.is_open and self.breaker.is_alone(reason) and is_last:
            return False
        self._next_try = time.monotonic() + pause_s(self.tries)
        return True


def pause_s(tries: int) -> float:
    """Return a growing pause with jitter, so that many clients do not come back at the same moment."""
    doublings = min(tries, 16)  # a float ends at 1,024 of them, which are as many probes in an outage of two hours
    return min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0**doublings) * random.uniform(0.5, 1.0)
