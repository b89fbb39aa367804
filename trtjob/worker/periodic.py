"""What a daemon does again and again. What a round raises ends that round: it is said, reported, and tried again."""

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable

from trtjob.errors import TrtjobError
from trtjob.queue.replies import is_outage

log = logging.getLogger(__name__)

FIRST_PAUSE_S, MAX_PAUSE_S = 2.0, 30.0
_MOST_KINDS = 100
_MOST_SHOWN = 200


class PeriodicTasks:
    """Keeps count of the rounds of a daemon's tasks that fail, each by a name that a person knows.

    is_away: whether the queue's server was away when it was last needed; no round is to blame for that.
    """

    def __init__(self) -> None:
        self.is_away = False
        self._in_a_row: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._troubles: dict[str, str] = {}
        self._said: set[str] = set()

    @property
    def troubles(self) -> list[str]:
        """What the last rounds have failed of; of those that went well since, nothing."""
        return [f"the {name} fails: {trouble}" for name, trouble in list(self._troubles.items())]

    def pause_s(self, name: str) -> float:
        """Return how long a round of this name has still to wait, since it has failed: longer after each in a row."""
        return max(0.0, self._not_before.get(name, 0.0) - time.monotonic())

    def went_well(self, name: str) -> None:
        if self.is_away:
            log.info("the queue's server is back")
        self.is_away = False
        for known in (self._in_a_row, self._not_before, self._troubles):
            known.pop(name, None)

    def failed(self, name: str, err: Exception) -> None:
        """Note that a round has failed. Each kind of failure is logged once."""
        if is_outage(err):
            if not self.is_away:
                log.warning("the queue's server is away", extra={"error": str(err)})
            self.is_away = True
            return
        trouble = str(err) if isinstance(err, TrtjobError) else f"{type(err).__name__}: {err}"
        self._troubles[name] = " ".join(trouble.split())[:_MOST_SHOWN]
        if isinstance(err, TrtjobError):  # what it says is for a person, and what the others of this round do is done
            self._say_once(name, trouble, err, traceback_of=None)
            return
        self._in_a_row[name] += 1
        pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._in_a_row[name] - 1, 16))
        self._not_before[name] = time.monotonic() + pause_s
        self._say_once(name, f"{type(err).__name__} at {_place(err)}", err, traceback_of=err)

    def _say_once(self, name: str, kind: str, err: Exception, *, traceback_of: Exception | None) -> None:
        said = f"{name}: {kind}"
        if said not in self._said and len(self._said) < _MOST_KINDS:
            self._said.add(said)
            log.error("the %s is not complete", name, extra={"error": str(err)}, exc_info=traceback_of)

    def guarded(self, name: str, call: Callable[[], object]) -> bool:
        """Do one round in this thread, unless it has to wait. Returns whether it went well."""
        if self.pause_s(name):
            return False
        try:
            call()
        except Exception as err:  # noqa: BLE001 - the boundary: no round ends the daemon
            self.failed(name, err)
            return False
        self.went_well(name)
        return True

    async def forever(self, name: str, once: Callable[[], object], rest: Callable[[float], Awaitable[object]]) -> None:
        """Do rounds, each in a thread, until cancelled. rest: waits between two of them, for so many seconds at least.

        once: raises nothing, but a thread may be more than the machine has to give.
        """
        while True:
            try:
                await asyncio.to_thread(once)
            except Exception as err:  # noqa: BLE001 - the boundary: no round ends the daemon
                self.failed(name, err)
            await rest(self.pause_s(name))


def _place(err: Exception) -> str:
    """Return where an error was raised."""
    frames = traceback.extract_tb(err.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
