"""One worker process as the daemon sees it: its pipes, what it has said, and how it ends."""

import asyncio
import json
import logging
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

from trtjob.child_environment import environment, python
from trtjob.worker.exit_codes import DEVICE_LOST, SERVER_AWAY
from trtjob.worker.metrics import Pulse
from trtjob.worker.restart_policy import blame_of, oom_kills
from trtjob.worker.sweep import Death

log = logging.getLogger(__name__)

SILENCE_S = 12.0  # without a heartbeat for so long, a process is dead or as good as dead
GPU_FAILED = "its GPU failed"
_CLOSING_S = 2.0  # a pipe closes a moment before its process ends
# Answers come and go through several threads: with a heap for each, glibc would keep what only one can use again.
# CUDA loads a kernel when it is first used, as versions from 12.2 on do by themselves; TensorRT has a gigabyte of them.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "CUDA_MODULE_LOADING": "LAZY"}


class WorkerHandle:
    """One worker process.

    has_beaten: it has said anything; pulse: its last word of what it has done.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.started_at = time.monotonic()
        self.has_beaten = False
        self.pulse: Pulse | None = None
        self._was_silent = False
        self._blame = ""  # as the process itself has said
        self._oom_kills = oom_kills()

    @classmethod
    async def start(cls, name: str, variables: Mapping[str, str]) -> "WorkerHandle":
        """Start a process, which waits for its config. variables: of its environment. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *python("-m", "trtjob.worker.process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C or a closed terminal is ours to handle
            env=environment({**_ENVIRONMENT, **variables}, buckets=True),
        )
        return cls(name, process)

    async def tell(self, what: object) -> None:
        """Send a line of JSON; one that is dead, or dies, hears it no more."""
        assert self.process.stdin is not None
        with suppress(ConnectionError):
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            await self.process.stdin.drain()

    async def watch(self, stop: asyncio.Event, grace_s: float) -> None:
        """Return when it has ended or is silent, or at the end of the grace after `stop`."""
        ending = asyncio.create_task(stop.wait())
        listening = asyncio.create_task(self._listen())
        try:
            await asyncio.wait([ending, listening], return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                self._send(signal.SIGTERM)
                _, unfinished = await asyncio.wait([listening], timeout=grace_s)
                if unfinished:
                    log.warning("worker process did not stop in time", extra={"grace_s": grace_s})
        finally:
            for task in (ending, listening):
                task.cancel()

    async def _listen(self) -> None:
        """Hear its heartbeats until they stop."""
        assert self.process.stdout is not None
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    line = await self.process.stdout.readline()
                if not line:
                    return
                self.has_beaten = True
                with suppress(ValueError, TypeError, AttributeError):
                    self._hear(line)
        except TimeoutError:
            self._was_silent = True
            log.error("worker process is silent", extra={"worker": self.name, "silence_s": SILENCE_S})

    def _hear(self, line: bytes) -> None:
        """Take in a line: what the process has done, or, last of all, why it ends itself."""
        said = json.loads(line)
        if "blame" in said:
            self._blame = str(said["blame"])
        else:
            self.pulse = Pulse(said)

    async def end(self) -> None:
        """Make sure that it is gone."""
        if self.process.returncode is None and not self._was_silent:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING_S):
                    await self.process.wait()
        self._send(signal.SIGKILL)
        await self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def death(self) -> Death:
        """Return what it died of, once it is gone."""
        code = self.process.returncode
        assert code is not None
        blame = self._blame or blame_of(code, was_silent=self._was_silent, had_oom=oom_kills() > self._oom_kills)
        return Death(blame, was_killed=code != SERVER_AWAY, fault=GPU_FAILED if code == DEVICE_LOST else "")

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
