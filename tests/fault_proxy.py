"""A proxy before an S3 server that fails as networks and stores do, when a test tells it to."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from socket_server import socket_server

Fault = Literal["slow_down", "conflict", "answer", "reset", "truncate", "hang", "drip", "refuse", "lose"]


def answer(status: int, code: str = "", *, body: bytes | None = None) -> bytes:
    """Return a whole answer of a store that refuses, as S3 words it; body: what it says instead."""
    said = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>A test's refusal.</Message></Error>".encode()
    body = said if body is None else body
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


EXPECT = b"\r\nExpect: 100-continue\r\n"
ANSWERS: dict[Fault | None, bytes] = {
    "slow_down": answer(503, "SlowDown"),
    "conflict": answer(409, "ConditionalRequestConflict"),
}


@dataclass
class FaultProxy:
    """What goes wrong. fault: None passes everything; only: which requests, by their first line, it meets;
    passing: how many of those pass before; left: how many more it meets, None for all; hang_s: for how long an answer
    hangs; answer: what is said instead of the store's answer; requests: the first lines of all that came."""

    port: int = 0
    fault: Fault | None = None
    only: Callable[[bytes], bool] = lambda _line: True
    passing: int = 0
    left: int | None = None
    hang_s: float = 30.0
    answer: bytes = b""
    met_lines: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def met(self) -> int:
        """How many requests were failed."""
        return len(self.met_lines)

    def last_met(self) -> str:
        """Return the first line of the last request that was failed, empty where none was."""
        return self.met_lines[-1].decode() if self.met_lines else ""

    def fail(self, fault: Fault | None, *, only: str = "", passing: int = 0, times: int | None = None) -> None:
        """Fail with this from now on: requests whose first line holds `only`, behind so many of them, so many times."""
        needle = only.encode()
        self.only, self.passing, self.left = (lambda line: needle in line), passing, times
        self.met_lines = []
        self.fault = fault

    def say(self, answer: bytes, *, only: str = "", passing: int = 0, times: int | None = None) -> None:
        """Say this from now on, and ask the store nothing; see `answer` and `fail`."""
        self.answer = answer
        self.fail("answer", only=only, passing=passing, times=times)

    def meets(self, line: bytes) -> Fault | None:
        if self.fault is None or self.left == 0 or not self.only(line):
            return None
        if self.passing:
            self.passing -= 1
            return None
        if self.left is not None:
            self.left -= 1
        self.met_lines.append(line)
        return self.fault


@contextmanager
def fault_proxy(endpoint: str) -> Iterator[FaultProxy]:
    """Run a proxy before a server, in a thread with a loop of its own."""
    target = urlsplit(endpoint)
    assert target.hostname is not None
    assert target.port is not None
    proxy = FaultProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _serve(proxy, target.hostname or "", target.port or 0, reader, writer)

    with socket_server(serve) as proxy.port:
        yield proxy


async def _serve(
    proxy: FaultProxy, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass one connection's requests on, one after another, and their answers back."""
    try:
        while head := await _head(reader):
            line = head.split(b"\r\n", 1)[0]
            proxy.requests.append(line)
            if EXPECT in head:  # the client sends no body before it is told to
                head = head.replace(EXPECT, b"\r\n")
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await _body(head, reader)
            fault = proxy.meets(line)
            if said := ANSWERS.get(fault, proxy.answer if fault == "answer" else b""):
                await _say(said, head, writer)
            await _answer(fault, proxy.hang_s, host, port, head, body, writer)
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass
    finally:
        with suppress(ConnectionError, asyncio.CancelledError):
            writer.close()


async def _say(answer: bytes, head: bytes, writer: asyncio.StreamWriter) -> None:
    """Give an answer that is not the store's, and close the connection."""
    writer.write(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith(b"HEAD ") else answer)
    await writer.drain()
    raise ConnectionAbortedError


async def _answer(
    fault: Fault | None, hang_s: float, host: str, port: int, head: bytes, body: bytes, writer: asyncio.StreamWriter
) -> None:
    if fault == "refuse":
        raise ConnectionAbortedError
    if fault == "hang":
        await asyncio.sleep(hang_s)
        raise ConnectionAbortedError
    upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
    try:
        upstream_writer.write(head + body)
        await upstream_writer.drain()
        answer_head = await _head(upstream_reader)
        answer = b"" if head.startswith(b"HEAD ") else await _body(answer_head, upstream_reader)
        await _deliver(fault, answer_head, answer, writer)
    finally:
        upstream_writer.close()


async def _deliver(fault: Fault | None, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    half = len(body) // 2
    match fault:
        case "lose":  # the store has done what it was asked for, and nobody hears of it
            writer.transport.abort()
            raise ConnectionAbortedError
        case "reset":
            writer.write(head + body[:half])
            await writer.drain()
            writer.transport.abort()
            raise ConnectionAbortedError
        case "truncate":
            # An honest-looking end: the connection is closed in order, after half of what was announced.
            writer.write(head + body[:half])
            await writer.drain()
            raise ConnectionAbortedError
        case "drip":
            writer.write(head)
            for start in range(0, len(body), max(1, len(body) // 20)):
                writer.write(body[start : start + max(1, len(body) // 20)])
                await writer.drain()
                await asyncio.sleep(0.05)
        case _:
            writer.write(head + body)
    await writer.drain()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return await _chunks(reader)
    for line in lower.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.split(b":")[1]))
    return b""


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    whole = b""
    while True:
        size_line = await reader.readline()
        size = int(size_line.split(b";")[0], 16)
        whole += size_line + await reader.readexactly(size + 2)
        if size == 0:
            return whole
