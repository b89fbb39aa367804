"""A client that loses every reply: each command is carried out, and sent once more, as redis-py does by itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from redis import Redis
from redis.client import Pipeline

from trtjob.queue.scripts import load, names

SCRIPTS = {name.upper(): load(name) for name in names()}
_NAMES = {sha1(text.encode()).hexdigest(): name for name, text in SCRIPTS.items()}


@dataclass(frozen=True)
class Call:
    """A script that was run twice. told: what it answered."""

    name: str
    command: tuple[Any, ...]
    told: tuple[Any, Any]


class Twice(Redis):
    """Sends each command twice, compares what the server holds, and keeps the scripts that it ran. Its one server
    belongs to one test."""

    calls: list[Call]

    def recording(self) -> "Twice":
        self.calls = []
        self.plain = Redis(connection_pool=self.connection_pool)
        return self

    def execute_command(self, *args: Any, **options: Any) -> Any:
        first = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        once = keyspace(self.plain)
        second = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.compare([args], once, [first], [second])
        return second

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        pipe = _TwicePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.owner = self
        return pipe

    def compare(self, commands: list[Any], once: Mapping[bytes, Any], first: list[Any], second: list[Any]) -> None:
        twice = keyspace(self.plain)
        changed = {key: (once.get(key), twice.get(key)) for key in {*once, *twice} if once.get(key) != twice.get(key)}
        assert not changed, f"{[str(command[0]) for command in commands]} sent twice is not as once: {changed}"
        for command, *told in zip(commands, first, second, strict=True):
            if name := _name_of(command):
                self.calls.append(Call(name, tuple(command), (told[0], told[1])))

    def last(self, name: str) -> Call:
        """Return the last call of a script."""
        return next(call for call in reversed(self.calls) if call.name == name)

    def again(self, call: Call) -> Any:
        """Send a call's command once more, as late as now. Returns its answer."""
        return self.plain.execute_command(*call.command)  # type: ignore[no-untyped-call]


class Killed(Exception):
    """The process that used a client is gone."""


class Dying(Redis):
    """Lives for so many commands, or pipelines."""

    left: int

    def live_for(self, commands: int) -> "Dying":
        self.left = commands
        return self

    def spend(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.spend()
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        pipe = _DyingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.owner = self
        return pipe


class _DyingPipeline(Pipeline):
    owner: Dying

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        self.owner.spend()
        return super().execute(raise_on_error)


class _TwicePipeline(Pipeline):
    owner: Twice

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack, used = list(self.command_stack), set(self.scripts)
        first = super().execute(raise_on_error)
        once = keyspace(self.owner.plain)
        self.command_stack, self.scripts = list(stack), used
        second = super().execute(raise_on_error)
        self.owner.compare([args for args, _ in stack], once, first, second)
        return second


def _name_of(command: Any) -> str:
    match command:
        case ["EVALSHA", sha, *_]:
            return _NAMES.get(str(sha), "")
        case ["EVAL", text, *_]:
            return _NAMES.get(sha1(str(text).encode()).hexdigest(), "")
    return ""


def keyspace(client: Any) -> dict[bytes, Any]:
    """Return all that a server holds, but for the time that keys still have."""
    return dict(_contents(client))


def _contents(client: Any) -> Iterator[tuple[bytes, Any]]:
    for key in client.scan_iter(count=1000):
        match client.type(key):
            case b"string":
                yield key, client.get(key)
            case b"hash":
                yield key, client.hgetall(key)
            case b"set":
                yield key, client.smembers(key)
            case b"zset":
                yield key, client.zrange(key, 0, -1, withscores=True)
            case b"list":
                yield key, client.lrange(key, 0, -1)
            case b"stream":
                yield key, client.xrange(key)
