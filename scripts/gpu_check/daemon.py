"""`trtjob worker` as a user starts it, and how fast each of its worker processes is."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import cpu_s
from trtjob.bench.cores import idle_seconds
from trtjob.errors import TrtjobError
from trtjob.queue.job_store import JobStore
from trtjob.queue.views import WorkerView

LOOK_S = 0.05
SOON_S = 0.5
SETTLE_S = 1.2  # until a worker has said the last of an earlier job
FIRST_IMAGE_S = 60.0  # for a plan to be loaded; one that must be built takes longer, and is not waited for
BEAT_S = 2.5  # a worker that has not counted for so long has no work any more
STOP_S = 30.0
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # it is on this machine
_COUNT = re.compile(r'^trtjob_worker_images_total\{worker="([^"]+)"\} (\S+)$', re.MULTILINE)


class Beat(NamedTuple):
    """What a worker process had done when it said so."""

    at: float
    images: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Images per second of each worker process, and how many cores anybody used meanwhile.

    engine_cores: by each of their engine processes, of which one core's worth is Python's limit; is_steady: whether all
    were at work until the end.
    """

    each: dict[str, float]
    cores: float
    engine_cores: tuple[float, ...]
    is_steady: bool

    @property
    def images_per_s(self) -> float:
        return sum(self.each.values())


class Daemon:
    """A running `trtjob worker`. processes: how many worker processes it keeps; log: the file with what it says."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, processes: int, store: JobStore, log: Path):
        self.process = process
        self.processes = processes
        self._metrics = f"http://127.0.0.1:{port}/metrics"
        self._store = store
        self._log = log
        self._images: dict[str, int] = {}
        self._beats: dict[str, list[Beat]] = {}
        self._looked_at = 0.0

    def workers(self) -> list[WorkerView]:
        """Return its worker processes that live."""
        ours = [worker for worker in self._store.workers() if worker.node.endswith(f"-{self.process.pid}")]
        return [worker for worker in ours if Path(f"/proc/{worker.pid}").exists()]

    def speed(self, seconds: float, is_hopeless: Callable[[], str] = str) -> Speed:
        """Measure from when all worker processes are at work. Raises TrtjobError where that does not come.

        is_hopeless: says why it cannot come any more, empty while it can.
        """
        began = time.monotonic() + SETTLE_S

        def are_at_work() -> bool:
            if why := is_hopeless():
                raise TrtjobError(why)
            return len(self.beats(began)) >= self.processes

        self.until(are_at_work, "all at work", FIRST_IMAGE_S)
        start, idle_s, engines_s = time.monotonic(), _idle_s(), self._engines_s()

        def is_steady() -> bool:
            spans = [beats[-1].at - beats[0].at for beats in self.beats(start).values()]
            return len(spans) >= self.processes and min(spans) >= seconds

        end = start + seconds + BEAT_S
        self.until(lambda: is_steady() or time.monotonic() > end, "a measurement", 2 * FIRST_IMAGE_S)
        elapsed_s = time.monotonic() - start
        cores = len(os.sched_getaffinity(0)) - (_idle_s() - idle_s) / elapsed_s
        engine_cores = tuple(
            (now_s - engines_s.get(pid, now_s)) / elapsed_s for pid, now_s in self._engines_s().items()
        )
        each = {worker: _rate(beats) for worker, beats in self.beats(start).items()}
        return Speed(each, cores, engine_cores, is_steady())

    def _engines_s(self) -> dict[int, float]:
        """Return the CPU seconds of each engine process so far, by its id."""
        return {worker.pid: cpu_s(worker.pid) for worker in self.workers()}

    def until(self, condition: Callable[[], bool], what: str, limit_s: float) -> float:
        """Return how long it takes until a condition holds, looking for beats all the while. Raises TrtjobError where
        that is too long, or the daemon has ended."""
        began = time.monotonic()
        while True:
            self._look()
            elapsed_s = time.monotonic() - began
            if condition():
                return elapsed_s
            if elapsed_s > limit_s:
                raise TrtjobError(f"{what}: not after {limit_s:.0f} s{self.last_words()}")
            time.sleep(LOOK_S)

    def beats(self, since: float) -> dict[str, list[Beat]]:
        """Return what each worker process has said since a moment, of those that have said something."""
        found = {worker: [beat for beat in beats if beat.at >= since] for worker, beats in self._beats.items()}
        return {worker: beats for worker, beats in found.items() if beats}

    def _look(self) -> None:
        now = time.monotonic()
        for worker, images in self._counts().items():
            if images == self._images.get(worker, 0):
                continue
            self._images[worker] = images
            if now - self._looked_at < SOON_S:  # else nobody knows when it was
                self._beats.setdefault(worker, []).append(Beat(now, images))
        self._looked_at = now

    def _counts(self) -> dict[str, int]:
        if self.process.poll() is not None:
            raise TrtjobError(f"the daemon ended with exit code {self.process.returncode}{self.last_words()}")
        with _open(self._metrics, timeout=10) as answer:
            text = answer.read().decode()
        return {worker: int(float(images)) for worker, images in _COUNT.findall(text)}

    def loads(self) -> int:
        """Return how often a worker process has loaded a model."""
        return self._log.read_text().count("model loaded")

    def last_words(self) -> str:
        """Return the last warning or error that it has logged, to be added to a message."""
        bad = [line for line in self._log.read_text().splitlines() if re.search("warning|error|critical", line, re.I)]
        return f"; its log: {bad[-1][:300]}" if bad else ""


def _rate(beats: list[Beat]) -> float:
    if len(beats) < 2:
        return 0.0
    return (beats[-1].images - beats[0].images) / (beats[-1].at - beats[0].at)


def _idle_s() -> float:
    return idle_seconds(os.sched_getaffinity(0)) or 0.0


@contextmanager
def daemon(
    arguments: list[str], environment: dict[str, str], processes: int, store: JobStore, log: Path
) -> Iterator[Daemon]:
    """Run `trtjob worker` for the length of the block. processes: how many worker processes these arguments give.

    Raises TrtjobError where they do not come.
    """
    port = _free_port()
    command = [sys.executable, "-m", "trtjob", "worker", "--http", f"127.0.0.1:{port}", *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=file, stderr=file)
    try:
        found = Daemon(process, port, processes, store, log)
        end = time.monotonic() + FIRST_IMAGE_S
        while len(found.workers()) < processes:
            if process.poll() is not None or time.monotonic() > end:
                raise TrtjobError(f"the daemon does not start: {log.read_text()[-300:]}")
            time.sleep(LOOK_S)
        yield found
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
