"""What workers log of a job, kept for a while beside its state: `trtjob logs` shows it, from whichever node it came."""

import json
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trtjob.logs import JsonFormatter, fields_of
from trtjob.queue import replies
from trtjob.queue.keys import job_key, log_key

# One for each shard of a million images and more; some 100 more may be kept, since the server drops them by the block.
MOST_LINES = 5000
MOST_HELD = 1000
MOST_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a worker has logged of a job. fields: as JSON has it, with `ts`, `level`, `logger`, `msg`, and what
    it is about."""

    id: str
    fields: dict[str, Any]

    @property
    def level(self) -> int:
        return logging.getLevelNamesMapping().get(str(self.fields.get("level")).upper(), logging.INFO)

    @property
    def at(self) -> float:
        """Seconds since the epoch."""
        return datetime.fromisoformat(self.fields["ts"]).timestamp()


class JobLog(logging.Handler):
    """Holds the lines about jobs until `ship` brings them to the server: logging never waits for that."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(JsonFormatter())
        self._held: deque[tuple[str, str]] = deque(maxlen=MOST_HELD)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        job_id = fields_of(record).get("job_id")
        if isinstance(job_id, str):
            self._dropped += len(self._held) == MOST_HELD
            self._held.append((job_id, self._line(record)))

    def _line(self, record: logging.LogRecord) -> str:
        line = self.format(record)
        if len(line) > MOST_CHARACTERS:  # a traceback: its end says most, and standard error has it all
            fields = json.loads(line)
            fields["exception"] = str(fields.get("exception", ""))[-MOST_CHARACTERS // 2 :]
            line = json.dumps(fields | {"msg": str(fields["msg"])[: MOST_CHARACTERS // 2]})
        return line

    def ship(self, redis: Any) -> None:
        """Bring what is held to the server; of what had no room, say how much. Raises RedisError, and then keeps it."""
        held = [self._held.popleft() for _ in range(len(self._held))]
        if not held:
            return
        try:
            _write(redis, held)
        except Exception:
            while held and len(self._held) < MOST_HELD:  # the newest of them, before those that came meanwhile
                self._held.appendleft(held.pop())
            self._dropped += len(held)
            raise
        if self._dropped:
            logging.getLogger(__name__).warning("%d lines about jobs were not kept", self._dropped)
            self._dropped = 0


def _write(redis: Any, lines: list[tuple[str, str]]) -> None:
    jobs = sorted({job_id for job_id, _ in lines})
    with redis.pipeline(transaction=False) as pipe:
        for job_id in jobs:
            pipe.exists(job_key(job_id))
        is_known = dict(zip(jobs, pipe.execute(), strict=True))
    with redis.pipeline(transaction=False) as pipe:
        for job_id, line in lines:
            if is_known[job_id]:  # a job that was forgotten leaves no log
                pipe.xadd(log_key(job_id), {"line": line}, maxlen=MOST_LINES, approximate=True)
        for answer in pipe.execute(raise_on_error=False):
            if isinstance(answer, Exception) and not replies.is_of_key(answer):
                raise answer


def read_log(redis: Any, job_id: str, *, after: str = "", last: int | None = None) -> list[LogLine]:
    """Return the lines about a job, the oldest first: behind the line `after`, or the last so many.

    What is no line of ours is passed over.
    """
    found = []
    for entry_id, fields in replies.entries(redis, log_key(job_id), after=after, last=last):
        try:
            line = json.loads(fields[b"line"])
            datetime.fromisoformat(line["ts"])
            found.append(LogLine(entry_id, line))
        except (ValueError, KeyError, TypeError):
            continue
    return found
