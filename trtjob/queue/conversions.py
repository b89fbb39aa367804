"""Conversions that somebody waits for: how each stands, and whether it is still wanted.

trtjob:conversion:<id>          hash: state (running, queued again, done, failed, cancelled), stage, done and total,
                                a field for each try, and last the model, or a message
trtjob:conversion:<id>:wanted   there for as long as a client renews it: it goes with the client, or by `cancel`
"""

import re
import secrets
from typing import Any

from redis import Redis

from trtjob.queue import replies
from trtjob.queue.events import new_call
from trtjob.queue.keys import conversion_key, wanted_key
from trtjob.utf8 import escaped_values

WANTED_S = 30  # a client that is gone without a word is waited for so long
RENEW_S = 5.0
KEPT_S = 86_400  # what became of it
MOST_TRIES = 2
_TRY = "try:"
_NAME = re.compile("convert-([0-9a-f]{16})")


def new_id() -> str:
    """Return an id that no other conversion has."""
    return secrets.token_hex(8)


def name_of(request_id: str) -> str:
    """Return what a person calls a conversion."""
    return f"convert-{request_id}"


class Conversion:
    """One request, as its client and its worker see it in Redis."""

    def __init__(self, redis: Redis, request_id: str) -> None:
        self._redis: Any = redis  # replies are bytes
        self.id = request_id
        self._key = conversion_key(request_id)
        self._wanted_key = wanted_key(request_id)

    # -- of the client --------------------------------------------------------------------------------------------

    def want(self) -> None:
        """Say that somebody waits for it."""
        self._redis.set(self._wanted_key, 1, ex=WANTED_S)

    def still_want(self) -> bool:
        """Say so again. Returns False where it was cancelled meanwhile."""
        return bool(self._redis.expire(self._wanted_key, WANTED_S))

    def cancel(self) -> bool:
        """Want it no more. Returns False where nobody did."""
        return bool(self._redis.delete(self._wanted_key))

    def told(self) -> dict[str, str]:
        """Return what the worker has written by `tell`; nothing before that, and where it is not trtjob's."""
        try:
            return replies.texts(replies.guarded(self._key, lambda: self._redis.hgetall(self._key), {}))
        except replies.Rubbish as err:
            replies.skip(self._key, err)
            return {}

    # -- of the worker --------------------------------------------------------------------------------------------

    def is_wanted(self) -> bool:
        return bool(self._redis.exists(self._wanted_key))

    def is_over(self) -> bool:
        return self._redis.hget(self._key, "state") in (b"done", b"failed", b"cancelled")

    def begin(self) -> int:
        """Count a try, once also where the command is sent twice. Returns which it is."""
        with self._redis.pipeline() as pipe:
            pipe.hset(self._key, f"{_TRY}{new_call()}", 1)
            pipe.expire(self._key, KEPT_S)
            pipe.hkeys(self._key)
            return sum(name.startswith(_TRY.encode()) for name in pipe.execute()[-1])

    def tell(self, state: str, ttl_s: float = KEPT_S, **fields: str | int) -> None:
        """Write how it stands, for so long."""
        with self._redis.pipeline() as pipe:
            pipe.hset(self._key, mapping={"state": state, **escaped_values(fields)})
            pipe.expire(self._key, int(ttl_s))
            pipe.execute()


def named(redis: Redis, name: str) -> Conversion | None:
    """Return the conversion that a person calls so, None where it is no name of one."""
    match = _NAME.fullmatch(name)
    return None if match is None else Conversion(redis, match[1])
