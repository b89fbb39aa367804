"""A process that has imported all that image processes need, and forks one whenever it is asked.

Python's imports take a third of a second of a core; a fork takes milliseconds, and shares what was imported. The server
does nothing else, has one thread and never sees an image: each fork begins as a new process would. Light itself, as
`prestart` is.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from trtjob.child_environment import environment, python
from trtjob.worker.pipeline.own_fork import OwnFork

DID_NOT_END = "it did not end"
_END_S = 2.0
_REPLY_S = 10.0  # of a server that still imports, on a disk that is slow; longer, and it hangs
_MOST_FDS, _MOST_BYTES = 8, 1 << 20
# What Python and its libraries read while they begin. Whatever else changes, a fork still learns it.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "OMP_", "OPENBLAS_", "OPENCV_")


class Forked:
    """A process that a fork server was asked for."""

    def __init__(self, server: "ForkServer") -> None:
        self._server = server
        self.told: str | None = None  # by the server: its number, or why there is none

    @property
    def pid(self) -> int:
        """Its number, for which the server is waited for; 0 where there is no process."""
        if self.told is None:
            self._server.hear_of(self)
        return int(self.told) if self.told and self.told.isdecimal() else 0

    def end(self) -> str:
        """End it. Returns how it ended."""
        return self._server.end(self)


class ForkServer:
    """The process, as the one sees it that asks. May be used by several threads."""

    def __init__(self, module: str, at_start: Mapping[str, str], *, is_own_fork: bool = False) -> None:
        """module: what it imports, whose `main` calls `forked_processes`; at_start: variables for it and its forks;
        is_own_fork: it is a fork of this process, which has one thread, and was started with the same variables.

        Raises OSError.
        """
        self._module, self._at_start = module, at_start
        self._made_with = self._needs()
        self._told: tuple[Mapping[str, str], str, list[int]] | None = None
        self._asked: deque[Forked] = deque()
        self._alive = 0
        self._is_retired = False
        self._lock = Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = (OwnFork if is_own_fork else _new_python)(module, theirs.fileno(), at_start)
        except BaseException:
            self._socket.close()
            raise
        self._socket.settimeout(_REPLY_S)
        atexit.register(self.close)

    def _environment(self) -> dict[str, str]:
        return environment(self._at_start, buckets=True)

    def _needs(self) -> tuple[list[str], dict[str, str]]:
        kept = {name: value for name, value in self._environment().items() if name.startswith(_READ_AT_START)}
        return python("-m", self._module), kept

    @property
    def serves(self) -> bool:
        """Whether it lives, and a new one would be the same."""
        return self._process.poll() is None and self._made_with == self._needs()

    def fork(self, fds: Sequence[int]) -> Forked:
        """Ask for a process that has these files open, and wait for nothing. Raises OSError."""
        asked = Forked(self)
        with self._lock:
            if (now := (self._environment(), _folder(), list(os.sched_getaffinity(0)))) != self._told:
                self._socket.send(b"be " + json.dumps(now).encode())
                self._told = now
            socket.send_fds(self._socket, [b"fork"], fds)
            self._asked.append(asked)
            self._alive += 1
        return asked

    def hear_of(self, asked: Forked) -> None:
        """Wait until it is known what became of one that was asked for."""
        with self._lock:
            self._hear_of(asked)

    def _hear_of(self, asked: Forked) -> None:
        while asked.told is None:  # replies come in order
            self._asked.popleft().told = self._reply()

    def _reply(self) -> str:
        """Return what the server says next, nothing where it is gone."""
        is_gone = self._process.poll() is not None  # which the socket does not tell: its forks hold the other end
        self._socket.settimeout(0 if is_gone else _REPLY_S)
        try:
            return self._socket.recv(_MOST_BYTES).decode()
        except OSError:  # with a time-out: it hangs, and is of no use
            self._process.kill()
            return ""

    def end(self, forked: Forked) -> str:
        """End a process. Returns how it ended."""
        with self._lock:
            if self._asked:
                self._hear_of(self._asked[-1])
            self._alive -= 1
            ended = self._ended(forked.pid) if forked.pid else forked.told or self._how_it_ended()
        if self._is_retired:
            self.retire()
        return ended

    def _ended(self, pid: int) -> str:
        try:
            self._socket.send(b"end %d" % pid)
        except OSError:
            told = ""
        else:
            told = self._reply()
        if not told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return "nobody saw how"
        return told

    def _how_it_ended(self) -> str:
        """Return how the server ended, with which those have gone that were asked for."""
        try:
            return how(self._process.wait(_END_S))
        except subprocess.TimeoutExpired:
            return DID_NOT_END

    def retire(self) -> None:
        """End it when the last of its processes has ended."""
        self._is_retired = True
        if not self._alive:
            self.close()

    def close(self) -> None:
        """End it. May be called twice."""
        atexit.unregister(self.close)
        self._socket.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)


def _new_python(module: str, stdin: int, at_start: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        python("-m", module),
        stdin=stdin,
        stdout=2,
        process_group=0,  # Ctrl-C is for who started the engine process
        env=environment(at_start, buckets=True),
    )


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def how(code: int) -> str:
    """Return in words how a process ended, from Python's exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def forked_processes(server: socket.socket) -> list[int] | None:
    """Be a fork server. Returns in each new process, with the files that it was given; None in this one, when nobody is
    there any more who asks.
    """
    gc.freeze()  # a collection writes to what it looks at: that would be a copy of each page, in each process
    with suppress(ConnectionError):
        while (request := socket.recv_fds(server, _MOST_BYTES, _MOST_FDS))[0]:
            message, fds, _, _ = request
            what, _, rest = message.partition(b" ")
            if what == b"be":
                _become(*json.loads(rest))
            elif what == b"end":
                server.send(_ended(int(rest)).encode())
            else:
                try:
                    pid = os.fork()
                except OSError as err:
                    told = str(err.strerror)
                else:
                    told = str(pid)
                    if pid == 0:
                        server.close()
                        return fds
                for fd in fds:
                    os.close(fd)
                server.send(told.encode())
    return None


def _become(variables: dict[str, str], folder: str, cores: list[int]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    with suppress(OSError):  # it may be gone
        os.chdir(folder)
    with suppress(OSError):  # they may be
        os.sched_setaffinity(0, cores)


def _ended(pid: int) -> str:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return how(os.waitstatus_to_exitcode(status))
        time.sleep(0.001)
    return DID_NOT_END  # it waits for a file in the kernel; its death will find it there
