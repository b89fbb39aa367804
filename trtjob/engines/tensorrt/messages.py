"""TensorRT's own messages: into our log, the errors also kept, because calls that fail return None and no reason."""

import logging
from collections import deque
from functools import cache
from threading import Lock
from typing import Any

from trtjob.engines.tensorrt.flavour import Flavour, flavour

log = logging.getLogger(__name__)

_KEPT = 3


class Messages:
    """The last errors; TensorRT calls it from threads of its own."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT)
        self._lock = Lock()

    def add(self, level: int, text: str) -> None:
        """Log a message; keep it where it is an error."""
        log.log(level, text)
        if level >= logging.ERROR:
            with self._lock:
                self._errors.append(text)

    def take(self) -> str:
        """Return the errors since the last call, in one line, and forget them."""
        with self._lock:
            errors = "; ".join(" ".join(text.split()) for text in self._errors)
            self._errors.clear()
        return errors or "it gave no reason"


@cache
def logger() -> tuple[Any, Messages]:
    """Return the process's one logger for TensorRT, which must outlive all its objects, and what it keeps."""
    messages = Messages()
    return logger_class(flavour(), messages)(), messages


def logger_class(found: Flavour, messages: Messages) -> Any:
    """Return a class of TensorRT's own loggers that passes on what it is told."""
    base: Any = found.trt.ILogger
    levels = {
        base.INTERNAL_ERROR: logging.ERROR,
        base.ERROR: logging.ERROR,
        base.WARNING: logging.INFO,  # such as INT64 read as INT32, of every model; what it builds is checked
        base.INFO: logging.DEBUG,  # of no interest to who runs a job
        base.VERBOSE: logging.DEBUG,
    }

    class Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if levels[severity] > logging.DEBUG or log.isEnabledFor(logging.DEBUG):
                messages.add(levels[severity], message)

    return Logger
