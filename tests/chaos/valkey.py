"""A Valkey of its own for a test, as operators run it: TCP, a password, an append-only file; it can be killed."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import redis
from ports import free_port

from trtjob.queue.embedded_server import find_server_binary

PASSWORD = "correct-horse"


class Valkey:
    """One server with data in `folder`; `start` after `kill` reads what was on the disk."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        """within: what starts a command elsewhere, when put before it."""
        self.folder = folder
        self.address = address
        self.within = within
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.client = redis.Redis(host=address, port=self.port, password=PASSWORD)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@{self.address}:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {"port": self.port, "bind": self.address, "requirepass": PASSWORD, "dir": self.folder}
        options |= {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
        command = [
            *self.within,
            str(find_server_binary()),
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End the server as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def end(self) -> None:
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()
