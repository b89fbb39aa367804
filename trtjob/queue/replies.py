"""The edge where Redis is read. Anybody who can reach the server may have written anything there: what is read is
parsed here within bounds, and what is wrong is said once, with its key, and skipped, so that it hurts nothing else.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from redis import RedisError, ResponseError

from trtjob.errors import QueueError
from trtjob.utf8 import escaped

log = logging.getLogger(__name__)

MOST_COUNT = 10_000_000_000  # as in a job's folder: far above any job
MOST_SHARDS = 10_000_000
MOST_CHARACTERS = 1 << 24  # a model may have many labels
MOST_NAMES = 256  # entries of a mapping, such as the kinds of failures
MOST_TOLD = 1000
MOST_SHOWN = 120

JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
NODE = re.compile(r"[A-Za-z0-9._-]{1,200}")  # a worker's or a daemon's name

Item = TypeVar("Item")

told: set[str] = set()  # by this process


class Rubbish(ValueError):
    """What stands in Redis is not what trtjob writes."""


def skip(key: str | bytes, why: object) -> None:
    """Say, once in this process, that what stands at a key is skipped, and why."""
    shown = shown_key(key)
    said = f"{shown}: {why}"[: 2 * MOST_SHOWN]
    if said in told:
        return
    if len(told) >= MOST_TOLD:
        told.clear()
    told.add(said)
    remedy = f"remove it with: redis-cli DEL {shown}" if isinstance(why, ResponseError) else ""
    fields = {"key": shown, "why": str(why)[: 2 * MOST_SHOWN], "remedy": remedy}
    log.error("skipped what is not trtjob's in Redis", extra={name: text for name, text in fields.items() if text})


def shown_key(key: str | bytes) -> str:
    """Return a key for a message, whatever bytes it has."""
    shown = key.decode(errors="surrogateescape") if isinstance(key, bytes) else key
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown[:MOST_SHOWN])


def expect(condition: object, why: str) -> None:
    """Raise Rubbish where a condition does not hold."""
    if not condition:
        raise Rubbish(why)


# What a server says when it can do nothing for anybody now: full, read-only, loading, or not for us.
_OUTAGE = re.compile(
    "OOM|READONLY|MISCONF|LOADING|BUSY|NOREPLICAS|MASTERDOWN|NOAUTH|NOPERM|UNBLOCKED|max number of clients"
)


def is_outage(err: object) -> bool:
    """Tell whether it is the server that fails, as a whole: it is away, or full; not what stands at one of its keys."""
    return isinstance(err, RedisError | QueueError) and not is_of_key(err)


def is_of_key(err: object) -> bool:
    """Tell whether the server is there, and refuses what is asked of a key for what stands there."""
    # The client has classes of its own for what concerns the whole server, with the code cut off, and none for keys.
    return type(err) is ResponseError and not _OUTAGE.search(str(err))


def text(value: bytes, most: int = MOST_CHARACTERS) -> str:
    """Read a text. Raises Rubbish."""
    if len(value) > most:
        raise Rubbish(f"{len(value):,} bytes, more than {most:,}")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Rubbish("it is not UTF-8") from None


def texts(fields: Mapping[bytes, bytes], most: int = MOST_CHARACTERS) -> dict[str, str]:
    """Read a hash. Raises Rubbish."""
    return {text(name): text(value, most) for name, value in fields.items()}


def integer(value: str | bytes, most: int = MOST_COUNT) -> int:
    """Read a whole number from 0 to `most`. Raises Rubbish."""
    shown = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not re.fullmatch(r"[0-9]{1,12}", shown, re.ASCII) or int(shown) > most:
        raise Rubbish(f"{shown[:MOST_SHOWN]!r} is no whole number from 0 to {most:,}")
    return int(shown)


def number(value: str | bytes) -> float:
    """Read a number that is finite and not below 0, such as seconds. Raises Rubbish."""
    shown = value.decode(errors="replace") if isinstance(value, bytes) else value
    try:
        parsed = float(shown)
    except ValueError:
        parsed = math.nan
    if not 0 <= parsed <= 1e15:
        raise Rubbish(f"{shown[:MOST_SHOWN]!r} is no number from 0 on")
    return parsed


def counts(value: str) -> dict[str, int]:
    """Read JSON that maps names to counts. Raises Rubbish."""
    return {name: integer(str(count)) for name, count in _object(value).items()}


def shares(value: str) -> dict[str, float]:
    """Read JSON that maps names to numbers. Raises Rubbish."""
    return {name: number(str(share)) for name, share in _object(value).items()}


def _object(value: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        raise Rubbish(f"{value[:MOST_SHOWN]!r} is no JSON") from None
    if not isinstance(found, dict) or len(found) > MOST_NAMES:
        raise Rubbish(f"{value[:MOST_SHOWN]!r} is no small object of JSON")
    return found


def guarded(key: str, call: Callable[[], Any], otherwise: Any) -> Any:
    """Return what the server answers; `otherwise`, with a word of it, where what stands at a key is not ours.

    Raises RedisError where the server fails.
    """
    try:
        return call()
    except ResponseError as err:
        if not is_of_key(err):
            raise
        skip(key, err)
        return otherwise


def entries(
    redis: Any, key: str, *, after: str = "", last: int | None = None
) -> list[tuple[str, Mapping[bytes, bytes]]]:
    """Return a stream's entries, ids and fields, the oldest first: behind the entry `after`, or the last so many."""
    if last is not None:
        found = list(reversed(guarded(key, lambda: redis.xrevrange(key, count=last), ())))
    else:
        found = guarded(key, lambda: redis.xrange(key, min=f"({after}" if after else "-"), ())
    return [(entry_id.decode(), fields) for entry_id, fields in found]


def script(redis: Any, lua: str, otherwise: Any) -> Callable[..., Any]:
    """Return a script; called on a job whose keys are not ours, it answers `otherwise`: nothing was done.

    Its arguments may name files, and so be texts that are no UTF-8: these are escaped.
    """
    registered = redis.register_script(lua)

    def call(*, keys: list[str], args: Iterable[Any] = ()) -> Any:
        told = [escaped(arg) if isinstance(arg, str) else arg for arg in args]
        return guarded(keys[0], lambda: registered(keys=keys, args=told), otherwise)

    return call


def answers(pipe: Any, keys: Iterable[str]) -> list[Any]:
    """Execute a pipeline of one command for each key. Returns the answers, None for a key that is not ours.

    Raises RedisError where the server fails.
    """
    found = []
    for key, answer in zip(keys, pipe.execute(raise_on_error=False), strict=True):
        if isinstance(answer, Exception):
            if not is_of_key(answer):
                raise answer
            skip(key, answer)
        found.append(None if isinstance(answer, Exception) else answer)
    return found


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def drop_foreign(redis: Any, types: Mapping[str, str]) -> bool:
    """Remove those keys that are not of their type: what belongs there is found again. Returns whether one was."""
    with redis.pipeline(transaction=False) as pipe:
        for key in types:
            pipe.type(key)
        found = dict(zip(types, (there.decode() for there in pipe.execute()), strict=True))
    foreign = {key: there for key, there in found.items() if there not in (types[key], "none")}
    for key, there in foreign.items():
        skip(key, f"it is a {there}, not a {types[key]}: removed")
        redis.delete(key)
    return bool(foreign)


def names(key: str, values: Iterable[bytes], pattern: re.Pattern[str]) -> list[str]:
    """Read the names at a key; one that does not fit the pattern is skipped."""
    found = []
    for value in values:
        name = value.decode(errors="replace")
        if pattern.fullmatch(name):
            found.append(name)
        else:
            skip(key, f"the member '{shown_key(value)}' is no name of ours")
    return found
