"""Connections to web servers that are kept for the next request: most of the time of a small image is the handshake."""

import http.client
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple

from trtjob.web_address import Address

MOST_IDLE = 8  # of a process: as many as it makes requests at once
IDLE_S = 15.0  # servers hang up after 5 (Apache, Node) to 75 (nginx)
_MOST_LEFT_BYTES = 1 << 16  # of an answer that nobody reads: beyond that a new connection is cheaper

Ask = Callable[[http.client.HTTPConnection], http.client.HTTPResponse]


class Server(NamedTuple):
    """What connections must have in common to stand for one another."""

    host: str
    port: int
    is_tls: bool
    allow_local: bool

    @classmethod
    def of(cls, address: Address, *, allow_local: bool) -> "Server":
        return cls(address.host, address.port, address.is_tls, allow_local)


class Connections:
    """The idle connections of a process; thread-safe."""

    def __init__(self) -> None:
        self._idle: list[tuple[Server, float, http.client.HTTPConnection]] = []  # since when; the oldest first
        self._lock = Lock()

    @contextmanager
    def answer(
        self, server: Server, ask: Ask, connect: Callable[[], http.client.HTTPConnection]
    ) -> Iterator[http.client.HTTPResponse]:
        """Ask over a connection that is kept, or over a new one; it is kept afterwards where its answer was read.

        ask: makes the request, which may be made twice. Raises what `connect` and `ask` do.
        """
        connection, answer = self._asked(server, ask, connect)
        is_whole = False
        try:
            with answer:
                yield answer
                is_whole = _is_read(answer)
        finally:
            if is_whole:
                self._keep(server, connection)
            else:
                connection.close()

    def close(self) -> None:
        """End all that are kept."""
        while self._idle:
            self._idle.pop()[-1].close()

    def _asked(
        self, server: Server, ask: Ask, connect: Callable[[], http.client.HTTPConnection]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        if (kept := self._kept(server)) is not None:
            try:
                return kept, ask(kept)
            except (OSError, http.client.HTTPException):  # it was hung up at this moment, which says nothing
                kept.close()
        connection = connect()
        try:
            return connection, ask(connection)
        except BaseException:
            connection.close()
            raise

    def _kept(self, server: Server) -> http.client.HTTPConnection | None:
        with self._lock:
            found = next((each for each in reversed(self._idle) if each[0] == server), None)
            if found is None:
                return None
            self._idle.remove(found)
        _, since, connection = found
        if time.monotonic() - since < IDLE_S and not _is_hung_up(connection):
            return connection
        connection.close()
        return None

    def _keep(self, server: Server, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.append((server, time.monotonic(), connection))
            oldest = self._idle.pop(0)[-1] if len(self._idle) > MOST_IDLE else None
        if oldest is not None:
            oldest.close()


def _is_hung_up(connection: http.client.HTTPConnection) -> bool:
    """Whether a connection on which nothing is due says something: that it ended."""
    poll = select.poll()  # select() takes no descriptor above 1,023
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _is_read(answer: http.client.HTTPResponse) -> bool:
    """Read what little is left of an answer. Returns whether the next one may follow it."""
    if answer.will_close:
        return False
    if not answer.isclosed() and answer.length is not None and answer.length <= _MOST_LEFT_BYTES:
        answer.read()
    return answer.isclosed()
