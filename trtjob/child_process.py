"""Work in a process of its own: one line of JSON goes in, what to do, and lines of JSON come out, what became of it.

The end of its standard input tells the process that nobody waits for it any more. Two others are no such processes: a
worker process lives on, watched by the supervisor in its event loop, and an image process speaks frames of bytes.
"""

import json
import math
import mmap
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any

from trtjob.child_environment import environment, python
from trtjob.memory import usable_bytes

BEAT_S = 1.0
STALL_S = 120.0  # without a word, a process that says how far it is hangs
_MOST_OF_MEMORY = 0.75  # what is left is for who waits, and for the rest of the machine
GONE = 70  # the exit code of a process that nobody waits for; nobody is left to read it


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a process may take: seconds, and bytes of memory of its own (what a GPU's driver maps is not counted).

    memory_bytes: 0: three quarters of what is there.
    """

    seconds: float = math.inf
    memory_bytes: int = 0


DEFAULT_ALLOWANCE = Allowance()


class TimeLimitExceeded(Exception):
    """A process has had all of its time."""


@contextmanager
def started(
    module: str,
    config: dict[str, Any],
    *,
    allowance: Allowance = DEFAULT_ALLOWANCE,
    stderr: IO[bytes] | None = None,
    env: Mapping[str, str] = MappingProxyType({}),
    buckets: bool = False,
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run a module with a config, and kill it when the block ends. Yields the process and its standard output.

    allowance: of memory; of its time `said` is told. env: variables beside those that every child inherits;
    buckets: whether it reads or writes buckets.
    """
    process = subprocess.Popen(
        python("-m", module),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=environment(env, buckets=buckets),
        start_new_session=True,  # Ctrl-C is for who waits, which ends this process in its own time
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        most = allowance.memory_bytes or int(_MOST_OF_MEMORY * usable_bytes())
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (most, most))
        with suppress(BrokenPipeError):  # it has ended already; its exit code says how
            process.stdin.write(json.dumps(config).encode() + b"\n")
            process.stdin.flush()
        yield process, process.stdout
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):  # what it was told and did not read any more
            process.stdin.close()
        process.stdout.close()


def said(stream: IO[bytes], seconds: float = math.inf) -> Iterator[dict[str, Any] | None]:
    """Yield what a process says as it comes, and None where a second brings nothing.

    Raises TimeLimitExceeded after so many seconds.
    """
    buffer, until = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([stream], [], [], max(0.0, min(BEAT_S, until - time.monotonic())))
        if time.monotonic() > until:
            raise TimeLimitExceeded
        if not ready:
            yield None
            continue
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            return
        *whole, buffer = (buffer + data).split(b"\n")
        yield from map(json.loads, whole)


def how_it_ended(code: int) -> str:
    """Return how a process ended that said nothing of it: by which signal, or with which exit code."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


# -- in the process itself ---------------------------------------------------------------------------------------------


Say = Callable[[dict[str, Any]], None]


@contextmanager
def child_config() -> Iterator[tuple[dict[str, Any], Say]]:
    """Yield the config, and what says something, from any thread; what libraries print goes to standard error."""
    lock = threading.Lock()
    with os.fdopen(os.dup(1), "wb", buffering=0) as channel:
        os.dup2(2, 1)

        def say(document: dict[str, Any]) -> None:
            with lock:
                channel.write(json.dumps(document).encode() + b"\n")

        yield json.loads(sys.stdin.buffer.readline()), say


def is_short_of_memory() -> bool:
    """Tell whether less than an eighth is left of what this process was allowed.

    Then any error may be that of an allocation: Python's own are not all MemoryErrors, above all in imports.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY:
        return False
    try:
        mmap.mmap(-1, most // 8, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return True
    return False


def end_when_nobody_waits() -> None:
    """Have this process end with its standard input. To be called once the config is read."""
    threading.Thread(target=_await_end, daemon=True).start()


def _await_end() -> None:
    hung_up = select.poll()
    hung_up.register(0, 0)  # what comes on it is not this thread's to read
    hung_up.poll()
    os._exit(GONE)
