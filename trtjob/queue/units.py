"""The units of work of a job: to plan it, to run one of its shards, to finish it."""

import re

PLAN = "plan"
FINISH = "finish"
_SHARD = re.compile(r"shard-([0-9]{5,9})")


def shard_unit(shard: int) -> str:
    """Return the name of a shard's unit."""
    return f"shard-{shard:05d}"


def shard_of(unit: str) -> int | None:
    """Return a unit's shard number, None for `plan`, `finish` and what is no unit.

    >>> shard_of("shard-00012"), shard_of("finish")
    (12, None)
    """
    match = _SHARD.fullmatch(unit)
    return int(match[1]) if match else None
