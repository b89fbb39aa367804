"""Logging, set up once in each process: lines for a person, or JSON for a machine, on standard error.

What a piece of code works on (`job_id`, `unit`, `attempt`, `worker`) is bound once, and every line it logs says so,
also from threads that run in its context.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

from trtjob.printable import printable, printable_lines

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


_bound: ContextVar[Mapping[str, object]] = ContextVar("bound", default=MappingProxyType({}))
_of_process: dict[str, object] = {}


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Have every line that is logged in this block say these fields, too."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bind_process(**fields: object) -> None:
    """Have every line of this process say these fields."""
    _of_process.update(fields)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return a line's own fields and those that are bound where it is handled, which is where it is logged."""
    own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {**_of_process, **_bound.get(), **own}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, msg and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class TextFormatter(logging.Formatter):
    """`12:30:05 info  job finished job_id=photos-1a2b3c4d ok=12`."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        extra = "".join(f" {key}={value}" for key, value in fields_of(record).items())
        line = printable(f"{time} {record.levelname.lower():7} {record.getMessage()}{extra}")
        return f"{line}\n{printable_lines(self.formatException(record.exc_info))}" if record.exc_info else line


def configure_logging(level: str, form: str) -> None:
    """Send this process's log to standard error, from a level on, and as `text` or `json`.

    The level is the handler's: what is kept of a job's log (`trtjob logs`) does not depend on it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.setLevel(level)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(min(logging.INFO, handler.level))
