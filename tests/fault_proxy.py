"""A proxy before an S3 server that fails as networks and stores do, when a test tells it to."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from socket_server import socket_server

Fault = Literal["slow_down", "reset", "truncate", "hang", "drip", "refuse"]
SLOW_DOWN = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
)
SLOW_DOWN_BODY = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
)


@dataclass
class FaultProxy:
    """What goes wrong. fault: None passes everything; only: which requests, by their first line, it meets;
    left: how many more it meets, None for all; hang_s: for how long an answer hangs."""

    port: int = 0
    fault: Fault | None = None
    only: Callable[[bytes], bool] = lambda _line: True
    left: int | None = None
    hang_s: float = 30.0
    met: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, fault: Fault | None, *, only: str = "", times: int | None = None) -> None:
        """Fail with this from now on: requests whose first line holds `only`, so many times."""
        needle = only.encode()
        self.only, self.left, self.met = (lambda line: needle in line), times, 0
        self.fault = fault

    def meets(self, line: bytes) -> Fault | None:
        if self.fault is None or self.left == 0 or not self.only(line):
            return None
        if self.left is not None:
            self.left -= 1
        self.met += 1
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
            body = await _body(head, reader)
            await _answer(proxy.meets(line), proxy.hang_s, host, port, head, body, writer)
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass
    finally:
        with suppress(ConnectionError, asyncio.CancelledError):
            writer.close()


async def _answer(
    fault: Fault | None, hang_s: float, host: str, port: int, head: bytes, body: bytes, writer: asyncio.StreamWriter
) -> None:
    if fault == "refuse":
        raise ConnectionAbortedError
    if fault == "slow_down":
        writer.write(SLOW_DOWN % (len(SLOW_DOWN_BODY), SLOW_DOWN_BODY))
        await writer.drain()
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
