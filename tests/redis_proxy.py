"""A proxy before Redis or Valkey that loses a reply: the server has executed a command, and the client never hears."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from socket_server import socket_server

# What a client says of itself when it connects: not counted, for it is said again after each loss.
_GREETINGS = frozenset({b"CLIENT", b"HELLO", b"AUTH", b"SELECT"})
_SUBSCRIBES = frozenset({b"SUBSCRIBE", b"PSUBSCRIBE"})
MOST_SHOWN = 120


@dataclass
class RedisProxy:
    """What passes, and what gets lost. Commands are counted over all connections, those of a pipeline or a transaction
    each for itself; commands: their first words, as they came; lost: the one whose reply was."""

    url: str = ""
    commands: list[str] = field(default_factory=list)
    lost: str = ""
    _lose_at: int = 0

    def lose(self, number: int) -> None:
        """Lose the reply to the `number`th command from now on, with its connection; 0: pass all, and count anew."""
        self.commands, self.lost, self._lose_at = [], "", number

    def loses(self, command: list[bytes]) -> bool:
        """Count a command; say whether its reply is the one to lose."""
        if command[0].upper() in _GREETINGS:
            return False
        shown = b" ".join(command)[:MOST_SHOWN].decode(errors="replace")
        self.commands.append(shown)
        if len(self.commands) != self._lose_at:
            return False
        self.lost = shown
        return True


@contextmanager
def redis_proxy(url: str) -> Iterator[RedisProxy]:
    """Run a proxy before a server, `redis://host:port` or `unix://path`, for the length of the block."""
    target = urlsplit(url)
    proxy = RedisProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if target.scheme == "unix":
                behind = await asyncio.open_unix_connection(target.path)
            else:
                behind = await asyncio.open_connection(target.hostname, target.port)
            try:
                await _serve(proxy, reader, writer, *behind)
            finally:
                writer.close()
                behind[1].close()

    with socket_server(serve) as port:
        proxy.url = f"redis://127.0.0.1:{port}"
        yield proxy


async def _serve(
    proxy: RedisProxy,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    behind_reader: asyncio.StreamReader,
    behind_writer: asyncio.StreamWriter,
) -> None:
    """Pass one connection's commands on, each when the one before it is answered: so what follows a loss in a pipeline
    is not executed, as where a cable is cut."""
    while True:
        raw = await _value(reader)
        command = _words(raw)
        is_lost = proxy.loses(command)
        behind_writer.write(raw)
        await behind_writer.drain()
        if command[0].upper() in _SUBSCRIBES:  # from here on the server speaks unasked
            await asyncio.gather(_copy(behind_reader, writer), _copy(reader, behind_writer))
            return
        answer = await _value(behind_reader)
        if is_lost:
            writer.transport.abort()
            return
        writer.write(answer)
        await writer.drain()


async def _value(reader: asyncio.StreamReader) -> bytes:
    """Read one value of the protocol (RESP2 and 3), as it is on the wire."""
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind in b"$=!":
        return line + (await reader.readexactly(int(rest) + 2) if int(rest) >= 0 else b"")
    if kind in b"*~>%":
        for _ in range(int(rest) * (2 if kind == b"%" else 1)):
            line += await _value(reader)
    return line


def _words(raw: bytes) -> list[bytes]:
    """Take a command's words out of its array of strings."""
    words, at = [], raw.index(b"\r\n") + 2
    while at < len(raw):
        start = raw.index(b"\r\n", at) + 2
        length = int(raw[at + 1 : start - 2])
        words.append(raw[start : start + length])
        at = start + length + 2
    return words


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
